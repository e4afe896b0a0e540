"""The shared memory in which one process reads a group of slides for another."""

import mmap
from collections.abc import Sequence

import numpy as np

GROUP_FILES = 64
"""Largest number of slides in a group."""
GROUP_BYTES = 2 << 20
"""Largest size of all files of a group together."""
LARGEST_FILE_BYTES = GROUP_BYTES // 2
"""Largest size of a file in a group; reading a larger one by itself costs little beside decoding it."""
NOT_BEGUN = -1
"""Position in a group whose first file has not been asked for yet."""
ALONE, READY, NO_ROOM = 0, 1, 2
"""States of a file after reading: to be read again alone, for it is refused or unusual; ready; not read, for the buffer
was full or the group was cut."""
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "JPEG2000", "PPM")
"""Pillow's names of formats, by their number in a record."""
RECORD = np.dtype(
    [
        ("state", np.uint8),
        ("format", np.uint8),
        ("suspect", np.bool_),
        ("plain_jpeg", np.bool_),
        ("width", np.uint32),
        ("height", np.uint32),
        ("offset", np.uint32),
        ("length", np.uint32),
        ("decode_bytes", np.uint64),
        ("modified_ns", np.int64),
    ]
)
"""Record of a file: its state, its `batchcls.images.formats.inspection.Header`, the place of its bytes in the buffer's
data, and the time of its last change."""
_RECORDS_AT, DATA_AT = 64, 4096
_MARGIN_BYTES = 64
"""Bytes behind the data, which readers of headers may touch."""
BUFFER_BYTES = DATA_AT + GROUP_BYTES + _MARGIN_BYTES


class GroupBuffer:
    """A buffer for one group; only the pages that are written take memory.

    Args:
        memory: ``BUFFER_BYTES`` of shared memory.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        view = memoryview(memory)
        self.progress = view[:8].cast("i")
        """Position of the file being read, or `NOT_BEGUN`; and number of files to read, which the owner may lower."""
        self.times_s = view[8:24].cast("d")
        """CPU time and wall time of reading the group, in seconds."""
        self.records = np.frombuffer(memory, RECORD, GROUP_FILES, _RECORDS_AT)
        """(GROUP_FILES,) of `RECORD`."""
        self.data = view[DATA_AT:]
        """Bytes of the files."""

    def write_places(self, places: Sequence[tuple[int, int, int, int]], files: int) -> None:
        """Write what is known of the first files after reading; the others of the group have found no room.

        Args:
            places: State, offset, length and time of change of each of the first files.
            files: Number of files in the group.
        """
        self.progress[0] = files
        columns = self.records[:files]
        columns["state"] = NO_ROOM
        if places:
            columns = columns[: len(places)]
            columns["state"], columns["offset"], columns["length"], columns["modified_ns"] = zip(*places, strict=True)
