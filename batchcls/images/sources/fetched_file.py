"""Lists and tables in object stores and on web servers, copied to a temporary file to be read."""

from contextlib import closing
from pathlib import Path
from tempfile import NamedTemporaryFile

from batchcls.errors import DecoderError, SlidesError, temporary_files
from batchcls.images.sources.listed_slides import without_secrets
from batchcls.images.sources.object_readers import ObjectReaders
from batchcls.records import Slide
from batchcls.storage.transient_errors import NO_ANSWER

_PART_BYTES = 8 << 20


class FetchedFile:
    """A copy of an object, which `close` removes.

    Args:
        url: URL of the object.
        timeout_s: How long each answer may take.

    Raises:
        SlidesError: If the object cannot be read, or obstore is not installed.
        OutputError: If there is no room for it.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        with temporary_files():
            self._file = NamedTemporaryFile(prefix="batchcls-", suffix=Path(url).suffix)  # noqa: SIM115  # see `close`
        self.path = Path(self._file.name)
        try:
            with closing(ObjectReaders()) as readers, closing(readers.reader(timeout_s)) as reader:
                remote = reader.open(Slide("", url))
                for offset in range(0, remote.size_bytes, _PART_BYTES):
                    part = remote.read(offset, _PART_BYTES)
                    with temporary_files():
                        self._file.write(part)
                        self._file.flush()
        except (OSError, DecoderError) as error:
            self.close()
            is_late = isinstance(error, TimeoutError) and error.errno is None
            reason = f"{NO_ANSWER} {timeout_s:g} s" if is_late else getattr(error, "strerror", None) or str(error)
            raise SlidesError(f"{without_secrets(url)!r} cannot be read: {reason}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the copy; calling it twice is harmless."""
        self._file.close()
