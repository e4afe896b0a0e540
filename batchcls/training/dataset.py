"""Labeled images for a training: readable, each image once, in splits that share neither an image nor a group."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.csv
from rich.console import Console
from rich.progress import track

from batchcls import machine
from batchcls.errors import LabelsError
from batchcls.images.labels.labeled_images import LabeledImages
from batchcls.images.perceptual_hash import Hashes
from batchcls.images.sources import slide_below
from batchcls.records import Slide
from batchcls.storage.file_names import printable
from batchcls.storage.timeouts import READ_TIMEOUT_S
from batchcls.training.duplicates import duplicate_reasons, fingerprint, near_copies
from batchcls.training.loading import Examples
from batchcls.training.options import SplitFractions, SplitOptions
from batchcls.training.splits import SPLITS, Strings, assign_splits, check_splits

_MOST_NAMED = 3
"""Largest number of images that a line about left-out images names."""
_MOST_UNANSWERED = 8
"""Number of images whose reading timed out, after which their disk is taken to be dead."""


@dataclass(slots=True)
class _Row:
    """One labeled image, while its split is decided."""

    path: str
    slide: Slide
    label: str
    group: str
    split: str
    """``train``, ``val`` or ``test``; empty while neither folders nor a table name the split."""
    fingerprint: bytes = b""
    perceptual_hash: Hashes | None = None
    left_out: str = ""
    """Reason why the image is left out; empty for an image that is used."""


@dataclass(frozen=True, slots=True)
class SplitDataset:
    """Labeled images that can be read, each image once, in splits."""

    labels: tuple[str, ...]
    """Names of the classes, in alphabetical order."""
    splits: Mapping[str, Examples]
    """Images of ``train``, ``val`` and ``test`` by these names, targets as positions in `labels`; test may be empty."""
    digest: str
    """SHA-256 over the pixels, labels and splits of all images."""
    _rows: Sequence[_Row]
    """All labeled images, with those left out."""

    @classmethod
    def read(cls, source: Path, options: SplitOptions, console: Console) -> Self:
        """Read every image of a folder of class folders, or of a table, and assign the splits.

        Images that cannot be read, and all but one of several that are the same, are left out with a line on
        ``console``. Images that are nearly the same stay in one split.

        Args:
            source: Folder or table; see `LabeledImages.read`.

        Raises:
            LabelsError: If there are fewer than two classes, a class has too few images, the splits that the table
                names share a group, or the disk of the images no longer answers.
        """
        labeled = LabeledImages.read(source, options.group_by, options.split_folders)
        for note in labeled.notes:
            console.print(f"warning: {note}", markup=False, highlight=False)
        rows = _rows_of(labeled)
        _take_fingerprints(rows, console)
        _leave_out_duplicates(rows)
        _join_near_copies(rows, console)
        _print_left_out(rows, labeled.unlabeled, console)
        used = [row for row in rows if not row.left_out]
        labels = tuple(sorted({row.label for row in used}))
        if len(labels) < 2:
            raise LabelsError(
                f"{str(source)!r} holds images of {len(labels)} class{'' if len(labels) == 1 else 'es'}"
                f"{''.join(f' ({label!r})' for label in labels)} that can be used; training needs two or more"
            )
        for row, split in zip(used, _splits_of(used, options).tolist(), strict=True):
            row.split = split
        digest = hashlib.sha256()
        for row in used:
            digest.update(f"{row.split}\0{row.label}\0".encode() + row.fingerprint)
        _print_splits(used, labels, console)
        splits = {split: _examples([row for row in used if row.split == split], labels) for split in SPLITS}
        return cls(labels, splits, digest.hexdigest(), rows)

    def write_split(self, stream: BinaryIO, folder: Path) -> None:
        """Write path, label, split, left_out and group of each image as a CSV table that `LabeledImages.read` reads.

        Args:
            folder: Folder that the table will stand in; its paths are relative to that folder.
        """
        columns = {
            "path": [printable(os.path.relpath(row.slide.file, folder)) for row in self._rows],
            "label": [row.label for row in self._rows],
            "split": ["" if row.left_out else row.split for row in self._rows],
            "left_out": [row.left_out for row in self._rows],
        }
        if any(row.group != row.path for row in self._rows):
            columns["group"] = [row.group for row in self._rows]
        pyarrow.csv.write_csv(pa.table(columns), stream)


def _rows_of(labeled: LabeledImages) -> list[_Row]:
    table = labeled.table.to_pydict()
    paths = table["path"]
    groups, splits = table.get("group", paths), table.get("split")
    rows = [
        _Row(path, slide_below(labeled.root, path), label, group, "")
        for path, label, group in zip(paths, table["label"], groups, strict=True)
    ]
    for row, split in zip(rows, splits or [], strict=False):
        row.split, row.left_out = split or "", "" if split else "in no part"
    return rows


def _take_fingerprints(rows: Sequence[_Row], console: Console) -> None:
    """Set the fingerprint of each image, or the reason why it cannot be read."""
    unanswered: list[str] = []

    def take(row: _Row) -> None:
        if len(unanswered) >= _MOST_UNANSWERED:
            raise LabelsError(
                f"{len(unanswered)} images could not be read in {READ_TIMEOUT_S:g} s each, such as {unanswered[0]!r}; "
                "see whether their disk still answers, and run the same command again"
            )
        try:
            row.fingerprint, row.perceptual_hash = fingerprint(row.slide)
        except MemoryError:  # no fault of the file
            raise
        except Exception as error:  # noqa: BLE001  # one damaged file, whatever Pillow raises, must not end the training
            row.left_out = f"cannot be read: {getattr(error, 'strerror', None) or error}"
            unanswered.extend([row.path] * isinstance(error, TimeoutError))

    unread = [row for row in rows if not row.left_out]
    with ThreadPoolExecutor(machine.cores()) as pool:
        results = pool.map(take, unread)
        bar = track(results, "looking at the images", len(unread), console=console, disable=not console.is_terminal)
        for _ in bar:
            pass


def _leave_out_duplicates(rows: Sequence[_Row]) -> None:
    """Set the reason of each image that repeats another; in test rather than training, it stays."""
    readable = sorted((row for row in rows if not row.left_out), key=_precedence)
    reasons = duplicate_reasons(
        {row.path: row.label for row in readable}, {row.path: row.fingerprint for row in readable}
    )
    for row in readable:
        row.left_out = reasons.get(row.path, "")


def _join_near_copies(rows: Sequence[_Row], console: Console) -> None:
    """Give images that are nearly the same one group; leave out those with different labels, or of different splits."""
    used = sorted((row for row in rows if not row.left_out), key=_precedence)
    joined: dict[str, str] = {}
    images, example = 0, ""
    for positions in near_copies([row.perceptual_hash for row in used if row.perceptual_hash is not None]):
        first, *others = copies = [used[position] for position in positions]
        if len({row.label for row in copies}) > 1:
            for row, other in zip(copies, [others[0], *[first] * len(others)], strict=True):
                row.left_out = f"nearly the same image as {other.path}, in a set with several labels"
            continue
        for row in others:
            if row.split != first.split:
                row.left_out = f"nearly the same image as {first.path}, which is in {first.split}"
        kept = [row for row in copies if not row.left_out]
        if len(kept) > 1:
            images, example = images + len(kept), example or f"{kept[0].path} and {kept[1].path}"
        _join([row.group for row in kept], joined)
    for row in rows:
        row.group = _joined_group(row.group, joined)
    if images:
        note = f"{images:,} images are nearly the same as others, and stay in one part with these: {example}"
        console.print(note, markup=False, highlight=False)


def _join(groups: Sequence[str], joined: dict[str, str]) -> None:
    """Note in ``joined`` that groups are one, which has the name of the first in the order of texts."""
    names = sorted({_joined_group(group, joined) for group in groups})
    joined.update(dict.fromkeys(names[1:], names[0]))


def _joined_group(group: str, joined: Mapping[str, str]) -> str:
    while group in joined:
        group = joined[group]
    return group


def _precedence(row: _Row) -> int:
    """Order in which copies stay: an image in test rather than one in training."""
    return ("test", "val", "train", "").index(row.split)


def _print_left_out(rows: Sequence[_Row], unlabeled: int, console: Console) -> None:
    for reason in ("cannot be read", "same image", "nearly the same image", "in no part"):
        left_out = [row for row in rows if row.left_out.startswith(reason)]
        if left_out:
            examples = "; ".join(f"{row.path}: {row.left_out}" for row in left_out[:_MOST_NAMED])
            console.print(f"left out {len(left_out):,} images, {reason}: {examples}", markup=False, highlight=False)
    if unlabeled:
        console.print(f"left out {unlabeled:,} images, in no class folder or named part", markup=False, highlight=False)


def _print_splits(rows: Sequence[_Row], labels: Sequence[str], console: Console) -> None:
    for split in SPLITS:
        counts = Counter(row.label for row in rows if row.split == split)
        if counts:
            by_label = ", ".join(f"{label} {counts[label]:,}" for label in labels)
            console.print(f"{split}: {counts.total():,} images: {by_label}", markup=False, highlight=False)


def _splits_of(rows: Sequence[_Row], options: SplitOptions) -> Strings:
    """(rows,) the split of each image: that named by its folder or table, or else an assigned one."""
    paths, labels, groups, splits = (
        np.array([getattr(row, name) for row in rows]) for name in ("path", "label", "group", "split")
    )
    if not all(row.split for row in rows):
        return assign_splits(paths, labels, groups, options)
    if "train" not in splits:
        raise LabelsError("no image is in the part that trains; name one folder, or split, train")
    if "val" not in splits:
        rest = (splits == "train").nonzero()[0]
        options = replace(options, fractions=SplitFractions(options.fractions.val, 0.0))
        splits[rest] = assign_splits(paths[rest], labels[rest], groups[rest], options)
    check_splits(labels, groups, splits, ["train", "val"])
    return splits


def _examples(rows: Sequence[_Row], labels: Sequence[str]) -> Examples:
    return Examples([row.slide for row in rows], [labels.index(row.label) for row in rows], len(labels))
