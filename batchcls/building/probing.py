"""A new engine is given its probes, and answers them for the first time."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console

from batchcls import machine
from batchcls.building.probe_selection import undecided_mixtures
from batchcls.building.quantization import exact_logits
from batchcls.engine.backends import open_engine
from batchcls.engine.base import Engine
from batchcls.engine.check import check, check_export, compared
from batchcls.engine.check_result import Platform
from batchcls.engine.manifest import ONNX, Manifest
from batchcls.engine.postprocess import predictions
from batchcls.engine.probes import Mixture, probe_pixels
from batchcls.errors import VerificationError
from batchcls.records import Logits, Pixels

_Rows = tuple[tuple[float, ...], ...]


def chosen_probes(answer: Callable[[Pixels], Logits], size_px: tuple[int, int]) -> tuple[tuple[Mixture, ...], _Rows]:
    """Probes that suit a network, and what it answers to them in float32."""
    probes = undecided_mixtures(answer, size_px)
    return probes, _rounded(answer(probe_pixels(size_px, probes)))


def probed(folder: Path, manifest: Manifest, console: Console) -> Manifest:
    """``manifest`` with its network's own answers to the probes, once the engine is known to give them.

    Raises:
        VerificationError: If what was exported answers otherwise than the trained network, or than its own file.
    """
    pixels = probe_pixels(manifest.preprocess.size_px, manifest.probes)
    with closing(open_on_cpu(folder, "f32")) as exact:
        if manifest.precision == "int8":
            answers = exact_logits(onnx.load(folder / ONNX), pixels)
        else:
            check_export(exact, manifest)
            answers = exact.infer(pixels)
        manifest = replace(manifest, answers=_rounded(answers))
        check(exact, manifest)
    with closing(open_on_cpu(folder)) as engine:
        try:
            check(engine, manifest)
        except VerificationError as error:
            console.print(f"a run will compute in float32 unless told otherwise: {error}", highlight=False)
            manifest = replace(manifest, exact=True)
            manifest.write(folder)
    with closing(open_on_cpu(folder)) as engine:
        info = engine.info
        found = compared(predictions(engine.infer(pixels)), predictions(np.array(manifest.reference, np.float32)))
    platform = Platform(info.backend, info.precision, info.device, tuple(machine.cpu_features()))
    return replace(manifest, check=found, checked_on=platform)


def _rounded(logits: Logits) -> _Rows:
    """As they are: nine digits tell every float32 from its neighbours."""
    return tuple(tuple(float(f"{logit:.9g}") for logit in row) for row in logits)


def open_on_cpu(folder: Path, precision: str | None = None) -> Engine:
    return open_engine(folder, backend="openvino", device="cpu", threads=machine.cores(), precision=precision)
