"""Simulated recordings with known truth.

    simulate    cell model and current to a Series, and the faults of real instruments on request
    profiles    currents: rest, pulses, drive cycles, solar days

May import `soc.cell`, `soc.models`, `soc.series`.
"""
