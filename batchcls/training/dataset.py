"""Labelled images that can be read, each of them once, in parts that share neither an image nor a group."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
from rich.console import Console
from rich.progress import track

from batchcls import machine
from batchcls.errors import LabelsError
from batchcls.images.labels.labeled import LabeledImages
from batchcls.storage.file_client import READ_TIMEOUT_S
from batchcls.storage.file_names import file_below, printable
from batchcls.training.duplicates import fingerprint
from batchcls.training.loading import Examples
from batchcls.training.splits import SPLITS, SplitFractions, SplitStrategy, assign_splits, check_parts, duplicates

_SHOWN = 3
_MOST_UNANSWERED = 8
"""Images, after which a disk is taken to be dead."""


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How images are parted that their table does not part."""

    way: SplitStrategy = "random"
    shares: SplitFractions = field(default_factory=SplitFractions)
    group_by: str = ""
    """See `LabeledImages.read`."""
    seed: int = 0
    split_folders: str = ""
    """See `LabeledImages.read`."""


@dataclass(slots=True)
class _Row:
    """One labelled image on its way into a part."""

    path: str
    file: str
    label: str
    group: str
    split: str
    """Empty where nobody has said."""
    print: bytes = b""
    why: str = ""
    """It is left out; empty: it is not."""


@dataclass(frozen=True, slots=True)
class SplitDataset:
    """Labelled images that can be read, once each, in parts."""

    labels: tuple[str, ...]
    """In the order of the alphabet."""
    parts: Mapping[str, Examples]
    """train, val and test, of which test may be empty; targets are positions in `labels`."""
    digest: str
    """SHA-256 of what the images show, and of their labels and parts."""
    _rows: Sequence[_Row]

    @classmethod
    def read(cls, source: Path, parting: SplitOptions, console: Console) -> Self:
        """Look at every image of a folder of class folders, or of a table (see `LabeledImages.read`), and part them.

        What cannot be read, and all but one of those that show the same, is left out, and said.

        Raises:
            LabelsError: If there are too few classes, or images of one, or the table parts them so that a group
                stands on two sides.
        """
        labelled = LabeledImages.read(source, parting.group_by, parting.split_folders)
        for note in labelled.notes:
            console.print(f"warning: {note}", markup=False, highlight=False)
        rows = _rows_of(labelled)
        _look_at(rows, console)
        _leave_out_copies(rows)
        _say_left_out(rows, labelled.unlabelled, console)
        kept = [row for row in rows if not row.why]
        labels = tuple(sorted({row.label for row in kept}))
        if len(labels) < 2:
            raise LabelsError(
                f"{str(source)!r} holds images of {len(labels)} class{'' if len(labels) == 1 else 'es'}"
                f"{''.join(f' ({label!r})' for label in labels)} that can be used; training needs two or more"
            )
        for row, part in zip(kept, _parts(kept, parting).tolist(), strict=True):
            row.split = part
        digest = hashlib.sha256()
        for row in kept:
            digest.update(f"{row.split}\0{row.label}\0".encode() + row.print)
        _say_parts(kept, labels, console)
        parts = {part: _examples([row for row in kept if row.split == part], labels) for part in SPLITS}
        return cls(labels, parts, digest.hexdigest(), rows)

    def write_split(self, stream: BinaryIO, folder: Path) -> None:
        """Write the split as CSV, which `LabeledImages.read` reads: path, label, split, left_out, group.

        Args:
            folder: Where the file will stand; paths are relative to it.
        """
        columns = {
            "path": [printable(os.path.relpath(row.file, folder)) for row in self._rows],
            "label": [row.label for row in self._rows],
            "split": ["" if row.why else row.split for row in self._rows],
            "left_out": [row.why for row in self._rows],
        }
        if any(row.group != row.path for row in self._rows):
            columns["group"] = [row.group for row in self._rows]
        pyarrow.csv.write_csv(pa.table(columns), stream)


