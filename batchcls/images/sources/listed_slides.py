"""The slides that a list or a table names, under rules that let a stranger's list read nothing it should not."""

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

from batchcls.images.sources.base import SourceOptions
from batchcls.images.sources.places import archive_of
from batchcls.images.sources.remote_hosts import host_refusal
from batchcls.records import Slide
from batchcls.storage.urls import is_url

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_IRREGULAR = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|\0")
"""What a path has that is not plain: an empty part, a part ``.`` or ``..``, or a zero byte."""
_BUCKET_URL = re.compile(r"(?:s3|gs|az)://[a-z0-9._-]+/[^?#]+", re.IGNORECASE | re.DOTALL)
_WEB_URL = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?/[!-~]*", re.IGNORECASE)
"""A URL with a plain host, which all programs read alike; in the group, the host."""
_URL_PARTS = re.compile(r"([^:/]*://)([^/?#]*)([^?#]*)", re.DOTALL)
_PORT = re.compile(r"(?:[^:]|\[[^]]*\])*(?::\d*)?")

_NO_NAME = "it is no name of a file"
NEEDS_REMOTE = "it is a URL, which a list may name with --allow-remote only"
HAS_SECRETS = (
    "its URL holds a user name, a query or a fragment, which is left out here; give credentials in the provider's own "
    "environment variables or files"
)


