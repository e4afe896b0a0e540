"""The Python API: the command line's rows for every kind of input, in order, and nothing left behind."""

import gc
import io
import itertools
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batchcls import Engine, run
from batchcls.cli.run import run as run_command
from batchcls.errors import DecoderError, EngineError, MemoryShortageError, OutputError, SlidesError
from batchcls.inference.keywords import RunKeywords
from batchcls.inference.options import RunOptions
from batchcls.storage.memory import resident_bytes
from tests.commandline import PATIENCE_S, invoked
from tests.conftest import ROOT, draw
from tests.test_architecture import HEAVY

SIZES = ((64, 48), (32, 32), (31, 77), (200, 150))


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sound images of several sizes and formats, and three files that are none."""
    folder = tmp_path_factory.mktemp("slides")
    paths = [
        draw(folder / f"{number:02d}{ending}", number, SIZES[number % 4])
        for number, ending in enumerate([".jpg", ".png", ".bmp", ".tif", ".webp", ".jpg", ".png"])
    ]
    (folder / "90.jpg").write_bytes(b"")
    (folder / "91.jpg").write_bytes(b"no image")
    (folder / "92.jpg").write_bytes(paths[0].read_bytes()[:600])
    return [*paths, *(folder / f"{number}.jpg" for number in (90, 91, 92))]


@pytest.fixture(scope="module")
def engine(tiny_engine: Path) -> Iterator[Engine]:
    with Engine.load(tiny_engine, device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def parquet(slides: list[Path], tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """What the command line writes for the slides."""
    out = tmp_path_factory.mktemp("out") / "o.parquet"
    assert invoked(slides[0].parent, "--engine", tiny_engine, "--out", out).exit_code == 0
    return pq.read_table(out)


def read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


KINDS: dict[str, Callable[[list[Path]], Any]] = {
    "paths": list,
    "texts": lambda paths: list(map(str, paths)),
    "a generator": lambda paths: (path for path in paths),
    "an array of texts": lambda paths: np.array(list(map(str, paths))),
    "a column of pandas": lambda paths: pd.DataFrame({"path": list(map(str, paths))})["path"],
    "a column of Polars": lambda paths: pl.DataFrame({"path": list(map(str, paths))})["path"],
    "a column of Arrow": lambda paths: pa.chunked_array([list(map(str, paths))]),
    "bytes": lambda paths: [path.read_bytes() for path in paths],
    "a column of bytes": lambda paths: pa.array([path.read_bytes() for path in paths]),
    "images of PIL": lambda paths: [read(path) for path in paths],
    "arrays": lambda paths: [np.asarray(read(path).convert("RGB")) for path in paths],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_input_has_the_rows_of_the_command_line(
    kind: str, engine: Engine, slides: list[Path], parquet: pa.Table
) -> None:
    decoded = kind in ("images of PIL", "arrays")
    sound = slides[:-3] if decoded else slides
    expected = parquet.slice(0, len(sound))

    table = engine.predict(KINDS[kind](sound))

    same = ["label", "probability", "probabilities", "width", "height", "error"]
    assert table.schema.equals(parquet.schema.remove_metadata())
    assert table.select(same).to_pylist() == expected.select(same).to_pylist()
    if (isinstance(KINDS[kind](slides[:1]), list) and decoded) or "bytes" in kind:
        assert table["root"].null_count == table["path"].null_count == len(sound)
    else:
        assert table.equals(expected.replace_schema_metadata(table.schema.metadata))


def test_a_folder_has_the_table_of_the_command_line(engine: Engine, slides: list[Path], parquet: pa.Table) -> None:
    table = engine.predict(slides[0].parent)

    assert table.to_pylist() == parquet.to_pylist()
    assert engine.predict(str(slides[3]))["path"].to_pylist() == [slides[3].name]
    assert [row["path"] for rows in engine.stream(slides[0].parent) for row in rows.to_pylist()] == [
        path.name for path in slides
    ]


def test_a_table_that_is_written_is_a_predictions_file(engine: Engine, slides: list[Path], tmp_path: Path) -> None:
    pq.write_table(engine.predict(slides[0].parent), tmp_path / "mine.parquet")

    done = subprocess.run(
        [sys.executable, "-m", "batchcls", "report", tmp_path / "mine.parquet", "--out", tmp_path / "report.html"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").stat().st_size > 0


MAKERS: tuple[Callable[[Path], Any], ...] = (
    str,
    Path.read_bytes,
    read,
    lambda path: np.asarray(read(path).convert("RGB")),
    lambda path: None,
    lambda path: f"{path}.gone",
    lambda path: path.read_bytes()[:300],
)


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(range(len(MAKERS)))), max_size=40))
def test_there_is_one_row_for_each_input_in_order(
    engine: Engine, slides: list[Path], parquet: pa.Table, choices: list[tuple[int, int]]
) -> None:
    labels = parquet["label"].to_pylist()

    table = engine.predict([MAKERS[maker](slides[number]) for number, maker in choices])

    assert len(table) == len(choices)
    for row, (number, maker) in zip(table.to_pylist(), choices, strict=True):
        assert (row["error"] is None) == (maker < 4 or (maker == 6 and slides[number].stat().st_size <= 300))
        assert row["label"] == (labels[number] if row["error"] is None else None)


def test_what_is_wrong_with_an_input_stands_in_its_row(engine: Engine, tmp_path: Path) -> None:
    deep = Image.fromarray(np.zeros((8, 8), np.uint16))
    wrong = [None, float("nan"), "a\0b", "\ud800.jpg", str(tmp_path), "", b"", np.zeros((0, 5, 3), np.uint8), deep]

    errors = engine.predict(wrong)["error"].to_pylist()

    assert [error.partition(":")[0] for error in errors] == [
        *("missing", "missing", "missing", "missing", "unreadable", "unreadable", "empty", "empty", "unsupported")
    ]


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (3, "a int was given"),
        ([1.5], "image 0 is a float"),
        (np.zeros((2, 8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8), np.uint8), "PIL.Image.fromarray"),
        (pd.DataFrame({"path": ["a.jpg"]}), "give one of them"),
        ({"path": ["a.jpg"]}, "give one of them"),
        (pl.LazyFrame({"path": ["a.jpg"]}), "give one of them"),
        (io.BytesIO(b"\xff\xd8\n\n"), "its bytes"),
        (np.array("a.jpg"), "image 0 is"),
        ("nowhere/", "does not exist"),
        ("x" * 300, "does not exist"),
    ],
)
def test_what_can_be_no_image_is_refused(images: Any, reason: str, engine: Engine) -> None:
    with pytest.raises(SlidesError, match=reason):
        engine.predict(images)


def test_relative_paths_are_those_of_the_moment(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8))
    for name in ("a", "b"):
        draw(tmp_path / name / f"{name}.png")
        noise.save(tmp_path / name / "large.png")  # read alone, not with a group
        monkeypatch.chdir(tmp_path / name)

        table = engine.predict([f"{name}.png", "large.png", Path(f"{name}.png")])

        assert table["error"].to_pylist() == [None] * 3
        assert table["root"].to_pylist() == ["."] * 3
        assert engine.predict(".")["error"].to_pylist() == [None] * 2


def test_an_image_larger_than_the_limits_has_a_row(tiny_engine: Path, tmp_path: Path) -> None:
    path = draw(tmp_path / "0.png", size=(90, 90))
    with Engine.load(tiny_engine, device="cpu", max_pixels=8000) as engine:
        errors = engine.predict([path, path.read_bytes(), read(path), np.asarray(read(path))])["error"].to_pylist()

    assert [error.partition(" (")[0] for error in errors] == [
        "too large: 90x90 is 8,100 pixels; the limit is 8,000"
    ] * 4


def test_a_stream_takes_no_more_than_it_needs_and_ends_with_its_consumer(engine: Engine, slides: list[Path]) -> None:
    taken = itertools.count()
    before = set(threading.enumerate())

    for rows in engine.stream(str(slides[next(taken) % 7]) for _ in itertools.count()):
        assert len(rows) > 0
        break
    del rows
    gc.collect()

    assert next(taken) < 20_000
    until = time.monotonic() + PATIENCE_S
    kept = ("decode", "openvino")  # the engine's own threads, one a core, of which each begins when it is needed
    while names := {it.name for it in set(threading.enumerate()) - before if not it.name.startswith(kept)}:
        assert time.monotonic() < until, names
        time.sleep(0.01)


def test_streams_and_predictions_of_several_threads_do_not_mix(
    engine: Engine, slides: list[Path], parquet: pa.Table
) -> None:
    expected = parquet["probabilities"].to_pylist()
    orders = [np.random.default_rng(seed).permutation(len(slides)).tolist() * 9 for seed in range(4)]

    def classify(order: list[int]) -> list[Any]:
        return [row for rows in engine.stream([slides[number] for number in order]) for row in rows.to_pylist()]

    with ThreadPoolExecutor(4) as pool:
        for order, rows in zip(orders, pool.map(classify, orders), strict=True):
            assert [row["probabilities"] for row in rows] == [expected[number] for number in order]


def test_a_prediction_within_a_stream_does_not_wait_for_it(engine: Engine, slides: list[Path]) -> None:
    for rows in engine.stream(slides * 3):
        assert (
            engine.predict(slides[0])["label"].to_pylist()
            == engine.predict(slides[0].read_bytes())["label"].to_pylist()
        )
        assert len(rows) > 0


def test_many_threads_predict_at_one_time(engine: Engine, slides: list[Path]) -> None:
    data = slides[0].read_bytes()
    started = threading.Barrier(24)

    def classify(number: int) -> str:
        started.wait(PATIENCE_S)
        with closing(engine.stream([data, slides[1], data])) as stream:
            started.wait(PATIENCE_S)  # all streams are open together
            return str(next(stream)["label"][0].as_py())

    with ThreadPoolExecutor(24) as pool:
        assert set(pool.map(classify, range(24))) == {engine.predict(data)["label"][0].as_py()}


def test_arrays_larger_than_a_batch_may_hold_are_classified(engine: Engine) -> None:
    images = (np.full((1500, 1500, 3), number, np.uint8) for number in range(80))  # 6.75 MB each, in batches of 64

    assert engine.predict(images)["error"].null_count == 80


def test_an_open_stream_makes_no_image_too_large(tiny_engine: Path, slides: list[Path], tmp_path: Path) -> None:
    Image.new("RGB", (3700, 3700)).save(tmp_path / "40MB.bmp")  # more than a further stream may read ahead
    files = [slides[0], tmp_path / "40MB.bmp", slides[1]]
    memory = resident_bytes() + (2 << 30)
    with Engine.load(tiny_engine, device="cpu", memory=memory) as engine, closing(engine.stream(slides * 50)) as rows:
        next(rows)

        errors = engine.predict([*files, *map(Path.read_bytes, files)])["error"]

    assert errors.null_count == 6, errors


def test_an_image_for_which_there_is_too_little_memory_says_how_much_the_engine_needs(
    engine: Engine, tiny_engine: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (3700, 3700)).save(tmp_path / "40MB.bmp")
    engine.predict(tmp_path / "40MB.bmp")  # loads every library, whose memory is not to be counted below
    gc.collect()  # what other tests have left is not given back below, and the memory is less than it was

    def error(memory: int) -> str | None:
        with Engine.load(tiny_engine, device="cpu", memory=memory) as engine:
            return str(engine.predict(tmp_path / "40MB.bmp")["error"][0].as_py() or "")

    short = error(resident_bytes() + (140 << 20))

    assert (found := re.search(r"too large: decoding needs 157M of memory; .* memory=(\d+),", short)), short
    assert not error(int(found[1]))


def test_an_engine_with_less_memory_than_the_program_holds_says_how_much_it_needs(
    engine: Engine, tiny_engine: Path, slides: list[Path]
) -> None:
    engine.predict(slides[0])  # loads every library
    gc.collect()

    with (
        Engine.load(tiny_engine, device="cpu", memory=1 << 20) as short,
        pytest.raises(MemoryShortageError, match="0M of memory are left for a stream of images; open the") as told,
    ):
        short.predict(slides[0])

    (memory,) = re.findall(r"memory=(\d+),", str(told.value))
    with Engine.load(tiny_engine, device="cpu", memory=int(memory)) as enough:
        assert enough.predict(slides[0])["error"].null_count == 1


def test_missing_images_have_rows_among_files_and_in_a_row(engine: Engine, slides: list[Path]) -> None:
    images = [slides[0], None, slides[1], *[None] * 5000, slides[2], *[None] * 3]

    missing = [error is not None for error in engine.predict(images)["error"].to_pylist()]

    assert missing == [image is None for image in images]


@pytest.mark.parametrize("kind", range(3))
def test_close_does_not_wait_for_the_caller_s_generator(kind: int, tiny_engine: Path, slides: list[Path]) -> None:
    blocked, released = threading.Event(), threading.Event()

    def images() -> Iterator[Any]:
        yield MAKERS[(0, 1, 3)[kind]](slides[0])
        blocked.set()
        released.wait(PATIENCE_S)

    with ThreadPoolExecutor(1) as pool:
        engine = Engine.load(tiny_engine, device="cpu")
        rows = engine.stream(images())
        consumer = pool.submit(list, rows)
        assert blocked.wait(PATIENCE_S)

        engine.close()

        with pytest.raises(EngineError, match="closed"):
            consumer.result(PATIENCE_S)
        assert not released.is_set()
        released.set()


def test_a_stream_gives_rows_while_its_generator_waits(engine: Engine, slides: list[Path]) -> None:
    seen = threading.Event()

    def images() -> Iterator[Any]:
        yield from (np.asarray(read(slides[1]).convert("RGB")), None)
        assert seen.wait(PATIENCE_S)

    count = 0
    for rows in engine.stream(images()):
        count += len(rows)
        seen.set()

    assert count == 2


def test_a_generator_cannot_close_what_waits_for_it(tiny_engine: Path, slides: list[Path]) -> None:
    with Engine.load(tiny_engine, device="cpu") as engine:

        def images() -> Iterator[Path]:
            yield slides[0]
            engine.close()

        with pytest.raises(EngineError, match="clos"):
            engine.predict(images())


def test_the_interpreter_ends_although_a_stream_is_open(tiny_engine: Path, slides: list[Path]) -> None:
    program = (
        "import sys; from batchcls import Engine\n"
        "engine = Engine.load(sys.argv[1], device='cpu')\n"
        "paths = sys.argv[2:] * 1000\n"
        "streams = [engine.stream(paths), engine.stream(open(path, 'rb').read() for path in paths)]\n"
        "print(*(len(next(stream)) > 0 for stream in streams))\n"
        "raise SystemError"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, tiny_engine, *slides[:7]],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "True True\n")
    assert done.stderr.splitlines()[-1] == "SystemError"
    assert done.stderr.count("Traceback") == 1


def children() -> set[str]:
    pids: set[str] = set()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # the thread has just ended
            pids.update((thread / "children").read_text().split())
    return pids


def test_close_leaves_no_thread_and_no_process(tiny_engine: Path, slides: list[Path]) -> None:
    threads, processes = set(threading.enumerate()), children()
    engine = Engine.load(tiny_engine, device="cpu")
    half_read = engine.stream(slides * 200)
    next(half_read)

    engine.close()
    engine.close()

    until = time.monotonic() + PATIENCE_S
    while (set(threading.enumerate()) - threads) or (children() - processes):
        assert time.monotonic() < until, threading.enumerate()
        time.sleep(0.01)
    with pytest.raises(EngineError, match="closed"):
        list(half_read)
    with pytest.raises(EngineError, match="closed"):
        engine.predict(slides)


def test_a_reading_process_that_was_killed_is_replaced(tiny_engine: Path, slides: list[Path]) -> None:
    before = children()
    with Engine.load(tiny_engine, device="cpu") as engine:
        engine.predict(slides)
        for pid in children() - before:
            os.kill(int(pid), signal.SIGKILL)

        with pytest.raises(DecoderError):
            engine.predict(slides)
        assert len(engine.predict(slides)) == len(slides)


@pytest.mark.parametrize(
    "option", [option for option in run_command.params if option.name in RunKeywords.__annotations__]
)
def test_an_option_has_the_limits_of_the_command_line(option: click.Option, tiny_engine: Path) -> None:
    name = str(option.name)
    wrong: list[Any] = ["", "foo", -1, object()]
    right: list[Any] = []
    if isinstance(option.type, click.IntRange | click.FloatRange):
        least, most = option.type.min, option.type.max
        assert least is not None
        assert most is not None
        wrong, right = ["1", 0, -1, most + 1, float("nan"), float("inf")], [least, most]
    elif isinstance(option.type, click.Choice):
        right = [*option.type.choices, None]
    elif option.is_flag:
        for value in ("", "no", 1, None):  # of which "no" would count as true
            with pytest.raises(EngineError, match=f"^{name} is .*; use True or False"):
                RunOptions(**{name: value})
        wrong, right = [], [True, False]

    for value in wrong:
        with pytest.raises(EngineError, match=f"^{name} is .*; (use|it must be) "):
            Engine.load(tiny_engine, **{name: value})
    needed: dict[str, Any] = {"update": True} if name == "prune" else {}
    for value in right:
        assert getattr(RunOptions(**{**needed, name: value}), name) == value


def test_the_numbers_of_numpy_are_taken_as_those_of_python() -> None:
    options = RunOptions(top=np.int64(2), novel_above=np.float32(0.5), batch_size=np.int16(8), coverage=np.float64(0.9))
    assert [options.top, options.novel_above, options.batch_size, options.coverage] == [2, 0.5, 8, 0.9]
    assert {type(options.top), type(options.batch_size)} == {int}
    assert {type(options.novel_above), type(options.coverage)} == {float}


@pytest.mark.parametrize("shard", [(0.0, 2), (True, 2), ("0", "2"), (0,), "0/2"])
def test_a_shard_of_other_things_than_two_numbers_is_refused(
    shard: Any, slides: list[Path], tiny_engine: Path, tmp_path: Path
) -> None:
    with pytest.raises(SlidesError, match="use two whole numbers"):
        run(slides, engine=tiny_engine, out=tmp_path / "preds", backend="null", shard=shard)
    with pytest.raises(SlidesError, match="no folder and no file was given"):
        run("", engine=tiny_engine, out=tmp_path / "o.parquet", backend="null")
    assert list(tmp_path.iterdir()) == []


def test_a_batch_of_columns_is_answered_with_arrays(engine: Engine, slides: list[Path], parquet: pa.Table) -> None:
    paths = [str(path) for path in slides]
    columns = {"path": paths, "patient": list(range(len(paths)))}
    batches = [
        {name: np.array(values) for name, values in columns.items()},
        pa.table(columns),
        pd.DataFrame(columns),
        pl.DataFrame(columns),
    ]
    for batch in batches:
        answer = engine(batch)

        assert answer.keys() == {"patient", "label", "probability", "probabilities", "error"}
        assert answer["patient"].tolist() == columns["patient"]
        assert answer["label"].tolist() == parquet["label"].to_pylist()
        assert answer["probabilities"].shape == (len(paths), 3)
        assert np.isnan(answer["probabilities"]).all(axis=1).tolist() == [
            error is not None for error in answer["error"]
        ]
    assert engine({"x": np.array(paths)}, column="x")["error"].tolist() == answer["error"].tolist()
    assert engine({"image": np.zeros((2, 40, 40, 3), np.uint8)})["label"].shape == (2,)
    for wrong, reason in (
        ({"x": np.array(paths)}, "column='NAME'"),
        ({"path": paths, "label": paths}, "rename"),
        ({"path": paths[0]}, "one str"),
        (paths, "by name"),
    ):
        with pytest.raises(SlidesError, match=reason):
            engine(wrong)


def test_another_process_opens_the_engine_again(engine: Engine, slides: list[Path]) -> None:
    with pickle.loads(pickle.dumps(engine)) as copy:  # noqa: S301  # our own bytes
        assert copy.predict(slides).equals(engine.predict(slides), check_metadata=False)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forks of a process that has threads
def test_a_forked_process_is_told_to_open_the_engine_again(engine: Engine, slides: list[Path]) -> None:
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            engine.predict(slides)
        except EngineError as error:
            engine.close()
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)

    with os.fdopen(reader) as answer:
        assert "forked" in answer.read()
    os.waitpid(child, 0)
    assert len(engine.predict(slides)) == len(slides)


def test_a_run_of_a_program_is_that_of_the_command_line(
    tiny_engine: Path, slides: list[Path], parquet: pa.Table, tmp_path: Path
) -> None:
    arguments: Any = {"engine": tiny_engine, "out": tmp_path / "o.parquet", "device": "cpu"}
    with ThreadPoolExecutor(1) as pool:  # no main thread, which alone may handle signals
        stats = pool.submit(run, slides[0].parent, **arguments).result()

    assert (stats.rows, stats.unreadable, stats.resumed_rows) == (10, 3, 0)
    assert pq.read_table(tmp_path / "o.parquet").equals(parquet)
    assert run([str(slides[0].parent)], **arguments).resumed_rows == 10
    with pytest.raises(SlidesError, match="does not exist"):
        run(tmp_path / "nowhere", **arguments)
    with pytest.raises(SlidesError, match="was given"):
        run([], **arguments)
    with pytest.raises(OutputError, match="name a file"):
        run(slides[0].parent, **arguments | {"out": ""})


def test_the_import_loads_nothing_heavy() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys; from batchcls import Engine, run; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert "batchcls.api" in loaded
    assert {name.partition(".")[0] for name in loaded} & {*HEAVY, "rich"} == set()


def test_documented_examples_have_the_types_that_they_say(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "guides" / "python.md").read_text(encoding="utf-8")
    typed_in = "\n".join(line[4:] for line in page.splitlines() if line.startswith((">>> ", "... ")))
    scripts = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for number, text in enumerate([typed_in, *scripts]):
        (tmp_path / f"example_{number}.py").write_text(text)

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--follow-imports=silent", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    of_missing = ("import-not-found", "import-untyped", "untyped-decorator")  # Ray and Daft need not be here
    missing = [line for line in done.stdout.splitlines() if any(code in line for code in of_missing)]
    errors = [line for line in done.stdout.splitlines() if ": error: " in line and line not in missing]
    assert len(scripts) >= 1
    assert errors == [], done.stdout
