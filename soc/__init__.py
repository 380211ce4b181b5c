"""Series in, state of charge out."""