def _rows_of(labelled: LabeledImages) -> list[_Row]:
    table = labelled.table.to_pydict()
    paths = table["path"]
    groups, splits = table.get("group", paths), table.get("split")
    rows = [
        _Row(path, file_below(labelled.root, path), label, group, "")
        for path, label, group in zip(paths, table["label"], groups, strict=True)
    ]
    for row, split in zip(rows, splits or [], strict=False):
        row.split, row.why = split or "", "" if split else "in no part"
    return rows


def _look_at(rows: Sequence[_Row], console: Console) -> None:
    """Take each image's fingerprint, or note why it cannot be read."""
    unanswered: list[str] = []

    def look(row: _Row) -> None:
        if len(unanswered) >= _MOST_UNANSWERED:
            raise LabelsError(
                f"{len(unanswered)} images could not be read in {READ_TIMEOUT_S:g} s each, such as {unanswered[0]!r}; "
                "see whether their disk still answers, and run the same command again"
            )
        try:
            row.print = fingerprint(row.file)
        except MemoryError:  # no fault of the file
            raise
        except Exception as error:  # noqa: BLE001  # of one file: whatever its bytes do to Pillow, the others are used
            row.why = f"cannot be read: {getattr(error, 'strerror', None) or error}"
            unanswered.extend([row.path] * isinstance(error, TimeoutError))

    wanted = [row for row in rows if not row.why]
    with ThreadPoolExecutor(machine.cores()) as pool:
        looked = pool.map(look, wanted)
        for _ in track(looked, "looking at the images", len(wanted), console=console, disable=not console.is_terminal):
            pass


def _leave_out_copies(rows: Sequence[_Row]) -> None:
    # A copy that trains and also tests is a leak wherever both stay, so the test's stays.
    order = ("test", "val", "train", "")
    sound = sorted((row for row in rows if not row.why), key=lambda row: order.index(row.split))
    found = duplicates({row.path: row.label for row in sound}, {row.path: row.print for row in sound})
    for row in sound:
        row.why = found.get(row.path, "")


def _say_left_out(rows: Sequence[_Row], unlabelled: int, console: Console) -> None:
    for what in ("cannot be read", "same image", "in no part"):
        found = [row for row in rows if row.why.startswith(what)]
        if found:
            shown = "; ".join(f"{row.path}: {row.why}" for row in found[:_SHOWN])
            console.print(f"left out {len(found):,} images, {what}: {shown}", markup=False, highlight=False)
    if unlabelled:
        console.print(
            f"left out {unlabelled:,} images, in no class folder or named part", markup=False, highlight=False
        )


def _say_parts(rows: Sequence[_Row], labels: Sequence[str], console: Console) -> None:
    for part in SPLITS:
        counts = Counter(row.label for row in rows if row.split == part)
        if counts:
            shown = ", ".join(f"{label} {counts[label]:,}" for label in labels)
            console.print(f"{part}: {counts.total():,} images: {shown}", markup=False, highlight=False)


def _parts(rows: Sequence[_Row], parting: SplitOptions) -> npt.NDArray[np.str_]:
    paths, labels, groups, parts = (
        np.array([getattr(row, name) for row in rows]) for name in ("path", "label", "group", "split")
    )
    if not all(row.split for row in rows):
        return assign_splits(paths, labels, groups, parting.way, parting.shares, parting.seed)
    if "train" not in parts:
        raise LabelsError("no image is in the part that trains; name one folder, or split, train")
    if "val" not in parts:
        rest = (parts == "train").nonzero()[0]
        shares = SplitFractions(parting.shares.val, 0.0)
        parts[rest] = assign_splits(paths[rest], labels[rest], groups[rest], parting.way, shares, parting.seed)
    check_parts(labels, groups, parts, ["train", "val"])
    return parts


def _examples(rows: Sequence[_Row], labels: Sequence[str]) -> Examples:
    return Examples([row.file for row in rows], [labels.index(row.label) for row in rows], len(labels))
