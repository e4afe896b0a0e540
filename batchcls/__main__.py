"""Run the command line, as ``batchcls`` or as ``python -m batchcls``."""

import signal


def command() -> None:
    """Run it, and end the process."""
    # Before the command line listens to signals, and once it has ended, Ctrl-C is no traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from batchcls.cli import main

    main(prog_name="batchcls")


if __name__ == "__main__":  # worker processes import this again
    command()
