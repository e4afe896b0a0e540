import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchcls.images.sources.folder import FolderSource

ENDINGS = (".jpg", ".JPEG", ".Png", ".bmp", ".TIFF", ".webp", ".jp2", ".gif", ".heic")
OTHERS = ("", ".txt", ".json", ".jpg.part", ".")
STEMS = st.binary(min_size=1, max_size=6).filter(lambda name: not set(name) & {0, ord("/")})
NAMES = st.builds(lambda stem, end: stem + end.encode(), STEMS, st.sampled_from(ENDINGS + OTHERS))
FOLDERS = st.lists(st.sampled_from([b"a", b"b", b"c.jpg", b".hidden", b"d \n\xff"]), max_size=3).map(tuple)
TREES = st.lists(st.tuples(FOLDERS, NAMES), max_size=12)


def listed(*slides: Path) -> list[tuple[str, str]]:
    return [(slide.root, slide.path) for slide in FolderSource(slides)]


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def grow(root: bytes, tree: Sequence[tuple[tuple[bytes, ...], bytes]]) -> None:
    """Make what of ``tree`` can be made: a name may be a folder already."""
    for folders, name in tree:
        folder = os.path.join(root, *folders)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, name)
        if name not in (b".", b"..") and not os.path.isdir(path):
            with open(path, "wb"):
                pass


def images_below(root: bytes) -> Counter[bytes]:
    """By another way: the real path of each image that is in no hidden folder."""
    found: Counter[bytes] = Counter()
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(b".")]
        images = [name for name in names if os.path.splitext(name)[1].lower() in {e.lower().encode() for e in ENDINGS}]
        found.update(os.path.join(folder, name) for name in images if not name.startswith(b"."))
    return found


