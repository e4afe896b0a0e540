"""The files that a training writes: their names, whether they may be written, and whether they are complete."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchcls.errors import OutputError
from batchcls.records import METADATA_KEY
from batchcls.storage.atomic import check_replaceable_file, writing
from batchcls.storage.locked_folder import clear_leftovers, partial_folder
from batchcls.storage.resumable_output import differences
from batchcls.training.checkpoints import BEST, DONE, LAST

SPLIT, CURVES, METRICS, HISTORY = "split.csv", "curves.png", "metrics.json", "history.parquet"
"""Endings of the files beside a checkpoint; the history is written first and put in its place last."""
BESIDE_HISTORY = (SPLIT, CURVES, METRICS)


def check_output(out: Path, data: Path, overwrite: bool) -> None:
    """Refuse to replace the given images, or existing files unless the same training may have written them.

    Args:
        out: Path of the checkpoint to be written.
        data: Folder or table of the images.
        overwrite: Whether existing files may be replaced.

    Raises:
        OutputError: If ``out`` may not, or cannot, be written.
    """
    if out.suffix != ".safetensors":
        raise OutputError(f"--out {str(out)!r} must end in .safetensors, the one format that can say what it is of")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    outputs = [out, *(output_path(out, ending) for ending in (*BESIDE_HISTORY, HISTORY))]
    for path in outputs:
        check_replaceable_file(path)
    history = output_path(out, HISTORY)
    clear_leftovers(history, files_beside_rows(out))
    begun = partial_folder(history).exists() or (_recorded(history) and all(path.exists() for path in outputs))
    if any(path.exists() and path.samefile(data) for path in outputs):
        raise OutputError(f"--out {str(out)!r} would replace {str(data)!r} itself; choose another --out")
    if not overwrite and not begun and (existing := [str(path) for path in outputs if path.exists()]):
        raise OutputError(f"{existing[0]!r} exists; choose another --out, or replace it with --overwrite")


def completed_metrics(out: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The metrics of a training whose files are complete; None if it is still to be done.

    Args:
        out: Path of its checkpoint.
        identity: Images and options that the training must have had.

    Raises:
        OutputError: If the files are those of another training.
    """
    history = output_path(out, HISTORY)
    if partial_folder(history).exists() or not (recorded := _recorded(history)):
        return None
    as_json = json.loads(json.dumps(identity))
    if recorded["identity"] != as_json:
        raise OutputError(
            f"{str(out)!r} exists, trained with {differences(recorded['identity'], as_json)}; this training has "
            f"{differences(as_json, recorded['identity'])}; choose another --out, or replace it with --overwrite"
        )
    return dict(recorded["training"]["metrics"])


def _recorded(history: Path) -> dict[str, Any]:
    """What a history file records of its training; empty if it has no identity or metrics, or is no such file."""
    try:
        recorded = json.loads((pq.read_schema(history).metadata or {})[METADATA_KEY])
        return recorded if isinstance(recorded["identity"], dict) and recorded["training"]["metrics"] else {}
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError):
        return {}


def files_beside_rows(out: Path) -> tuple[str, ...]:
    """Names of all files in the folder of an unfinished training but the rows of its history."""
    return (LAST, BEST, DONE, *BESIDE_HISTORY, out.name)


def output_path(out: Path, ending: str) -> Path:
    """The path of a file that stands beside the checkpoint ``out``."""
    return out.with_name(f"{out.stem}.{ending}")
