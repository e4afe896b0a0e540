"""Run the command line as ``python -m batchcls``."""

from batchcls.cli import main

if __name__ == "__main__":  # worker processes import this again
    main(prog_name="batchcls")
