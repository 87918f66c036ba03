"""`python -m prompttransfer` is the command line."""

from prompttransfer.cli import main

main()
