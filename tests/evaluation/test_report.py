"""`batchcls report` as users meet it: what the page says, what it refuses, and what a browser does with it."""

import base64
import csv
import json
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from batchcls.cli import main
from batchcls.predictions.schema import file_schema
from batchcls.records import METADATA_KEY
from batchcls.storage.file_names import original, printable
from tests.browser import shown
from tests.commandline import finished
from tests.conftest import draw
from tests.test_architecture import HEAVY, loaded_by

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LABELS = ("b", "c", "a")
HOSTILE = "</script><img src=x onerror=hurt()>"
MANY = 100_000


def report(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


def write_predictions(out: Path, paths: Sequence[str], logits: Any, unreadable: Any, **changed: Any) -> Path:
    """A predictions file of these rows, as `batchcls run` would have written it."""
    labels = changed.pop("labels", LABELS)
    exponentials = np.exp(logits - logits.max(axis=1, initial=-99, keepdims=True))
    chances = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    none = np.array(unreadable, bool)
    roots = changed.pop("roots", ["/slides"] * len(paths))
    final = file_schema(len(labels)).with_metadata(
        {METADATA_KEY: json.dumps({"labels": labels, **changed.pop("says", {})})}
    )
    columns = {
        "root": pa.array(roots, pa.string()).dictionary_encode(),
        "path": pa.array(paths, pa.string()),
        "label": pa.DictionaryArray.from_arrays(pa.array(chances.argmax(1).astype(np.int32), mask=none), list(labels)),
        "probability": pa.array(chances.max(axis=1, initial=0), mask=none),
        "probabilities": pa.FixedSizeListArray.from_arrays(
            pa.array(chances.ravel()), type=final.field("probabilities").type, mask=pa.array(none)
        ),
        "width": pa.array(np.arange(len(paths), dtype=np.int32) % 977),
        "height": pa.array(np.full(len(paths), 48, np.int32)),
        "size_bytes": pa.nulls(len(paths), pa.int64()),
        "modified": pa.nulls(len(paths), final.field("modified").type),
        "error": pa.array(["corrupt: no end mark" if bad else None for bad in unreadable], pa.string()),
    }
    pq.write_table(pa.table({**columns, **changed}, schema=final), out, row_group_size=32_768)
    return out


def write_random_predictions(path: Path, rows: int, **changed: Any) -> Path:
    """Rows in folders of 500; every hundredth is unreadable."""
    random = np.random.default_rng(5)
    paths = [f"case-{row // 500:04}/cell-{row:06}.jpg" for row in range(rows)]
    logits = random.normal(0, 3, (rows, len(changed.get("labels", LABELS))))
    return write_predictions(path, paths, logits, np.arange(rows) % 100 == 0, **changed)


class ParsedPage(HTMLParser):
    """A page's tags with their attributes, its visible text, and the rows that it embeds."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._embedded = "", ""
        self._within = [""]
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._within.append(str(dict(attrs).get("id", tag)))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._within.pop()

    def handle_data(self, data: str) -> None:
        if self._within[-1] == "rows":
            self._embedded += data
        elif self._within[-1] == "":
            self.text += re.sub(r"\s+", " ", data)

    @property
    def rows(self) -> dict[str, Any]:
        return dict(json.loads(self._embedded))

    def column(self, name: str) -> list[float]:
        kind, packed = self.rows["columns"][name]
        return list(np.frombuffer(base64.b64decode(packed), f"<{kind}").tolist())

    @property
    def paths(self) -> list[str]:
        rows = self.rows
        places = map(int, self.column("folder"))
        return [rows["folders"][place][1] + name for place, name in zip(places, rows["names"], strict=True)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_engine: Path) -> tuple[Path, Path]:
    """A run over drawn images, some with hostile names, and two broken files; and its page."""
    folder = tmp_path_factory.mktemp("run")
    for seed in range(6):
        draw(folder / "slides" / "sound" / f"{seed}.jpg", seed)
    draw(folder / "slides" / f"{HOSTILE}.jpg", 7)
    draw(folder / "slides" / os.fsdecode(b"\xff.jpg"), 8)
    (folder / "slides" / "empty.jpg").touch()
    (folder / "slides" / "text.jpg").write_text("no image")
    predictions, page = folder / "predictions.parquet", folder / "page.html"
    assert finished(folder / "slides", "--out", predictions, "--engine", tiny_engine).returncode == 0
    result = report(predictions, "--out", page)
    first, last = result.output.splitlines()
    assert first == f"10 rows, 2 unreadable -> {page}"
    assert last.startswith(f"next      batchcls evaluate {predictions} --truth ")
    return predictions, page


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A hundred thousand rows, and their page."""
    folder = tmp_path_factory.mktemp("many")
    predictions, page = write_random_predictions(folder / "many.parquet", MANY), folder / "many.html"
    assert report(predictions, "--out", page).exit_code == 0
    return predictions, page


def test_the_page_says_what_the_file_holds_and_how_it_was_made(run: tuple[Path, Path]) -> None:
    table, page = pq.read_table(run[0]), ParsedPage(run[1])
    metadata = json.loads(table.schema.metadata[METADATA_KEY])

    for label, count in Counter(table["label"].drop_null().to_pylist()).items():
        assert re.search(rf"\b{label} ?{count} ?{count / 8:.2%}", page.text)
    for said in (
        metadata["engine"]["onnx_sha256"],
        metadata["ended"],
        metadata["precision"],
        "stretched to 32 x 32 px",
    ):
        assert said in page.text
    for kind in ("empty", "not an image"):
        assert re.search(rf"{kind} ?1 ?file, 10.00% of all", page.text)
    assert sorted(page.paths) == sorted(table["path"].to_pylist())
    assert [image for image in page.column("label") if image < 0] == [-1, -1]


def test_the_page_says_what_the_run_took(run: tuple[Path, Path]) -> None:
    took = json.loads(pq.read_schema(run[0]).metadata[METADATA_KEY])["throughput"]
    page = ParsedPage(run[1])

    assert took["files"] == 10
    assert took["elapsed_s"] > took["seconds"]["start"] > 0
    assert took["images_per_s"] == pytest.approx(10 / (took["elapsed_s"] - took["seconds"]["start"]))
    assert f"{took['images_per_s']:,.1f} images/s" in page.text
    assert f"{took['peak_memory_bytes'] / 2**20:,.0f} MiB" in page.text
    assert "infer" in page.text


def test_every_readable_image_is_shown_whatever_it_is_called(run: tuple[Path, Path]) -> None:
    page = ParsedPage(run[1])

    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 8
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in images)


