"""What strangers wrote into a page, or into a table for a spreadsheet, does nothing there."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from rich.console import Console

from batchcls.cli import main
from batchcls.images.labels.labeled_images import LabeledImages
from batchcls.storage.spreadsheet_cells import text_cell
from tests.browser import shown
from tests.conftest import draw
from tests.evaluation.test_report import write_predictions

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PLANTED = (
    "</script><script>hurt()</script>",
    "<img src=x onerror=hurt()>",
    "javascript:hurt()",
    '"onmouseover="hurt()" style="width:9999px',
    "\u2028hurt()//\u2029<!--<script>",
    "{{ 7 * 7 }}{% raw %}",
    "</style><style>*{display:none}</style>",
    "<base href=//example.org><meta http-equiv=refresh content=0;url=//example.org>",
)
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =HYPERLINK(1)", "=cmd|' /C calc'!A0", "\uff1d1+1", "\n-1")
PLAIN = ("a=1", "1-1", "a@b", "'quoted", "Zelle-µ", "007", "", "a b")


def predictions(folder: Path, labels: Sequence[str]) -> Path:
    """A row an image, and beside it ``truth.csv``, in which half of the labels are others."""
    paths = [f"{label.replace('/', '_')} {number}.png" for label in labels for number in range(3)]
    for number, path in enumerate(paths):
        draw(folder / "s" / path, number)
    logits = np.repeat(np.eye(len(labels)) * 4, 3, axis=0) + np.random.default_rng(1).normal(0, 1, len(labels))
    out = write_predictions(
        folder / "o.parquet", paths, logits, [False] * len(paths), labels=labels, roots=[str(folder / "s")] * len(paths)
    )
    with (folder / "truth.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(
            [("path", "label"), *((path, labels[number // 2 % len(labels)]) for number, path in enumerate(paths))]
        )
    return out


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both pages, with everything that could be planted in labels and names."""
    folder = tmp_path_factory.mktemp("planted")
    source = predictions(folder, PLANTED)
    pages = {"report": folder / "o.html", "evaluation": folder / "e" / "report.html"}
    evaluated = ["evaluate", source, "--truth", folder / "truth.csv", "--out", folder / "e"]
    for arguments in (["report", source, "--out", pages["report"]], evaluated):
        done = CliRunner().invoke(main, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
    return pages


@pytest.mark.parametrize("name", ["report", "evaluation"])
def test_what_is_planted_in_labels_and_names_does_nothing(
    browser: "Browser", planted: dict[str, Path], name: str
) -> None:
    with shown(browser, planted[name]) as window:
        text = window.locator("body").inner_text()
        for summary in window.locator("summary").all():
            summary.click()

        assert window.locator("body").evaluate("body => getComputedStyle(body).display") == "block"
        assert window.locator("script:not([nonce]):not([type='application/json']), base, iframe, object").count() == 0
        assert window.evaluate("[...document.images].every(image => image.complete && image.naturalWidth)")
        assert window.url == planted[name].as_uri()
    for planting in PLANTED[:4]:
        assert planting in text


@pytest.mark.parametrize("name", ["report", "evaluation"])
def test_one_policy_lets_nothing_run_or_draw_without_the_pages_nonce(
    browser: "Browser", planted: dict[str, Path], tmp_path: Path, name: str
) -> None:
    page = planted[name].read_text(encoding="utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    (nonce,) = set(re.findall(r"'nonce-([\w-]{20,})'", policy))
    planting = (
        "<script>hurt()</script><img src=data:,x onerror=hurt()><style>body{display:none}</style><p style='color:red'>"
    )
    (tmp_path / "hurt.html").write_text(page.replace("<h1>", f"{planting}<h1>"), encoding="utf-8")

    with shown(browser, tmp_path / "hurt.html", blocked=True) as window:
        assert window.locator("h1").is_visible()
        assert window.locator("p[style]").first.evaluate("p => getComputedStyle(p).color") != "rgb(255, 0, 0)"

    assert "unsafe" not in policy
    assert nonce not in planted[{"report": "evaluation", "evaluation": "report"}[name]].read_text(encoding="utf-8")


def test_bars_are_as_long_as_the_shares_that_they_stand_for(browser: "Browser", planted: dict[str, Path]) -> None:
    with shown(browser, planted["report"]) as window:
        bars = window.locator("td.bar rect").all()
        widths = [bar.bounding_box() for bar in bars]

    assert len(bars) == len(PLANTED)
    assert {round(box["width"]) for box in widths if box} != {0}
    assert max(box["width"] for box in widths if box) > 100


@pytest.mark.parametrize("text", FORMULAS)
def test_what_a_spreadsheet_could_take_for_a_formula_stands_behind_an_apostrophe(text: str) -> None:
    assert text_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", PLAIN)
def test_every_other_cell_stays_as_it_is(text: str) -> None:
    assert text_cell(text) == text


def is_formula(cell: str) -> bool:
    return cell.lstrip().startswith(tuple("=+-@\uff1d"))


def test_the_tables_for_people_hold_no_formula(browser: "Browser", tmp_path: Path) -> None:
    labels = [text for text in FORMULAS if "/" not in text and text == text.strip()]
    source = predictions(tmp_path, labels)
    evaluated = ["evaluate", source, "--truth", tmp_path / "truth.csv", "--out", tmp_path / "e"]
    for arguments in (["report", source, "--out", tmp_path / "o.html"], evaluated):
        assert CliRunner().invoke(main, list(map(str, arguments))).exit_code == 0
    with shown(browser, tmp_path / "o.html") as window:
        with window.expect_download() as download:
            window.get_by_role("button", name="Download CSV").click()
        download.value.save_as(tmp_path / "rows.csv")

    for name, words in (("rows.csv", ("path", "label", "second")), ("e/wrong.csv", ("path", "truth", "predicted"))):
        with (tmp_path / name).open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, strict=True))
        cells = [row[word] for row in rows for word in words]
        assert cells
        assert not any(map(is_formula, cells)), name
        assert {row[words[1]] for row in rows} == {f"'{label}" for label in labels}


