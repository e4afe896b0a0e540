"""An evaluation: a predictions file beside the truth becomes figures, plots, pictures and a report."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from batchcls import __version__
from batchcls.errors import LabelsError
from batchcls.evaluation.advice import advice, notes, temperature_gains, temperature_to_give
from batchcls.evaluation.calibration import calibration, risk_coverage
from batchcls.evaluation.html import page
from batchcls.evaluation.metrics import RESAMPLES, blocks, confusion, estimates, without_images
from batchcls.evaluation.output_folder import check_out, evaluation_folder
from batchcls.evaluation.plots import calibration_plot, confusion_plot, risk_coverage_plot
from batchcls.evaluation.rendering import for_page, markdown
from batchcls.images.labels.labeled import LabeledImages
from batchcls.images.thumbnails import contact_sheet, data_uri, jpeg, thumbnail
from batchcls.predictions.matching import LabelMatch, label_codes, match_labels, shown, two_files
from batchcls.predictions.provenance import rewriting
from batchcls.predictions.reader import PredictionsFile
from batchcls.storage.file_names import file_below, printable
from batchcls.storage.spreadsheet_cells import text_cell

_EXAMPLES = 3
_SPLITS = "The truth has splits and no --split was given: the engine may have been trained on some of these images."
_SHEET_IMAGES, _SHEET_COLUMNS, _SHEET_SIDE_PX = 24, 6, 160
_KINDS = {".png": "image/png", ".jpg": "image/jpeg"}
_MOST = 1.001  # a probability, rounded


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What is evaluated, and how."""

    predictions: Path
    truth: Path
    group_by: str = ""
    split: str | None = None
    """Of the truth: train, val or test."""
    error_rate: float = 0.01
    seed: int = 0
    split_folders: str = ""
    """See `LabeledImages.read`."""
    labels: tuple[str, ...] = ()
    """In the order of the probabilities, where the predictions do not say."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """Images with a truth and an answer: one row each."""

    images: pa.Table
    """Of the truth: ``path``, ``label``, ``group`` if it is known; and ``file``, where it was classified."""
    truth: npt.NDArray[np.int32]
    predicted: PredictionsFile
    groups: npt.NDArray[np.int64]


def evaluate_predictions(asked: EvaluationOptions, out: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write an evaluation below the folder ``out``, and return what metrics.json holds.

    Args:
        overwrite: Whether files of an earlier one may be replaced, once the new ones are whole.

    Raises:
        LabelsError: If the predictions or the truth cannot be used, or have no image in common.
        OutputError: If ``out`` may not, or can not, be written.
    """
    check_out(out, (asked.predictions, asked.truth), overwrite=overwrite)
    with evaluation_folder(out) as write:
        metrics, files = _evaluated(asked)
        write(files)
    return metrics


def _evaluated(asked: EvaluationOptions) -> tuple[dict[str, Any], dict[str, bytes | None]]:
    """What metrics.json holds, and every file by name."""
    if asked.truth.samefile(asked.predictions):
        raise LabelsError(f"--truth {str(asked.truth)!r} is the predictions file itself; name what people say")
    predicted = PredictionsFile.read(asked.predictions, asked.labels)
    predicted.check_labels(asked.labels)
    labelled = LabeledImages.read(asked.truth, asked.group_by, asked.split_folders, predicted.labels)
    metrics, judged = _judged(asked, predicted, labelled)
    answers, codes = judged.predicted.probabilities, judged.predicted.codes
    if not np.isfinite(answers).all() or answers.min() < 0 or answers.max() > _MOST:
        raise LabelsError(f"{str(asked.predictions)!r} holds probabilities outside 0..1; classify the images again")
    top, right = answers.max(axis=1), judged.truth == codes
    counts = confusion(judged.truth, codes, len(predicted.labels))
    overall, classes = estimates(judged.truth, codes, answers, judged.groups, asked.seed)
    named = zip(predicted.labels, counts.sum(axis=1).tolist(), counts.sum(axis=0).tolist(), classes, strict=True)
    metrics |= {
        "accuracy_with_unreadable_as_wrong": int(right.sum()) / metrics["matched"]["images"],
        "overall": overall,
        "classes": [{"label": label, "images": own, "predicted": said} | rates for label, own, said, rates in named],
        "classes_without_images": without_images(counts, predicted.labels),
        "confusion": {"labels": list(predicted.labels), "counts": counts.tolist()},
        "calibration": calibration(answers, judged.truth, codes, judged.groups, asked.seed),
        "risk_coverage": risk_coverage(top, right, asked.error_rate),
    }
    tempered = {"gains": temperature_gains(metrics), "give": temperature_to_give(metrics)}
    metrics["calibration"]["temperature"] |= tempered
    metrics |= {"advice": advice(metrics), "notes": notes(metrics)}
    wrong = np.flatnonzero(~right)
    wrong = wrong[np.argsort(-top[wrong], kind="stable")]
    unsure = np.argsort(top, kind="stable")[:_SHEET_IMAGES]
    pictures = {
        "confusion.png": confusion_plot(counts, predicted.labels),
        "calibration.png": calibration_plot(metrics["calibration"]),
        "risk_coverage.png": risk_coverage_plot(metrics["risk_coverage"]),
        "wrong.jpg": _sheet(judged, wrong[:_SHEET_IMAGES], labelled.root),
        "uncertain.jpg": _sheet(judged, unsure, labelled.root),
    }
    return metrics, _files(metrics, pictures, _csv(judged, wrong))


