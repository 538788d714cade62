"""`python -m oodray.cli` is `oodray`."""

from oodray.cli import main

main()
