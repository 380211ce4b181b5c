"""The cell's equations as compiled code, in the literature's sign: discharge positive."""
