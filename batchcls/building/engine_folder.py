"""Replace an engine folder, whole or not at all."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchcls.engine.manifest import MANIFEST, ONNX
from batchcls.engine.novelty_file import NOVELTY
from batchcls.engine.plan_sidecar import PLANS, is_plan_file
from batchcls.engine.probe_features import PROBE_FEATURES
from batchcls.errors import EngineError
from batchcls.storage.atomic import folder_handle, kind_of, writing
from batchcls.storage.owned_folder import OwnedFolder
from batchcls.storage.temporary_folders import temporary_folder

_REPLACED = (MANIFEST, ONNX, NOVELTY, PROBE_FEATURES, PLANS)
"""Names that a build replaces; the plans are of the old network, so none of them is kept."""


def check_replaceable(out: Path, *, overwrite: bool = True) -> None:
    """Refuse to replace anything but an engine folder of this user; a path where nothing stands is fine.

    Args:
        overwrite: Whether an engine may be replaced; an empty folder may always.

    Raises:
        EngineError: If ``out`` is a file, a link, or a folder of something else, or an engine without ``overwrite``.
        OutputError: If ``out`` is another user's, cannot be written to, or has files among its plans that are not
            parts of plans.
    """
    with writing(out):
        kind = kind_of(out)
    if kind is None:
        return
    if kind != "a folder":
        raise EngineError(f"{str(out)!r} exists and is {kind}, no engine folder; name a folder itself")
    with writing(out), OwnedFolder(out) as own:
        kinds = {name: kind_of(out / name) for name in own.names()}
    if kinds and kinds.get(MANIFEST) != "a file":
        raise EngineError(f"{str(out)!r} exists and is no engine folder; choose another --out")
    if kinds and not overwrite:
        raise EngineError(f"{str(out)!r} is an engine already; replace it with --overwrite, or choose another --out")
    for name, kind in kinds.items():
        if kind == "no file":
            raise EngineError(f"{str(out / name)!r} is no file, and cannot be kept; move it away")
    if PLANS in kinds:
        with writing(out), OwnedFolder(out / PLANS) as plans:
            plans.check_names(is_plan_file)


@contextmanager
def replacing_folder(out: Path) -> Iterator[Path]:
    """A new folder beside ``out``, which replaces ``out`` at the end; after an error ``out`` is as before.

    Raises:
        EngineError: If anything but an engine folder has meanwhile appeared at ``out``.
        OutputError: If the disk refuses.
    """
    out = out.absolute()
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out.parent) as scratch:
            folder = scratch / "new"
            folder.mkdir()
            yield folder
            check_replaceable(out)
            if kind_of(out) is not None:
                _copy_other_files(out, folder)
            _exchange(scratch, out)


def _copy_other_files(out: Path, folder: Path) -> None:
    """Copy the other files of the old folder, and its permissions, to the new one; links stay links."""
    os.chmod(folder, stat.S_IMODE(out.stat().st_mode))
    with OwnedFolder(out) as own:
        for name in own.names():
            if name in _REPLACED:
                continue
            if kind_of(out / name) == "a folder":
                shutil.copytree(out / name, folder / name, symlinks=True)
            else:
                shutil.copy2(out / name, folder / name, follow_symlinks=False)


def _exchange(scratch: Path, out: Path) -> None:
    """Move ``scratch``/new to ``out``, after moving an ``out`` that is there to ``scratch``/old."""
    with folder_handle(out.parent) as parent, folder_handle(scratch) as within:
        old = kind_of(out.name, parent) is not None
        if old:
            os.rename(out.name, "old", src_dir_fd=parent, dst_dir_fd=within)
        try:
            os.rename("new", out.name, src_dir_fd=within, dst_dir_fd=parent)
        except OSError:
            if old:
                os.rename("old", out.name, src_dir_fd=within, dst_dir_fd=parent)
            raise
        os.fsync(parent)
