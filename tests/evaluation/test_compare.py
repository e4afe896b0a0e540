"""`batchcls compare` as users meet it: what drifts, which rows changed, who is right, and what it refuses."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from scipy.stats import binomtest

from batchcls.cli import main
from batchcls.engine.measures import APPEARANCE_MEASURES
from batchcls.records import METADATA_KEY
from tests.commandline import invoked
from tests.conftest import draw
from tests.evaluation.test_evaluate import LABELS, Row, predictions_file, truth_csv

ROWS = 640


def compare(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def results_of(folder: Path, *arguments: str | Path) -> dict[str, Any]:
    """What --out holds after a comparison that ended well."""
    result = compare(*arguments, "--out", folder / "comparison.json", "--overwrite")
    assert result.exit_code == 0, result.output
    values: dict[str, Any] = json.loads((folder / "comparison.json").read_text(), parse_constant=pytest.fail)
    return values


def refusal(*arguments: str | Path) -> str:
    result = compare(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


def rows(count: int = ROWS, changed: Sequence[int] = (), prefix: str = "") -> list[Row]:
    """Rows in blocks of one label each, of which some have another label."""
    labels = [LABELS[(3 * number // count + (number in changed)) % 3] for number in range(count)]
    return [(f"{prefix}{number:05d}.jpg", label, 0.9) for number, label in enumerate(labels)]


def random_measures(count: int = ROWS, seed: int = 0, **shifts: float) -> npt.NDArray[np.float32]:
    measures = np.random.default_rng(seed).normal(0, 0.1, (count, len(APPEARANCE_MEASURES)))
    for name, shift in shifts.items():
        measures[:, APPEARANCE_MEASURES.index(name)] += shift
    return measures.astype(np.float32)


def with_measures(
    path: Path,
    measures: npt.NDArray[np.float32],
    names: Sequence[str] = APPEARANCE_MEASURES,
    identity: Mapping[str, Any] | None = None,
) -> Path:
    """A predictions file, written again with measures."""
    table = pq.read_table(path)
    record = json.loads(table.schema.metadata[METADATA_KEY])
    record["identity"] = {"measures": list(names), **(identity or {})}
    lists = pa.FixedSizeListArray.from_arrays(pa.array(measures.ravel()), measures.shape[1])
    table = table.append_column("measures", lists).replace_schema_metadata({METADATA_KEY: json.dumps(record)})
    pq.write_table(table, path, row_group_size=100)
    return path


def test_other_images_drift_in_the_measure_that_changed(tmp_path: Path) -> None:
    a = with_measures(predictions_file(tmp_path / "a.parquet", rows()), random_measures())
    b = with_measures(
        predictions_file(tmp_path / "b.parquet", rows(prefix="other/")), random_measures(seed=1, sharpness=-0.9)
    )

    values = results_of(tmp_path, a, b)
    printed = compare(a, b).output

    assert values["drift"]["kinds"] == ["sharpness"]
    assert values["same"] is None
    assert values["labels"]["effect"] == 0
    assert "drift     of B's images against A's: sharpness\n" in printed
    assert "The images are more blurred than A's: fine detail times 0.4" in printed
    assert (
        "note      The files have no image in common by its path: only their sets of images are compared.\n" in printed
    )


def test_a_file_does_not_drift_from_itself(tmp_path: Path) -> None:
    a = with_measures(predictions_file(tmp_path / "a.parquet", rows()), random_measures())
    values = results_of(tmp_path, a, a)
    assert values["drift"]["kinds"] == []
    assert len(values["drift"]["effects"]) == 6
    assert (values["same"]["images"], values["same"]["agreeing"], values["same"]["changed"]) == (ROWS, ROWS, 0)
    assert values["differences"] == []


def test_changed_rows_are_counted_printed_and_listed(tmp_path: Path) -> None:
    engine = {"name": "quantized"}
    a = predictions_file(tmp_path / "a.parquet", rows(12), roots="/here")
    b = predictions_file(tmp_path / "b.parquet", rows(12, changed=[2, 5, 7]), roots="/there", engine=engine)

    result = compare(a, b, "--changed", tmp_path / "changed.csv", "--rows", 2)

    assert result.exit_code == 0, result.output
    assert "same      12 images by path, 12 with a label in both files\n" in result.output
    assert "agreement 0.7500: 3 labels changed; the largest probability changed by +0.0000" in result.output
    assert "differs   Engine: tiny in A, quantized in B\n" in result.output
    assert result.output.count("\nchanged   ") == 2
    assert "and 1 more; --changed FILE lists all" in result.output
    with (tmp_path / "changed.csv").open() as stream:
        listed = list(csv.DictReader(stream))
    assert [(row["path"], row["label_a"], row["label_b"]) for row in listed] == [
        ("00002.jpg", "a", "b"),
        ("00005.jpg", "b", "c"),
        ("00007.jpg", "b", "c"),
    ]


def test_a_table_of_no_changes_has_its_head(tmp_path: Path) -> None:
    a = predictions_file(tmp_path / "a.parquet", rows(3))
    b = predictions_file(tmp_path / "b.parquet", rows(3, prefix="other/x"))
    assert compare(a, b, "--changed", tmp_path / "changed.csv").exit_code == 0
    assert (tmp_path / "changed.csv").read_text() == '"path","label_a","probability_a","label_b","probability_b"\n'


def test_the_truth_says_who_is_right(tmp_path: Path) -> None:
    right = rows(60)
    truth = truth_csv(tmp_path / "t.csv", [(name, str(label)) for name, label, _ in right])
    a = predictions_file(tmp_path / "a.parquet", rows(60, changed=range(10)))
    b = predictions_file(tmp_path / "b.parquet", rows(60, changed=[0, 1, 2, 30, 40]))

    accuracy = results_of(tmp_path, a, b, "--truth", truth)["accuracy"]

    assert accuracy == {
        "images": 60,
        "right_a": 50,
        "right_b": 55,
        "only_a": 2,
        "only_b": 7,
        "p_value": pytest.approx(binomtest(2, 9).pvalue),
    }
    assert "accuracy  0.8333 of A and 0.9167 of B on 60 labeled images; only A is right on 2" in (
        compare(a, b, "--truth", truth).output
    )


def test_rows_that_either_file_could_not_read_do_not_count(tmp_path: Path) -> None:
    a, b = rows(6), rows(6)
    a[0], b[1] = (a[0][0], None, 0.0), (b[1][0], None, 0.0)
    files = predictions_file(tmp_path / "a.parquet", a), predictions_file(tmp_path / "b.parquet", b)
    truth = truth_csv(tmp_path / "t.csv", [(name, str(label)) for name, label, _ in rows(6)])
    values = results_of(tmp_path, *files, "--truth", truth)
    assert (values["same"]["images"], values["same"]["readable"], values["same"]["agreeing"]) == (6, 4, 4)
    assert (values["a"]["unreadable"], values["b"]["unreadable"]) == (1, 1)
    assert (values["accuracy"]["images"], values["accuracy"]["p_value"]) == (4, 1)


def test_files_of_one_name_and_another_size_are_other_images(tmp_path: Path) -> None:
    a, b = (predictions_file(tmp_path / name, rows(6)) for name in ("a.parquet", "b.parquet"))
    for path, width in ((a, 100), (b, 200)):
        table = pq.read_table(path)
        widths = pa.array([width] * 2 + [300] * 4, pa.int32())
        pq.write_table(table.set_column(table.schema.get_field_index("width"), "width", widths), path)
    same = results_of(tmp_path, a, b)["same"]
    assert (same["images"], same["other_sizes"]) == (4, 2)


def test_labels_in_another_order_are_the_same_labels(tmp_path: Path) -> None:
    a = predictions_file(tmp_path / "a.parquet", rows(9))
    b = predictions_file(tmp_path / "b.parquet", rows(9), labels=("c", "a", "b"))
    values = results_of(tmp_path, a, b)
    assert values["same"]["agreeing"] == 9
    assert values["b"]["labels"] == {"a": 3, "b": 3, "c": 3}


def test_other_labels_are_refused(tmp_path: Path) -> None:
    a = predictions_file(tmp_path / "a.parquet", rows(9))
    b = predictions_file(tmp_path / "b.parquet", rows(9), labels=("a", "b", "c", "d"))
    assert "compare files of engines with the same labels" in refusal(a, b)


def test_other_shares_of_the_labels_are_a_drift(tmp_path: Path) -> None:
    a = predictions_file(tmp_path / "a.parquet", rows(90))
    b = predictions_file(tmp_path / "b.parquet", [(name, "a", 0.6) for name, _, _ in rows(90)])
    values = results_of(tmp_path, a, b)
    assert values["labels"]["is_drift"]
    assert values["labels"]["effect"] == pytest.approx(2 / 3)
    assert values["probability_effect"] is None  # all probabilities of A are one
    assert "labels    drift: 'a' 33.3% in A, 100.0% in B" in compare(a, b).output


def test_a_lost_record_is_one_note_and_no_list_of_differences(tmp_path: Path) -> None:
    a = predictions_file(tmp_path / "a.parquet", rows())
    b = tmp_path / "b.parquet"
    pq.write_table(pq.read_table(a).replace_schema_metadata(None), b)

    result = compare(a, b, "--labels", ",".join(LABELS))

    assert result.exit_code == 0, result.output
    assert "differs" not in result.stdout
    assert f"b.parquet: {ROWS} rows, 0 unreadable (engine not recorded)" in result.stdout
    assert result.stdout.count("B: The predictions were written again by another program") == 1


def test_a_file_without_measures_is_compared_by_all_else(tmp_path: Path) -> None:
    a = with_measures(predictions_file(tmp_path / "a.parquet", rows()), random_measures())
    b = predictions_file(tmp_path / "b.parquet", rows())
    values = results_of(tmp_path, a, b)
    assert values["drift"]["effects"] == []
    assert values["drift"]["note"].startswith("drift of the images is unknown: B has no measures; classify")
    assert values["same"]["agreeing"] == ROWS


def test_a_small_reference_is_said_to_be_small(tmp_path: Path) -> None:
    a, b = (
        with_measures(predictions_file(tmp_path / name, rows(300)), random_measures(300))
        for name in ("a.parquet", "b.parquet")
    )
    assert (
        "A has 300 images with measures that B has too, and needs 448 or more"
        in (results_of(tmp_path, a, b)["drift"]["note"])
    )


def test_distances_to_other_images_are_not_compared(tmp_path: Path) -> None:
    names = [*APPEARANCE_MEASURES, "distance_color"]
    measures = np.concatenate([random_measures(), np.full((ROWS, 1), 1.0)], axis=1).astype(np.float32)
    a, b, c = (
        with_measures(predictions_file(tmp_path / name, rows()), measures, names, {"novelty_statistics": digest})
        for name, digest in (("a.parquet", "1"), ("b.parquet", "1"), ("c.parquet", "2"))
    )
    kinds = [{effect["kind"] for effect in results_of(tmp_path, a, other)["drift"]["effects"]} for other in (b, c)]
    assert kinds[0] - kinds[1] == {"distance_color"}


@pytest.mark.parametrize("names", [["brightness"], ["a"] * 9, list(range(9)), "brightness", None])
def test_measures_of_unclear_names_are_no_measures(tmp_path: Path, names: Any) -> None:
    a = with_measures(
        predictions_file(tmp_path / "a.parquet", rows(9)), random_measures(9), identity={"measures": names}
    )
    assert "the record of A does not name its measures" in results_of(tmp_path, a, a)["drift"]["note"]


def test_lists_that_another_program_wrote_again_are_measures(tmp_path: Path) -> None:
    a = with_measures(predictions_file(tmp_path / "a.parquet", rows()), random_measures())
    b = with_measures(predictions_file(tmp_path / "b.parquet", rows()), random_measures(seed=1, sharpness=-0.9))
    expected = results_of(tmp_path, a, b)["drift"]
    for path in (a, b):
        table = pq.read_table(path)
        lists = table["measures"].cast(pa.list_(pa.float64()))
        pq.write_table(table.set_column(table.schema.get_field_index("measures"), "measures", lists), path)
    again = results_of(tmp_path, a, b)["drift"]
    assert again["images"] == expected["images"] == ROWS
    assert again["kinds"] == expected["kinds"] == ["sharpness"]


@pytest.mark.parametrize("value", [1e30, -1e30, np.inf, np.nan])
def test_measures_that_no_image_has_do_not_count(tmp_path: Path, value: float) -> None:
    a = with_measures(predictions_file(tmp_path / "a.parquet", rows()), random_measures())
    odd = random_measures(seed=1)
    odd[:500] = value
    b = with_measures(predictions_file(tmp_path / "b.parquet", rows()), odd)
    assert results_of(tmp_path, a, b)["drift"]["images"] == ROWS - 500
    assert "A has 140 images with measures" in results_of(tmp_path, b, a)["drift"]["note"]


def test_a_file_without_a_label_is_refused(tmp_path: Path) -> None:
    a = predictions_file(tmp_path / "a.parquet", rows(9))
    b = predictions_file(tmp_path / "b.parquet", [(f"{number}.jpg", None, 0.0) for number in range(3)])
    for files in ((a, b), (b, a)):
        assert f"{str(b)!r} has no image with a label to compare; classify" in refusal(*files)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    a = predictions_file(tmp_path / "a.parquet", rows(9))
    damaged = tmp_path / "b.parquet"
    damaged.write_bytes(a.read_bytes()[:-20])
    assert f"{str(damaged)!r} is no predictions file of batchcls run" in refusal(a, damaged)
    assert f"{str(damaged)!r} is no predictions file of batchcls run" in refusal(damaged, a)


def test_existing_files_and_inputs_are_not_overwritten(tmp_path: Path) -> None:
    a, b = (predictions_file(tmp_path / name, rows(9)) for name in ("a.parquet", "b.parquet"))
    before = a.read_bytes()
    (tmp_path / "old.json").write_text("old")
    assert "replace it with --overwrite" in refusal(a, b, "--out", tmp_path / "old.json")
    assert "is a predictions file that is compared" in refusal(a, b, "--changed", a, "--overwrite")
    assert "choose two files" in refusal(a, b, "--out", tmp_path / "x", "--changed", tmp_path / "x")
    assert (a.read_bytes(), (tmp_path / "old.json").read_text()) == (before, "old")


def test_a_truth_of_other_images_is_refused(tmp_path: Path) -> None:
    a = predictions_file(tmp_path / "a.parquet", rows(9))
    truth = truth_csv(tmp_path / "t.csv", [("elsewhere.jpg", "a")])
    assert "no labeled image is among the predictions" in refusal(a, a, "--truth", truth)


def test_two_runs_of_one_folder_agree(tmp_path: Path, tiny_engine: Path) -> None:
    for seed in range(6):
        draw(tmp_path / "slides" / LABELS[seed % 3] / f"{seed}.jpg", seed)
    for name in ("a.parquet", "b.csv"):
        assert invoked(tmp_path / "slides", "--out", tmp_path / name, "--engine", tiny_engine).exit_code == 0
    values = results_of(tmp_path, tmp_path / "a.parquet", tmp_path / "b.csv", "--truth", tmp_path / "slides")
    assert values["same"]["agreeing"] == values["same"]["images"] == 6
    assert values["accuracy"]["only_a"] == values["accuracy"]["only_b"] == 0
    assert values["differences"] == []


def test_several_roots_are_matched_by_whole_paths(tmp_path: Path) -> None:
    names = [("1.jpg", "a", 0.9), ("1.jpg", "b", 0.9)]
    a = predictions_file(tmp_path / "a.parquet", names, roots=["/x", "/y"])
    b = predictions_file(tmp_path / "b.parquet", [*names, ("1.jpg", "c", 0.9)], roots=["/y", "/x", "/z"])
    same = results_of(tmp_path, a, b)["same"]
    assert (same["images"], same["agreeing"], same["by"]) == (2, 0, "absolute path")


def test_the_measures_of_rows_without_a_label_do_not_count(tmp_path: Path) -> None:
    some = rows()
    some[3] = (some[3][0], None, 0.0)
    a = with_measures(predictions_file(tmp_path / "a.parquet", some), random_measures())
    table = pq.read_table(a)
    holes = pc.if_else(pa.array([number % 10 == 0 for number in range(ROWS)]), None, table["measures"].combine_chunks())
    pq.write_table(table.set_column(table.schema.get_field_index("measures"), "measures", holes), a)
    assert results_of(tmp_path, a, a)["drift"]["images"] == ROWS - 1 - ROWS // 10
