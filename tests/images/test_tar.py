"""Tar files as a source: what Python's tarfile and GNU tar know of them, and nothing that a hostile one leads to."""

import io
import os
import subprocess
import tarfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batchcls.images.formats.refusal import RefusedError
from batchcls.images.sources import open_readers, open_source, read_slide, slide_exists
from batchcls.images.sources.base import Source
from batchcls.records import Slide
from batchcls.storage.tar_fields import extended_fields
from batchcls.storage.tar_headers import REGULAR, TarError, members
from tests.commandline import PATIENCE_S

LARGEST = 1 << 30
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
NAMES = st.lists(
    st.text(st.characters(blacklist_characters="\0/", blacklist_categories=["Cs"]), min_size=1, max_size=90),
    min_size=1,
    max_size=4,
).map("/".join)
MEMBERS = st.lists(st.tuples(NAMES, st.binary(max_size=1500), st.sampled_from("0012356")), max_size=12)


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 10)).save(stream, "JPEG")
    return stream.getvalue()


JPEG = jpeg()


def written(
    content: Sequence[tuple[str, bytes, str]], format_: int = tarfile.PAX_FORMAT, mtime: float = 1.7e9
) -> bytes:
    """A tar file of members: names, data, and types by their digit in the header."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format_) as archive:
        for name, data, kind in content:
            member = tarfile.TarInfo(name)
            member.type, member.mtime, member.linkname = kind.encode(), mtime, "target"
            member.size = len(data) if kind == "0" else 0
            with suppress(ValueError):  # ustar holds no long names
                archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def listed(data: bytes) -> list[tuple[str, bytes, float]]:
    """Name, data and time of each regular member."""
    return [
        (os.fsdecode(member.name), data[member.offset :][: member.size_bytes], member.modified_ns / 10**9)
        for member in members(lambda offset, length: data[offset : offset + length], len(data))
        if member.kind == REGULAR
    ]


def plain(name: str) -> str:
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


@given(MEMBERS, st.sampled_from(FORMATS), st.sampled_from([0.0, 1.7e9, 1.7e9 + 0.5]))
def test_any_tar_file_has_the_members_that_python_reads(
    content: list[tuple[str, bytes, str]], format_: int, mtime: float
) -> None:
    data = written(content, format_, mtime)

    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        expected = [
            (plain(member.name), archive.extractfile(member).read(), member.mtime)  # type: ignore[union-attr]
            for member in archive
            if member.isreg()
        ]
    assert listed(data) == expected


@given(MEMBERS, st.sampled_from(FORMATS), st.data())
def test_a_damaged_tar_file_ends_with_an_error_of_ours_and_its_members_are_inside(
    content: list[tuple[str, bytes, str]], format_: int, choices: st.DataObject
) -> None:
    data = bytearray(written(content, format_))
    for _ in range(choices.draw(st.integers(1, 6))):
        data[choices.draw(st.integers(0, len(data) - 1))] = choices.draw(st.integers(0, 255))
    cut = bytes(data[: choices.draw(st.integers(0, len(data)))])

    for damaged in (bytes(data), cut):
        with suppress(TarError):
            for member in members(lambda offset, length, of=damaged: of[offset : offset + length], len(damaged)):
                assert 512 <= member.offset <= len(damaged) + 512
                assert member.size_bytes >= 0


@given(MEMBERS, st.data())
def test_every_cut_is_told(content: list[tuple[str, bytes, str]], choices: st.DataObject) -> None:
    data = written(content, tarfile.GNU_FORMAT)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        end = max([member.offset_data + (member.size + 511) // 512 * 512 for member in archive], default=0)
    cut = data[: choices.draw(st.integers(0, end))]

    with pytest.raises(TarError):
        listed(cut)


def source_of(path: Path, *archives: bytes) -> Source:
    paths = [path / f"{number}.tar" for number in range(len(archives))]
    for file, data in zip(paths, archives, strict=True):
        file.write_bytes(data)
    return open_source(paths)


def test_a_name_that_leads_outside_is_only_a_name(tmp_path: Path) -> None:
    content = [
        ("../x.jpg", b"1", "0"),
        ("/etc/passwd.jpg", b"2", "0"),
        ("a/../../y.jpg", b"3", "0"),
        ("./.z.jpg", b"", "0"),
    ]
    (tmp_path / "x.jpg").write_bytes(b"outside")

    with closing(source_of(tmp_path, written(content))) as source:
        slides = {slide.path: slide for slide in source}

    assert list(slides) == ["0.tar/../x.jpg", "0.tar//etc/passwd.jpg", "0.tar/a/../../y.jpg"]
    assert [read_slide(slide, LARGEST) for slide in slides.values()] == [b"1", b"2", b"3"]
    assert [read_slide(Slide(slide.root, slide.path), LARGEST) for slide in slides.values()] == [b"1", b"2", b"3"]
    assert sorted(os.listdir(tmp_path)) == ["0.tar", "x.jpg"]


def test_what_is_no_image_is_passed_by_and_counted(tmp_path: Path) -> None:
    content = [
        *[("a.jpg", b"1", "0"), ("a.cls", b"", "0"), (".hidden.jpg", b"", "0"), (".git/b.jpg", b"", "0")],
        *[("link.jpg", b"", "1"), ("soft.jpg", b"", "2"), ("device.jpg", b"", "3"), ("pipe.jpg", b"", "6")],
        *[("folder.jpg", b"", "5"), ("folder.jpg/c.PNG", b"2", "0")],
    ]

    with closing(source_of(tmp_path, written(content))) as source:
        assert [slide.path for slide in source] == ["0.tar/a.jpg", "0.tar/folder.jpg/c.PNG"]

    assert +source.skipped == Counter({"hidden": 2, "link in a tar file": 2, "not an image": 3})


def test_the_last_of_several_members_of_one_name_counts(tmp_path: Path) -> None:
    many = [(f"{number % 7_000}.jpg", b"%d" % number, "0") for number in range(10_000)]

    with closing(source_of(tmp_path, written([("./a.jpg", b"1", "0"), *many, ("a.jpg", b"2", "0")]))) as source:
        slides = {slide.path: slide for slide in source}

    assert source.count == len(slides) == 7_001
    assert source.skipped == {"in the tar file again under the same name": 3_001}
    assert read_slide(slides["0.tar/a.jpg"], LARGEST) == b"2"
    assert read_slide(slides["0.tar/5.jpg"], LARGEST) == b"7005"
    assert read_slide(Slide(str(tmp_path), "0.tar/6.jpg"), LARGEST) == b"7006"


def test_a_tar_file_that_has_changed_since_it_was_listed_is_searched_for_the_name(tmp_path: Path) -> None:
    content = [("a.jpg", b"1" * 700, "0"), ("b.jpg", b"2" * 700, "0"), ("c.jpg", b"", "0")]
    with closing(source_of(tmp_path, written(content))) as source:
        slides = list(source)

    (tmp_path / "0.tar").write_bytes(written([("new.jpg", b"0" * 3000, "0"), *content[1:]]))

    assert not slide_exists(slides[0])
    with closing(open_readers()) as readers, closing(readers.group_reader(10**9)) as group:
        group.start(slides, LARGEST)
        assert group.result().alone == slides
        with closing(readers.reader(PATIENCE_S)) as reader:
            assert reader.open(slides[1]).read(0, LARGEST) == b"2" * 700
            with pytest.raises(FileNotFoundError):
                reader.open(slides[0])


def test_slides_of_which_only_the_offset_is_known_are_read_in_groups(tmp_path: Path) -> None:
    content = [(f"{number}.jpg", JPEG, "0") for number in range(5)]
    with closing(source_of(tmp_path, written(content))) as source:
        slides = [Slide(slide.root, slide.path, offset=slide.offset) for slide in source]
    with closing(open_readers()) as readers, closing(readers.group_reader(10**9)) as group:
        group.start(slides, LARGEST)
        read = group.result().read
        assert [(slide, slide.size_bytes, bytes(data)) for slide, data, _ in read] == [
            (slide, len(JPEG), JPEG) for slide in slides
        ]


def test_impossible_places_of_members_are_searched_for_and_never_read(tmp_path: Path) -> None:
    with closing(source_of(tmp_path, written([("a.jpg", b"1", "0")]))) as source:
        (slide,) = source
    for offset in (-1, 0, 511, 513, 10**9, 1 << 62, 1 << 70):
        for size in (-5, 0, 1, 2, 1 << 62, 1 << 70):
            moved = Slide(slide.root, slide.path, size, None, offset)
            assert read_slide(moved, LARGEST) == b"1"
            with closing(open_readers()) as readers, closing(readers.reader(PATIENCE_S)) as reader:
                assert reader.open(moved).read(0, 10) == b"1"


def test_a_member_larger_than_the_file_is_told_and_takes_no_memory(tmp_path: Path) -> None:
    member = tarfile.TarInfo("huge.jpg")
    member.size = 1 << 60
    data = member.tobuf(tarfile.GNU_FORMAT)

    with closing(source_of(tmp_path, written([("a.jpg", b"1", "0")], tarfile.USTAR_FORMAT)[:1024] + data)) as source:
        slides = list(source)

    assert [slide.path for slide in slides] == ["0.tar/a.jpg", "0.tar/huge.jpg"]
    assert "it ends early: it has 1,536 bytes, and its last member, 'huge.jpg', goes on to byte" in source.unlisted[0]
    with pytest.raises(RefusedError, match=r"unreadable: its archive ends [\d,]+ bytes before it does"):
        read_slide(slides[1], LARGEST)


def test_archives_that_are_joined_are_told(tmp_path: Path) -> None:
    archive = written([("a.jpg", b"1", "0")])

    with closing(source_of(tmp_path, archive + archive)) as source:
        assert len(list(source)) == 1

    assert "10,240 bytes follow its end mark" in source.unlisted[0]


def test_one_tar_file_is_listed_once_under_whatever_names(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(written([("a.jpg", b"1", "0")]))
    (tmp_path / "1.tar").symlink_to("0.tar")

    with closing(open_source([tmp_path / "0.tar", tmp_path / "1.tar", tmp_path / "0.tar"])) as source:
        assert [slide.path for slide in source] == ["0.tar/a.jpg"]
    assert source.skipped == {"archive listed already": 1}


@pytest.mark.parametrize("format_", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_writes_is_read(tmp_path: Path, format_: str) -> None:
    folder = tmp_path / "images"
    names = ["a.jpg", "deep/" * 10 + "b.jpg", *([] if format_ == "v7" else ["n" * 90 + "/" + "m" * 60 + ".png"])]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes([number]) * 1000 * (number + 1))
        os.utime(folder / name, ns=(0, 1_700_000_000_123_456_789))
    with (folder / "sparse.jpg").open("wb") as sparse:
        sparse.seek(1 << 20)
        sparse.write(b"end")

    arguments = ["tar", f"--format={format_}", *([] if format_ in ("v7", "ustar") else ["--sparse"])]
    subprocess.run([*arguments, "-cf", tmp_path / "0.tar", "-C", tmp_path, "images"], check=True)
    with closing(open_source([tmp_path / "0.tar"])) as source:
        slides = {slide.path.removeprefix("0.tar/images/"): slide for slide in source}

    assert source.unlisted == []
    assert set(slides) == {*names, "sparse.jpg"}
    for name in names:
        assert read_slide(slides[name], LARGEST) == (folder / name).read_bytes()
        assert slides[name].modified_ns == 1_700_000_000_000_000_000 + (123_456_789 if format_ == "posix" else 0)
    if format_ in ("v7", "ustar"):
        assert read_slide(slides["sparse.jpg"], LARGEST) == (folder / "sparse.jpg").read_bytes()
    else:
        with pytest.raises(RefusedError, match="sparse file; unpack it"):
            read_slide(slides["sparse.jpg"], LARGEST)
        with pytest.raises(RefusedError, match="sparse file; unpack it"):
            read_slide(Slide(str(tmp_path), "0.tar/images/sparse.jpg"), LARGEST)


@pytest.mark.parametrize("format_", ["gnu", "ustar", "posix"])
def test_a_file_with_several_names_has_a_row_for_each(tmp_path: Path, format_: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(JPEG)
    for name in ("b.jpg", "c" * 90 + ".jpg", "notes.txt"):
        os.link(folder / "a.jpg", folder / name)
    subprocess.run(
        ["tar", f"--format={format_}", "-cf", tmp_path / "0.tar", "-C", folder, *os.listdir(folder)], check=True
    )

    with closing(open_source([tmp_path / "0.tar"])) as source:
        slides = {slide.path.removeprefix("0.tar/"): slide for slide in source}

    assert set(slides) == {"a.jpg", "b.jpg", "c" * 90 + ".jpg"}
    assert source.count == 3
    for slide in slides.values():
        assert read_slide(slide, LARGEST) == read_slide(Slide(slide.root, slide.path), LARGEST) == JPEG
        with closing(open_readers()) as readers, closing(readers.reader(PATIENCE_S)) as reader:
            assert reader.open(slide).read(0, LARGEST) == JPEG


def test_a_pipe_that_is_named_like_a_tar_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.tar")

    with closing(open_source([tmp_path / "0.tar", tmp_path / "1.tar"])) as source:
        assert list(source) == []

    assert source.unlisted == [
        f"{tmp_path}/0.tar: it is no regular file",
        f"{tmp_path}/1.tar: No such file or directory",
    ]


@given(st.lists(st.sampled_from([b"12 path=abc\n", b"-5 ", b"0 a=\n", b"9 ", b"a=", b"\n", b"\0", b"30 mtime=1.5\n"])))
def test_any_extended_fields_are_read_or_refused(parts: list[bytes]) -> None:
    with suppress(ValueError):
        assert len(list(extended_fields(b"".join(parts)))) <= len(parts)


@given(st.binary(max_size=3000))
def test_any_bytes_are_listed_or_refused(data: bytes) -> None:
    with suppress(TarError):
        listed(data)
