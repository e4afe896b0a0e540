"""Types of the keyword arguments of the Python API, each a field of `batchcls.inference.options.RunOptions`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from batchcls.engine.backends import BackendName
from batchcls.images.decoders import DecoderName


class EngineKeywords(TypedDict, total=False):
    """Options of an open engine."""

    device: str
    backend: BackendName | None
    precision: str | None
    decoder: DecoderName | None
    batch_size: int | None
    threads: int | None
    max_pixels: int
    read_timeout_s: float
    memory: int | None
    novel_above: float
    coverage: float | None
    top: int | None
    embeddings: bool


class RunKeywords(EngineKeywords, total=False):
    """Options of a run."""

    processes: int | None
    cluster: str | None
    overwrite: bool
    rows_per_file: int | None
    update: bool
    prune: bool
    by_content: bool
    root: str | Path | None
    allow_remote: bool
    keep: Sequence[str]
