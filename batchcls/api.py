"""batchcls for notebooks and programs: an open engine, and a run as of the command line."""

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

if TYPE_CHECKING:  # at run time, the imports of each method: importing batchcls stays light
    from typing import Unpack

    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa
    from PIL.Image import Image

    from batchcls.engine.base import EngineInfo
    from batchcls.inference.keywords import EngineKeywords, RunKeywords
    from batchcls.inference.row_stream import RowStream
    from batchcls.inference.stats import RunStats

AnyPath: TypeAlias = "str | os.PathLike[str]"
OneImage: TypeAlias = "AnyPath | bytes | Image | npt.NDArray[np.uint8] | None"
"""Path of a file, bytes of a file, PIL image, or (H, W, 3) uint8 RGB pixels; None has a row with an error."""
Images: TypeAlias = "OneImage | Iterable[OneImage] | pa.ChunkedArray | pa.Array"
"""A folder, one image, or several: a list, a generator, a column of pandas, Polars or Arrow, (N, H, W, 3) pixels."""


class Engine:
    """An engine, open on one device until `close`; any number of threads may use it at one time.

    Args:
        folder: The engine folder.
        options: ``device`` (``auto``, ``cpu``, ``cuda`` or ``cuda:N``), ``backend``, ``precision``, ``decoder``,
            ``batch_size``, ``threads``, ``max_pixels``, ``read_timeout_s``, ``memory`` (bytes), ``top``,
            ``embeddings``, ``novel_above`` and ``coverage``, with the meanings and defaults of the command line's.

    Raises:
        EngineError: If the engine or its device cannot be used, or an option has a value that is out of range.
        VerificationError: If the engine's answers to its probes differ too much from those of its build.
        MemoryShortageError: If there is too little memory to begin with.
    """

    def __init__(self, folder: "AnyPath", **options: "Unpack[EngineKeywords]") -> None:
        from batchcls.inference.options import RunOptions
        from batchcls.inference.session import Session

        self._arguments = (str(Path(folder).absolute()), options)
        self._options = RunOptions(**options)
        self._session = Session(Path(folder), self._options)

    @classmethod
    def load(cls, folder: "AnyPath", **options: "Unpack[EngineKeywords]") -> Self:
        """An open engine; the arguments are those of the class."""
        return cls(folder, **options)

    @property
    def info(self) -> "EngineInfo":
        """Labels, preprocessing, precision and device of the engine."""
        return self._session.info

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on how the engine runs on this machine: what is slower than it could be, and how to mend it."""
        return self._session.notes

    def predict(self, images: "Images", *, progress: bool | None = None) -> "pa.Table":
        """The predictions for all images, with the columns of a predictions file: a row for each image, in order.

        An image that cannot be classified has the reason in the column ``error``. A folder is searched to any depth;
        its rows are in the order of a predictions file.

        Args:
            images: See `Images`.
            progress: Whether progress is shown on standard error; None: in a notebook only.

        Raises:
            SlidesError: If ``images`` is of no kind that can be classified, or a folder holds no image.
            EngineError: If the device fails, or the engine is closed or was opened before this process was forked.
            MemoryShortageError: If too many streams are open for the memory of one more.
            Exception: Any exception that iterating over ``images`` raises.
        """
        from batchcls.inference.prediction import predict

        return predict(self._session, images, self._options, _console(progress))

    def stream(self, images: "Images") -> "RowStream":
        """The same rows as `predict`, in record batches, while later images are still being read.

        Memory is bounded, however many images there are. A thread of the stream iterates over ``images``, up to 256
        ahead. The iterator ends its threads when it is exhausted, closed or no longer referred to.

        Args:
            images: See `Images`; a folder's images come in the order in which they are listed.

        Raises:
            SlidesError: From the iterator: if an image is of no kind that can be classified.
            EngineError: Also from the iterator: if the device fails, or the engine is closed.
            MemoryShortageError: From the iterator: if too many streams are open for the memory of one more.
            Exception: From the iterator: any exception that iterating over ``images`` raises.
        """
        from batchcls.inference.prediction import listed

        return self._session.rows(listed(images, self._options))

    def __call__(self, batch: Any, column: str = "") -> "dict[str, npt.NDArray[Any]]":
        """The other columns of a batch with its predictions, for ``map_batches`` of Ray Data and for Daft.

        Args:
            batch: Columns by name: a dictionary of arrays, a table of Arrow, or a data frame.
            column: Column of images, see `OneImage`; empty: the first of ``image``, ``bytes`` and ``path``.

        Returns:
            (N,) arrays by name: every other column of ``batch``, and ``label`` (None without one), ``probability``
            (float32, NaN without one), ``probabilities`` ((N, classes) float32) and ``error`` (None without one); and
            the columns that this engine and its options add, such as ``novelty`` (float32), ``novel`` (True, False or
            None) and ``embedding`` ((N, E) float16), with NaN or None where there is no value.

        Raises:
            SlidesError: If there is no such column, its values are of no kind that can be classified, or another
                column has the name of one of the predictions'.
        """
        from batchcls.inference.prediction import predict_batch

        return predict_batch(self._session, batch, column, self._options)

    def close(self) -> None:
        """Release the device, and end every thread, process and stream; calling it twice is harmless."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the engine again, by the same arguments."""
        return _load, (type(self), *self._arguments)


