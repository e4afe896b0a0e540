"""What a file costs besides decoding and its network, step by step, in CPU time of one core."""

import mmap
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

from rich.table import Table

from batchcls.images.servers.group_buffer import BUFFER_BYTES, LARGEST_FILE_BYTES, GroupBuffer
from batchcls.images.servers.group_server import examine_files, read_files
from batchcls.images.sources import open_source
from batchcls.images.sources.base import GROUP_FILES
from batchcls.inference.options import RunOptions
from benchmarks.file_costs import measure_loop, measure_reading
from benchmarks.processes import cpu_seconds
from benchmarks.sample import Task


def steps_table(task: Task, repeats: int) -> Table:
    """A table of steps, with microseconds of CPU time a file, all processes together: medians of ``repeats`` turns."""
    turns = [_turn(task) for _ in range(repeats)]
    count = len(list(open_source([task.folder])))
    table = Table("step", "CPU a file", title=f"{task.folder.name}, {count:,} files, medians of {repeats} turns")
    for step in turns[0]:
        table.add_row(step, f"{median(turn[step] for turn in turns) / count * 1e6:.1f} µs")
    return table


def _turn(task: Task) -> dict[str, float]:
    """CPU seconds of each step, once over all files."""
    groups: list[list[bytes]] = []
    listing_s = _cpu_s(lambda: groups.extend(_groups(task.folder)))
    buffer = GroupBuffer(mmap.mmap(-1, BUFFER_BYTES))
    seconds = {"list": listing_s, "open and read": 0.0, "examine headers and scans": 0.0}
    for group in groups:
        buffer.progress[1] = len(group)
        seconds["open and read"] += _cpu_s(lambda: read_files(buffer, group, LARGEST_FILE_BYTES))  # noqa: B023
        max_pixels = RunOptions().max_pixels
        seconds["examine headers and scans"] += _cpu_s(lambda: examine_files(buffer, group, max_pixels))  # noqa: B023
    reading_s, loop_s = (float(measure(task).details["cpu_s"]) for measure in (measure_reading, measure_loop))
    handing_over = "start a process, and hand slides over"
    return {
        **seconds,
        handing_over: reading_s - sum(seconds.values()),
        "read-only, all of the above": reading_s,
        "batch, classify by the null engine, write": loop_s - reading_s,
        "loop-only, all of the above": loop_s,
    }


def _groups(folder: Path) -> Sequence[list[bytes]]:
    """The paths of a folder's slides, in groups as they are read."""
    with closing(open_source([folder])) as source:
        paths = [os.fsencode(slide.file) for slide in source]
    return [paths[start : start + GROUP_FILES] for start in range(0, len(paths), GROUP_FILES)]


def _cpu_s(step: Callable[[], object]) -> float:
    since = cpu_seconds()
    step()
    return cpu_seconds() - since
