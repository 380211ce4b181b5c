"""`python -m soc` is the `soc` command."""

from soc.cli import main

main()
