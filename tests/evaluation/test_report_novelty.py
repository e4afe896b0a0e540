"""`batchcls report` of predictions that say how novel each image is, and how a run has drifted."""

import csv
import html
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batchcls.engine.drift import Drift, DriftEffect
from tests.browser import shown
from tests.evaluation.novel_predictions import novel_predictions, with_novelty
from tests.evaluation.test_evaluate import predictions_file, rows_and_truth
from tests.evaluation.test_report import first_rows, report, wait_for_count

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DARKER = "The images are darker than the reference's: mean optical density +0.100."
EFFECTS = (
    DriftEffect("brightness", 7.3, 3.5, "darker", DARKER),
    DriftEffect("sharpness", 0.2, 3.5, "sharper", "No drift of sharpness."),
)
RECORD = {
    "drift": Drift(39, EFFECTS).values(),
    "novelty": {"above": 0.99, "reference": "all4", "calibration_images": 160, "images": 39, "novel": 8},
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    predicted, _ = novel_predictions(folder, **RECORD)
    result = report(predicted, "--out", folder / "o.html", "--images", 3)
    assert result.exit_code == 0, result.output
    assert "warning: 20.5% of the images are novel" in result.stdout
    assert "have drifted from those of the engine's reference: brightness." in result.stdout
    return folder / "o.html"


def section(page: Path, title: str) -> str:
    """The text of a page's section, without its tags."""
    body = page.read_text().partition(f"<h2>{title}</h2>")[2].partition("<h2")[0]
    return " ".join(re.sub("<[^>]*>", " ", body).split())


def test_novel_images_are_counted_drawn_and_shown(page: Path) -> None:
    text = section(page, "Novelty")

    assert "0.975 to 1.000: 8" in text
    assert "An image is novel from 0.99 on. Images held back for this, of 'all4': 160." in html.unescape(text)
    assert "The 3 rows of largest novelty;" in text
    assert re.findall(r"novelty 0.995, novel (\d\d)\.png", text) == ["06", "36", "31"]
    assert page.read_text().index('class="warning"') < page.read_text().index("<h2>")


def test_the_least_certain_are_shown_with_their_novelty(page: Path) -> None:
    assert "novelty 0.020 02.png" in section(page, "Least certain")


def test_drift_is_a_table(page: Path) -> None:
    text = html.unescape(section(page, "Drift"))
    assert text.endswith(f"brightness 7.30 3.50 {DARKER} sharpness 0.20 3.50 No drift of sharpness.")


def test_why_there_is_no_drift_is_said(tmp_path: Path) -> None:
    predicted = predictions_file(tmp_path / "p.parquet", rows_and_truth(5)[0])
    with_novelty(predicted, [0.5] * 5, [False] * 5, {"drift": Drift(5, note="drift is unknown: too few").values()})

    report(predicted, "--out", tmp_path / "o.html")

    assert section(tmp_path / "o.html", "Drift") == "drift is unknown: too few"


def test_a_browser_sorts_filters_and_saves_by_novelty(browser: "Browser", page: Path, tmp_path: Path) -> None:
    with shown(browser, page) as window:
        wait_for_count(window, 40, 40)
        head = window.get_by_role("columnheader", name=re.compile("^Novelty"))
        head.get_by_role("button").click()
        head.get_by_role("button").click()
        assert [row[0][-6:] for row in first_rows(window, 2)] == ["06.png", "01.png"]
        assert first_rows(window, 1)[0][5] == "0.9951 novel"
        window.get_by_label("unreadable only").check()
        wait_for_count(window, 1, 40)
        assert first_rows(window, 1)[0][5] == ""
        assert "corrupt" in first_rows(window, 1)[0][7]
        window.get_by_role("button", name="Clear").click()
        window.get_by_label("novel only").check()
        wait_for_count(window, 8, 40)
        with window.expect_download() as download:
            window.get_by_role("button", name="Download CSV").click()
        download.value.save_as(tmp_path / "rows.csv")

    with (tmp_path / "rows.csv").open(newline="") as stream:
        first, *others = csv.DictReader(stream, strict=True)
    assert (float(first["novelty"]), first["novel"]) == (pytest.approx(0.9951), "true")
    assert [row["novel"] for row in others] == ["true"] * 7


@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_fits_a_desktop_and_a_phone(browser: "Browser", page: Path, width: int) -> None:
    with shown(browser, page, viewport={"width": width, "height": 900}) as window:
        assert window.evaluate("document.documentElement.scrollWidth") == width


def test_a_file_without_novelty_has_no_word_of_it(tmp_path: Path) -> None:
    report(predictions_file(tmp_path / "p.parquet", rows_and_truth()[0]), "--out", tmp_path / "o.html")

    text = (tmp_path / "o.html").read_text()
    assert "<h2>Novelty" not in text
    assert "<h2>Drift" not in text
    assert 'id="novel"' not in text
    assert '"novelty": [' not in text


def test_novelty_that_is_no_number_or_unknown_is_not_counted(tmp_path: Path) -> None:
    predicted = predictions_file(tmp_path / "p.parquet", rows_and_truth(5)[0])
    with_novelty(predicted, [float("nan"), 7, -1, None, 0.5], [None] * 5)

    result = report(predicted, "--out", tmp_path / "o.html")

    assert result.exit_code == 0, result.output
    assert "warning" not in result.stdout
    text = section(tmp_path / "o.html", "Novelty")
    assert "Of 5 rows it is not known whether they are novel." in text
    assert "The 1 row of largest novelty;" in text


@pytest.mark.parametrize("drift", [3, {"effects": 4}, {"effects": [1, None, {}]}, {"effects": [{"kind": ["<b>"]}]}])
def test_a_damaged_record_of_drift_breaks_nothing(tmp_path: Path, drift: object) -> None:
    predicted = predictions_file(tmp_path / "p.parquet", rows_and_truth(5)[0])
    with_novelty(predicted, [0.5] * 5, [False] * 5, {"drift": drift})

    result = report(predicted, "--out", tmp_path / "o.html")

    assert result.exit_code == 0, result.output
    assert "warning" not in result.stdout
    assert "['<b>']" not in (tmp_path / "o.html").read_text()
