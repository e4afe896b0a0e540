"""The networks that batchcls and its peers run, prepared in the form that each of them takes."""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from rich.console import Console
from torch import nn
from torchvision.models import get_model, googlenet

from batchcls.engine.manifest import MANIFEST, ONNX, Manifest
from batchcls.networks.export import export_network
from batchcls.networks.preprocess import Preprocess
from benchmarks.peers.environment import python_for
from benchmarks.peers.process import run_script, script_path
from benchmarks.peers.registry import Network
from benchmarks.workload import Workload

ENGINE = Path(__file__).parents[1] / "engines" / "all4-googlenet"
"""The committed engine folder, whose network is GoogLeNet."""
NAMES = ("googlenet", "resnet50", "yolo11n-cls")
_WEIGHTS = "weights.pt"
_SEEDED_SCRIPT = "seeded_network"
"""Script that makes a network of random weights."""
_ULTRALYTICS_ENVIRONMENT = "ultralytics_predict"
"""Name of the virtual environment that holds Ultralytics."""
_LABELS = ("A", "B", "C", "D")
_SEED_WORKLOAD = Workload("seeded", 224, 224, images=64, seed=1_000_003)
"""Images that set the statistics and the last layer of a network with random weights."""
_CALIBRATION_WORKLOAD = Workload("calibration", 224, 224, images=300, seed=1_000_033)
"""Images for the int8 calibration; their seed, like that of `_SEED_WORKLOAD`, is none of a measured workload."""


def prepare_network(name: str, scratch: Path, engine: Path = ENGINE) -> Network:
    """A network in all its forms, stored below ``scratch``, where later calls find it.

    Args:
        name: One of `NAMES`.
        scratch: Folder that keeps prepared networks.
        engine: Engine folder whose network is GoogLeNet; the other networks have random weights.

    Raises:
        RuntimeError: If a peer is not installed whose library is needed to create the network.
    """
    make = {"googlenet": _make_googlenet, "resnet50": _make_resnet50, "yolo11n-cls": _make_yolo}[name]
    digest = hashlib.sha256(Path(__file__).read_bytes() + script_path(_SEEDED_SCRIPT).read_bytes())
    if name == "googlenet":
        digest.update((engine / MANIFEST).read_bytes())
    folder = scratch / "networks" / f"{name}-{digest.hexdigest()[:12]}"
    if not folder.exists():
        with _complete_folder(folder) as unfinished:
            make(unfinished, engine)
    return Network(engine if name == "googlenet" else folder / "engine", folder / _WEIGHTS, folder / ONNX)


def int8_engine(engine: Path, scratch: Path) -> Path:
    """An int8 engine folder with the weights of ``engine``, stored below ``scratch``, where later calls find it.

    Args:
        engine: Engine folder whose network is GoogLeNet.
        scratch: Folder that keeps prepared networks.
    """
    manifest = Manifest.read(engine)
    weights = prepare_network("googlenet", scratch, engine).weights
    folder = weights.parent / "int8"
    if not folder.exists():
        values = {"architecture": "googlenet", "labels": manifest.labels, "precision": "int8"}
        with tempfile.TemporaryDirectory() as scratch_images:
            calibrate = _CALIBRATION_WORKLOAD.draw(Path(scratch_images))
            _build(weights, folder, values | asdict(manifest.preprocess), calibrate)
    return folder


def unfused_googlenet(engine: Path, classes: int) -> nn.Module:
    """torchvision's GoogLeNet with an engine's weights, as slow as the model of a checkpoint.

    An engine's batch normalizations are folded into its convolutions. Here each is a layer again, which shifts by the
    folded bias and scales by one.

    Args:
        engine: Engine folder whose network is GoogLeNet.
        classes: Number of the engine's labels.
    """
    model: nn.Module = googlenet(weights=None, num_classes=classes, aux_logits=False, init_weights=False).eval()
    weights = {
        tensor.name.removeprefix("network."): torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
        for tensor in onnx.load(engine / ONNX).graph.initializer
    }
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            convolution = name.removesuffix("bn") + "conv"
            nn.init.constant_(module.weight, (1 + module.eps) ** 0.5)
            module.bias.data = weights.pop(f"{convolution}.bias")
    model.load_state_dict({name: weights.get(name, value) for name, value in model.state_dict().items()})
    return model


def _make_googlenet(folder: Path, engine: Path) -> None:
    manifest = Manifest.read(engine)
    model = unfused_googlenet(engine, len(manifest.labels))
    torch.save(model.state_dict(), folder / _WEIGHTS)
    export_network(model, manifest.preprocess, folder / ONNX)


def _make_resnet50(folder: Path, _: Path) -> None:
    preprocess = Preprocess()
    _make_seeded(folder, "resnet50", preprocess, Path(sys.executable))
    model = get_model("resnet50", num_classes=len(_LABELS)).eval()
    model.load_state_dict(torch.load(folder / _WEIGHTS, weights_only=True))
    export_network(model, preprocess, folder / ONNX)
    _build(folder / _WEIGHTS, folder / "engine", {"architecture": "resnet50", "labels": _LABELS})


def _make_yolo(folder: Path, _: Path) -> None:
    preprocess = Preprocess(resize="shorter", shorter_px=224, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    python = python_for(script_path(_SEEDED_SCRIPT), _ULTRALYTICS_ENVIRONMENT)
    if python is None:
        raise RuntimeError(
            "the network 'yolo11n-cls' is made by the peer 'ultralytics', which is not installed; "
            "run: python -m benchmarks install --peer ultralytics"
        )
    _make_seeded(folder, "yolo11n-cls", preprocess, python)
    _build(folder / ONNX, folder / "engine", {"labels": _LABELS, **asdict(preprocess)})


def _make_seeded(folder: Path, network: str, preprocess: Preprocess, python: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch_images:
        images = sorted(_SEED_WORKLOAD.draw(Path(scratch_images)).iterdir())
        job = {"network": network, "classes": len(_LABELS), "images": [str(image) for image in images]}
        job |= {"mean": preprocess.mean, "std": preprocess.std, "out": str(folder.absolute())}
        run_script(python, _SEEDED_SCRIPT, job)


def _build(source: Path, out: Path, values: dict[str, Any], calibrate: Path | None = None) -> None:
    from batchcls.building.build import BuildOptions, build_engine  # needs OpenVINO, which a GPU machine may lack

    build_engine(source, out, BuildOptions(values=values, calibration_images=calibrate), Console(quiet=True))


@contextmanager
def _complete_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to ``folder`` on success and removed otherwise."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield unfinished
        os.rename(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
