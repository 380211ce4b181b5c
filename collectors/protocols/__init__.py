"""Wire formats as pure functions: bytes to messages and messages to bytes.

    dialogue     an exchange with an instrument, described without waiting: Ask, Cut, Reply
    fields       field tables that decode and encode          checksums    sums over bytes
    thingset     ThingSet text mode                           modbus       Modbus TCP frames

May import `collectors.errors` and `collectors.reading`. Never opens, waits or logs: a test needs no link and no clock.
"""
