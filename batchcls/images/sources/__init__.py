"""Sources of slides, which list slides, and functions that read their bytes in any process."""

from collections.abc import Sequence
from pathlib import Path

from batchcls.images.sources.base import SlideReaders, Source
from batchcls.images.sources.files import FileReaders, file_exists, read_file
from batchcls.images.sources.folder import FolderSource
from batchcls.records import Slide
from batchcls.storage.file_names import spelling_below
from batchcls.storage.timeouts import READ_TIMEOUT_S, call_with_timeout


def open_source(slides: Sequence[Path], *, at_once: bool = True, timeout_s: float = READ_TIMEOUT_S) -> Source:
    """The slides below ``slides``: folders, searched to any depth, and files.

    Args:
        slides: Folders and image files.
        at_once: Whether listing begins now, instead of with the iteration.
        timeout_s: How long the file system may take for one answer; folders without an answer are in
            `Source.unlisted`.
    """
    return FolderSource(slides, at_once=at_once, timeout_s=timeout_s)


def open_readers() -> SlideReaders:
    """Readers of slides, one for each thread that reads many slides."""
    return FileReaders()


def read_slide(slide: Slide, limit_bytes: int, timeout_s: float = READ_TIMEOUT_S) -> bytes:
    """All bytes of one slide; any thread may call this function, also in a forked process.

    Args:
        slide: Slide to read.
        limit_bytes: Largest allowed size in bytes.
        timeout_s: How long the file system may take.

    Raises:
        OSError: If the slide cannot be read; a TimeoutError if it is not read in time.
        RefusedError: If the slide is no regular file, is empty, or is larger than ``limit_bytes``.
    """
    return call_with_timeout(lambda: read_file(slide, limit_bytes), timeout_s)


def slide_exists(slide: Slide, timeout_s: float = READ_TIMEOUT_S) -> bool:
    """Whether a slide exists; True as well if the file system does not answer in time."""
    try:
        return call_with_timeout(lambda: file_exists(slide), timeout_s)
    except TimeoutError:
        return True


def slide_below(root: Path, path: str) -> Slide:
    """The slide below ``root`` for a path in a table of labels, in the spelling under which the file exists."""
    return Slide(str(root), spelling_below(root, path))
