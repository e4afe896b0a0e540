"""Shared libraries written for a test: what a program finds in the place of a real one."""

import shutil
import subprocess
from pathlib import Path

from tests.commandline import PATIENCE_S

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def compile_library(source: str, path: Path) -> None:
    """Compile ``source`` to a shared library, which the dynamic loader knows by ``path``'s name."""
    assert COMPILER is not None
    code = path.with_suffix(".c")
    code.write_text(source)
    subprocess.run(
        [COMPILER, "-shared", "-fPIC", "-o", path, code, f"-Wl,-soname,{path.name}"], check=True, timeout=PATIENCE_S
    )
