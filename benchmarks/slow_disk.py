"""A disk that takes its time, as across a network: a few C functions that a process is started with."""

import subprocess
from pathlib import Path

from batchcls.errors import BatchclsError

_SOURCE = Path(__file__).with_suffix(".c")
_WAIT_US = 5_000


def environment(folder: Path, scratch: Path) -> dict[str, str]:
    """Variables with which a process waits 5 ms longer whenever it opens or looks up something below ``folder``.

    Args:
        scratch: Where the compiled functions go.

    Raises:
        BatchclsError: If there is no C compiler.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    library = scratch.absolute() / "slow_disk.so"
    try:
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True)
    except FileNotFoundError as error:
        raise BatchclsError("there is no C compiler, which cases on a slow disk need; leave them out") from error
    return {"LD_PRELOAD": str(library), "SLOW_ROOT": str(folder), "SLOW_US": str(_WAIT_US)}
