"""What the documents say is what the program does."""

import os
import re
import subprocess
import sys

import pytest

from batchcls.cli.run import run
from batchcls.predictions.schema import schema
from benchmarks.report import BEGIN, END, WHOLE_REPORT, summary, whole
from benchmarks.runs import committed_records, reported_runs
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["build", "evaluate", "explain", "info", "report", "run", "train"])
def test_the_readme_shows_each_commands_help(command: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "batchcls", command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert shown.stdout.strip() in README


def test_the_readme_explains_every_option_of_run_and_every_column() -> None:
    options = {option for parameter in run.params for option in parameter.opts if option.startswith("--")}
    missing = {name for name in options | set(schema(2).names) if f"`{name}`" not in README}
    assert missing - {"--out"} == set()


def test_the_readmes_table_is_that_of_the_committed_records() -> None:
    shown = README.partition(BEGIN)[2].partition(END)[0]
    assert shown.strip() == summary(reported_runs(committed_records())).strip()
    assert WHOLE_REPORT.read_text(encoding="utf-8") == whole(reported_runs(committed_records()))


def test_every_link_inside_the_documents_leads_somewhere() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("engines/**/README.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
