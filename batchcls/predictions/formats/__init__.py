"""The file formats of predictions files, one module each, chosen by the ending of a file's name."""

from pathlib import Path, PurePath

from batchcls.errors import OutputError
from batchcls.predictions.formats import csv_file, jsonl_file, parquet_file, parquet_folder
from batchcls.predictions.formats.base import PredictionsFormat, ReadableFormat
from batchcls.storage.urls import is_url

_FORMATS: dict[str, PredictionsFormat] = {".parquet": parquet_file, ".csv": csv_file, ".jsonl": jsonl_file}


def format_to_write(path: Path | str, rows_per_file: int | None = None) -> PredictionsFormat:
    """The format that the ending of a new file's name stands for.

    Args:
        path: The predictions file, or a folder of Parquet files.
        rows_per_file: Most rows of each file, for a folder; else None.

    Raises:
        OutputError: If the name has another ending, or a folder has the ending of a file.
    """
    name = PurePath(path)
    if rows_per_file is not None:
        return _format_of_folder(path, name.suffix.lower())
    if (ending := name.suffix.lower()) in _FORMATS:
        return _FORMATS[ending]
    ending_text = f"the ending {name.suffix!r}" if ending else "no ending"
    stem = _object_name(str(path)) if is_url(str(path)) else str(path).removesuffix(name.suffix)
    raise OutputError(
        f"--out {str(path)!r} has {ending_text}; predictions are written as {' or '.join(_FORMATS)}: name it "
        f"{f'{stem}.parquet'!r} or {f'{stem}.csv'!r}"
    )


def _format_of_folder(path: Path | str, ending: str) -> PredictionsFormat:
    """The format of the files of a predictions folder."""
    if ending in _FORMATS:
        raise OutputError(
            f"--out {str(path)!r} has the ending of a file, and --rows-per-file makes a folder of Parquet files: name "
            f"it {str(path).removesuffix(ending) + '/'!r}, or leave out --rows-per-file"
        )
    if is_url(str(path)):
        raise OutputError(
            f"--out {str(path)!r}: a folder of files is written to a disk only; name one object, such as "
            f"{_object_name(str(path)) + '.parquet'!r}, and leave out --rows-per-file"
        )
    return parquet_file


def _object_name(url: str) -> str:
    """The URL of an object without an ending, for a URL that names a bucket, a folder or an object."""
    url = url.rstrip("/")
    return f"{url}/predictions" if url.count("/") == 2 else url.removesuffix(PurePath(url).suffix)


def format_to_read(path: Path | str) -> ReadableFormat:
    """The format of an existing file or folder: what its name says, else Parquet, whatever its name."""
    if not is_url(str(path)) and Path(path).is_dir():
        return parquet_folder
    return _FORMATS.get(PurePath(path).suffix.lower(), parquet_file)
