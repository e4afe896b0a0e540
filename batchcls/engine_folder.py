"""An engine folder that takes the place of an older one, whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchcls.errors import EngineError, writing
from batchcls.manifest import MANIFEST, ONNX


def check_replaceable(out: Path) -> None:
    """Refuse to replace what is no engine folder.

    Raises:
        EngineError: If ``out`` is a file, or a folder of something else.
    """
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise EngineError(f"{str(out)!r} exists and is no engine folder; choose another --out")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place if all goes well, and leaves nothing behind if not.

    Raises:
        OutputError: If the disk refuses.
    """
    out = out.absolute()
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    folder, old = scratch / "new", scratch / "old"
    try:
        with writing(out):
            folder.mkdir()
            yield folder
            if out.exists():
                for path in out.iterdir():
                    if path.name not in (MANIFEST, ONNX, "plans"):  # plans are of the network that was there before
                        (shutil.copytree if path.is_dir() else shutil.copy2)(path, folder / path.name)
                out.rename(old)
            folder.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(scratch)
