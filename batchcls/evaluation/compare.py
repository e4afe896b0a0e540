"""Compare two predictions files: two sets of images, two engines, or an engine before and after a change."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchcls.engine.drift import Drift, label_drift, measure_drift
from batchcls.engine.measure_sums import MeasureSums, ReferenceSums
from batchcls.errors import LabelsError
from batchcls.evaluation.answered_images import AnsweredImages, UnreadRun
from batchcls.evaluation.paired_accuracy import paired_accuracy
from batchcls.evaluation.provenance import describe_provenance
from batchcls.evaluation.run_comparison import ComparedRun, PairedAccuracy, RunComparison, SameImages
from batchcls.images.labels.labeled_images import LabeledImages
from batchcls.predictions.integrity import rewrite_notes
from batchcls.predictions.label_matching import label_codes, match_labels, match_paths
from batchcls.storage.file_names import printable

_PROVENANCE = (
    "Engine",
    "ONNX file, SHA-256",
    "Trained file, SHA-256",
    "Precision",
    "Backend",
    "Device",
    "Decoder",
    "Preprocessing",
)
"""Descriptions by which the files may differ and that change rows."""
_NOTHING_IN_COMMON = "The files have no image in common by its path: only their sets of images are compared."
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """Inputs and settings of a comparison."""

    a: Path
    """Predictions file that is the reference."""
    b: Path
    """Predictions file that is compared with it."""
    truth: Path | None = None
    """Folder of class folders, or CSV or Parquet table, that names the true labels."""
    split_folders: str = ""
    """Folders that hold the class folders of a split; see `LabeledImages.read`."""
    labels: tuple[str, ...] = ()
    """Labels in the order of the probabilities, for predictions files that have lost their metadata."""
    names: tuple[str, str] = ("", "")
    """Names of the files in the results, if they are copies; empty: their paths."""


def compare_runs(options: CompareOptions) -> RunComparison:
    """Compare two predictions files.

    Raises:
        LabelsError: If a file or the truth cannot be used, or the files have different labels.
    """
    before, after = UnreadRun(options.a, options.labels), UnreadRun(options.b, options.labels)
    labels = before.head.labels
    if sorted(labels) != sorted(after.head.labels):
        raise LabelsError(
            f"{str(options.a)!r} has the labels {list(labels)}, and {str(options.b)!r} {list(after.head.labels)}; "
            "compare files of engines with the same labels"
        )
    names = before.measures_in_common(after)
    usual, sums = ReferenceSums(names, len(labels)), MeasureSums(names, len(labels))
    rows_a, rows_b = before.read(labels, usual), after.read(labels, sums)
    for path, counts in ((options.a, usual.images), (options.b, sums.images)):
        if not counts.any():
            raise LabelsError(f"{str(path)!r} has no image with a label to compare; classify images that can be read")
    runs = [
        _run(rows, counts.images, labels, printable(name or str(rows.file.path)))
        for rows, counts, name in zip((rows_a, rows_b), (usual, sums), options.names, strict=True)
    ]
    same, notes = _same_images(rows_a, rows_b, labels)
    for letter, rows in (("A", rows_a), ("B", rows_b)):
        notes += [f"{letter}: {note}" for note in rewrite_notes(rows.file.metadata, labels, len(rows.codes))]
    return RunComparison(
        runs[0],
        runs[1],
        _differences(rows_a, rows_b, runs),
        label_drift(sums.images, usual.images, labels),
        _probability_effect(rows_a, rows_b),
        _drift(before, after, usual, sums, labels),
        same,
        _accuracy(options.truth, options.split_folders, rows_a, rows_b) if options.truth else None,
        tuple(notes),
    )


def _run(rows: AnsweredImages, counts: npt.NDArray[np.int64], labels: Sequence[str], path: str) -> ComparedRun:
    readable = rows.probabilities[rows.codes >= 0]
    described = describe_provenance(rows.file.metadata)
    return ComparedRun(
        path=path,
        rows=len(rows.codes),
        unreadable=int((rows.codes < 0).sum()),
        provenance={name: described[name] for name in _PROVENANCE},
        labels=dict(zip(labels, counts.tolist(), strict=True)),
        mean_probability=float(readable.mean()) if len(readable) else None,
    )


def _differences(rows_a: AnsweredImages, rows_b: AnsweredImages, runs: Sequence[ComparedRun]) -> tuple[str, ...]:
    """Names in `ComparedRun.provenance` under which the files differ; none where one has lost its record as a whole."""
    if not (rows_a.file.metadata and rows_b.file.metadata):
        return ()
    return tuple(name for name in _PROVENANCE if runs[0].provenance[name] != runs[1].provenance[name])


def _drift(
    before: UnreadRun, after: UnreadRun, usual: ReferenceSums, sums: MeasureSums, labels: Sequence[str]
) -> Drift:
    for letter, run in (("A", before), ("B", after)):
        if run.has_unnamed_measures:
            return Drift(
                0,
                note=f"drift of the images is unknown: the record of {letter} does not name its measures; "
                "another program may have written the file again: compare the one that batchcls run wrote",
            )
        if not run.measures:
            return Drift(
                0,
                note=f"drift of the images is unknown: {letter} has no measures; classify its images again with an "
                "engine that was built with --novelty-from",
            )
    reference = usual.reference() if usual.names else None
    if reference is None:
        return Drift(
            int(sums.measured.sum()),
            note=f"drift of the images is unknown: A has {usual.measured.sum():,} images with measures that B has too, "
            f"and needs {usual.fewest_images:,} or more",
        )
    return measure_drift(sums, reference, labels)


def _probability_effect(rows_a: AnsweredImages, rows_b: AnsweredImages) -> float | None:
    a, b = (rows.probabilities[rows.codes >= 0] for rows in (rows_a, rows_b))
    if len(a) < 2 or not len(b) or not a.std():
        return None
    return float((b.mean() - a.mean()) / a.std())


def _same_images(
    rows_a: AnsweredImages, rows_b: AnsweredImages, labels: Sequence[str]
) -> tuple[SameImages | None, list[str]]:
    """The images that are in both files, and sentences on those that may be and cannot be told."""
    roots = pc.unique(rows_a.file.table["root"].cast(pa.string())).to_pylist()
    paths, root = (rows_a.file.table["path"], roots[0]) if len(roots) == 1 else (rows_a.file.files, "")
    match = match_paths(paths, root, rows_b.file)
    notes = []
    if match.by == "file name":  # 0001.jpg is the name of one image in every folder
        return None, [_NOTHING_IN_COMMON]
    if match.ambiguous.any():
        notes.append(f"{int(match.ambiguous.sum()):,} images fit several rows by {match.by} and are not compared.")
    in_a = np.flatnonzero(match.rows >= 0)
    in_b = match.rows[in_a]
    sizes_a, sizes_b = rows_a.sizes[in_a], rows_b.sizes[in_b]
    differ = (sizes_a != sizes_b) & ~np.isnan(sizes_a) & ~np.isnan(sizes_b)
    alike = ~differ.any(axis=1)
    in_a, in_b = in_a[alike], in_b[alike]
    if not len(in_a):
        return None, [*notes, _NOTHING_IN_COMMON]
    codes_a, codes_b = rows_a.codes[in_a], rows_b.codes[in_b]
    readable = (codes_a >= 0) & (codes_b >= 0)
    change = rows_b.probabilities[in_b][readable] - rows_a.probabilities[in_a][readable]
    changed = readable & (codes_a != codes_b)
    return (
        SameImages(
            by=match.by,
            images=len(in_a),
            other_sizes=int((~alike).sum()),
            readable=int(readable.sum()),
            agreeing=int((readable & ~changed).sum()),
            mean_change=float(change.mean()) if len(change) else None,
            mean_absolute_change=float(np.abs(change).mean()) if len(change) else None,
            changed=_changed(paths, (rows_a, rows_b), (in_a[changed], in_b[changed]), labels),
        ),
        notes,
    )


def _changed(
    paths: pa.ChunkedArray,
    rows: tuple[AnsweredImages, AnsweredImages],
    places: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    labels: Sequence[str],
) -> pa.Table:
    """The changed rows, those that both files are surest of first."""
    columns = {"path": paths.take(pa.array(places[0]))}
    for side, answers, taken in zip("ab", rows, places, strict=True):
        columns[f"label_{side}"] = pa.array(labels, pa.string()).take(pa.array(answers.codes[taken]))
        columns[f"probability_{side}"] = pa.array(answers.probabilities[taken].astype(np.float32))
    table = pa.table(columns)
    surer = np.minimum(table["probability_a"].to_numpy(), table["probability_b"].to_numpy())
    return table.take(pa.array(np.argsort(-surer, kind="stable")))


def _accuracy(truth: Path, split_folders: str, rows_a: AnsweredImages, rows_b: AnsweredImages) -> PairedAccuracy:
    labels = rows_a.file.labels
    labeled = LabeledImages.read(truth, "", split_folders, labels)
    codes = label_codes(labeled.table["label"], labels)
    true = pc.fill_null(codes, -1).to_numpy().astype(np.int64)
    found = np.full((2, len(true)), -1)
    for answers, predicted in zip((rows_a, rows_b), found, strict=True):
        match = match_labels(labeled.table["path"], str(labeled.root), answers.file)
        predicted[match.rows >= 0] = answers.codes[match.rows[match.rows >= 0]]
    compared: _Mask = (true >= 0) & (found >= 0).all(axis=0)
    if not compared.any():
        raise LabelsError(
            f"no image of --truth {str(truth)!r} has a label in both {str(rows_a.file.path)!r} and "
            f"{str(rows_b.file.path)!r}; the engine has the labels {', '.join(map(repr, labels))}"
        )
    return paired_accuracy(*(found[:, compared] == true[compared]))
