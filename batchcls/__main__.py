"""Run the command line, as ``batchcls`` or as ``python -m batchcls``."""

import signal


def command() -> None:
    """Run the command line, and end the process."""
    # Ctrl-C must show no traceback before the command line handles signals, nor after it has ended.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from batchcls.cli import main

    main(prog_name="batchcls")


if __name__ == "__main__":  # worker processes import this again
    command()
