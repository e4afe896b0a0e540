"""What the documents say is what the program does."""

import doctest
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import pytest
from PIL import Image

from batchcls import machine
from batchcls.cli import main
from batchcls.cli.run import run
from batchcls.predictions.schema import file_schema
from benchmarks.__main__ import main as benchmarks
from benchmarks.report import (
    BEGIN,
    BEGIN_RUN,
    END_RUN,
    README,
    SPEED_PAGE,
    between_markers,
    full_tables,
    overview,
    printed,
)
from benchmarks.runs import committed_records, reported_runs
from benchmarks.workload import draw_field
from tests.commandline import PATIENCE_S
from tests.conftest import ALL4, ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("engines/**/README.md"))]
WIDTH = 120
SHELL = f"""
batchcls() {{ "{sys.executable}" -m batchcls "$@"; }}
python() {{ "{sys.executable}" "$@"; }}
make() {{ "{sys.executable}" -c "
from pathlib import Path
from benchmarks.demo import run_demo
run_demo(Path('engines/all4-googlenet'), Path('$1'))"; }}
"""
"""Commands that the pages use, as this checkout has them; of ``make`` its target demo, in the folder at hand."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str

    @property
    def steps(self) -> list[tuple[str, list[str]]]:
        """Of a console block: each command, and the lines that it is said to print."""
        steps: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                steps.append((line.removeprefix("$ "), []))
            else:
                steps[-1][1].append(line)
        return steps


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"^ *```(\S*)\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(*parts) for parts in found]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def test_the_command_reference_is_the_commands_help() -> None:
    program = runpy.run_path(str(DOCS / "command_reference.py"))
    assert program["PAGE"].read_text(encoding="utf-8") == program["reference"]()


def test_the_guide_explains_every_option_of_run() -> None:
    options = {option for parameter in run.params for option in parameter.opts if option.startswith("--")}
    explained = set(re.findall(r"--[a-z-]+", (DOCS / "guides" / "run.md").read_text(encoding="utf-8")))
    assert options - explained == set()


@pytest.mark.parametrize("page", [README, DOCS / "reference" / "predictions-file.md"], ids=name_of)
def test_every_column_is_explained(page: Path) -> None:
    assert set(file_schema(2).names) - set(re.findall(r"`(\w+)`", page.read_text(encoding="utf-8"))) == set()


@pytest.mark.parametrize(("page", "most"), [("README.md", 200), ("CONTRIBUTING.md", 80)])
def test_the_first_pages_stay_short(page: str, most: int) -> None:
    assert len((ROOT / page).read_text(encoding="utf-8").splitlines()) <= most


def test_the_speed_tables_are_those_of_the_committed_records() -> None:
    runs = reported_runs(committed_records())
    readme, speed = (page.read_text(encoding="utf-8") for page in (README, SPEED_PAGE))
    assert between_markers(readme) == overview(runs), "run: python -m benchmarks report"
    assert between_markers(readme, BEGIN_RUN, END_RUN) == printed(runs)
    assert between_markers(speed) == full_tables(runs)


def test_the_readmes_speed_table_has_five_rows() -> None:
    assert BEGIN in README.read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*\|$", between_markers(README.read_text(encoding="utf-8")), re.MULTILINE)
    assert len(rows) == 2 + 5


def anchors(page: Path) -> set[str]:
    """What links to a page may name: its headings, in the words of both GitHub and the site."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors(there), f"{target} names no heading of {there.name}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_of_the_checkout_that_a_page_names_is_there(page: Path) -> None:
    rooms = [ROOT, ROOT / "batchcls"]
    for path in re.findall(r"`((?:\w+/)+[\w.-]+\.(?:py|toml|log|json|png|md|svg))`", page.read_text(encoding="utf-8")):
        assert any((room / path).exists() for room in rooms), path


