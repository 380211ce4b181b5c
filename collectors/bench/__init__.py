"""The virtual bench: one battery, simulated or recorded, measured by three fake instruments with their own protocols.

battery    the simulated battery with sun and load          replay          a recording in place of the simulation
sensors    noise, gain and resolution of each instrument    setup           the fakes and their configurations
bench      fakes, collectors, shipper and database          processes       child processes of a run
influx     the database                                     reconciliation  sent samples against journals
comparison database and recording against journals          summary         result of a run
screen     display of a run
"""
