"""`python -m collectors`."""

from collectors.cli import main

main()
