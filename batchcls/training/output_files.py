"""What a training writes: which files, whether they may be written, and whether it has been done before."""

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
from batchcls.storage.partial_folder import clear_left_over, partial_folder
from batchcls.storage.resumable import differing
from batchcls.training.checkpoints import BEST, DONE, LAST

ENDINGS = ("split.csv", "curves.png", "metrics.json", "history.parquet")
"""Of what stands beside a checkpoint."""


def check_out(out: Path, data: Path, overwrite: bool) -> None:
    """Refuse to replace what was given, or what is there already, unless the same training may have written it.

    Raises:
        OutputError: If ``out`` may not, or can not, be written.
    """
    if out.suffix != ".safetensors":
        raise OutputError(f"--out {str(out)!r} must end in .safetensors, the one format that can say what it is of")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    written = _written(out)
    for path in written:
        check_replaceable_file(path)
    history = beside(out, "history.parquet")
    clear_left_over(history, others_of(out))
    begun = partial_folder(history).exists() or (_recorded(history) and all(path.exists() for path in written))
    if any(path.exists() and path.samefile(data) for path in written):
        raise OutputError(f"--out {str(out)!r} would replace {str(data)!r} itself; choose another --out")
    if not overwrite and not begun and (there := [str(path) for path in written if path.exists()]):
        raise OutputError(f"{there[0]!r} exists; choose another --out, or replace it with --overwrite")


def done_before(out: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The metrics of a training that has come to its end, and of which nothing is left to do; None: there is none.

    Raises:
        OutputError: If it is another training.
    """
    history = beside(out, "history.parquet")
    if partial_folder(history).exists() or not (recorded := _recorded(history)):
        return None
    here = json.loads(json.dumps(identity))
    if recorded["identity"] != here:
        raise OutputError(
            f"{str(out)!r} exists, trained with {differing(recorded['identity'], here)}; this training has "
            f"{differing(here, recorded['identity'])}; choose another --out, or replace it with --overwrite"
        )
    return dict(recorded["training"]["metrics"])


def _recorded(history: Path) -> dict[str, Any]:
    """What a history says of its training; empty if it does not say which one that was."""
    try:
        recorded = json.loads((pq.read_schema(history).metadata or {})[METADATA_KEY])
        return recorded if isinstance(recorded["identity"], dict) and recorded["training"]["metrics"] else {}
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError):
        return {}


def _written(out: Path) -> list[Path]:
    return [out, *(beside(out, ending) for ending in ENDINGS)]


def others_of(out: Path) -> tuple[str, ...]:
    """What stands beside the parts of a training."""
    return (LAST, BEST, DONE, *ENDINGS[:-1], out.name)


def beside(out: Path, ending: str) -> Path:
    """The path of a file that stands beside a checkpoint."""
    return out.with_name(f"{out.stem}.{ending}")
