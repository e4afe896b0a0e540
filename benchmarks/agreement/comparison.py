"""Build a library's network, run it on images, and compare the rows with the library's own answers."""

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from batchcls import machine
from batchcls.engine.check import allowed_difference
from benchmarks.agreement.prepared import ARGUMENTS, LABELS, PROBABILITIES, Probabilities
from benchmarks.workload import draw_field

IMAGES = 64
_SEED = 1_000_081


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far an engine agrees with the library that made its network."""

    library: str
    name: str
    source: str
    """Kind of file or folder that was built."""
    images: int
    same: int
    """Images with the same label in float32."""
    largest_difference: float
    """Largest difference of a probability in float32, 0 to 1."""
    clear: int | None
    """Images whose two largest probabilities differ, in the library's float32, by more than twice the largest
    difference that is allowed in bfloat16; None where the CPU has no bfloat16, or the engine refuses it."""
    same_bf16: int | None
    """Of those, images with the same label in bfloat16."""
    largest_difference_bf16: float | None
    """Largest difference of a probability in bfloat16 over all images, 0 to 1."""


def draw_images(folder: Path) -> None:
    """Draw the images that all networks answer: JPEG and PNG files of odd sizes, magnifications and colors.

    Fields that look alike would be told apart by small differences of random features, which bfloat16 rounds away.
    """
    folder.mkdir(parents=True)
    for place in range(IMAGES):
        random = np.random.default_rng((_SEED, place))
        width, height = (2 * int(side) + 1 for side in random.integers(90, 350, 2))
        cut = random.uniform(0.5, 1)
        field = draw_field(random, round(width / cut), round(height / cut)).crop((0, 0, width, height))
        low, high = np.sort(random.uniform(0, 255, (2, 3)), axis=0)
        image = Image.fromarray(np.uint8(low + np.asarray(field) / 255 * (high - low)))
        ending = "jpg" if place % 2 else "png"
        image.save(folder / f"{place:02}.{ending}", quality=92)  # of JPEG


def compare(library: str, name: str, images: Path, scratch: Path) -> Agreement:
    """Make a network, build it, run it in float32 and bfloat16, and compare.

    Args:
        library: Key of `benchmarks.agreement.names.NETWORKS`.
        images: Folder of the images.
        scratch: Empty folder.

    Raises:
        subprocess.CalledProcessError: If the network cannot be made, built, or run in float32.
    """
    _python("benchmarks.agreement.prepare", library, name, str(scratch), str(images))
    source, *arguments = json.loads((scratch / ARGUMENTS).read_text())
    arguments += [] if library == "transformers" else ["--labels", ",".join(LABELS)]
    build = ("build", source, *arguments, "--out", "engine", "--precision", "fp32", "--device", "cpu")
    _python("batchcls", *build, folder=scratch)
    expected: Probabilities = np.load(scratch / PROBABILITIES)
    exact = _run(images, scratch, "fp32")
    top = np.sort(expected, axis=1)
    clear = top[:, -1] - top[:, -2] > 2 * allowed_difference("bf16")
    rounded = None
    if machine.has_bfloat16():
        with suppress(subprocess.CalledProcessError):  # the engine's probes refuse it, as the command says
            rounded = _run(images, scratch, "bf16")
    return Agreement(
        library=library,
        name=name,
        source={".pth": "state_dict", ".keras": ".keras"}.get(Path(source).suffix, "folder"),
        images=len(expected),
        same=int((exact.argmax(1) == expected.argmax(1)).sum()),
        largest_difference=float(np.abs(exact - expected).max()),
        clear=None if rounded is None else int(clear.sum()),
        same_bf16=None if rounded is None else int((rounded.argmax(1) == expected.argmax(1))[clear].sum()),
        largest_difference_bf16=None if rounded is None else float(np.abs(rounded - expected).max()),
    )


def _run(images: Path, scratch: Path, precision: str) -> Probabilities:
    """(N, classes) probabilities by the command `batchcls run`, in the order of the files' names."""
    out = scratch / f"{precision}.parquet"
    options = ("--engine", str(scratch / "engine"), "--precision", precision, "--decoder", "pillow", "--device", "cpu")
    _python("batchcls", "run", str(images), *options, "--out", str(out), "--quiet")
    table = pq.read_table(out, columns=["path", "probabilities"]).sort_by("path")
    return np.array(table["probabilities"].to_pylist(), np.float64)


def _python(module: str, *arguments: str, folder: Path | None = None) -> None:
    """Run a module of this checkout in a process of its own."""
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=folder, check=True)
