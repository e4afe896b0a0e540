"""An engine folder that takes the place of an older one, whole or not at all."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchcls.engine.manifest import MANIFEST, ONNX
from batchcls.engine.sidecar import PLANS, is_of_a_plan
from batchcls.errors import EngineError
from batchcls.storage.atomic import folder_handle, kind_of, writing
from batchcls.storage.own_folder import OwnFolder
from batchcls.storage.scratch import scratch_folder

_REPLACED = (MANIFEST, ONNX, PLANS)
"""Plans are of the network that was there before."""


def check_replaceable(out: Path) -> None:
    """Refuse to replace what is no engine folder, or not ours.

    Raises:
        EngineError: If ``out`` is a file, a link, or a folder of something else.
        OutputError: If it is another user's, cannot be written to, or has a stranger's file among its plans.
    """
    with writing(out):
        kind = kind_of(out)
    if kind is None:
        return
    if kind != "a folder":
        raise EngineError(f"{str(out)!r} exists and is {kind}, no engine folder; choose another --out")
    with writing(out), OwnFolder(out) as own:
        kinds = {name: kind_of(out / name) for name in own.names()}
    if kinds and kinds.get(MANIFEST) != "a file":
        raise EngineError(f"{str(out)!r} exists and is no engine folder; choose another --out")
    for name, kind in kinds.items():
        if kind == "no file":
            raise EngineError(f"{str(out / name)!r} is no file, and cannot be kept; move it away")
    if PLANS in kinds:
        with writing(out), OwnFolder(out / PLANS) as plans:
            plans.check_names(is_of_a_plan)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place if all goes well, and leaves nothing behind if not.

    Raises:
        EngineError: If what came to stand there meanwhile is no engine folder.
        OutputError: If the disk refuses.
    """
    out = out.absolute()
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(out.parent) as scratch:
            folder = scratch / "new"
            folder.mkdir()
            yield folder
            check_replaceable(out)
            if kind_of(out) is not None:
                _keep_others(out, folder)
            _exchange(scratch, out)


def _keep_others(out: Path, folder: Path) -> None:
    """Copy what is not of the network from the folder that is replaced, and who may read it; links stay links."""
    os.chmod(folder, stat.S_IMODE(out.stat().st_mode))
    with OwnFolder(out) as own:
        for name in own.names():
            if name in _REPLACED:
                continue
            if kind_of(out / name) == "a folder":
                shutil.copytree(out / name, folder / name, symlinks=True)
            else:
                shutil.copy2(out / name, folder / name, follow_symlinks=False)


def _exchange(scratch: Path, out: Path) -> None:
    """Put ``scratch``/new in the place of ``out``, and that, if there is one, into ``scratch``/old."""
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