def commands_of(line: str) -> Iterator[tuple[click.Command, list[str]]]:
    """Our own commands that a line of a shell begins, with their options."""
    for words in re.findall(r"(?:batchcls|python -m benchmarks) [a-z].*?(?=;|\||#|$)", line):
        program = main if words.startswith("batchcls") else benchmarks
        name = words.removeprefix("python -m ").split()[1]
        command = program.get_command(click.Context(program), name)
        assert command is not None, f"there is no command {name}"
        yield command, re.findall(r"(?<= )--[a-z-]+", words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_shown_has_the_options_that_are_shown(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for block in blocks(page):
        if block.language not in ("sh", "console"):
            continue
        assert set(re.findall(r"^(?:\$ )?make ([a-z-]+)", block.text, re.MULTILINE)) <= set(targets)
        for command, options in (found for line in block.text.splitlines() for found in commands_of(line)):
            known = {name for parameter in command.params for name in [*parameter.opts, *parameter.secondary_opts]}
            assert set(options) - known == set(), f"{command.name} has no such option"


def masked(line: str) -> str:
    """A line without its numbers, what depends on the CPU, and what a training of few images came to."""
    line = re.sub(r"^(calibration error [\d.]+); .*", r"\1; ADVICE", re.sub(r"cpu: .*", "cpu: CPU", line))
    line = re.sub(r"; this CPU (has the same|differs).*", "; COMPARED WITH THIS CPU", line)
    return re.sub(r"\d[\d,.]*", "0", re.sub(r"\b(bf16|fp32|f32)\b", "PRECISION", line)).strip()


def agrees(shown: str, line: str) -> bool:
    """Whether a page shows a line that was printed; of ``key  value`` only the key must be the same."""
    shown, line = masked(shown), masked(line)
    if shown.endswith("..."):
        return line.startswith(shown.removesuffix("..."))
    key, gap, _ = shown.partition("  ")
    return line == shown or (bool(gap) and line.startswith(f"{key}  "))


def check_console(block: Block, folder: Path) -> None:
    """Run a block's commands; what the page shows must be among what they print, in this order."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": str(WIDTH)}
    for command, shown in block.steps:
        done = subprocess.run(
            ["bash", "-c", f"{SHELL}\n{command}"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        output = iter(done.stdout.splitlines())
        for line in shown:
            assert any(agrees(line, other) for other in output), (
                f"$ {command}\ndoes not print {line!r}, but\n{done.stdout}"
            )


class NumbersAside(doctest.OutputChecker):
    """Compares what Python prints, numbers aside."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return masked(want) == masked(got)


def check_python(block: Block, page: Path, names: dict[str, Any]) -> None:
    test = doctest.DocTestParser().get_doctest(block.text, names, name_of(page), None, 0)
    report: list[str] = []
    failures, _ = doctest.DocTestRunner(NumbersAside()).run(test, out=report.append, clear_globs=False)
    names.update(test.globs)
    assert failures == 0, "".join(report)


def check_page(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run whatever a page shows to be run, in ``folder``."""
    names: dict[str, Any] = {}
    monkeypatch.chdir(folder)
    for block in blocks(page):
        if block.language == "console":
            check_console(block, folder)
        elif block.language == "pycon":
            check_python(block, page, names)


def draw_labeled(folder: Path) -> None:
    """A small stand-in for all4: the same folders and names, its classes told by their tint, with a copy in each."""
    tints = {"Benign": (1, 1, 1), "Early": (0.8, 1, 1), "Pre": (1, 0.8, 1), "Pro": (1, 1, 0.75)}
    for place, (label, tint) in enumerate(tints.items()):
        (folder / label).mkdir(parents=True)
        for number in range(16):
            field = draw_field(np.random.default_rng((place, number)), 96, 96)
            pixels = (np.asarray(field) * tint).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"WBC-Malignant-{label}-{number:03d}.jpg", quality=95)
        shutil.copy(*(folder / label / f"WBC-Malignant-{label}-{number:03d}.jpg" for number in (11, 12)))


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take as given: the engine, a trained GoogLeNet, labeled images, and the demo's."""
    import torch

    from benchmarks.demo import run_demo
    from benchmarks.networks import unfused_googlenet

    folder = tmp_path_factory.mktemp("material")
    shutil.copytree(ALL4, folder / "engines" / ALL4.name, ignore=shutil.ignore_patterns("plans"))
    torch.save(unfused_googlenet(ALL4, 4).state_dict(), folder / "model.pth")
    draw_labeled(folder / "all4")
    shutil.copytree(folder / "all4" / "Benign", folder / "typical")
    run_demo(ALL4, folder / "demo")
    return folder


@pytest.fixture(scope="module")
def trained(material: Path) -> Path:
    """The same, and what the guide to training leaves behind."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        check_page(DOCS / "guides" / "train.md", material, monkeypatch)
    return material


@pytest.mark.skipif(bool(machine.gpus()), reason="the pages show a machine without a GPU")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if {"console", "pycon"} & {block.language for block in blocks(page)}],
    ids=name_of,
)
def test_every_block_that_can_run_does_what_the_page_shows(
    page: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, tmp_path / "here")
    if page.name in ("train.md", "build.md"):  # which make it themselves
        shutil.rmtree(tmp_path / "here" / "engines" / "all4-cnn")
    if page.name != "train.md":
        check_page(page, tmp_path / "here", monkeypatch)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as a site, built without a warning."""
    pytest.importorskip("material", reason="mkdocs-material is not installed; run: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


def test_the_site_takes_nothing_from_other_servers(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) >= len(list(DOCS.rglob("*.md")))
    for page in pages:
        loaded = re.findall(
            r"<(?:link|script|img|iframe)[^>]*?(?:href|src)=\"?([^\s\">]+)", page.read_text(encoding="utf-8")
        )
        assert [address for address in loaded if re.match(r"(https?:)?//", address)] == []


def test_a_browser_shows_and_searches_the_site_without_other_servers(site: Path, browser: "Browser") -> None:
    handler = partial(QuietHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, browser.new_context() as context:
        Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}"
        asked: list[str] = []
        context.set_default_timeout(PATIENCE_S * 1000)
        window = context.new_page()
        window.on("request", lambda request: asked.append(request.url))

        window.goto(f"{home}/index.html")
        window.click(".md-search__input")
        window.keyboard.type("temperature")
        window.locator(".md-search-result__item").first.wait_for()
        window.goto(f"{home}/getting-started.html")

        assert window.locator("h1").inner_text().startswith("Getting started")
        assert [address for address in asked if not address.startswith((home, "data:", "blob:"))] == []
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a folder, and says nothing of it."""

    def log_message(self, *_: object) -> None:
        pass
