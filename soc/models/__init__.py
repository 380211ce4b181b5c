"""The cell's equations as compiled code. Discharge is positive here, as in the literature."""
