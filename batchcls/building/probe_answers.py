"""Give a new engine its probes, and record the answers with which every later run is compared."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console

from batchcls import machine
from batchcls.building.probe_selection import select_mixtures
from batchcls.building.quantization import exact_logits
from batchcls.building.verification import open_on_cpu
from batchcls.engine.check import check_answers, check_exported_answers, compare_predictions
from batchcls.engine.check_result import Platform
from batchcls.engine.manifest import ONNX, Manifest
from batchcls.engine.postprocess import to_predictions
from batchcls.engine.probe_features import write_probe_features
from batchcls.engine.probes import Mixture, draw_probes
from batchcls.errors import VerificationError
from batchcls.records import Logits, Pixels

_Rows = tuple[tuple[float, ...], ...]
"""Logits by probe, as engine.json holds them."""


def choose_probes(answer: Callable[[Pixels], Logits], size_px: tuple[int, int]) -> tuple[tuple[Mixture, ...], _Rows]:
    """Probes that suit a network, and the network's float32 logits for each of them.

    Args:
        answer: The trained network, from (N, H, W, 3) uint8 to (N, classes) float32 logits.
        size_px: Height and width of the probes.
    """
    mixtures = select_mixtures(answer, size_px)
    return mixtures, _rows(answer(draw_probes(size_px, mixtures)))


def record_answers(folder: Path, manifest: Manifest, console: Console) -> Manifest:
    """``manifest`` with the engine's own answers to its probes, and their difference from the trained network's.

    Where this CPU's default arithmetic answers too differently, the manifest asks for float32.

    Args:
        folder: The engine folder, with its ONNX file.

    Raises:
        VerificationError: If the exported network answers otherwise than the trained one, or OpenVINO otherwise than
            the ONNX file's operators are defined.
    """
    pixels = draw_probes(manifest.preprocess.size_px, manifest.probes)
    record_features(folder, manifest)
    with closing(open_on_cpu(folder, manifest, "f32")) as exact_engine:
        if manifest.precision == "int8":
            answers = exact_logits(onnx.load(folder / ONNX), pixels)
        else:
            check_exported_answers(exact_engine, manifest)
            answers = exact_engine.infer(pixels).logits
        manifest = replace(manifest, answers=_rows(answers))
        check_answers(exact_engine, manifest)
    with closing(open_on_cpu(folder, manifest)) as engine:
        try:
            check_answers(engine, manifest)
        except VerificationError as error:
            console.print(f"a run will compute in float32 unless told otherwise: {error}", highlight=False)
            manifest = replace(manifest, exact=True)
    with closing(open_on_cpu(folder, manifest)) as engine:
        info = engine.info
        reference = to_predictions(np.array(manifest.reference, np.float32))
        check = compare_predictions(to_predictions(engine.infer(pixels).logits), reference)
    platform = Platform(info.backend, info.precision, info.device, tuple(machine.cpu_features()))
    return replace(manifest, check=check, checked_on=platform)


def record_features(folder: Path, manifest: Manifest) -> None:
    """Write the features of an engine's probes, in float32, into its folder; nothing for an engine without features."""
    if manifest.features:
        with closing(open_on_cpu(folder, manifest, "f32", features=True)) as engine:
            pixels = draw_probes(manifest.preprocess.size_px, manifest.probes)
            write_probe_features(folder, engine.infer(pixels).features)


def _rows(logits: Logits) -> _Rows:
    """Logits as JSON numbers of nine digits, which tell every float32 from its neighbors."""
    return tuple(tuple(float(f"{logit:.9g}") for logit in row) for row in logits)