def test_the_table_of_an_explanation_holds_no_formula(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from batchcls.networks.architectures import trainable_network

    save_file(trainable_network("cnn", 2).state_dict(), tmp_path / "cnn.safetensors")
    draw(tmp_path / "=1+1" / "@a.png")
    draw(tmp_path / "=1+1" / "-b.png")
    arguments = [
        "explain",
        tmp_path / "cnn.safetensors",
        tmp_path / "=1+1",
        "--labels",
        "=x,+y",
        "--out",
        tmp_path / "x",
    ]

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        done = CliRunner().invoke(main, [str(word).removeprefix(f"{tmp_path}/") for word in arguments])

    assert done.exit_code == 0, done.output
    with (tmp_path / "x" / "explained.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, strict=True))
    assert len(rows) == 2
    assert not any(is_formula(cell) for row in rows for cell in row.values())
    assert {row["label"] for row in rows} <= {"'=x", "'+y"}


def test_the_tables_that_we_read_back_have_names_as_they_are(tmp_path: Path, quiet: Console) -> None:
    from batchcls.training.dataset import SplitDataset
    from batchcls.training.options import SplitOptions

    for number in range(24):
        draw(tmp_path / "s" / ("=a", "-b")[number % 2] / f"@{number}.png", number)

    SplitDataset.read(tmp_path / "s", SplitOptions(), quiet).write_split(tmp_path / "s" / "m.split.csv", tmp_path / "s")
    with (tmp_path / "s" / "m.split.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, strict=True))
    table = LabeledImages.read(tmp_path / "s" / "m.split.csv").table

    assert {row["label"] for row in rows} == {"=a", "-b"}
    assert {row["path"][:4] for row in rows} == {"=a/@", "-b/@"}
    assert sorted(table["path"].to_pylist()) == sorted(row["path"] for row in rows)


LONG = "a folder of the hospital archive with a long name/series of May-Grünwald-Giemsa-stained smears"
REASON = "unsupported: 16 bits a channel, which decoders scale to 8 bits in different ways; convert it first"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both pages of files with long names, long errors and thirty labels."""
    folder = tmp_path_factory.mktemp("wide")
    labels = [f"a class of cells with a long name, number {number}" for number in range(30)]
    paths = [f"{LONG}/field of view {number:05}.png" for number in range(240)]
    truth = np.arange(240) % 30
    logits = np.eye(30)[truth] * 4 + np.random.default_rng(1).normal(0, 1, (240, 30))
    source = write_predictions(
        folder / "o.parquet",
        paths,
        logits,
        [number % 8 == 7 for number in range(240)],
        labels=labels,
        error=pa.array([REASON if number % 8 == 7 else None for number in range(240)], pa.string()),
    )
    with (folder / "truth.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = zip(paths, [labels[code] for code in truth], strict=True)
        csv.writer(stream).writerows([("path", "label"), *rows])
    pages = {"report": folder / "o.html", "evaluation": folder / "e" / "report.html"}
    evaluated = ["evaluate", source, "--truth", folder / "truth.csv", "--out", folder / "e"]
    for arguments in (["report", source, "--out", pages["report"]], evaluated):
        done = CliRunner().invoke(main, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
    return pages


HIDDEN = "cells => cells.filter(cell => cell.scrollWidth > cell.clientWidth || cell.scrollHeight > cell.clientHeight)"
AT_1400 = {"viewport": {"width": 1400, "height": 1000}}


@pytest.mark.parametrize("name", ["report", "evaluation"])
def test_at_1400_pixels_no_page_is_wider_than_the_window(browser: "Browser", wide: dict[str, Path], name: str) -> None:
    with shown(browser, wide[name], **AT_1400) as window:
        assert window.evaluate("document.documentElement.scrollWidth") == 1400


def test_every_error_can_be_read_in_the_table_at_1400_pixels(browser: "Browser", wide: dict[str, Path]) -> None:
    with shown(browser, wide["report"], **AT_1400) as window:
        window.get_by_label("unreadable only").check()
        window.get_by_text("30 of 240 rows").wait_for()
        errors = window.locator("td.bad .lines")

        assert errors.count() > 10
        assert set(errors.all_inner_texts()) == {REASON}
        assert errors.evaluate_all(f"{HIDDEN}.length") == 0
        box = window.locator("#box")
        assert box.evaluate("box => box.scrollWidth - box.clientWidth") == 0


def test_every_metric_of_a_class_can_be_read_at_1400_pixels(browser: "Browser", wide: dict[str, Path]) -> None:
    with shown(browser, wide["evaluation"], **AT_1400) as window:
        metrics_and_sets = window.locator(".classes").all()
        assert [table.locator("tr").count() for table in metrics_and_sets] == [31, 32, 32]
        for table in metrics_and_sets:
            assert table.evaluate("table => table.parentElement.scrollWidth - table.parentElement.clientWidth") == 0
            assert table.locator("td, th").evaluate_all(f"{HIDDEN}.length") == 0
            lines = table.locator(".interval").evaluate_all("spans => spans.map(span => span.getClientRects().length)")
            assert set(lines) == {1}


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_plots_are_as_dark_as_the_page(browser: "Browser", wide: dict[str, Path], scheme: str, is_dark: bool) -> None:
    corner = """image => {
        const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
        pen.drawImage(image, 0, 0);
        return [...pen.getImageData(2, 2, 1, 1).data];
    }"""
    with shown(browser, wide["evaluation"], color_scheme=scheme, **AT_1400) as window:
        plots = window.locator(".figures img")
        corners = [plots.nth(place).evaluate(corner) for place in range(plots.count())]

        assert len(corners) == 3
        assert all((max(color[:3]) < 64) == is_dark for color in corners)
        assert all(plots.nth(place).evaluate("image => image.width <= 1104") for place in range(3))


def test_the_numbers_of_a_confusion_matrix_are_large_enough_to_read() -> None:
    from batchcls.evaluation.plots import confusion_figure

    for classes in (2, 12, 30):
        counts = np.full((classes, classes), 1234) + np.eye(classes, dtype=int) * 45_678
        figure = confusion_figure(counts, [f"label {code}" for code in range(classes)])
        figure.draw_without_rendering()

        axes = figure.axes[0]
        cell = axes.transData.transform((1, 0))[0] - axes.transData.transform((0, 0))[0]
        assert len(axes.texts) == classes**2
        assert min(text.get_fontsize() for text in axes.texts) * 100 / 72 >= 9  # pixels of a page
        assert max(text.get_window_extent().width for text in axes.texts) < cell