class ListedSlides:
    """Makes slides of the entries of one list or table.

    Relative paths are below the list's base. An entry that leads elsewhere, or is forbidden otherwise, is a slide with
    a `Slide.refusal`.

    Args:
        base: Folder, or URL of a folder, of the relative paths.
        allow_remote: Whether entries may be URLs.
    """

    def __init__(self, base: str, *, allow_remote: bool) -> None:
        self.base = base
        self._allow_remote = allow_remote
        is_local = not is_url(base)
        folders = {os.path.abspath(base), os.path.realpath(base)} if is_local else set()
        self._folders = tuple(folder.rstrip("/") + "/" for folder in sorted(folders))
        """The base as an absolute path, with and without symbolic links, each with a slash at its end."""
        self._within = base if is_local else None
        self._elsewhere = (
            f"it does not lie below {base!r}; if it may be read, name a folder that it lies below: --root DIR"
        )

    def slide(self, entry: str) -> Slide:
        """The slide of an entry: a path, or a URL."""
        if scheme := _SCHEME.match(entry):
            return self._of_url(entry, scheme[1].lower())
        if not _IRREGULAR.search(entry) or self._is_in_archive(self.base, entry):
            return Slide(self.base, entry, within=self._within)
        return self._of_path(entry, entry)

    def slide_of_row(self, root: str, path: str) -> Slide:
        """The slide of a row that names a root: a folder, whose relative paths are below the base too, or a URL."""
        if not root:
            return self.slide(path)
        refusal = self._root_refusal(root)
        if _IRREGULAR.search(path) and (refusal or not self._is_in_archive(self.root_of_row(root), path)):
            parts = [part for part in path.split("/") if part not in ("", ".")]
            if path.startswith("/") or ".." in parts:
                refusal = refusal or self._elsewhere
            elif "\0" in path or not parts:
                path, refusal = path.replace("\0", "\\x00"), refusal or _NO_NAME
            else:
                path = "/".join(parts)
        return Slide(self.root_of_row(root), path, refusal=refusal, within=None if is_url(root) else self._within)

    def _is_in_archive(self, root: str, path: str) -> bool:
        """Whether a path names an image in an archive whose own path is plain; the image's name there leads nowhere."""
        if "\0" in path or not (archive := archive_of(Slide(root, path))):
            return False
        return not _IRREGULAR.search(path[: -len(archive[1]) - 1])

    @lru_cache(16_384)  # noqa: B019  # a list has few roots, and lives as long as the run
    def root_of_row(self, root: str) -> str:
        """The `Slide.root` of a row that names ``root``."""
        if is_url(root):
            return without_secrets(root)
        if not root or root == ".":
            return self.base
        return root if os.path.isabs(root) or self.base == "." else os.path.join(self.base, root)

    @lru_cache(16_384)  # noqa: B019
    def _root_refusal(self, root: str) -> str | None:
        if is_url(root):
            is_below = is_url(self.base) and f"{root}/".startswith(f"{self.base}/")
            return None if is_below else self._url_refusal(root.rstrip("/") + "/x")
        if "\0" in root or ".." in root.split("/"):
            return self._elsewhere
        if os.path.isabs(root):
            is_below = (os.path.normpath(root).rstrip("/") + "/").startswith(self._folders or ("\0",))
            return None if is_below else self._elsewhere
        return self._elsewhere if _SCHEME.match(root) or not self._folders else None

    def _of_path(self, path: str, entry: str) -> Slide:
        """The slide of a path that is not plain.

        Args:
            path: The path; absolute where it begins with a slash.
            entry: The entry that the path is from.
        """
        if "\0" in path:
            return self._refused(entry.replace("\0", "\\x00"), "its name holds a zero byte, which no file's does")
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts:
            return self._refused(
                entry, f"its path goes up by '..', where it may not lie below {self.base!r}; write it without"
            )
        if path.startswith("/"):
            whole = "/" + "/".join(parts)
            below = next((whole[len(folder) :] for folder in self._folders if whole.startswith(folder)), "")
        else:
            below = "/".join(parts)
        if below:
            return Slide(self.base, below, within=self._within)
        return self._refused(entry, self._elsewhere if path.startswith("/") else _NO_NAME)

    def _of_url(self, url: str, scheme: str) -> Slide:
        if scheme == "file":
            host, _, path = url.partition("://")[2].partition("/")
            if host in ("", "localhost"):
                return self._of_path("/" + unquote(path, errors="surrogateescape"), url)
            return self._refused(without_secrets(url), self._elsewhere)
        bare = without_secrets(url)
        if not is_url(url):
            return self._refused(bare, f"URLs with {scheme!r} are not read; s3, gs, az, http and https are")
        if is_url(self.base) and bare == url and url.startswith(f"{self.base}/"):
            below = url[len(self.base) + 1 :]
            return Slide(self.base, below) if not _IRREGULAR.search(below) else self._refused(url, self._elsewhere)
        return Slide("", bare, refusal=HAS_SECRETS if bare != url else self._url_refusal(url))

    def _url_refusal(self, url: str) -> str | None:
        """The reason for which a URL may not be read; None if it may."""
        if not self._allow_remote:
            return NEEDS_REMOTE
        if without_secrets(url) != url:
            return HAS_SECRETS
        web = _WEB_URL.fullmatch(url)
        if not web and not _BUCKET_URL.fullmatch(url):
            return "its URL is not spelled as all programs read it alike: encode what is no plain letter as %NN"
        return host_refusal(web[1].strip("[]").lower()) if web else None

    def _refused(self, path: str, reason: str) -> Slide:
        return Slide(self.base, path, refusal=reason)


def base_of(place: str | None, options: SourceOptions) -> str:
    """The folder, or its URL, of the relative paths in a list or table.

    Args:
        place: Path or URL of the list; None for standard input, whose folder is the working folder.
        options: How to list.
    """
    if options.root is not None or place is None:
        return str(options.root or Path())
    return place.rpartition("/")[0] if is_url(place) else str(Path(place).parent)


def roots_of(listed: Sequence[ListedSlides]) -> tuple[str, ...]:
    """All values that the root of a slide in lists without roots of their own may have."""
    return tuple(dict.fromkeys([*(one.base for one in listed), ""]))


def without_secrets(url: str) -> str:
    """A URL without a user's name, a password, a query and a fragment."""
    if not (parts := _URL_PARTS.match(url)):
        return url
    scheme, host, path = parts.groups()
    if not _PORT.fullmatch(host.rpartition("@")[2]) and "@" in path:  # a password with a slash in it
        host, _, path = path.rpartition("@")[2].partition("/")
        path = f"/{path}"
    return scheme + host.rpartition("@")[2] + path
