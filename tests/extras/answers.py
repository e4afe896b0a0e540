"""What the command line answers to a folder of images, for tests that compare it with a library."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from click.testing import CliRunner, Result

from batchcls.cli import main
from tests.commandline import invoked
from tests.conftest import draw

IMAGES = 64


def drawn_images(folder: Path, size: tuple[int, int] = (120, 90)) -> list[Path]:
    """64 drawn images, saved without loss."""
    return [draw(folder / f"{number:02d}.png", number, size) for number in range(IMAGES)]


def built(source: Path, engine: Path, *options: str) -> Result:
    """A build of an engine for the CPU."""
    return CliRunner().invoke(
        main, ["build", str(source), "--out", str(engine), "--device", "cpu", "--overwrite", *options]
    )


def refusal(source: Path, folder: Path, *options: str) -> str:
    """The one line with which a build refuses a file."""
    result = built(source, folder / "engine", *options)
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    (line,) = result.stderr.splitlines()
    assert not (folder / "engine").exists()
    return line


def answered(engine: Path, images: Path, out: Path) -> npt.NDArray[np.float32]:
    """(N, classes) probabilities of the images of a folder, in the order of their names, computed in float32."""
    result = invoked(images, "--engine", engine, "--out", out, "--decoder", "pillow", "--precision", "fp32")
    assert result.exit_code == 0, result.output
    table = pq.read_table(out).sort_by("path")
    return np.array(table["probabilities"].to_pylist(), np.float32)


def assert_alike(ours: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    """Two answers to the same images have the same labels, and probabilities within 1e-3."""
    assert ours.shape == expected.shape
    np.testing.assert_array_equal(ours.argmax(1), expected.argmax(1))
    assert np.abs(ours - expected).max() < 1e-3
