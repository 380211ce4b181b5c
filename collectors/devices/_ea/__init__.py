"""What the EA EL 3000 A and B loads share.

    load         readings and identity of an electronic load        telegram     EA's binary object telegrams

Not an instrument: names that begin with an underscore are not discovered.
"""
