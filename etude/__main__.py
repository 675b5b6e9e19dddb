"""`python -m etude`: the command line, also for `torchrun -m etude`."""

from etude.cli.main import main

main()
