"""Tomorrow's images: a whole file is brought up to date, and says what an undisturbed run over the same files says."""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import batchcls
from batchcls.cli import main
from batchcls.engine.postprocess import to_predictions
from batchcls.errors import EngineError
from batchcls.images.decoders.digests import SlideDigests
from batchcls.images.sources import open_source
from batchcls.images.sources.states import SlideStates
from batchcls.predictions.comparison import UpdateCounts, UpdateOptions
from batchcls.predictions.formats import format_to_read
from batchcls.predictions.open_update import open_update
from batchcls.records import METADATA_KEY, BatchResult, Failure, Slide
from batchcls.storage.regular_file import open_regular
from tests.commandline import finished, invoked, partial, stopping_command, wait_until_stopped
from tests.conftest import ALL4, draw
from tests.inference.test_run import drop_privileges
from tests.object_servers import moto_server, s3_environment

NULL = ("--engine", ALL4, "--backend", "null", "--decoder", "pillow")


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Five images and an empty file."""
    for seed in range(5):
        draw(tmp_path / "slides" / f"{seed}.png", seed, (16, 12))
    (tmp_path / "slides" / "empty.jpg").touch()
    return tmp_path / "slides"


def run(slides: str | Path, out: str | Path, *options: str | Path) -> str:
    """What a run in this process printed."""
    result = invoked(slides, "--out", out, *NULL, *options)
    assert result.exit_code == 0, result.output
    return result.output


def update(slides: str | Path, out: str | Path, *options: str | Path) -> str:
    """What an update in this process has done, in its own words."""
    lines = [line for line in run(slides, out, "--update", *options).splitlines() if line.startswith("updated")]
    assert len(lines) == 1
    return lines[0].removeprefix("updated").strip()


def fresh(slides: Path, out: Path, *options: str | Path) -> pa.Table:
    """The table of an undisturbed run."""
    whole = out.with_name(f"fresh-{out.name}")
    run(slides, whole, "--overwrite", *options)
    return table(whole)


def table(out: Path) -> pa.Table:
    with format_to_read(out).opened(out) as file:
        return file.table(file.schema.names)


def record(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(pq.read_schema(out).metadata[METADATA_KEY])
    return loaded


def older(path: Path, seconds: float) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - int(seconds * 1e9)))


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_new_and_changed_files_are_classified_and_all_other_rows_are_kept(
    slides: Path, tmp_path: Path, ending: str
) -> None:
    out = tmp_path / f"o.{ending}"
    run(slides, out)
    draw(slides / "new.png", 9, (16, 12))
    draw(slides / "0.png", 7, (64, 48))  # of another size
    older(slides / "1.png", 1e-6)

    said = update(slides, out)

    assert said == "1 new, 2 changed, 4 unchanged, 0 gone"
    assert table(out).equals(fresh(slides, out))
    assert not partial(out).exists()


def test_without_a_file_an_update_is_a_run(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"

    said = run(slides, out, "--update")

    assert "updated" not in said
    assert table(out).equals(fresh(slides, out))


def test_an_update_with_nothing_to_do_leaves_the_file_as_it_is(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    run(slides, out)
    (slides / "0.png").unlink()
    before, written = out.read_bytes(), out.stat()

    said = update(slides, out)

    assert said == "0 new, 0 changed, 5 unchanged, 1 gone (--prune drops their rows)"
    assert out.read_bytes() == before
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert not partial(out).exists()


def test_rows_of_files_that_are_gone_are_dropped_only_when_asked(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    run(slides, out)
    (slides / "0.png").unlink()
    draw(slides / "new.png", 9, (16, 12))
    update(slides, out)
    kept = table(out)["path"].to_pylist()

    said = update(slides, out, "--prune")

    assert "0.png" in kept
    assert said == "0 new, 0 changed, 6 unchanged, 1 gone (their rows are dropped)"
    assert table(out).equals(fresh(slides, out))


def test_no_row_is_dropped_if_a_folder_could_not_be_listed(slides: Path, tmp_path: Path) -> None:
    below = slides / "below"
    draw(below / "5.png", 5, (16, 12))
    out = tmp_path / "o.parquet"
    run(slides, out)
    (slides / "0.png").unlink()
    shutil.rmtree(below)
    (slides / "closed").mkdir(mode=0)
    options = {"preexec_fn": drop_privileges} if os.geteuid() == 0 else {}

    result = finished(slides, "--out", out, *NULL, "--update", "--prune", **options)

    (slides / "closed").chmod(0o700)
    assert "2 rows of files that were not listed are kept, because not every folder could be listed" in result.stderr
    assert len(table(out)) == 7


def test_no_row_is_dropped_if_a_folder_holds_no_image_at_all(slides: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "o.parquet", tmp_path / "other"
    draw(other / "5.png", 5, (16, 12))
    invoked(slides, other, "--out", out, *NULL)
    (other / "5.png").unlink()
    (slides / "0.png").unlink()

    result = invoked(slides, other, "--out", out, *NULL, "--update", "--prune")

    assert "1 rows of files that were not listed are kept, because below their folder no image was found" in (
        result.stderr
    )
    assert "2 gone (1 of their rows are dropped)" in result.stdout
    assert table(out)["path"].to_pylist() == ["1.png", "2.png", "3.png", "4.png", "empty.jpg", "5.png"]


def test_a_run_of_another_identity_is_refused_in_one_line(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    run(slides, out)

    result = invoked(slides, "--out", out, *NULL, "--decoder", "turbo", "--update")

    assert result.exit_code == 1
    assert result.stderr == (
        f"batchcls: {str(out)!r} exists, made with decoder 'pillow'; this run has decoder 'turbo'; choose another "
        "--out, or replace it with --overwrite\n"
    )


def test_files_that_were_not_handed_out_are_read_again(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    target = tmp_path / "elsewhere.png"
    os.symlink(target, slides / "link.png")
    run(slides, out)
    first = update(slides, out)
    draw(target, 3, (16, 12))

    said = update(slides, out)

    assert first == "0 new, 0 changed, 7 unchanged, 0 gone"
    assert said == "0 new, 1 changed, 6 unchanged, 0 gone"
    assert table(out).equals(fresh(slides, out))


def test_images_that_were_too_large_are_classified_under_another_limit(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    run(slides, out, "--max-pixels", "100")

    said = update(slides, out)

    assert said == "0 new, 5 changed, 1 unchanged, 0 gone"
    assert table(out).equals(fresh(slides, out))


def test_the_record_says_when_the_file_was_begun_and_how_often_it_was_updated(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    run(slides, out)
    first = record(out)
    for name in ("5.png", "6.png"):
        draw(slides / name, 5, (16, 12))
        update(slides, out)

    last = record(out)

    assert last["started"] == first["started"] < last["update_started"]
    assert last["updates"] == 2
    assert last["identity"] == first["identity"]
    assert last["counts"]["rows"] == 8
    assert last["counts"]["errors"] == {"empty": 1}
    assert last["throughput"]["files"] == 1


def test_with_several_processes(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    run(slides, out)
    draw(slides / "new.png", 9, (16, 12))

    result = finished(slides, "--out", out, *NULL, "--update", "--processes", "2", "--threads", "2")

    assert "1 new, 0 changed, 6 unchanged, 0 gone" in result.stdout
    assert table(out).equals(fresh(slides, out))


def test_options_that_contradict_one_another_are_refused(slides: Path, tmp_path: Path) -> None:
    both = invoked(slides, "--out", tmp_path / "o.parquet", "--update", "--overwrite")
    alone = invoked(slides, "--out", tmp_path / "o.parquet", "--prune")

    assert (both.exit_code, alone.exit_code) == (2, 2)
    assert "--update keeps rows" in both.stderr
    assert "add --update" in alone.stderr


def test_a_killed_update_is_gone_on_with(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    run(slides, out)
    before = out.read_bytes()
    for number in range(17_000):
        os.link(slides / "empty.jpg", slides / f"n{number:05d}.jpg")
    draw(slides / "0.png", 7, (64, 48))
    (slides / "1.png").unlink()

    with subprocess.Popen(
        stopping_command(slides, "--out", out, *NULL, "--update", "--prune", at="part"), stderr=subprocess.DEVNULL
    ) as process:
        wait_until_stopped(process)
        process.kill()
    assert out.read_bytes() == before
    plain = finished(slides, "--out", out, *NULL)
    resumed = finished(slides, "--out", out, *NULL, "--update", "--prune")

    assert "is whole already" in plain.stderr
    assert "rows are done" in resumed.stderr
    assert "17,000 new, 1 changed, 4 unchanged, 1 gone (their rows are dropped)" in resumed.stdout
    assert sorted(table(out)["path"].to_pylist()) == sorted(os.listdir(slides))
    assert table(out)["width"].to_pylist()[:4] == [64, 16, 16, 16]
    assert not partial(out).exists()


LABELS = ("a", "b", "c")
STEPS = ("add", "change", "touch", "delete", "update", "prune", "kill")
NAMES = tuple(f"{letter}.png" for letter in "abcdef")


def classified(slides: Sequence[Slide]) -> BatchResult:
    """The rows that follow from the content of files; of a content that begins with x, it is a failure."""
    logits, decoded, failures = [], [], []
    for slide in slides:
        stream, status = open_regular(slide.file)
        with stream:
            content = stream.read()
        digest = blake2b(content, digest_size=16).hexdigest()
        read = Slide(slide.root, slide.path, status.st_size, status.st_mtime_ns, digest=digest)
        if content.startswith(b"x"):
            failures.append(Failure(read, "corrupt", "it ends early"))
        else:
            decoded.append(read)
            logits.append(np.frombuffer(content[:3].ljust(3), np.uint8) / 50)
    predictions = to_predictions(np.array(logits, np.float32).reshape(-1, 3))
    return BatchResult(decoded, [(4, 3)] * len(decoded), predictions, failures)


def updated(
    folder: Path, out: Path, *, prune: bool, by_content: bool = False, killed: bool = False
) -> UpdateCounts | None:
    """An update of a writer alone, which may be cut after its first rows; None if there was nothing to update yet."""
    with (
        closing(open_source([folder])) as source,
        closing(SlideStates(60.0)) as states,
        closing(SlideDigests(10**6, 60.0)) as content_digests,
    ):
        writer, rows = open_update(
            out,
            UpdateOptions(states, prune, content_digests if by_content else None),
            roots=source.roots,
            labels=LABELS,
            identity={"engine": "none", **({"by_content": True} if by_content else {})},
            limits={"max_pixels": 10},
        )
        with closing(writer):
            slides = list((rows or writer).missing(source))
            writer.write(classified(slides[:1] if killed else slides))
            writer.flush()
            if killed:
                return None
            if rows and not rows.keep_rows(source.unlisted):
                writer.discard()
                return rows.counts
            counts = writer.counts()
            said = {"rows": counts.rows, "labels": counts.labels, "errors": counts.errors, "skipped": {}}
            writer.finish({"counts": said, "unlisted_folders": []} | (rows.history if rows else {}))
            return rows and rows.counts


def carried_out(step: str, path: Path, seed: int) -> None:
    if step == "delete":
        path.unlink(missing_ok=True)
    elif step == "touch" and path.exists():
        os.utime(path, ns=(seed * 1000, seed * 1000))
    elif step in ("add", "change"):
        path.write_bytes(b"xyz"[seed % 3 :] * (1 + seed % 5))
        os.utime(path, ns=(0, (10_000 + seed) * 1000))


HISTORIES = st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(NAMES), st.integers(0, 99)), max_size=14)


@settings(max_examples=15)
@given(HISTORIES)
def test_after_any_history_the_file_is_that_of_an_undisturbed_run(history: list[tuple[str, str, int]]) -> None:
    check_history(history, by_content=False)


@settings(max_examples=4)
@given(HISTORIES)
def test_after_any_history_by_content_only_times_may_be_older(history: list[tuple[str, str, int]]) -> None:
    check_history(history, by_content=True)


def check_history(history: list[tuple[str, str, int]], *, by_content: bool) -> None:
    with TemporaryDirectory() as scratch:
        folder, out = Path(scratch) / "slides", Path(scratch) / "o.parquet"
        folder.mkdir()
        (folder / "always.png").write_bytes(b"abc")
        # Of two updates, the first may end one that was killed, some of whose files have changed since.
        for step, name, seed in [*history, ("prune", "", 0), ("prune", "", 0)]:
            carried_out(step, folder / name, seed)
            if step == "kill":
                updated(folder, out, prune=bool(seed % 2), by_content=by_content, killed=True)
            if step in ("update", "prune"):
                updated(folder, out, prune=step == "prune", by_content=by_content)
        expected = Path(scratch) / "expected.parquet"
        updated(folder, expected, prune=False, by_content=by_content)
        columns = [name for name in table(out).column_names if not (by_content and name == "modified")]
        assert table(out).select(columns).equals(table(expected).select(columns))
        counts = updated(folder, out, prune=True, by_content=by_content)
        assert counts == UpdateCounts(unchanged=len(table(out)))


def digests(out: Path) -> dict[str, str | None]:
    rows = table(out).select(["path", "digest"]).to_pylist()
    return {row["path"]: row["digest"] for row in rows}


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_by_content_a_file_of_other_bytes_is_classified_again_whatever_its_time(
    slides: Path, tmp_path: Path, ending: str
) -> None:
    out = tmp_path / f"o.{ending}"
    draw(slides / "bitmap.bmp", 1, (16, 12))
    run(slides, out, "--by-content")
    before = digests(out)
    status = (slides / "bitmap.bmp").stat()
    draw(slides / "bitmap.bmp", 2, (16, 12))  # of the same size
    os.utime(slides / "bitmap.bmp", ns=(status.st_atime_ns, status.st_mtime_ns))
    older(slides / "1.png", 60)

    said = update(slides, out, "--by-content")

    assert said == "0 new, 1 changed, 6 unchanged, 0 gone"
    after = digests(out)
    expected = {file.name: blake2b(file.read_bytes(), digest_size=16).hexdigest() for file in slides.iterdir()}
    assert {path for path, digest in after.items() if digest != before[path]} == {"bitmap.bmp"}
    assert after == expected | {"empty.jpg": None}
    columns = [name for name in table(out).column_names if name != "modified"]
    assert table(out).select(columns).equals(fresh(slides, out, "--by-content").select(columns))
    assert update(slides, out, "--by-content") == "0 new, 0 changed, 7 unchanged, 0 gone"


def test_rows_without_a_digest_count_as_changed(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    run(slides, out)

    result = invoked(slides, "--out", out, *NULL, "--by-content", "--update")

    assert "0 new, 5 changed, 1 unchanged, 0 gone" in result.stdout
    assert result.stderr.count("5 rows had no digest to compare with") == 1
    assert table(out).equals(fresh(slides, out, "--by-content"))


def test_a_file_with_digests_is_not_updated_without_them(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    run(slides, out, "--by-content")

    result = invoked(slides, "--out", out, *NULL, "--update")

    assert result.exit_code == 1
    assert "made with by_content True; this run has by_content None" in result.stderr


def test_a_file_of_any_size_is_compared_by_content(tmp_path: Path) -> None:
    image = tmp_path / "large.bmp"
    Image.new("L", (9000, 8000)).save(image)

    with closing(SlideDigests(10**8, 60.0)) as content_digests:
        (read,) = content_digests([Slide(str(tmp_path), image.name)]).values()

    assert image.stat().st_size > 64 << 20
    assert isinstance(read, Slide)
    assert read.digest == blake2b(image.read_bytes(), digest_size=16).hexdigest()


def test_the_digest_is_of_the_whole_file_even_where_the_image_ends_early(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    image = draw(slides / "long.png", 1, (16, 12))
    with image.open("ab") as stream:
        stream.truncate(20 << 20)

    run(slides, out, "--by-content")

    assert digests(out)["long.png"] == blake2b(image.read_bytes(), digest_size=16).hexdigest()
    assert update(slides, out, "--by-content") == "0 new, 0 changed, 7 unchanged, 0 gone"


def test_a_row_of_a_table_that_carries_other_values_is_made_again(slides: Path, tmp_path: Path) -> None:
    out, paths = tmp_path / "o.parquet", [file.name for file in sorted(slides.iterdir())]
    places = (slides.parent / "table.csv", out, "--root", slides, "--keep", "patient,age")
    lines = [f"{path},p{number},{number}.5" for number, path in enumerate(paths)]
    places[0].write_text("\n".join(["path,patient,age", *lines]))
    run(*places)
    unchanged = update(*places)
    lines[2] = f"{paths[2]},another,2.5"
    places[0].write_text("\n".join(["path,patient,age", *lines[:-1], "gone.png,p9,"]))

    said = update(*places)

    assert unchanged == "0 new, 0 changed, 6 unchanged, 0 gone"
    assert said == "1 new, 1 changed, 4 unchanged, 1 gone (--prune drops their rows)"
    assert update(*places, "--prune") == "0 new, 0 changed, 6 unchanged, 1 gone (their rows are dropped)"
    assert table(out).equals(fresh(*places))


def test_members_of_an_archive_are_compared_as_it_lists_them(slides: Path, tmp_path: Path) -> None:
    out, archive = tmp_path / "o.parquet", tmp_path / "slides.tar"

    def pack() -> None:
        with tarfile.open(archive, "w") as tar:
            for file in sorted(slides.iterdir()):
                tar.add(file, file.name)

    pack()
    run(archive, out)
    draw(slides / "0.png", 7, (64, 48))
    draw(slides / "new.png", 9, (16, 12))
    (slides / "empty.jpg").unlink()
    pack()

    said = update(archive, out, "--prune")

    assert said == "1 new, 1 changed, 4 unchanged, 1 gone (their rows are dropped)"
    assert table(out).equals(fresh(archive, out))


def test_a_folder_of_predictions_is_brought_up_to_date(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    rows = ("--rows-per-file", "2")
    run(slides, out, *rows)
    draw(slides / "new.png", 9, (16, 12))
    (slides / "0.png").unlink()

    said = update(slides, out, *rows, "--prune")

    assert said == "1 new, 0 changed, 5 unchanged, 1 gone (their rows are dropped)"
    run(slides, tmp_path / "fresh", *rows)
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "fresh"))


def test_each_shard_is_brought_up_to_date(slides: Path, tmp_path: Path) -> None:
    listing = tmp_path / "files.parquet"
    shards = [(listing, tmp_path / "o", "--shard", f"{number}/2") for number in range(2)]
    assert CliRunner().invoke(main, ["list", str(slides), "--out", str(listing)]).exit_code == 0
    for shard in shards:
        run(*shard)
    for file in slides.iterdir():
        older(file, 60)

    said = [update(*shard) for shard in shards]

    changed = [int(text.removeprefix("0 new, ").partition(" ")[0]) for text in said]
    assert sum(changed) == 6
    assert said == [f"0 new, {count} changed, 0 unchanged, 0 gone" for count in changed]


def test_objects_are_compared_as_the_store_lists_them(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with moto_server(tmp_path / "log") as endpoint:
        for name, value in s3_environment(endpoint).items():
            monkeypatch.setenv(name, value)
        store = boto3.client("s3", endpoint_url=endpoint)
        store.create_bucket(Bucket="bucket")
        for file in slides.iterdir():
            store.upload_file(str(file), "bucket", f"in/{file.name}")
        place, out = "s3://bucket/in", "s3://bucket/o.csv"
        run(place, out)
        store.upload_file(str(draw(slides / "0.png", 7, (64, 48))), "bucket", "in/0.png")
        store.delete_object(Bucket="bucket", Key="in/1.png")

        said = update(place, out, "--prune")
        again = update(place, out, "--prune")
        run(place, "s3://bucket/fresh.csv")

        assert said == "0 new, 1 changed, 4 unchanged, 1 gone (their rows are dropped)"
        assert again == "0 new, 0 changed, 5 unchanged, 0 gone"
        contents = [store.get_object(Bucket="bucket", Key=key)["Body"].read() for key in ("o.csv", "fresh.csv")]
        assert contents[0] == contents[1]


def test_a_program_updates_as_the_command_does(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    options: Any = {"engine": ALL4, "backend": "null", "device": "cpu", "by_content": True}
    batchcls.run(slides, out=out, **options)
    draw(slides / "new.png", 9, (16, 12))

    stats = batchcls.run(slides, out=out, update=True, **options)

    assert stats.updated == UpdateCounts(new=1, unchanged=6)
    assert (stats.rows, stats.resumed_rows) == (7, 6)
    with pytest.raises(EngineError, match="update and overwrite"):
        batchcls.run(slides, out=out, update=True, overwrite=True, **options)
