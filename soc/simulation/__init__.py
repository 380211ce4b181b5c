"""Simulated recordings with a known state of charge.

        simulate    a Series from cell model and current, with the faults of real instruments on request
    profiles    currents: rest, pulses, drive cycles, solar days

May import `soc.cell`, `soc.models`, `soc.series` and `soc.errors`.
"""
