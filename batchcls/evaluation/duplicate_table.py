"""The table of copies, as CSV or Parquet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from batchcls.errors import OutputError
from batchcls.records import Slide
from batchcls.storage.atomic import check_replaceable_file, whole_file, writing
from batchcls.storage.file_names import printable
from batchcls.storage.spreadsheet_cells import text_cell

CopyKind = Literal["same bytes", "same pixels", "near", "same embedding"]

_SCHEMA = pa.schema(
    [
        ("group", pa.int32()),
        ("root", pa.string()),
        ("path", pa.string()),
        ("of_root", pa.string()),
        ("of_path", pa.string()),
        ("kind", pa.string()),
        ("orientation", pa.string()),
        ("distance", pa.float32()),
    ]
)
_ENDINGS = (".csv", ".parquet")
_DECIMALS = 4


@dataclass(frozen=True, slots=True)
class Copy:
    """An image that is a copy of another one."""

    group: int
    """Number of the group of copies, from 1."""
    slide: Slide
    of: Slide
    """Image that the copy was compared with: the one to keep, of most of the group."""
    kind: CopyKind
    orientation: str | None
    """How the copy was made of the other image, one of `perceptual_hash.ORIENTATIONS`; None where it is not known."""
    distance: float | None
    """Distance of the hashes; None where one of the files cannot be read."""


def check_table(out: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse a table that cannot be written.

    Raises:
        OutputError: If its name has another ending, it exists and may not be replaced, or it is one of ``inputs``.
    """
    if out.suffix.lower() not in _ENDINGS:
        raise OutputError(
            f"--out {str(out)!r} ends in neither {' nor '.join(_ENDINGS)}; name it pairs.csv, for example"
        )
    check_replaceable_file(out)
    with writing(out):
        if not out.parent.is_dir():
            raise OutputError(f"--out {str(out)!r}: the folder does not exist; run: mkdir -p {str(out.parent)!r}")
        if not out.exists():
            return
        if any(out.samefile(place) for place in inputs):
            raise OutputError(f"--out {str(out)!r} is one of the inputs; choose another")
    if not overwrite:
        raise OutputError(f"{str(out)!r} exists; choose another --out, or replace it with --overwrite")


def write_table(copies: Sequence[Copy], out: Path) -> None:
    """Write the copies, whole or not at all.

    Raises:
        OutputError: If ``out`` cannot be written.
    """
    is_csv = out.suffix.lower() == ".csv"
    cell = text_cell if is_csv else str  # a spreadsheet could run a name
    rows = [
        (
            copy.group,
            *(cell(printable(name)) for slide in (copy.slide, copy.of) for name in (slide.root, slide.path)),
            copy.kind,
            copy.orientation,
            None if copy.distance is None else round(copy.distance, _DECIMALS),
        )
        for copy in copies
    ]
    columns = list(zip(*rows, strict=True)) or [()] * len(_SCHEMA)
    table = pa.table([pa.array(column, kind) for column, kind in zip(columns, _SCHEMA.types, strict=True)], _SCHEMA)
    with writing(out), whole_file(out) as stream:
        if is_csv:
            pyarrow.csv.write_csv(table.set_column(7, "distance", table["distance"].cast(pa.string())), stream)
        else:
            pq.write_table(table, stream, compression="zstd")
