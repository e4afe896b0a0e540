"""Slides that are read ahead, by groups or alone: each comes once, as it comes when it is read by itself."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchcls.errors import DecoderError
from batchcls.images.decoders.encoded import Encoded, ReadOptions
from batchcls.images.decoders.read_ahead import ReadAhead
from batchcls.images.decoders.read_budget import ReadBudget
from batchcls.images.decoders.single_reads import SingleReads
from batchcls.images.sources import open_readers
from batchcls.images.sources.base import SlideReaders
from batchcls.records import Failure, Postponed, Slide
from tests.commandline import PATIENCE_S
from tests.conftest import draw

OPTIONS = ReadOptions(max_pixels=10**6, timeout_s=PATIENCE_S)
LARGE = (1100, 1000)
"""Size of an image whose file, a BMP, is too large for a group; it has more than ``OPTIONS.max_pixels`` too."""


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Slide]:
    """A slide of each kind, by its kind."""
    folder = tmp_path_factory.mktemp("kinds")
    draw(folder / "sound.jpg", 1)
    draw(folder / "sound.png", 2)
    draw(folder / "large.bmp", 3, (900, 500))
    draw(folder / "too many pixels.bmp", 3, LARGE)
    draw(folder / "a name with ö.jpg", 4)
    sound = (folder / "sound.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(sound[: len(sound) // 2])
    (folder / "slide.svs").write_bytes(sound)
    (folder / "text.jpg").write_bytes(b"no image")
    (folder / "empty.jpg").touch()
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "fifo.jpg")
    (folder / "locked.jpg").write_bytes(sound)
    (folder / "locked.jpg").chmod(0)
    (folder / "endless.jpg").symlink_to("/dev/zero")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    names = [*sorted(os.listdir(folder)), "missing.jpg", os.fsdecode(b"caf\xe9.jpg"), f"{'x' * 300}.jpg"]
    return {name: Slide(str(folder), name) for name in names}


def described(item: Any) -> Any:
    """Everything that a decoder, or a row, learns of an item."""
    if isinstance(item, Encoded):
        return item.slide, item.slide.size_bytes, item.slide.modified_ns, bytes(item.data), item.header
    return item, item.slide.size_bytes, item.slide.modified_ns


@pytest.fixture(scope="module")
def readers() -> Iterator[SlideReaders]:
    with closing(open_readers()) as readers:
        yield readers


@pytest.fixture(scope="module")
def alone(slides: dict[str, Slide], readers: SlideReaders) -> dict[str, Any]:
    """What each slide is when it is read alone."""
    items: dict[str, Any] = {}
    complete = threading.Event()

    def done(item: Any) -> None:
        items[item.slide.path] = described(item)
        if len(items) == len(slides):
            complete.set()

    with closing(SingleReads(readers, OPTIONS, ReadBudget(OPTIONS.budget_bytes, lambda: None), done)) as single:
        for slide in slides.values():
            single.read(slide)
        assert complete.wait(PATIENCE_S)
    return items


def read_all(
    slides: Iterable[Slide], readers: SlideReaders, options: ReadOptions = OPTIONS, release_after: int = 1
) -> list[Any]:
    """Every item, released once so many are waiting, or nothing comes for a moment."""
    items, waiting = [], []
    with closing(ReadAhead(slides, readers, options)) as files:
        for item in files:
            if item is not None:
                items.append(described(item))
                waiting.append(item)
            if item is None or len(waiting) >= release_after:
                files.release(waiting)
                waiting = []
    return items


def test_each_kind_of_file_is_what_it_is_alone(
    slides: dict[str, Slide], alone: dict[str, Any], readers: SlideReaders
) -> None:
    kinds = {name: type(item[0]) for name, item in alone.items()}
    assert kinds["sound.jpg"] is Slide
    assert {alone[name][0].kind for name, kind in kinds.items() if kind is Failure} >= {
        "empty",
        "missing",
        "unreadable",
        "not an image",
        "unsupported",
        "too large",
    }

    items = read_all(slides.values(), readers)

    assert sorted(items, key=str) == sorted(alone.values(), key=str)


NAMES = st.lists(
    st.sampled_from([*["sound.jpg", "sound.png"] * 5, "cut.jpg", "fifo.jpg", "large.bmp", "missing.jpg"]), max_size=300
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=NAMES,
    budget_bytes=st.sampled_from([3 << 20, 8 << 20, 256 << 20]),
    files_ahead=st.sampled_from([1, 5, 256]),
    release_after=st.sampled_from([1, 64, 1000]),
)
def test_however_files_are_mixed_each_comes_once(
    names: list[str],
    budget_bytes: int,
    files_ahead: int,
    release_after: int,
    slides: dict[str, Slide],
    alone: dict[str, Any],
    readers: SlideReaders,
) -> None:
    options = ReadOptions(OPTIONS.max_pixels, OPTIONS.timeout_s, budget_bytes, files_ahead)

    items = read_all((slides[name] for name in names), readers, options, release_after)

    assert sorted(items, key=str) == sorted((alone[name] for name in names), key=str)


def test_a_size_that_no_record_holds_ends_no_reading(tmp_path: Path, readers: SlideReaders) -> None:
    draw(tmp_path / "sound.png")
    huge = (tmp_path / "sound.png").read_bytes()
    (tmp_path / "huge.png").write_bytes(huge[:16] + b"\x7f\xff\xff\xff" * 2 + huge[24:])
    slides = [Slide(str(tmp_path), name) for name in ("huge.png", "sound.png")]

    items = read_all(slides, readers, ReadOptions(max_pixels=10**25))

    assert sorted(item[0].path if isinstance(item[0], Slide) else item[0].slide.path for item in items) == [
        "huge.png",
        "sound.png",
    ]


def test_bytes_stay_until_they_are_released(slides: dict[str, Slide], readers: SlideReaders) -> None:
    sound, other = slides["sound.jpg"], slides["a name with ö.jpg"]
    held: list[Encoded] = []
    with closing(ReadAhead([sound] * 10 + [other] * 1000, readers, OPTIONS)) as files:
        for item in files:
            assert isinstance(item, Encoded | None)
            if item and item.slide == sound:
                held.append(item)
            elif item:
                files.release([item])
        contents = {bytes(item.data) for item in held}
    assert contents == {Path(sound.file).read_bytes()}
    assert len(held) == 10


def test_a_file_beyond_the_budget_is_postponed_and_one_within_it_is_not(
    slides: dict[str, Slide], readers: SlideReaders
) -> None:
    large, sound = slides["large.bmp"], slides["sound.jpg"]
    size = Path(large.file).stat().st_size
    for budget_bytes, kind in ((size - 1, Postponed), (size, Slide)):
        items = read_all(
            [sound] * 100 + [large] + [sound] * 100, readers, ReadOptions(10**6, budget_bytes=budget_bytes)
        )
        assert [type(item[0]) for item in items if (getattr(item[0], "slide", item[0])) == large] == [kind]
        assert len(items) == 201


def test_an_exception_of_the_list_is_raised_after_the_slides_before_it(
    slides: dict[str, Slide], readers: SlideReaders
) -> None:
    def listed() -> Iterator[Slide]:
        yield from [slides["sound.jpg"]] * 70
        raise DecoderError("the list has ended")

    items = []
    with closing(ReadAhead(listed(), readers, OPTIONS)) as files, pytest.raises(DecoderError, match="the list has"):
        items.extend(item for item in files if item is not None)
    assert len(items) == 70


def test_reading_ends_when_another_thread_closes_it(slides: dict[str, Slide], readers: SlideReaders) -> None:
    go_on = threading.Event()

    def listed() -> Iterator[Slide]:
        yield slides["sound.jpg"]
        go_on.wait(PATIENCE_S)

    files = ReadAhead(listed(), readers, OPTIONS)
    threading.Timer(0.5, files.close).start()
    assert len([item for item in files if item is not None]) <= 1
    go_on.set()
    files.close()


def test_reading_that_is_closed_before_it_begins_yields_nothing(
    slides: dict[str, Slide], readers: SlideReaders
) -> None:
    files = ReadAhead(slides.values(), readers, OPTIONS)
    files.close()
    assert list(files) == []


def test_a_reader_that_is_killed_ends_the_reading_with_advice(slides: dict[str, Slide]) -> None:
    code = f"""if True:
        import os, signal
        from contextlib import closing
        from batchcls.errors import DecoderError
        from batchcls.images.decoders.read_ahead import ReadAhead, ReadOptions
        from batchcls.images.sources import open_readers
        from batchcls.records import Slide

        slides = [Slide({slides["sound.jpg"].root!r}, "sound.jpg")] * 10_000
        with closing(open_readers()) as readers, closing(ReadAhead(slides, readers, ReadOptions(10**6))) as files:
            try:
                for number, item in enumerate(files):
                    if item is not None:
                        files.release([item])
                    if number == 1000:
                        child = open(f"/proc/self/task/{{os.getpid()}}/children").read()
                        os.kill(int(child), signal.SIGKILL)
            except DecoderError as error:
                print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert "the process that reads files has ended (-9); every finished part is kept: run the same" in done.stdout
