"""Images in which copies are searched: those of a predictions file, of a folder, or of a tar file."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from batchcls.images.sources import open_source
from batchcls.predictions.reader import PredictionsFile
from batchcls.records import Slide
from batchcls.storage.file_names import printable
from batchcls.storage.file_set import numbered_files

_PREDICTIONS = (".parquet", ".csv", ".jsonl")
_DIGEST_BYTES = 16
_DIGEST_TYPE = f"V{_DIGEST_BYTES}"
_EMBEDDING = "embedding"
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ListedImages:
    """The images of one place, each once."""

    slides: tuple[Slide, ...]
    embeddings: npt.NDArray[np.void]
    """(N,) 16 bytes, the same for equal embeddings; zeros for images without an embedding that says something."""
    engine: str = ""
    """Identity of the engine that computed the embeddings; empty where there are none."""
    notes: tuple[str, ...] = ()
    """Sentences about what cannot be compared."""
    unreadable_note: str = ""
    """Sentence for a set of which files cannot be read any more; empty where nothing more could be compared of them."""

    @classmethod
    def read(cls, place: Path, labels: Sequence[str] = ()) -> Self:
        """List the images of a predictions file or predictions folder, of a folder, a tar file, or one image file.

        Args:
            labels: Labels in the order of the probabilities, for a predictions file that has lost its metadata.

        Raises:
            LabelsError: If a file with the ending of predictions is no predictions file.
            SlidesError: If the place cannot be listed.
        """
        if place.suffix.lower() in _PREDICTIONS or (place.is_dir() and numbered_files(place)):
            return cls._of_predictions(place, labels)
        source = open_source([place])
        slides = tuple(source)
        notes = [f"this folder could not be listed: {printable(folder)}" for folder in source.unlisted]
        return cls(slides, np.zeros(len(slides), _DIGEST_TYPE), notes=tuple(notes))

    @classmethod
    def _of_predictions(cls, path: Path, labels: Sequence[str]) -> Self:
        rows: dict[Slide, bytes] = {}
        engine, not_finite, has_embeddings = "", 0, False
        for part in PredictionsFile.parts(path, labels, [_EMBEDDING]):
            digests = [bytes(_DIGEST_BYTES)] * len(part.table)
            if has_embeddings := part.has(_EMBEDDING):
                embeddings = part.numbers(_EMBEDDING)
                digests = [_digest(row) for row in embeddings]
                engine = _engine_of(part) if len(embeddings) else engine
                finite = np.isfinite(embeddings).all(axis=1)
                not_finite += int((part.readable & ~finite).sum())
            for slide, digest in zip(part.slides(np.arange(len(part.table))), digests, strict=True):
                rows.setdefault(slide, digest)
        notes = []
        if not_finite:
            notes.append(f"{str(path)!r} has {not_finite:,} embeddings that are no numbers, and are not compared")
        return cls(
            tuple(rows),
            np.array([np.void(digest) for digest in rows.values()], _DIGEST_TYPE),
            engine,
            tuple(notes),
            "" if has_embeddings else _no_embeddings(path),
        )

    @property
    def lost_its_engine(self) -> bool:
        """Whether there are embeddings, of an engine that the record does not name."""
        return self.engine.startswith(_UNKNOWN)

    def without(self, other: Self) -> Self:
        """The images that are not files of ``other`` too, with a note on those that are."""
        files = {os.path.abspath(slide.file) for slide in other.slides}
        kept = [row for row, slide in enumerate(self.slides) if os.path.abspath(slide.file) not in files]
        if len(kept) == len(self.slides):
            return self
        note = f"{len(self.slides) - len(kept):,} files are in both sets; they are compared as those of the first alone"
        slides = tuple(self.slides[row] for row in kept)
        return replace(self, slides=slides, embeddings=self.embeddings[kept], notes=(*self.notes, note))


def _no_embeddings(path: Path) -> str:
    return (
        f"{str(path)!r} has no column {_EMBEDDING!r}, so that its files which cannot be read any more are not "
        "compared; run again with --embeddings: batchcls run ... --embeddings"
    )


def _engine_of(predictions: PredictionsFile) -> str:
    """Identity of the engine of a file's embeddings: its network's SHA-256, or ``unknown``, and their width."""
    engine = predictions.metadata.get("engine")
    network = engine.get("onnx_sha256") if isinstance(engine, dict) else None
    return f"{network or _UNKNOWN} {predictions.numbers(_EMBEDDING).shape[1]}"


def _digest(embedding: npt.NDArray[np.floating]) -> bytes:
    """16 bytes that stand for an embedding; zeros for one that is not finite, or the same number throughout."""
    if not np.isfinite(embedding).all() or (embedding == embedding[:1]).all():
        return bytes(_DIGEST_BYTES)
    return hashlib.blake2b(embedding.tobytes(), digest_size=_DIGEST_BYTES).digest()
