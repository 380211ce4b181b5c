"""The parameters of a cell.

    parameters   frozen values with their uncertainty            toml_file  one TOML file a cell, exact round trip
    ocv          open-circuit voltage over SOC and temperature   tables     the parameters laid out for compiled code
    library      the cells that are shipped with this package

Imports `soc.errors`, `soc.files` and `soc.tomlfile` only. No clock, no network.
"""
