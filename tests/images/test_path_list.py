"""Lists of paths: how they are written, what they may name, and that a stranger's list reads nothing else."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchcls.errors import SlidesError
from batchcls.images.formats.refusal import RefusedError
from batchcls.images.sources import open_readers, open_source, read_slide
from batchcls.images.sources.base import Source, SourceOptions
from batchcls.images.sources.distinct import SeenSlides
from batchcls.images.sources.listed_slides import ListedSlides, without_secrets
from batchcls.images.sources.places import Place, reader_kind
from batchcls.images.sources.remote_hosts import host_refusal
from batchcls.records import Slide
from tests.commandline import PATIENCE_S
from tests.conftest import ROOT

NAMES = (
    st.binary(min_size=1, max_size=12)
    .map(lambda name: name.translate(None, b"\0/"))
    .filter(lambda name: name.strip(b"."))
)
MARKS = (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\x1f\x8b", b"PK\x03\x04", b"PAR1\x15")
"""Beginnings of files that are no list."""
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)


def listed(place: Place, **options: object) -> list[Slide]:
    with closing(open_source([place], SourceOptions(**options))) as source:  # type: ignore[arg-type]
        return list(source)


def list_of(folder: Path, content: bytes) -> str:
    (folder / "list.txt").write_bytes(content)
    return f"@{folder / 'list.txt'}"


def outcomes(entries: Sequence[str], folder: Path, **options: object) -> dict[str, str | None]:
    """What is refused of each entry, by the path of its slide."""
    place = list_of(folder, "\n".join(entries).encode())
    return {slide.path: slide.refusal for slide in listed(place, **options)}


@example(paths=[b"PAR1.jpg"])
@given(paths=st.lists(PATHS, unique=True, max_size=20).filter(lambda paths: not b"".join(paths[:1]).startswith(MARKS)))
def test_any_names_come_back_in_order_from_a_list_with_zero_bytes(paths: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        slides = listed(list_of(Path(folder), b"".join(path + b"\0" for path in paths)))
    expected = [path for path in paths if not path.isspace()]
    assert [os.fsencode(slide.path) for slide in slides] == expected
    assert {(slide.root, slide.refusal) for slide in slides} <= {(folder, None)}


@given(
    paths=st.lists(PATHS.filter(lambda path: not {*b"\r\n"} & {*path}), unique=True, max_size=20),
    end=st.sampled_from([b"\n", b"\r\n"]),
)
def test_any_names_without_line_feeds_come_back_from_lines(paths: list[bytes], end: bytes) -> None:
    with TemporaryDirectory() as folder:
        text = b"\xef\xbb\xbf" + end.join(paths)
        assert [os.fsencode(slide.path) for slide in listed(list_of(Path(folder), text))] == [
            path for path in paths if not path.isspace()
        ]


def test_relative_paths_are_below_the_lists_folder_or_below_root(tmp_path: Path) -> None:
    place = list_of(tmp_path, b"a.jpg\nb/c.jpg")
    assert [slide.root for slide in listed(place)] == [str(tmp_path)] * 2
    assert [slide.root for slide in listed(place, root=tmp_path / "b")] == [str(tmp_path / "b")] * 2


def test_one_file_is_one_slide_however_it_is_spelled(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    spellings = (
        "a.jpg",
        "./a.jpg",
        ".//a.jpg",
        f"{tmp_path}/a.jpg",
        f"{tmp_path}//./a.jpg",
        f"file://{tmp_path}/a.jpg",
    )
    source = open_source([list_of(tmp_path, "\n".join([*spellings, "", "  ", "a.jpg"]).encode())])
    with closing(source):
        assert [(slide.root, slide.path) for slide in source] == [(str(tmp_path), "a.jpg")]
    assert source.skipped == {"listed already": 6, "empty line": 2}
    assert (source.count, source.complete) == (1, True)
    through_link = f"@{tmp_path / 'link' / 'list.txt'}"
    assert [slide.path for slide in listed(through_link)] == ["a.jpg"]


def test_what_leads_out_of_the_base_is_a_row_that_says_what_to_do(tmp_path: Path) -> None:
    hostile = ("../x.jpg", "a/../../x.jpg", "/etc/passwd", "/proc/self/environ", "/dev/zero", str(tmp_path) + "x/a.jpg")
    hostile += ("file:///etc/passwd", "file://otherhost/x.jpg", "ftp://host/x.jpg", "/", ".", f"{tmp_path}")
    refusals = outcomes([*hostile, "sound.jpg"], tmp_path)

    assert refusals.pop("sound.jpg") is None
    assert len(refusals) == len(hostile)
    assert all(refusals.values())
    assert "--root DIR" in str(refusals["/etc/passwd"])
    assert "goes up by '..'" in str(refusals["../x.jpg"])


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server that nobody may ask."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        yield server


def test_urls_need_a_word_of_the_user_and_never_lead_to_this_machine(tmp_path: Path, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    hosts = ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "127.1", "[::ffff:127.0.0.1]")  # noqa: S104
    hosts += ("169.254.169.254", "[fd00:ec2::254]", "[fe80::1]", "100.100.100.200", "168.63.129.16")
    urls = [f"http://{host}:{port}/latest/meta-data" for host in hosts]

    without = outcomes([*urls, "s3://bucket/a.jpg"], tmp_path)
    assert {path: str(reason).partition(",")[0] for path, reason in without.items()} == dict.fromkeys(
        [*urls, "s3://bucket/a.jpg"], "it is a URL"
    )
    allowed = outcomes([*urls, "s3://bucket/a.jpg", "http://10.0.0.7/a.jpg"], tmp_path, allow_remote=True)
    assert allowed.pop("s3://bucket/a.jpg") is None
    assert allowed.pop("http://10.0.0.7/a.jpg") is None
    assert sorted(allowed) == sorted(urls)
    assert all(allowed.values())
    for slide in listed(list_of(tmp_path, "\n".join(urls).encode()), allow_remote=True):
        with pytest.raises(Exception, match=r"this machine|no host"):
            read_slide(slide, 1 << 20)
    with pytest.raises(TimeoutError):
        listener.accept()


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@10.0.0.7/a.jpg",
        "https://secret@10.0.0.7/a.jpg",
        "https://user:sec/secret@10.0.0.7/a.jpg",
        "https://10.0.0.7/a.jpg?X-Amz-Signature=secret",
        "https://10.0.0.7/a.jpg#secret",
        "s3://secret@bucket/a.jpg",
        "file://user:secret@host/a.jpg",
        "ftp://user:secret@host/a.jpg",
    ],
)
@pytest.mark.parametrize("allow_remote", [True, False])
def test_no_secret_of_a_url_reaches_a_row(url: str, allow_remote: bool) -> None:
    slide = ListedSlides("base", allow_remote=allow_remote).slide(url)
    assert slide.refusal
    assert "secret" not in repr(slide)
    assert slide.path.endswith("/a.jpg")
    assert without_secrets("https://host/@x/a.jpg") == "https://host/@x/a.jpg"


@pytest.mark.parametrize(
    "url",
    ["http://a\\@10.0.0.7/x", "http://10.0.0.7 /x", "http://h\u00f6st/x", "http:///x", "s3://bucket", "http://[::1/x"],
)
def test_urls_that_programs_read_in_different_ways_are_refused(url: str) -> None:
    assert ListedSlides("base", allow_remote=True).slide(url).refusal


def test_a_host_is_judged_by_every_address_that_it_has() -> None:
    for host in ("169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "224.0.0.1", "0.1.2.3", "fe80::1%lo"):
        assert "which no list may ask" in str(host_refusal(host)) or "no host" in str(host_refusal(host))
    for host in ("10.1.2.3", "192.168.0.9", "8.8.8.8", "2606:4700::1111"):
        assert host_refusal(host) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.jpg\n".encode("utf-16"), "is in UTF-16"),
        (b"\x1f\x8b\x08\0", "is compressed"),
        (b"PAR1\x15\0", "is a Parquet file"),
        (b"x" * 70_000, "more than 65,536 bytes"),
        (b"a.jpg\n" + b"x" * 3_000_000, r"entry 2 .* more than 65,536 bytes"),
    ],
)
def test_what_is_no_list_of_paths_is_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(SlidesError, match=message):
        listed(list_of(tmp_path, content))


def test_a_list_that_is_missing_or_no_file_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SlidesError, match="cannot be opened: No such file"):
        listed(f"@{tmp_path / 'none'}")
    for place in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(SlidesError, match="is no regular file"):
            listed(f"@{place}")


def test_a_name_with_a_zero_byte_among_lines_is_a_row(tmp_path: Path) -> None:
    (slide, other) = listed(list_of(tmp_path, b"b.jpg\n" * 20_000 + b"a\0b\n"))
    assert (slide.path, slide.refusal) == ("b.jpg", None)
    assert (other.path, other.refusal) == ("a\\x00b", "its name holds a zero byte, which no file's does")


READ_LIST = """
import sys
from batchcls.images.sources import open_source
for slide in open_source(["-"]):
    print(slide.root, slide.path, flush=True)
