"""Code shared by the drivers of the EA EL 3000 A and B loads.

    load         readings and identity of an electronic load        telegram     EA's binary object telegrams

This package is not an instrument: names that begin with an underscore are not discovered.
"""
