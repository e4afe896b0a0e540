"""The files that a training writes: their names, and checks that they may be written and that they are complete."""

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
from batchcls.storage.differences import differences
from batchcls.storage.locked_folder import clear_leftovers
from batchcls.storage.output_names import partial_folder
from batchcls.training.checkpoints import BEST_CHECKPOINT, FINISHED_MARK, LAST_CHECKPOINT

SPLIT_ENDING, CURVES_ENDING, METRICS_ENDING, HISTORY_ENDING = (
    "split.csv",
    "curves.png",
    "metrics.json",
    "history.parquet",
)
"""Endings of the files beside a checkpoint; the history takes its place last, so its presence means: complete."""
ENDINGS_BESIDE_HISTORY = (SPLIT_ENDING, CURVES_ENDING, METRICS_ENDING)


def check_output(out: Path, data: Path, overwrite: bool) -> None:
    """Refuse to replace the images, or existing files that an earlier call of the same training cannot have written.

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
    outputs = [out, *(output_path(out, ending) for ending in (*ENDINGS_BESIDE_HISTORY, HISTORY_ENDING))]
    for path in outputs:
        check_replaceable_file(path)
    history = output_path(out, HISTORY_ENDING)
    clear_leftovers(history, files_beside_rows(out))
    begun = partial_folder(history).exists() or (_recorded(history) and all(path.exists() for path in outputs))
    if any(path.exists() and path.samefile(data) for path in outputs):
        raise OutputError(f"--out {str(out)!r} would replace {str(data)!r} itself; choose another --out")
    if not overwrite and not begun and (existing := [str(path) for path in outputs if path.exists()]):
        raise OutputError(f"{existing[0]!r} exists; choose another --out, or replace it with --overwrite")


def completed_metrics(out: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The metrics of a finished training; None if the training is not finished.

    Args:
        out: Path of the checkpoint.
        identity: Images and options that the training must have had, as JSON values.

    Raises:
        OutputError: If the files are those of another training.
    """
    history = output_path(out, HISTORY_ENDING)
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
    """Metadata of a training in its history file; empty if the file is no history or lacks identity or metrics."""
    try:
        recorded = json.loads((pq.read_schema(history).metadata or {})[METADATA_KEY])
        return recorded if isinstance(recorded["identity"], dict) and recorded["training"]["metrics"] else {}
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError):
        return {}


def files_beside_rows(out: Path) -> tuple[str, ...]:
    """Names of all files in the folder of an unfinished training, except the parts of its history."""
    return (LAST_CHECKPOINT, BEST_CHECKPOINT, FINISHED_MARK, *ENDINGS_BESIDE_HISTORY, out.name)


def output_path(out: Path, ending: str) -> Path:
    """The path of a file that stands beside the checkpoint ``out``."""
    return out.with_name(f"{out.stem}.{ending}")
