"""`python -m oodray` is `oodray`."""

from oodray.cli import main

main()
