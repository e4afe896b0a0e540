"""A run that writes to an object store ends in the file that a run on a disk writes, whatever happens to it."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from batchcls.cli import main
from tests.azurite import object_server
from tests.commandline import PATIENCE_S, after_loading, finished, invoked, stopping_command, wait_until_stopped
from tests.conftest import ALL4, ROOT, draw
from tests.object_servers import BUSY, DENIED, FaultProxy, free_port, s3_environment, seeded_faults

pytest.importorskip("obstore", reason="obstore, of the extra cloud, is not installed")
pytest.importorskip("moto", reason="moto is not installed")

from batchcls.storage.object_url import ObjectUrl  # after the check that obstore is there

QUICK = ("--backend", "null", "--decoder", "pillow")
OF_THE_RUN = ("started", "ended", "throughput", "arguments")
"""What a record tells of one run only."""


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with object_server("moto", tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for seed in range(6):
        draw(folder / f"{seed}.png", seed, (64, 48) if seed % 2 else (16, 12))
    (folder / "empty.jpg").touch()
    return folder


def content(url: str) -> bytes:
    return ObjectUrl.of(url).read(1 << 30)


def names(url: str) -> list[str]:
    return ObjectUrl.of(url).names()


def record_of(file: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(pq.read_schema(file).metadata[b"batchcls"])
    return {key: value for key, value in record.items() if key not in OF_THE_RUN}


def test_the_file_is_that_of_a_run_on_a_disk(bucket: str, slides: Path, tiny_engine: Path, tmp_path: Path) -> None:
    out, local = f"{bucket}/same/o.parquet", tmp_path / "o.parquet"
    finished(slides, "--out", local, "--engine", tiny_engine, *QUICK)

    done = finished(slides, "--out", out, "--engine", tiny_engine, *QUICK)
    again = finished(slides, "--out", out, "--engine", tiny_engine, *QUICK)

    assert (done.returncode, again.returncode) == (0, 0), done.stderr
    assert f"7 rows, 1 unreadable -> {out}" in done.stdout
    assert "every row is done" in again.stderr
    assert pq.read_table(io.BytesIO(content(out))).equals(pq.read_table(local))
    assert record_of(io.BytesIO(content(out))) == record_of(local)
    assert names(f"{bucket}/same") == ["o.parquet"]


def test_csv_has_its_record_beside_it(bucket: str, slides: Path, tiny_engine: Path, tmp_path: Path) -> None:
    out, local = f"{bucket}/csv/o.csv", tmp_path / "o.csv"
    finished(slides, "--out", local, "--engine", tiny_engine, *QUICK)

    done = finished(slides, "--out", out, "--engine", tiny_engine, *QUICK)
    again = finished(slides, "--out", out, "--engine", tiny_engine, *QUICK)
    other = finished(slides, "--out", out, "--engine", tiny_engine)

    assert (done.returncode, again.returncode, other.returncode) == (0, 0, 1)
    assert content(out) == local.read_bytes()
    beside, local_beside = json.loads(content(f"{out}.json")), json.loads((tmp_path / "o.csv.json").read_text())
    assert beside["csv"] == local_beside["csv"]
    assert "every row is done" in again.stderr
    assert "backend 'null'" in other.stderr
    assert "--overwrite" in other.stderr
    assert names(f"{bucket}/csv") == ["o.csv", "o.csv.json"]


def test_an_object_of_someone_else_is_not_replaced_unasked(bucket: str, slides: Path, tiny_engine: Path) -> None:
    out = f"{bucket}/theirs/o.parquet"
    ObjectUrl.of(out).write(b"not ours")

    refused = finished(slides, "--out", out, "--engine", tiny_engine, *QUICK)
    kept = content(out)
    done = finished(slides, "--out", out, "--engine", tiny_engine, *QUICK, "--overwrite")

    assert (refused.returncode, done.returncode) == (1, 0)
    assert "exists; choose another --out, or replace it with --overwrite" in refused.stderr
    assert kept == b"not ours"
    assert len(pq.read_table(io.BytesIO(content(out)))) == 7


def test_a_run_is_updated_and_limits_change_as_on_a_disk(bucket: str, tiny_engine: Path, tmp_path: Path) -> None:
    out = f"{bucket}/update/o.parquet"
    for seed in range(4):
        draw(tmp_path / "slides" / f"{seed}.png", seed, (64, 48) if seed % 2 else (16, 12))
    small = finished(tmp_path / "slides", "--out", out, "--engine", tiny_engine, *QUICK, "--max-pixels", "1000")
    large = finished(tmp_path / "slides", "--out", out, "--engine", tiny_engine, *QUICK)
    draw(tmp_path / "slides" / "new.png", 9)

    updated = finished(tmp_path / "slides", "--out", out, "--engine", tiny_engine, *QUICK, "--update")

    assert [run.returncode for run in (small, large, updated)] == [0, 0, 0], updated.stderr
    assert "too large 2" in small.stdout
    rows = pq.read_table(io.BytesIO(content(out)))
    assert rows["path"].to_pylist() == ["0.png", "1.png", "2.png", "3.png", "new.png"]
    assert rows["error"].null_count == 5
    assert names(f"{bucket}/update") == ["o.parquet"]


def started(slides: Path, out: str, engine: Path, **options: Any) -> "subprocess.Popen[str]":
    """A run that stands still once it has begun its output."""
    arguments = stopping_command(slides, "--out", out, "--engine", engine, *QUICK)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    wait_until_stopped(process)
    assert any(name.startswith("run-") for name in names(f"{out}.partial"))
    return process


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many files that a run is not done before it is stopped."""
    folder = tmp_path_factory.mktemp("many")
    first = draw(folder / "0.bmp", 0, (16, 12))
    for number in range(1, 3000):
        os.link(first, folder / f"{number}.bmp")
    return folder


