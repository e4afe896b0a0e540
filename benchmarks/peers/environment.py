"""Virtual environments for the scripts of peers, created from the dependencies that the scripts declare."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ENVIRONMENTS = Path(__file__).parents[2] / ".venv" / "peers"
"""Folder of all environments."""
_REQUIREMENTS = "installed.txt"
"""File in each environment that lists what was installed, one requirement a line."""
_METADATA = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_NAME = re.compile(r"[\w.-]+")


def script_dependencies(script: Path) -> list[str]:
    """The requirements that a script declares in its inline metadata (PEP 723).

    Raises:
        ValueError: If the script has no such metadata.
    """
    match = _METADATA.search(script.read_text(encoding="utf-8"))
    if match is None:
        raise ValueError(f"{str(script)!r} has no inline metadata (PEP 723)")
    lines = match["content"].splitlines(keepends=True)
    requirements: list[str] = tomllib.loads("".join(line[2:] or "\n" for line in lines))["dependencies"]
    return requirements


def python_for(script: Path, environment: str, folder: Path = ENVIRONMENTS) -> Path | None:
    """The Python interpreter that can run ``script``; None if there is none.

    This is the interpreter of ``environment`` if the environment was installed with the script's present requirements;
    otherwise the running interpreter, if every required distribution is installed, in any version.

    Args:
        script: A script with inline metadata.
        environment: Name of the script's environment.
        folder: Folder of all environments.
    """
    requirements = script_dependencies(script)
    marker = folder / environment / _REQUIREMENTS
    if marker.is_file() and set(requirements) <= set(marker.read_text(encoding="utf-8").splitlines()):
        return _python(folder / environment)
    return Path(sys.executable) if all(map(_is_installed, requirements)) else None


def install_environment(environment: str, scripts: Iterable[Path], folder: Path = ENVIRONMENTS) -> bool:
    """Create ``environment`` with the requirements of ``scripts``, replacing one with other requirements.

    Args:
        environment: Name of the environment.
        scripts: All scripts that share the environment.
        folder: Folder of all environments.

    Returns:
        False if the environment exists and has exactly these requirements.

    Raises:
        subprocess.CalledProcessError: If pip fails; the environment is incomplete then, and not used.
    """
    target = folder / environment
    requirements = sorted({requirement for script in scripts for requirement in script_dependencies(script)})
    marker = target / _REQUIREMENTS
    if marker.is_file() and marker.read_text(encoding="utf-8").splitlines() == requirements:
        return False
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", target], check=True)
    if requirements:
        subprocess.run([_python(target), "-m", "pip", "install", "--quiet", *requirements], check=True)
    marker.write_text("".join(f"{requirement}\n" for requirement in requirements), encoding="utf-8")
    return True


def _python(environment: Path) -> Path:
    return environment / "bin" / "python"


def _is_installed(requirement: str) -> bool:
    match = _NAME.match(requirement)
    try:
        importlib.metadata.distribution(match[0] if match else requirement)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
