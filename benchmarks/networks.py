"""The networks that peers run: each as a batchcls engine, as PyTorch weights, and as float32 ONNX."""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from rich.console import Console
from torch import nn
from torchvision.models import get_model, googlenet

from batchcls.building.build import build_engine
from batchcls.building.export import export_network
from batchcls.engine.manifest import MANIFEST, ONNX, Manifest
from batchcls.records import Preprocess
from benchmarks import peers
from benchmarks.peers.environment import python_for
from benchmarks.workload import Workload

ENGINE = Path(__file__).parents[1] / "engines" / "all4-googlenet"
NAMES = ("googlenet", "resnet50", "yolo11n-cls")
_WEIGHTS = "weights.pt"
_SEEDED = "seeded_network"
_LABELS = ("A", "B", "C", "D")
_FOR_THE_LAST_LAYER = Workload("seeded", 224, 224, images=64, seed=1_000_003)
_FOR_INT8 = Workload("calibration", 224, 224, images=300, seed=1_000_033)
"""Seeds that no measured workload has."""


@dataclass(frozen=True, slots=True)
class Network:
    """One network in the three forms that batchcls and its peers take."""

    engine: Path
    """A batchcls engine folder."""
    weights: Path
    """A PyTorch state_dict, float32, under the names that the network's own library uses."""
    onnx: Path
    """Float32; normalised (N, 3, H, W) in, (N, classes) out: logits, or what Ultralytics exports, probabilities."""


def prepared(name: str, scratch: Path, engine: Path = ENGINE) -> Network:
    """One of `NAMES`, made below ``scratch`` if it is not there.

    Args:
        engine: GoogLeNet's, which is committed; the others are random, and made here.

    Raises:
        RuntimeError: If the peer that it takes to make it is not installed.
    """
    make = {"googlenet": _googlenet, "resnet50": _resnet50, "yolo11n-cls": _yolo}[name]
    digest = hashlib.sha256(Path(__file__).read_bytes() + peers.script_path(_SEEDED).read_bytes())
    if name == "googlenet":
        digest.update((engine / MANIFEST).read_bytes())
    folder = scratch / "networks" / f"{name}-{digest.hexdigest()[:12]}"
    if not folder.exists():
        with _whole(folder) as new:
            make(new, engine)
    return Network(engine if name == "googlenet" else folder / "engine", folder / _WEIGHTS, folder / ONNX)


def int8(engine: Path, scratch: Path) -> Path:
    """A GoogLeNet engine of the same weights that computes in eight bits."""
    manifest = Manifest.read(engine)
    weights = prepared("googlenet", scratch, engine).weights
    folder = weights.parent / "int8"
    if not folder.exists():
        values = {"architecture": "googlenet", "labels": manifest.labels, "precision": "int8"}
        with tempfile.TemporaryDirectory() as drawn:
            calibrate = _FOR_INT8.draw(Path(drawn))
            _build(weights, folder, values | asdict(manifest.preprocess), calibrate)
    return folder


def unfused_googlenet(engine: Path, classes: int) -> nn.Module:
    """torchvision's GoogLeNet as it is trained, with an engine's weights.

    An engine holds each batch normalisation folded into its convolution; here it is one of its own again, which
    shifts by the folded bias and scales by one, so that this model costs what a checkpoint's would.
    """
    model: nn.Module = googlenet(weights=None, num_classes=classes, aux_logits=False, init_weights=False).eval()
    weights = {
        item.name.removeprefix("network."): torch.from_numpy(numpy_helper.to_array(item).astype(np.float32))
        for item in onnx.load(engine / ONNX).graph.initializer
    }
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            convolution = name.removesuffix("bn") + "conv"
            nn.init.constant_(module.weight, (1 + module.eps) ** 0.5)
            module.bias.data = weights.pop(f"{convolution}.bias")
    model.load_state_dict({name: weights.get(name, value) for name, value in model.state_dict().items()})
    return model


def _googlenet(folder: Path, engine: Path) -> None:
    manifest = Manifest.read(engine)
    model = unfused_googlenet(engine, len(manifest.labels))
    torch.save(model.state_dict(), folder / _WEIGHTS)
    export_network(model, manifest.preprocess, folder / ONNX)


def _resnet50(folder: Path, _: Path) -> None:
    preprocess = Preprocess()
    _seeded(folder, "resnet50", preprocess, Path(sys.executable))
    model = get_model("resnet50", num_classes=len(_LABELS)).eval()
    model.load_state_dict(torch.load(folder / _WEIGHTS, weights_only=True))
    export_network(model, preprocess, folder / ONNX)
    _build(folder / _WEIGHTS, folder / "engine", {"architecture": "resnet50", "labels": _LABELS})


def _yolo(folder: Path, _: Path) -> None:
    preprocess = Preprocess(resize="shorter", shorter_px=224, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    python = python_for(peers.script_path(_SEEDED), peers.PEERS["ultralytics"].script)
    if python is None:
        raise RuntimeError("yolo11n-cls is made in the environment of the peer 'ultralytics', which is not installed")
    _seeded(folder, "yolo11n-cls", preprocess, python)
    _build(folder / ONNX, folder / "engine", {"labels": _LABELS, **asdict(preprocess)})


def _seeded(folder: Path, network: str, preprocess: Preprocess, python: Path) -> None:
    with tempfile.TemporaryDirectory() as drawn:
        images = sorted(_FOR_THE_LAST_LAYER.draw(Path(drawn)).iterdir())
        job = {"network": network, "classes": len(_LABELS), "images": [str(image) for image in images]}
        job |= {"mean": preprocess.mean, "std": preprocess.std, "out": str(folder.absolute())}
        peers.run_script(python, _SEEDED, job)


def _build(source: Path, out: Path, values: dict[str, Any], calibrate: Path | None = None) -> None:
    build_engine(source, out, recipe=None, values=values, images=None, console=Console(quiet=True), calibrate=calibrate)


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder that takes its name once it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield new
        os.rename(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