@settings(max_examples=150)
@given(tree=TREES, named=st.lists(FOLDERS, max_size=3), links=st.lists(st.tuples(FOLDERS, FOLDERS), max_size=3))
def test_every_image_is_listed_once_however_its_folder_is_reached(
    tree: list[tuple[tuple[bytes, ...], bytes]],
    named: list[tuple[bytes, ...]],
    links: list[tuple[tuple[bytes, ...], tuple[bytes, ...]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = os.fsencode(os.path.realpath(folder))
        grow(root, [(folders, name) for folders, name in tree if b".hidden" not in folders])
        folders = [b"/".join(parts) for parts in [(), *named] if os.path.isdir(os.path.join(root, *parts))]
        for number, (source, target) in enumerate(links):
            if os.path.isdir(os.path.join(root, *source)) and os.path.isdir(os.path.join(root, *target)):
                os.symlink(os.path.join(root, *target), os.path.join(root, *source, b"link%d" % number))
        expected = images_below(root)

        listing = FolderSource([Path(os.fsdecode(os.path.join(root, name))) for name in reversed(folders)])
        found = Counter(os.path.realpath(os.fsencode(slide.file)) for slide in listing)

        assert found == expected
        assert listing.complete
        assert listing.count == expected.total()


@given(tree=TREES)
def test_hidden_folders_and_files_are_passed_over(tree: list[tuple[tuple[bytes, ...], bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = os.fsencode(os.path.realpath(folder))
        grow(root, tree)
        assert Counter(os.fsencode(slide.file) for slide in FolderSource([Path(folder).resolve()])) == images_below(
            root
        )


def test_what_is_passed_over_is_counted_by_reason(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "notes.txt", "table.csv", ".DS_Store", ".cache/b.jpg", "no ending", "c/.d.png")
    listing = FolderSource([tmp_path, tmp_path])
    assert [slide.path for slide in listing] == ["a.jpg"]
    assert listing.skipped == {"hidden": 3, "not an image": 3}


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_image_is_known_by_its_ending_in_any_case(tmp_path: Path, ending: str) -> None:
    touch(tmp_path, f"a{ending.lower()}", f"b{ending.upper()}", f"c{ending.title()}", f"d.png{ending}")
    assert len(listed(tmp_path)) == 4


def test_names_of_any_bytes_reach_their_file(tmp_path: Path) -> None:
    names = [b"a b.jpg", b"line\nbreak.jpg", b"\xff\xfe.jpg", b"a\xff.jpg", "細胞 ü.jpg".encode(), b"back\\slash.jpg"]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as stream:
            stream.write(name)
    assert sorted(Path(slide.file).read_bytes() for slide in FolderSource([tmp_path])) == sorted(names)


def test_a_folder_is_listed_once_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "s/a.jpg", "s/t/b.jpg")
    (tmp_path / "link").symlink_to("s")
    monkeypatch.chdir(tmp_path)
    names = [Path("s"), Path("./s/"), tmp_path / "s", Path("link"), Path("s/t"), Path("s/t/..")]
    assert listed(*names) == [("s", "a.jpg"), ("s", "t/b.jpg")]


def test_a_folder_inside_another_keeps_the_root_it_was_named_by_first(tmp_path: Path) -> None:
    touch(tmp_path, "s/a.jpg", "s/t/b.jpg")
    outer, inner = tmp_path / "s", tmp_path / "s" / "t"
    assert listed(outer, inner) == [(str(outer), "a.jpg"), (str(outer), "t/b.jpg")]
    assert listed(inner, outer) == [(str(inner), "b.jpg"), (str(outer), "a.jpg")]


def test_a_linked_folder_outside_is_followed_and_a_cycle_ends(tmp_path: Path) -> None:
    touch(tmp_path, "s/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "s" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "s")
    (tmp_path / "s" / "self").symlink_to(".")
    (tmp_path / "s" / "loop").symlink_to("loop")
    assert [path for _, path in listed(tmp_path / "s")] == ["a.jpg", "out/b.jpg"]


def test_a_linked_file_is_a_slide_of_its_own(tmp_path: Path) -> None:
    touch(tmp_path, "s/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "s" / "link.jpg").symlink_to(tmp_path / "elsewhere" / "b.jpg")
    assert [path for _, path in listed(tmp_path / "s")] == ["a.jpg", "link.jpg"]


def test_what_has_an_images_ending_but_cannot_be_read_is_listed_all_the_same(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert [path for _, path in listed(tmp_path)] == ["broken.jpg", "loop.jpg", "pipe.png"]


def test_a_named_file_counts_once_and_needs_no_ending(tmp_path: Path) -> None:
    touch(tmp_path, "s/a.jpg", "s/b.jpg", "s/slide.dat", "s/.hidden.jpg", "other/c.jpg")
    folder = tmp_path / "s"
    files = [folder / "b.jpg", folder / "slide.dat", folder / ".hidden.jpg", tmp_path / "other" / "c.jpg"]
    expected = [str(folder / name) for name in (".hidden.jpg", "a.jpg", "b.jpg", "slide.dat")] + [str(files[3])]

    for order in permutations([folder, *files]):
        listing = FolderSource([*order, files[0]])
        assert sorted(slide.file for slide in listing) == sorted(expected)
        assert listing.skipped.total() == 0, "what has a row was not passed over"


def test_the_order_is_that_of_the_arguments_and_then_of_the_path(tmp_path: Path) -> None:
    inner = [f"z/{folder}/{name}.jpg" for folder in ("B", "a", "b/10", "b/9", "c") for name in ("1", "2")]
    touch(tmp_path, "z/2.jpg", "z/10.jpg", "y/a.jpg", *reversed(inner))
    slides = tmp_path / "z", tmp_path / "y"
    names = [Path(root).name + "/" + path for root, path in listed(*slides)]
    assert names == ["z/10.jpg", "z/2.jpg", *inner, "y/a.jpg"]


def test_a_folder_without_images_gives_none(tmp_path: Path) -> None:
    assert listed(tmp_path) == []


def test_a_folder_that_may_not_be_opened_is_told(tmp_path: Path) -> None:
    script = """if True:
        import os, sys
        from pathlib import Path
        from batchcls.images.sources.folder import FolderSource
        if os.geteuid() == 0:
            os.setuid(65534)
        listing = FolderSource([Path(sys.argv[1])])
        print([slide.path for slide in listing], listing.unlisted)
    """
    with tempfile.TemporaryDirectory() as name:
        folder = touch(Path(name), "a.jpg", "closed/b.jpg", "open/c.jpg")
        folder.chmod(0o755)
        (folder / "closed").chmod(0)
        done = subprocess.run([sys.executable, "-c", script, name], capture_output=True, text=True, check=True)
        (folder / "closed").chmod(0o755)
    assert done.stdout.strip() == f"['a.jpg', 'open/c.jpg'] ['{folder}/closed: Permission denied']"


def test_the_first_slides_come_before_a_big_folder_is_listed() -> None:
    complete = True
    with tempfile.TemporaryDirectory() as folder:
        for number in range(90_000):
            os.mknod(f"{folder}/{number}.jpg")
        for _ in range(50):  # the listing has its own thread, which wins some of the races on a busy machine
            listing = FolderSource([Path(folder)])
            next(iter(listing))
            complete = listing.complete
            listing.close()
            if not complete:
                break
    assert not complete


def test_links_found_below_links_are_followed_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b/c", "x", "y"):
        touch(tmp_path / "real" / name, "1.jpg")
    (tmp_path / "in").mkdir()
    for link, target in (("in/z", "real/x"), ("in/a", "real/b"), ("real/b/m", "real/y")):
        (tmp_path / link).symlink_to(tmp_path / target)
    assert [path for _, path in listed(tmp_path / "in")] == ["a/c/1.jpg", "a/m/1.jpg", "z/1.jpg"]
