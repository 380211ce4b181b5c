"""Run the `soc` command as `python -m soc`."""

from soc.cli import main

main()