def test_a_second_run_is_refused_and_the_first_goes_on(bucket: str, many: Path, tiny_engine: Path) -> None:
    out = f"{bucket}/two/o.parquet"
    first = started(many, out, tiny_engine)
    try:
        second = finished(many, "--out", out, "--engine", tiny_engine, *QUICK)
        first.send_signal(signal.SIGCONT)
        said = first.communicate(timeout=PATIENCE_S)[1]
    finally:
        first.kill()

    assert second.returncode == 1
    line = after_loading(second.stderr).strip()
    assert re.fullmatch(rf"batchcls: another run is writing '{out}': process {first.pid} on .*, since .*", line)
    assert first.returncode == 0, said
    assert names(f"{bucket}/two") == ["o.parquet"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_after_a_signal_the_next_run_goes_on_at_once(
    bucket: str, many: Path, tiny_engine: Path, number: signal.Signals
) -> None:
    out = f"{bucket}/{number.name}/o.parquet"
    first = started(many, out, tiny_engine)
    first.send_signal(number)
    first.send_signal(signal.SIGCONT)
    said = first.communicate(timeout=PATIENCE_S)[1]

    last = finished(many, "--out", out, "--engine", tiny_engine, *QUICK)

    if number == signal.SIGINT:
        assert first.returncode == 130
        # A store so busy that half a minute is too short for the last part ends the run without the number of rows.
        assert re.search(r"stopped by SIGINT; ([\d,]+ rows are in .*o.parquet.partial; to go on, )?run the same", said)
    assert last.returncode == 0, last.stderr
    assert len(pq.read_table(io.BytesIO(content(out)))) == 3000
    assert names(f"{bucket}/{number.name}") == ["o.parquet"]


def test_a_run_that_lost_its_lock_publishes_nothing(bucket: str, many: Path, tiny_engine: Path) -> None:
    out = f"{bucket}/lost/o.parquet"
    first = started(many, out, tiny_engine)
    ObjectUrl.of(f"{out}.partial").named("lock").write(b'{"token": "another", "held": true, "host": "elsewhere"}')
    first.send_signal(signal.SIGCONT)
    said = first.communicate(timeout=PATIENCE_S)[1]

    assert first.returncode == 1
    assert f"batchcls: another run has taken over '{out}'" in after_loading(said)
    assert "Traceback" not in said
    assert "o.parquet" not in names(f"{bucket}/lost")


def test_a_store_that_fails_now_and_then_gets_the_same_file(
    bucket: str, slides: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    local = tmp_path / "o.parquet"
    finished(slides, "--out", local, "--engine", tiny_engine, *QUICK)
    faults = seeded_faults(0.25, seed=1, faults=(BUSY, "reset", "lost"))
    with FaultProxy(os.environ["AWS_ENDPOINT_URL"], faults) as proxy:
        environment = {**os.environ, **s3_environment(proxy.url)}
        done = finished(slides, "--out", f"{bucket}/faulty/o.parquet", "--engine", tiny_engine, *QUICK, env=environment)
        occurred = set(proxy.faults)

    assert occurred == {BUSY, "reset", "lost"}
    assert done.returncode == 0, done.stderr
    assert pq.read_table(io.BytesIO(content(f"{bucket}/faulty/o.parquet"))).equals(pq.read_table(local))
    assert names(f"{bucket}/faulty") == ["o.parquet"]


def test_a_store_that_is_gone_ends_the_run_in_one_line(bucket: str, many: Path, tiny_engine: Path) -> None:
    out = f"{bucket}/gone/o.parquet"
    with FaultProxy(os.environ["AWS_ENDPOINT_URL"], lambda method, path, number: None) as proxy:
        first = started(many, out, tiny_engine, env={**os.environ, **s3_environment(proxy.url)})
        proxy.choose = lambda method, path, number: DENIED
        first.send_signal(signal.SIGCONT)
        said = first.communicate(timeout=PATIENCE_S)[1]
    last = finished(many, "--out", out, "--engine", tiny_engine, *QUICK)

    assert first.returncode == 1
    (line,) = after_loading(said).splitlines()
    assert re.match(rf"batchcls: cannot write '{out}(\.partial)?': .*refused: 403", line)
    begun = "every finished part is kept there: mend that, then run the same command again"
    opening = "export AWS_SKIP_SIGNATURE=true"  # the end of the advice on credentials, until the run knows its parts
    assert line.endswith((begun, opening))
    assert last.returncode == 0, last.stderr
    assert names(f"{bucket}/gone") == ["o.parquet"]


def test_wrong_keys_no_bucket_and_no_server_are_one_line_each(
    bucket: str, slides: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    with_engine = (slides, "--engine", tiny_engine, *QUICK, "--out")
    no_bucket = finished(*with_engine, "s3://no-such-bucket/o.parquet")
    nowhere = {**os.environ, **s3_environment(f"http://127.0.0.1:{free_port()}")}
    no_server = finished(*with_engine, f"{bucket}/o.parquet", env=nowhere)
    no_keys = {name: value for name, value in os.environ.items() if "ACCESS_KEY" not in name}
    unsigned = finished(*with_engine, f"{bucket}/o.parquet", env={**no_keys, "HOME": str(tmp_path)})
    secret = finished(*with_engine, "s3://user:secret@slides/o.parquet")
    web = finished(*with_engine, "https://example.org/o.parquet")

    for run, words in (
        (no_bucket, "there is no bucket of 's3://no-such-bucket'"),
        (no_server, "its server refuses connections"),
        (unsigned, "no credentials were found"),
        (secret, "holds a user name"),
        (web, "is on a web server, which takes no files"),
    ):
        assert run.returncode == 1
        assert words in run.stderr
        assert run.stderr.splitlines()[-1].startswith("batchcls: ")
        assert "Traceback" not in run.stderr
        assert "secret" not in run.stderr
        assert "testing" not in run.stderr


def test_other_commands_refuse_a_url_as_their_output(tmp_path: Path) -> None:
    arguments = ["report", __file__, "--out", "s3://slides/o.html"]
    refused = subprocess.run(
        [sys.executable, "-m", "batchcls", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert refused.returncode == 2
    assert "'s3://slides/o.html' is a URL; name a place on a disk" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, slides: Path) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)

    refused = invoked(slides, "--out", "s3://slides/o.parquet", "--engine", ALL4)

    assert refused.exit_code == 1
    (line,) = refused.stderr.splitlines()
    assert line.endswith("needs obstore, which is not installed; run: pip install 'batchcls[cloud]'")


def test_shards_stand_below_a_url(bucket: str, slides: Path, tiny_engine: Path) -> None:
    shards = [
        finished(slides, "--out", f"{bucket}/shards/", "--engine", tiny_engine, *QUICK, "--shard", f"{index}/2")
        for index in range(2)
    ]
    other = finished(slides, "--out", f"{bucket}/shards", "--engine", tiny_engine, *QUICK, "--shard", "0/3")

    assert [run.returncode for run in (*shards, other)] == [0, 0, 1]
    files = [f"shard-{index:05d}-of-00002.parquet" for index in range(2)]
    assert names(f"{bucket}/shards") == files
    assert sum(len(pq.read_table(io.BytesIO(content(f"{bucket}/shards/{file}")))) for file in files) == 7
    assert f"holds '{files[0]}', one of 2" in other.stderr


@pytest.mark.parametrize("name", ["o.parquet", "o.csv"])
def test_reports_and_evaluations_read_the_object(bucket: str, tiny_engine: Path, tmp_path: Path, name: str) -> None:
    out = f"{bucket}/read/{name}"
    for seed in range(6):
        draw(tmp_path / "slides" / "ab"[seed % 2] / f"{seed}.png", seed, (16, 12))
    finished(tmp_path / "slides", "--out", out, "--engine", tiny_engine, *QUICK)

    reported = CliRunner().invoke(main, ["report", out, "--out", str(tmp_path / "page.html")])
    truth = ["--truth", str(tmp_path / "slides"), "--out", str(tmp_path / "evaluation")]
    evaluated = CliRunner().invoke(main, ["evaluate", out, *truth])
    missing = CliRunner().invoke(main, ["report", f"{bucket}/read/none.csv", "--out", str(tmp_path / "none.html")])

    assert (reported.exit_code, evaluated.exit_code) == (0, 0), reported.output + evaluated.output
    assert reported.stdout.startswith("6 rows, 0 unreadable")
    assert f"Predictions of {name}" in (tmp_path / "page.html").read_text()
    assert json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["predictions"]["path"] == out
    assert missing.exit_code == 1
    assert f"'{bucket}/read/none.csv' does not exist" in missing.stderr


KILLED_AT_EACH_REQUEST = """
import os, signal, sys
from contextlib import closing

from batchcls.storage import object_store
from tests.predictions.test_writer import opened, slides, write

left = 0

def killing(call):
    def counted(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = call(*arguments, **options)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer
    return counted

obstore = object_store.obstore
obstore.put, obstore.delete = killing(obstore.put), killing(obstore.delete)

def attempt(out, step):
    global left
    child = os.fork()  # before the first request of this process, for the runtime of obstore survives no fork
    if not child:
        left = step
        try:
            with closing(opened(out)) as output:
                done = {slide.path for slide in slides(16)} - {slide.path for slide in output.missing(slides(16))}
                for start in (0, 8):
                    write(output, [slide for slide in slides(16)[start : start + 8] if slide.path not in done])
                    output.flush()
                output.finish({"counts": {"rows": 16, "labels": {}, "errors": {}, "skipped": {}}})
        except AssertionError:  # opened() found a whole file
            os._exit(78)
        os._exit(77)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

step, code, wrong = 0, -signal.SIGKILL, []
while code == -signal.SIGKILL:
    step += 3
    out = f"{sys.argv[1]}/{step}/{sys.argv[2]}"
    code = attempt(out, step)
    again = attempt(out, 0) if code == -signal.SIGKILL else code
    if again not in (77, 78):
        wrong.append((step, again))
print(step)
sys.exit(str(wrong) if wrong or step < 20 else 0)
"""


@pytest.mark.parametrize("name", ["o.parquet", "o.csv"])
def test_wherever_a_run_is_killed_the_next_one_ends_in_the_same_file(bucket: str, name: str) -> None:
    place = f"{bucket}/killed-{name}"
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_EACH_REQUEST, place, name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )

    assert done.returncode == 0, done.stderr
    steps = int(done.stdout)
    expected = content(f"{place}/{steps}/{name}")
    beside = [f"{name}.json"] if name.endswith(".csv") else []
    for step in range(3, steps + 1, 3):
        assert names(f"{place}/{step}") == [name, *beside]
        assert content(f"{place}/{step}/{name}") == expected
        if beside:
            record = json.loads(content(f"{place}/{step}/{name}.json"))
            assert record["csv"]["bytes"] == len(expected)