def _judged(
    asked: EvaluationOptions, predicted: PredictionsFile, labelled: LabeledImages
) -> tuple[dict[str, Any], _Judged]:
    """The images that can be judged, and what became of all others."""
    table = labelled.of_split(asked.split, asked.truth)
    codes = label_codes(table["label"], predicted.labels)
    if codes.null_count:
        strange = pc.unique(table["label"].filter(pc.is_null(codes)))
        raise LabelsError(
            f"{str(asked.truth)!r} has {len(strange):,} labels that the engine of {str(asked.predictions)!r} does not: "
            f"{shown(strange)}; it has {', '.join(map(repr, predicted.labels))}: name them as the engine does"
        )
    roots = predicted.table["root"].cast(pa.string())
    match = match_labels(table["path"], str(labelled.root), predicted.table["path"], roots)
    there = match.rows >= 0
    found = replace(predicted, table=predicted.table.unify_dictionaries().take(pa.array(match.rows[there])))
    readable = found.readable
    if not readable.any():
        raise LabelsError(f"none of the {len(readable):,} images in common could be read: {dict(found.errors)}")
    kept = np.flatnonzero(there)[readable]
    answers = replace(found, table=found.table.filter(pa.array(readable)))
    images = table.take(pa.array(kept)).append_column("file", answers.files)
    truth = np.asarray(codes.to_numpy())[kept].astype(np.int32)
    groups = blocks(len(kept), asked.seed)
    if "group" in images.column_names:
        groups = np.asarray(images["group"].combine_chunks().dictionary_encode().indices.to_numpy()).astype(np.int64)
    about = _provenance(asked, predicted, labelled, table)
    about["matched"] = _counted(match, table, predicted, found)
    about["matched"]["two_files"] = two_files(labelled.root, images)
    about["groups"] = int(groups.max()) + 1 if "group" in images.column_names else None
    return about, _Judged(images, truth, answers, groups)


def _provenance(
    asked: EvaluationOptions, predicted: PredictionsFile, labelled: LabeledImages, table: pa.Table
) -> dict[str, Any]:
    with asked.predictions.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    finite = json.loads(json.dumps(predicted.metadata), parse_constant=lambda _: None)
    name = printable(str(asked.predictions))
    return {
        "batchcls": __version__,
        "predictions": {
            "path": name,
            "sha256": digest,
            "rows": len(predicted.table),
            "metadata": finite,
            "notes": rewriting(predicted.metadata, predicted.labels, len(predicted.table)),
        },
        "truth": {
            "path": printable(str(asked.truth)),
            "rows": len(table),
            "group_by": asked.group_by or None,
            "split": asked.split,
            "has_splits": "split" in table.column_names,
            "left_out": len(labelled.table) - len(table),
            "unlabelled": labelled.unlabelled,
            "split_folders": asked.split_folders or None,
            "notes": [*labelled.notes, *([_SPLITS] if "split" in table.column_names and not asked.split else [])],
        },
        "seed": asked.seed,
        "resamples": RESAMPLES,
    }


def _counted(match: LabelMatch, table: pa.Table, predicted: PredictionsFile, found: PredictionsFile) -> dict[str, Any]:
    unused = np.ones(len(predicted.table), bool)
    unused[match.rows[match.rows >= 0]] = False
    lacking = {"truth_without_prediction": (table["path"], match.rows < 0)}
    lacking["prediction_without_truth"] = (predicted.files, unused)
    return {
        "by": match.by,
        "images": len(found.table),
        "readable": int(found.readable.sum()),
        "unreadable": dict(found.errors),
        **{
            name: {"count": int(mask.sum()), "examples": paths.take(np.flatnonzero(mask)[:_EXAMPLES]).to_pylist()}
            for name, (paths, mask) in lacking.items()
        },
    }


def _sheet(judged: _Judged, rows: npt.NDArray[np.int64], root: Path) -> bytes | None:
    """A contact sheet of these rows; None if there are none, or no file of theirs is an image here."""
    answers, probabilities = judged.predicted.table.take(rows), judged.predicted.probabilities[rows].max(axis=1)
    images = zip(judged.images.take(rows).to_pylist(), answers["label"].to_pylist(), probabilities, strict=True)
    cells = [
        (
            thumbnail(image["file"], _SHEET_SIDE_PX) or thumbnail(file_below(root, image["path"]), _SHEET_SIDE_PX),
            f"{image['path']}\n{image['label']} -> {label} {probability:.4f}",
        )
        for image, label, probability in images
    ]
    if all(picture is None for picture, _ in cells):
        return None
    return jpeg(contact_sheet(cells, _SHEET_COLUMNS, _SHEET_SIDE_PX))


def _csv(judged: _Judged, rows: npt.NDArray[np.int64]) -> bytes:
    answers, images = judged.predicted.table.take(rows), judged.images.take(rows)
    words = {"path": images["path"], "truth": images["label"], "predicted": answers["label"].cast(pa.string())}
    columns = {name: pa.array(map(text_cell, column.to_pylist()), pa.string()) for name, column in words.items()}
    columns["probability"] = answers["probability"]
    stream = pa.BufferOutputStream()
    pyarrow.csv.write_csv(pa.table(columns), stream)
    return bytes(stream.getvalue())


def _files(metrics: Mapping[str, Any], pictures: Mapping[str, bytes | None], wrong: bytes) -> dict[str, bytes | None]:
    """The figures last, which say that all is there."""
    uris = {name: data_uri(content, _KINDS[Path(name).suffix]) for name, content in pictures.items() if content}
    return {
        **pictures,
        "wrong.csv": wrong,
        "report.html": page("evaluation", **for_page(metrics, uris)).encode(),
        "report.md": markdown(metrics, uris.keys()).encode(),
        "metrics.json": json.dumps(metrics, indent=1, allow_nan=False).encode(),
    }
