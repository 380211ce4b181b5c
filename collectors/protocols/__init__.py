"""Wire formats as pure functions: bytes to messages and messages to bytes.

    dialogue     an exchange with an instrument, as a generator that does not wait: Ask, Cut, Reply
    fields       field tables that decode and encode          checksums    checksums over bytes
    thingset     ThingSet text mode                           modbus       Modbus TCP frames

May import `collectors.errors` and `collectors.reading`. No I/O, waits or logging: a test needs no link and no clock.
"""
