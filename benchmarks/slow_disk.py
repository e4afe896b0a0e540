"""A simulated slow disk, as across a network: a few C functions that are loaded into a process."""

import subprocess
from pathlib import Path

from batchcls.errors import BatchclsError

_SOURCE = Path(__file__).with_suffix(".c")
_DELAY_US = 5_000


def slow_disk_variables(folder: Path, scratch: Path) -> dict[str, str]:
    """Environment variables with which a process takes 5 ms longer to open each file or folder below ``folder``.

    Args:
        folder: Folder that is made slow.
        scratch: Folder for the compiled library.

    Raises:
        BatchclsError: If there is no C compiler.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    library = scratch.absolute() / "slow_disk.so"
    try:
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True)
    except FileNotFoundError as error:
        raise BatchclsError(
            "cases on a slow disk need a C compiler, and there is no cc on the PATH; install one, or leave these "
            "cases out with --case"
        ) from error
    return {"LD_PRELOAD": str(library), "SLOW_ROOT": str(folder), "SLOW_US": str(_DELAY_US)}
