"""The file formats of predictions files, one module each, chosen by the ending of a file's name."""

from pathlib import Path, PurePath

from batchcls.errors import OutputError
from batchcls.predictions.formats import csv_file, jsonl_file, parquet_file
from batchcls.predictions.formats.base import PredictionsFormat

_FORMATS: dict[str, PredictionsFormat] = {".parquet": parquet_file, ".csv": csv_file, ".jsonl": jsonl_file}


def format_to_write(path: Path | str) -> PredictionsFormat:
    """The format that the ending of a new file's name stands for.

    Raises:
        OutputError: If the name has another ending.
    """
    name = PurePath(path)
    if (ending := name.suffix.lower()) in _FORMATS:
        return _FORMATS[ending]
    ending_text = f"the ending {name.suffix!r}" if ending else "no ending"
    stem = str(path).removesuffix(name.suffix)
    raise OutputError(
        f"--out {str(path)!r} has {ending_text}; predictions are written as {' or '.join(_FORMATS)}: name it "
        f"{f'{stem}.parquet'!r} or {f'{stem}.csv'!r}"
    )


def format_to_read(path: Path | str) -> PredictionsFormat:
    """The format of an existing file: CSV if its name says so, else Parquet, whatever its name."""
    return _FORMATS.get(PurePath(path).suffix.lower(), parquet_file)
