"""Slides from an object store on this machine: objects a second and their CPU time, runs against a disk, and listing.

``python -m benchmarks.object_store`` appends records to a file of its own below ``benchmarks/results``. CPU time is
that of the processes of batchcls, without the server's.
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

import click

from batchcls.images.decoders.read_ahead import Encoded, ReadAhead, ReadOptions
from batchcls.images.sources import open_readers, open_source
from batchcls.machine import peak_memory_bytes
from benchmarks.record import RESULTS, Record, checkout_commit, utc_now
from benchmarks.s3_servers import BUCKET, listing_server, rclone_server
from benchmarks.workload import LARGER_CROPS

_MAX_PIXELS = 200_000_000
_WARM_UP_FILES = 64
_SPEED = re.compile(r"speed +([\d,.]+) images/s")
_CHECKOUT = Path(__file__).parents[1]
_ENGINE = _CHECKOUT / "engines" / "all4-googlenet"


def read_objects(place: str | Path) -> tuple[int, float, float, int]:
    """Number of images read, seconds, CPU seconds and peak memory in bytes of reading all images of a place."""
    since, cpu_since = perf_counter(), _cpu_s()
    readers = open_readers()
    with closing(open_source([place])) as source, closing(readers):
        ahead = ReadAhead(source, readers, ReadOptions(_MAX_PIXELS))
        images = 0
        with closing(ahead):
            for item in ahead:
                if item is not None:
                    images += isinstance(item, Encoded)
                    ahead.release([item])
        elapsed_s = perf_counter() - since
    return images, elapsed_s, _cpu_s() - cpu_since, peak_memory_bytes() + readers.peak_memory_bytes


def list_objects(place: str) -> tuple[int, dict[str, float], int]:
    """Number of objects listed, seconds to the first one, to the first one read, and to the last one; and peak memory.

    The first image is read while listing goes on.
    """
    since = perf_counter()
    seconds: dict[str, float] = {}
    with closing(open_source([place])) as source, closing(open_readers()) as readers:
        slides = iter(source)
        first = next(slides)
        seconds["first_listed"] = perf_counter() - since
        with closing(readers.reader(60.0)) as reader:
            reader.open(first)
        seconds["first_read"] = perf_counter() - since
        count = 1 + sum(1 for _ in slides)
        seconds["last_listed"] = perf_counter() - since
    lister_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return count, seconds, peak_memory_bytes() + lister_bytes


def run_speed(place: str | Path, scratch: Path) -> float:
    """Images a second of the command ``batchcls run``, as it says itself."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        command = [sys.executable, "-m", "batchcls", "run", str(place), "--out", f"{folder}/o.parquet"]
        ended = subprocess.run([*command, "--engine", str(_ENGINE)], stdout=subprocess.PIPE, text=True, check=True)
    (speed,) = _SPEED.findall(ended.stdout)
    return float(speed.replace(",", ""))


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def reading_record(folder: Path, turns: int, record: "partial[Record]") -> Record:
    """The record of reading the objects of a bucket that rclone serves."""
    with rclone_server(folder.parent) as variables, _environment(variables):
        place = f"s3://{folder.name}"
        samples = [read_objects(place) for _ in range(turns)]
    return record(
        "objects, reading alone",
        images=samples[0][0],
        samples_s=tuple(sample[1] for sample in samples),
        samples_cpu_s=tuple(sample[2] for sample in samples),
        peak_memory_bytes=max(sample[3] for sample in samples),
    )


def run_records(folder: Path, turns: int, record: "partial[Record]") -> list[Record]:
    """The records of runs from a bucket and from the folder that it is made of, which take turns."""
    images = sum(1 for _ in folder.iterdir())
    places: dict[str, str | Path] = {"objects, a run": f"s3://{folder.name}", "files, a run": folder}
    speeds: dict[str, list[float]] = {case: [] for case in places}
    with rclone_server(folder.parent) as variables, _environment(variables):
        for _ in range(turns):
            for case, place in places.items():
                speeds[case].append(run_speed(place, folder.parent))
    return [
        record(case, images=images, samples_s=tuple(images / speed for speed in speeds[case]), peak_memory_bytes=0)
        for case in places
    ]


def listing_record(keys: int, image: Path, record: "partial[Record]") -> Record:
    """The record of listing a bucket of so many keys, with the seconds until the first image has been read."""
    with listing_server(keys, image) as variables, _environment(variables):
        count, seconds, memory_bytes = list_objects(f"s3://{BUCKET}/")
    return record(
        "objects, listed",
        images=count,
        samples_s=(seconds["last_listed"],),
        peak_memory_bytes=memory_bytes,
        details=seconds,
    )


def _bucket(scratch: Path, images: int) -> Path:
    """A folder of so many images of some 22 KB, which lies among others, as rclone serves buckets."""
    return replace(LARGER_CROPS, links=images).draw(scratch / "buckets")


@click.command()
@click.option("--objects", default=20_000, show_default=True, help="Objects to read.")
@click.option("--run-images", default=2_000, show_default=True, help="Images of each run; 0: no runs.")
@click.option("--keys", default=1_000_000, show_default=True, help="Keys to list.")
@click.option("--turns", default=5, show_default=True, help="Times that each case is measured.")
@click.option("--scratch", type=click.Path(path_type=Path), default=Path("build/benchmarks"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="File of the records.")
def main(objects: int, run_images: int, keys: int, turns: int, scratch: Path, out: Path | None) -> None:
    """Measure slides from an object store on this machine."""
    started = utc_now()
    out = out or RESULTS / "object-store" / f"{started[:10]}.jsonl"
    drawn = _bucket(scratch, objects)
    record = partial(
        Record, workload=LARGER_CROPS.name, commit=checkout_commit(_CHECKOUT), run=started, settings={"device": "cpu"}
    )
    image = next(drawn.iterdir())
    records: Sequence[Record] = [listing_record(keys, image, record)]  # before reading, which takes memory as well
    records = [*records, reading_record(drawn, turns, record)]
    if run_images:
        records = [*records, *run_records(_bucket(scratch, run_images), turns, record)]
    for measured in records:
        measured.append(out)
        cpu = f", {measured.cpu_us_per_image / 1000:.3f} ms of CPU each" if measured.samples_cpu_s else ""
        details = ", ".join(f"{name} {value:.2f} s" for name, value in measured.details.items())
        click.echo(
            f"{measured.case}: {measured.images:,} images, {measured.images_per_s:,.0f} a second{cpu}, "
            f"{measured.peak_memory_bytes / 2**20:,.0f} MiB; {details}"
        )


if __name__ == "__main__":
    main()
