"""Run the command line as ``python -m batchcls``."""

from batchcls.cli import main

main(prog_name="batchcls")
