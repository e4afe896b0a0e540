"""The kinds of places that images are in: told by how the user names a place, or by where a slide is."""

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

from batchcls.records import Slide
from batchcls.storage.urls import is_url

Place = str | Path
"""A place of slides, as the user names it: a folder or a file as a path; a URL, ``-`` or ``@FILE`` as text."""
PlaceKind = Literal["files", "objects", "list", "table", "tar"]
"""Kind of source that lists the slides of a place."""
ReaderKind = Literal["files", "objects", "tar", "remote tar", "parquet", "refused"]
"""Kind of readers that read a slide."""
_TAR = re.compile(r"\.(tar(\.(gz|zst|xz|bz2))?|tgz)\Z", re.IGNORECASE)
"""End of a tar file's name; a compressed one is no source, which its opener says."""
_ARCHIVE = re.compile(r"\.(tar|parquet)/", re.IGNORECASE)
"""End of an archive's name within the path of a slide."""


def named_place(name: str | os.PathLike[str]) -> Place:
    """The place that a program names: text for standard input, a list and a URL, else a path."""
    is_text = isinstance(name, str) and (name == "-" or name.startswith("@") or is_url(name))
    return str(name) if is_text else Path(name)


def place_kind(place: Place) -> PlaceKind:
    """The kind of source that lists the slides of a place; nothing is opened."""
    text = str(place)
    if isinstance(place, str) and (text == "-" or text.startswith("@")):
        return "list"
    if not is_url(text) and os.path.isdir(text):
        return "files"
    ending = os.path.splitext(text)[1].lower()
    if ending in (".csv", ".parquet"):
        return "table"
    if _TAR.search(text):
        return "tar"
    return "objects" if is_url(text) else "files"


def archive_of(slide: Slide) -> tuple[str, str] | None:
    """The file or URL of the archive that a slide is in, and the slide's name in it; None if it is in none.

    A folder may be named like an archive, so the file system is asked; a URL is believed.
    """
    start = len(slide.root) + 1 if slide.root else 0
    for match in _ARCHIVE.finditer(slide.path):
        archive = slide.file[: start + match.end() - 1]
        if is_url(archive) or _is_file(archive):
            return archive, slide.path[match.end() :]
    return None


def reader_kind(slide: Slide) -> ReaderKind:
    """The kind of readers that read a slide."""
    if slide.refusal is not None:
        return "refused"
    if _ARCHIVE.search(slide.path) and (archive := archive_of(slide)) and _may_be_read(archive[0], slide.within):
        if archive[0].lower().endswith(".tar"):
            return "remote tar" if is_url(archive[0]) else "tar"
        if not is_url(archive[0]):
            return "parquet"
    return "objects" if is_url(slide.root or slide.path) else "files"


@lru_cache(4096)  # one archive has many slides
def _may_be_read(archive: str, within: str | None) -> bool:
    """Whether an archive lies in a folder; what does not is opened as a file, which says so."""
    if within is None or is_url(archive):
        return True
    return os.path.realpath(archive).startswith(os.path.realpath(within).rstrip("/") + "/")


@lru_cache(4096)
def _is_file(path: str) -> bool:
    return os.path.isfile(path)
