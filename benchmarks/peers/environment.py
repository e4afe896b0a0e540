"""A virtual environment for each group of peers, made from what their scripts say that they need."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ENVIRONMENTS = Path(__file__).parents[2] / ".venv" / "peers"
_INSTALLED = "installed.txt"
_METADATA = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_NAME = re.compile(r"[\w.-]+")


def dependencies(script: Path) -> list[str]:
    """The requirements in a script's inline metadata.

    Raises:
        ValueError: If it has none.
    """
    match = _METADATA.search(script.read_text(encoding="utf-8"))
    if match is None:
        raise ValueError(f"{str(script)!r} has no inline metadata (PEP 723)")
    lines = match["content"].splitlines(keepends=True)
    found: list[str] = tomllib.loads("".join(line[2:] or "\n" for line in lines))["dependencies"]
    return found


def python_for(script: Path, environment: str, folder: Path = ENVIRONMENTS) -> Path | None:
    """The Python that can run ``script``; None if there is none.

    That of its environment, if this was installed for what the script needs now; else ours, if it holds everything,
    in whatever version.
    """
    needed = dependencies(script)
    marker = folder / environment / _INSTALLED
    if marker.is_file() and set(needed) <= set(marker.read_text(encoding="utf-8").splitlines()):
        return _python(folder / environment)
    return Path(sys.executable) if all(map(_is_here, needed)) else None


def install(environment: str, scripts: Iterable[Path], folder: Path = ENVIRONMENTS) -> bool:
    """Make ``environment`` anew for ``scripts``, unless it is there and they need what they needed.

    Returns:
        Whether there was anything to do.

    Raises:
        subprocess.CalledProcessError: If pip fails.
    """
    target = folder / environment
    wanted = sorted({requirement for script in scripts for requirement in dependencies(script)})
    marker = target / _INSTALLED
    if marker.is_file() and marker.read_text(encoding="utf-8").splitlines() == wanted:
        return False
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", target], check=True)
    if wanted:
        subprocess.run([_python(target), "-m", "pip", "install", "--quiet", *wanted], check=True)
    marker.write_text("".join(f"{requirement}\n" for requirement in wanted), encoding="utf-8")
    return True


def _python(environment: Path) -> Path:
    return environment / "bin" / "python"


def _is_here(requirement: str) -> bool:
    match = _NAME.match(requirement)
    try:
        importlib.metadata.distribution(match[0] if match else requirement)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