def test_nothing_in_a_page_leads_out_of_it_or_breaks_out_of_its_text(run: tuple[Path, Path]) -> None:
    page = ParsedPage(run[1])

    assert HOSTILE in page.text
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 2
    for _, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on")}
        for name in ("href", "src", "action"):
            assert str(attributes.get(name, "data:")).startswith("data:")


@pytest.mark.parametrize("name", ["a.png", "a\\xff.png", "a\\\\xff.png", "back\\slash", os.fsdecode(b"\xff\\.png")])
def test_a_name_that_was_made_printable_is_found_again(name: str) -> None:
    assert original(printable(name)) == name


def test_a_table_that_is_too_short_holds_the_unreadable_and_the_least_certain(tmp_path: Path) -> None:
    table = pq.read_table(write_random_predictions(tmp_path / "o.parquet", 70_000))

    assert report(tmp_path / "o.parquet", "--out", tmp_path / "o.html", "--rows", "1000").exit_code == 0

    page = ParsedPage(tmp_path / "o.html")
    order = pc.sort_indices(table, [("probability", "ascending")]).to_numpy()[:300]
    assert "holds 1,000 of 70,000 rows: all 700 unreadable ones and the 300 least certain" in page.text
    bad = [path for path, label in zip(page.paths, page.column("label"), strict=True) if label < 0]
    assert bad == table.filter(pc.is_null(table["label"]))["path"].to_pylist()
    assert sorted(set(page.paths) - set(bad)) == sorted(table["path"].take(order).to_pylist())
    counts = Counter(table["label"].drop_null().to_pylist())
    assert all(f"{count:,}" in page.text for count in counts.values())


def test_more_unreadable_rows_than_the_table_may_hold_are_cut_and_said_so(tmp_path: Path) -> None:
    write_random_predictions(tmp_path / "o.parquet", 5_000)

    report(tmp_path / "o.parquet", "--out", tmp_path / "o.html", "--rows", "7")

    assert "holds 7 of 5,000 rows: 7 of the 50 unreadable ones." in ParsedPage(tmp_path / "o.html").text


@pytest.mark.parametrize("rows", [0, 1])
def test_a_file_without_rows_or_labels_has_a_page(tmp_path: Path, rows: int) -> None:
    write_predictions(tmp_path / "o.parquet", ["a.png"] * rows, np.zeros((rows, 3)), [True] * rows)

    result = report(tmp_path / "o.parquet", "--out", tmp_path / "o.html")

    assert result.output == f"{rows} rows, {rows} unreadable -> {tmp_path / 'o.html'}\n"
    page = ParsedPage(tmp_path / "o.html")
    assert "No row has a label" in page.text
    assert "Speed, once loadednot recorded" in page.text
    assert len(page.paths) == rows