def _load(cls: type[Engine], folder: str, options: "EngineKeywords") -> Engine:
    return cls(folder, **options)


def run(
    slides: "AnyPath | Iterable[AnyPath]",
    *,
    engine: "AnyPath",
    out: "AnyPath",
    shard: tuple[int, int] | None = None,
    progress: bool | None = None,
    **options: "Unpack[RunKeywords]",
) -> "RunStats":
    """Classify every image below ``slides`` into one predictions file, as ``batchcls run`` does; returns its figures.

    Stopped by an exception, such as KeyboardInterrupt, its rows are on disk, and the same call goes on there.

    Args:
        slides: A folder, a file, or several of them; also ``@FILE``, a list of paths, and a table with a column
            ``path``, in CSV or Parquet.
        engine: The engine folder.
        out: The predictions file, or its URL in an object store; or a folder of Parquet files, such as
            ``predictions/``.
        shard: Number of a part of the images, counted from 0, and number of parts: ``(17, 1000)``. Only that part is
            classified, into a file of its own in the folder ``out``. None: all images.
        progress: Whether progress is shown on standard error; None: in a notebook only.
        options: Those of `Engine`, and ``processes``, ``overwrite``, ``rows_per_file``, ``update``, ``prune``,
            ``by_content``, ``root``, ``allow_remote`` and ``keep``, as of the command line.

    Raises:
        SlidesError: If there is no image, no such shard, or the disk of the slides can no longer be read.
        EngineError: If the engine or its device cannot be used.
        OutputError: If ``out`` may not be written, or the disk refuses.
        MemoryShortageError: If there is too little memory to begin with, or for some files.
    """
    from batchcls.errors import OutputError, SlidesError
    from batchcls.images.sources.places import named_place
    from batchcls.inference.options import RunOptions
    from batchcls.inference.run import classify_images
    from batchcls.storage.output_names import ROWS_PER_FILE, names_folder
    from batchcls.storage.shards import Shard
    from batchcls.storage.urls import is_url

    named = [slides] if isinstance(slides, str | os.PathLike) else list(slides)
    places = [named_place(place) for place in named]
    if not places or any(not str(place) for place in named):
        raise SlidesError("no folder and no file was given")
    if not Path(out).name:
        raise OutputError(f"out is {os.fspath(out)!r}; name a file, such as 'predictions.parquet'")
    if missing := [str(place) for place in places if isinstance(place, Path) and not os.path.exists(place)]:
        raise SlidesError(f"{missing[0]!r} does not exist; name folders or image files that do")
    file = str(out) if is_url(str(out)) else Path(out)
    if shard is None and names_folder(os.fspath(out)) and options.get("rows_per_file") is None:
        options["rows_per_file"] = ROWS_PER_FILE
    if shard is not None and (not isinstance(shard, tuple | list) or len(shard) != 2):
        raise SlidesError(f"shard is {shard!r}; use two whole numbers, such as (17, 1000)")
    run_options = RunOptions(**options, shard=None if shard is None else Shard(*shard))
    return classify_images(places, Path(engine), file, run_options, _console(progress), listens=False)


def _console(progress: bool | None) -> Any:
    from batchcls.progress import SafeConsole

    console = SafeConsole(stderr=True, soft_wrap=True)
    console.quiet = not (console.is_jupyter if progress is None else progress)
    return console