"""


def test_standard_input_is_read_while_it_is_written(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", READ_LIST],
        stdin=-1,
        stdout=-1,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin
    assert process.stdout
    with process:
        for name in (b"a.jpg", f"{tmp_path}/b.jpg".encode()):
            process.stdin.write(name + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b". " + name.rpartition(b"/")[2] + b"\n"
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0


def test_folders_and_lists_together_name_each_file_once(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    place = list_of(tmp_path, b"b.jpg\nc.jpg")
    with closing(open_source([tmp_path, place, place])) as source:
        assert [slide.path for slide in source] == ["a.jpg", "b.jpg", "c.jpg"]
        assert source.roots == (str(tmp_path), "")
    assert source.skipped["listed already"] == 3


@given(names=st.lists(st.lists(st.integers(0, 300), max_size=60), max_size=30))
def test_each_slide_is_new_once(names: list[list[int]]) -> None:
    seen, known = SeenSlides(), set[str]()
    for chunk in names:
        new = [slide.path for slide in seen.new([Slide("r", str(name)) for name in chunk])]
        assert new == [name for name in dict.fromkeys(map(str, chunk)) if name not in known]
        known.update(new)


def test_digests_that_begin_alike_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(slide: Slide) -> bytes:
        return b"8 bytes " + slide.path.encode().rjust(8)

    monkeypatch.setattr("batchcls.images.sources.distinct._digest", digest)
    seen = SeenSlides()
    for chunk in range(5):
        slides = [Slide("", str(number)) for number in range(chunk * 10, chunk * 10 + 20)]
        assert len(seen.new(slides)) == (20 if not chunk else 10)


def test_a_source_is_its_own_iterator_of_rows(tmp_path: Path) -> None:
    source: Source = open_source([list_of(tmp_path, b"a.jpg\n")])
    assert (source.waiting(), source.unlisted, len(source.kept)) == (None, [], 0)
    source.close()
    source.close()


def test_links_are_followed_only_to_what_lies_below_the_base(tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / "sub").mkdir(parents=True)
    (base / "sub" / "a.jpg").write_bytes(b"inside")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (base / "inside.jpg").symlink_to("sub/a.jpg")
    (base / "inner").symlink_to(base / "sub")
    (base / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (base / "outer").symlink_to(tmp_path)
    (tmp_path / "base2").symlink_to(base)
    place = list_of(base, b"inside.jpg\ninner/a.jpg\nout.jpg\nouter/secret.jpg\nouter/base/sub/a.jpg")

    for base_spelling in (None, base, tmp_path / "base2", Path(os.path.relpath(base))):
        slides = {slide.path: slide for slide in listed(place, root=base_spelling)}
        for name in ("inside.jpg", "inner/a.jpg", "outer/base/sub/a.jpg"):
            assert read_slide(slides[name], 1 << 20) == b"inside"
        for name in ("out.jpg", "outer/secret.jpg"):
            with pytest.raises(RefusedError, match=r"unreadable: it is a link that leads out of '.*base"):
                read_slide(slides[name], 1 << 20)
            with closing(open_readers()) as readers, closing(readers.reader(PATIENCE_S)) as reader:
                with pytest.raises(RefusedError, match="a link that leads out"):
                    reader.open(slides[name])
                assert reader.open(slides["inside.jpg"]).first_bytes == b"inside"


def test_a_relative_base_is_that_of_the_process_that_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "a.jpg").write_bytes(b"inside")
    (tmp_path / "base" / "out.jpg").symlink_to("/etc/hostname")
    with closing(open_readers()) as readers:
        readers.reader(PATIENCE_S).close()  # the reading process starts elsewhere
        monkeypatch.chdir(tmp_path)
        inside, out = listed(list_of(Path("base"), b"a.jpg\nout.jpg"))
        assert inside.root == "base"
        with closing(readers.reader(PATIENCE_S)) as reader:
            assert reader.open(inside).first_bytes == b"inside"
            with pytest.raises(RefusedError):
                reader.open(out)


def test_an_archive_behind_a_link_is_no_way_out(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "out.tar").write_bytes(b"x")
    (tmp_path / "base" / "a.tar").symlink_to(tmp_path / "out.tar")
    (tmp_path / "base" / "b.tar").write_bytes(b"x")
    through_link, inside = listed(list_of(tmp_path / "base", b"a.tar/1.jpg\nb.tar/1.jpg"))
    assert reader_kind(through_link) == "files"
    assert reader_kind(inside) == "tar"