def test_an_engine_of_one_class_has_no_second_best(tmp_path: Path) -> None:
    write_predictions(tmp_path / "o.parquet", ["a.png", "b.png"], np.zeros((2, 1)), [False, True], labels=["only"])

    assert report(tmp_path / "o.parquet", "--out", tmp_path / "o.html").exit_code == 0

    page = ParsedPage(tmp_path / "o.html")
    assert page.column("second") == [-1, -1]
    assert page.column("probability")[0] == 1


def test_probabilities_that_are_no_numbers_are_counted_and_not_drawn(tmp_path: Path) -> None:
    strange = pa.array([np.nan, np.inf, None, 0.75], pa.float32())
    write_predictions(tmp_path / "o.parquet", list("abcd"), np.zeros((4, 3)), [False] * 4, probability=strange)

    assert report(tmp_path / "o.parquet", "--out", tmp_path / "o.html").exit_code == 0

    page = ParsedPage(tmp_path / "o.html")
    assert "3 labelled rows have a probability that is no number from 0 to 1" in page.text
    assert "no number" in page.text
    assert [tag for tag, _ in page.tags].count("rect") == 1 + len(LABELS), "one of the histogram, and each label's bar"
    assert "4 of the images could not be shown" in page.text


def not_parquet(path: Path) -> None:
    path.write_text("path,label\n")


def no_metadata(path: Path) -> None:
    pq.write_table(file_schema(2).empty_table(), path)


def another_table(path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), path)


def not_utf8(path: Path) -> None:
    names = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    write_predictions(path, ["a"], np.zeros((1, 3)), [False], path=names)


