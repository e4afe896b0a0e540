"""Where slides come from: a source lists them, and gives their bytes to whoever asks, in any process."""

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
        at_once: Whether listing begins now, and not with the iteration.
        timeout_s: How long the file system may take for one answer; a folder without one is `Source.unlisted`.
    """
    return FolderSource(slides, at_once=at_once, timeout_s=timeout_s)


def open_readers() -> SlideReaders:
    """Readers of slides for threads that read many of them, ahead of their use."""
    return FileReaders()


def read_slide(slide: Slide, limit_bytes: int, timeout_s: float = READ_TIMEOUT_S) -> bytes:
    """All bytes of one slide; from any thread, and in any process that was forked from one that has imported this.

    Args:
        limit_bytes: Largest allowed size in bytes.

    Raises:
        OSError: If it cannot be read, or does not answer in ``timeout_s`` seconds (TimeoutError).
        RefusedError: If it is no regular file, empty, or larger.
    """
    return call_with_timeout(lambda: read_file(slide, limit_bytes), timeout_s)


def slide_exists(slide: Slide, timeout_s: float = READ_TIMEOUT_S) -> bool:
    """Whether a slide is there, or may well be there: where no answer comes in time."""
    try:
        return call_with_timeout(lambda: file_exists(slide), timeout_s)
    except TimeoutError:
        return True


def slide_below(root: Path, path: str) -> Slide:
    """The slide below ``root`` that a table of labels calls ``path``, by the spelling that there is a file of."""
    return Slide(str(root), spelling_below(root, path))
