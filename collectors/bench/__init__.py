"""The virtual bench: one battery, simulated or recorded, seen by three instruments that speak their own bytes.

battery   the simulated battery under sun and load          replay   a recording instead of it
sensors   what each instrument makes of the truth           rig      the fakes on their wires
bench     fakes, collectors, shipper and database together
"""