def cut_short(path: Path) -> None:
    write_random_predictions(path, 50)
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize("spoil", [not_parquet, no_metadata, another_table, not_utf8, cut_short])
def test_what_is_no_predictions_file_is_refused(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(tmp_path / "o.parquet")

    result = report(tmp_path / "o.parquet", "--out", tmp_path / "o.html")

    assert result.exit_code == 1
    assert "o.parquet' is no predictions file of batchcls run: " in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == ["o.parquet"]


def test_a_page_takes_the_place_of_another_only_when_asked_and_never_of_its_predictions(tmp_path: Path) -> None:
    predictions, page = write_random_predictions(tmp_path / "o.parquet", 5), tmp_path / "o.html"
    page.write_text("mine")

    refused = report(predictions, "--out", page)
    kept = page.read_text()
    replaced = report(predictions, "--out", page, "--overwrite")
    itself = report(predictions, "--out", predictions, "--overwrite")
    nowhere = report(predictions, "--out", page / "below.html")

    assert (refused.exit_code, replaced.exit_code, itself.exit_code, nowhere.exit_code) == (1, 0, 1, 1)
    assert "--overwrite" in refused.stderr
    assert "is the predictions file itself" in itself.stderr
    assert "cannot write" in nowhere.stderr
    assert kept == "mine"
    assert page.read_text().startswith("<!doctype html>")
    assert sorted(os.listdir(tmp_path)) == ["o.html", "o.parquet"]


def test_without_jinja2_a_report_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    for name in ("batchcls.evaluation.html", "batchcls.evaluation.report"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    result = report(write_random_predictions(tmp_path / "o.parquet", 5), "--out", tmp_path / "o.html")

    assert result.exit_code == 1
    assert "needs jinja2, which is not installed; run: pip install 'batchcls[report]'" in result.stderr


def test_its_help_loads_nothing_heavy() -> None:
    assert loaded_by("report", "--help") & {*HEAVY, "jinja2"} == set()


def wait_for_count(window: "Page", count: int, rows: int = MANY) -> None:
    """Return once the page says that so many rows are shown."""
    window.wait_for_function(
        "text => document.getElementById('count').textContent === text", arg=f"{count:,} of {rows:,} rows"
    )


def first_rows(window: "Page", rows: int = 3) -> list[list[str]]:
    """The table's first rows."""
    lines = window.locator("#body tr:not(.gap)")
    return [lines.nth(row).locator("td").all_text_contents() for row in range(rows)]


def test_a_browser_filters_and_sorts_a_hundred_thousand_rows(browser: "Browser", many: tuple[Path, Path]) -> None:
    frame = pq.read_table(many[0]).drop_columns("probabilities").to_pandas()
    matching = frame[frame.path.str.contains("CELL-0012".lower())]
    sure = matching[(matching.label == "c") & (matching.probability >= 0.9)]
    best = sure.sort_values("probability", ascending=False, kind="stable")

    with shown(browser, many[1]) as window:
        wait_for_count(window, MANY)
        assert len(window.locator("#body tr").all()) < 100
        window.get_by_label("File contains").fill("CELL-0012")
        wait_for_count(window, len(matching))
        window.get_by_role("combobox").select_option("c")
        window.get_by_label("Probability from").fill("0.9")
        wait_for_count(window, len(sure))
        head = window.get_by_role("columnheader", name=re.compile("^Probability"))
        head.get_by_role("button").focus()
        window.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        assert [row[0] for row in first_rows(window)] == best.path[::-1][:3].tolist()
        window.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert [row[2] for row in first_rows(window)] == [f"{value:.4f}" for value in best.probability[:3]]
        window.get_by_role("button", name="Clear").click()
        wait_for_count(window, MANY)
        window.get_by_label("unreadable only").check()
        wait_for_count(window, int(frame.label.isna().sum()))
        assert first_rows(window, 1)[0][6] == "corrupt: no end mark"
        logging.info("longest block of the main thread: %s ms", window.evaluate("longest"))  # --log-cli-level=INFO


def test_a_browser_scrolls_to_the_last_of_a_hundred_thousand_rows(browser: "Browser", many: tuple[Path, Path]) -> None:
    with shown(browser, many[1]) as window:
        window.locator("#box").focus()
        window.keyboard.press("End")
        window.get_by_text(f"cell-{MANY - 1:06}.jpg").wait_for()

        place, frame = window.locator("#body tr:not(.gap)").last.bounding_box(), window.locator("#box").bounding_box()

    assert place is not None
    assert frame is not None
    assert place["y"] + place["height"] == pytest.approx(frame["y"] + frame["height"], abs=2)
    assert place["height"] == 44  # as the page's script has it


def test_a_browser_saves_the_rows_that_are_shown(browser: "Browser", tmp_path: Path) -> None:
    paths = ['say "a", b.png', "line\nbreak.png", "=1+1.png", "other.png", "Zelle-µ-🔬.png"]
    predictions = write_predictions(
        tmp_path / "o.parquet", paths, np.arange(15.0).reshape(5, 3) % 7, [False] * 4 + [True]
    )
    report(predictions, "--out", tmp_path / "o.html")

    with shown(browser, tmp_path / "o.html") as window:
        window.get_by_label("File contains").fill(".png")
        window.get_by_role("combobox").select_option("any")
        wait_for_count(window, 5, 5)
        with window.expect_download() as download:
            window.get_by_role("button", name="Download CSV").click()
        download.value.save_as(tmp_path / "rows.csv")

    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as stream:
        saved = list(csv.DictReader(stream, strict=True))
    expected = sorted(pq.read_table(predictions).to_pylist(), key=lambda row: row["path"].encode())
    assert [row["path"] for row in saved] == [row["path"].replace("=1+1", "'=1+1") for row in expected]
    assert [row["root"] for row in saved] == ["/slides"] * 5
    assert [row["label"] for row in saved] == [row["label"] or "" for row in expected]
    assert [row["error"] for row in saved] == [row["error"] or "" for row in expected]
    for row, wanted in zip(saved, expected, strict=True):
        assert float(row["probability"] or -1) == pytest.approx(wanted["probability"] or -1)


def test_hostile_names_and_labels_run_nothing_in_a_browser(browser: "Browser", tmp_path: Path) -> None:
    labels = [HOSTILE, "<b>\u2028", "&lt;"]
    write_predictions(
        tmp_path / "o.parquet", [HOSTILE, "b"], np.eye(3)[:2], [False, True], labels=labels, roots=[HOSTILE] * 2
    )
    report(tmp_path / "o.parquet", "--out", tmp_path / "o.html")

    with shown(browser, tmp_path / "o.html") as window:
        assert first_rows(window, 1)[0][:2] == [HOSTILE, HOSTILE]
        assert window.get_by_role("combobox").locator("option").all_text_contents()[1:] == sorted(labels)


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_a_desktop_and_a_phone_in_light_and_dark(
    browser: "Browser", run: tuple[Path, Path], tmp_path: Path, width: int
) -> None:
    pictures = []
    for scheme in ("light", "dark"):
        with shown(browser, run[1], color_scheme=scheme, viewport={"width": width, "height": 900}) as window:
            assert window.evaluate("document.documentElement.scrollWidth") == width
            pictures.append(window.screenshot(path=tmp_path / f"{scheme}.png", full_page=True))

    assert pictures[0] != pictures[1]
