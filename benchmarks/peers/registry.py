"""The registry of peers, and how one is installed and measured."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from batchcls.engine.manifest import Manifest
from benchmarks.peers.environment import install_environment, python_for
from benchmarks.peers.process import run_script, script_path
from benchmarks.sample import Sample


@dataclass(frozen=True, slots=True)
class Network:
    """A network in the three forms that batchcls and its peers take."""

    engine: Path
    """Engine folder of batchcls."""
    weights: Path
    """PyTorch state_dict in float32, with the parameter names of the network's own library."""
    onnx: Path
    """ONNX file in float32, from normalized (N, 3, H, W) images to (N, classes) logits; Ultralytics: probabilities."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A way to classify a folder, or to run a network, without batchcls."""

    name: str
    """Name in records and tables."""
    script: str
    """Name of a file below ``scripts``, without ``.py``."""
    environment: str = ""
    """Name of the virtual environment, which scripts may share; empty for one that is named after the script."""
    network: str = "googlenet"
    """One of `benchmarks.networks.NAMES`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that the script reads."""
    kind: Literal["end-to-end", "engine-only"] = "end-to-end"
    """Whether the peer classifies files, or runs the network on no images at all."""
    devices: tuple[str, ...] = ("cpu", "cuda")
    """Kinds of device that the peer runs on."""
    program: str = ""
    """Program that must be on the PATH, because no package index has it; empty for none."""


_TORCHVISION_MODES = {"eager": "eager FP32", "compile": "torch.compile FP32", "bf16": "channels_last BF16 autocast"}

PEERS: dict[str, Peer] = {
    **{
        f"torchvision-{mode}-{workers}": Peer(
            f"torchvision DataLoader, {name}, {workers} workers",
            "torchvision_loop",
            environment="torch",
            settings={"mode": mode, "workers": workers},
            program="c++" if mode == "compile" else "",
        )
        for mode, name in _TORCHVISION_MODES.items()
        for workers in (0, 1, 2)
    },
    "timm": Peer("timm inference script, 2 workers", "timm_inference", environment="torch", network="resnet50"),
    "ray": Peer("Ray Data, eager FP32", "ray_data", environment="torch"),
    "onnxruntime": Peer("ONNX Runtime FP32, Pillow in threads", "onnxruntime_pool", devices=("cpu",)),
    "ultralytics": Peer("Ultralytics predict", "ultralytics_predict", network="yolo11n-cls"),
    "benchmark_app": Peer(
        "OpenVINO benchmark_app, throughput hint",
        "openvino_app",
        settings={"batch_size": 1, "seconds": 10},
        kind="engine-only",
        devices=("cpu",),
    ),
    "trtexec": Peer("TensorRT trtexec", "trtexec", kind="engine-only", devices=("cuda",), program="trtexec"),
}
"""All peers, by the short name that the command line uses."""


def is_installed(peer: Peer) -> bool:
    """Whether `measure_peer` can run ``peer``, in its own environment or in the running one."""
    return _python(peer) is not None


def install_peer(peer: Peer) -> None:
    """Create the environment of ``peer``, unless it exists with the present requirements of its scripts.

    Raises:
        subprocess.CalledProcessError: If pip fails; the environment is incomplete then, and not used.
    """
    environment = _environment(peer)
    scripts = {other.script for other in PEERS.values() if _environment(other) == environment}
    install_environment(environment, map(script_path, scripts))


def measure_peer(peer: Peer, folder: Path, files: Sequence[Path], network: Network, device: str) -> Sample:
    """Run ``peer`` once in a process of its own.

    Args:
        peer: An installed peer.
        folder: Folder of images.
        files: Files below ``folder`` to classify.
        network: The network named by ``peer.network``.
        device: ``cpu`` or ``cuda:N``.

    Raises:
        RuntimeError: If the peer is not installed, fails, or takes longer than an hour; the end of its stderr is
            quoted.
    """
    manifest = Manifest.read(network.engine)
    folder = folder.absolute()
    job = {
        "folder": str(folder),
        "files": [str(file.absolute().relative_to(folder)) for file in files],
        "network": peer.network,
        **{form: str(getattr(network, form).absolute()) for form in ("engine", "weights", "onnx")},
        "labels": manifest.labels,
        "preprocess": asdict(manifest.preprocess),
        "device": device,
        "settings": peer.settings,
    }
    python = _python(peer)
    if python is None:
        program = f", with {peer.program!r} on the PATH" if peer.program else ""
        raise RuntimeError(f"the peer {peer.name!r} is not installed; run: python -m benchmarks install{program}")
    answer, peak_memory_bytes = run_script(python, peer.script, job)
    has_own_environment = python != Path(sys.executable)
    details = {"environment": "its own" if has_own_environment else "batchcls's", **answer["details"]}
    return Sample(answer["elapsed_s"], answer["images"], answer["answers"], peak_memory_bytes, details)


def _environment(peer: Peer) -> str:
    return peer.environment or peer.script


def _python(peer: Peer) -> Path | None:
    if peer.program and shutil.which(peer.program) is None:
        return None
    return python_for(script_path(peer.script), _environment(peer))
