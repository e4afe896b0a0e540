"""What people use instead of batchcls, each run as its own users would, in an environment of its own.

A peer is a script beside this file that imports nothing of batchcls and names what it needs in its inline metadata
(PEP 723). It is given one JSON object on stdin, and its last line on stdout is another:

- in: ``folder``, ``files`` (relative to it), ``network`` (its name), ``engine``, ``weights``, ``onnx``, ``labels``,
  ``preprocess``, ``device``, ``settings``
- out: ``elapsed_s``, ``images``, ``answers`` (the probabilities by relative path), ``details``

The clock starts once the network is loaded and has answered a first batch: starting up is not charged to a peer.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import TYPE_CHECKING, Any, Literal

from batchcls.engine.manifest import Manifest
from benchmarks.peers.environment import install as install_environment
from benchmarks.peers.environment import python_for
from benchmarks.peers.memory import Watch
from benchmarks.sample import Sample

if TYPE_CHECKING:
    from benchmarks.networks import Network

_LONGEST_S = 3600.0
_SHOWN_ERROR = 2000


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to classify a folder, or to run a network, without batchcls."""

    name: str
    """As tables show it."""
    script: str
    """The stem of a file in this folder."""
    environment: str = ""
    """Its own, by default; scripts of one environment share what is installed."""
    network: str = "googlenet"
    """One of `benchmarks.networks.NAMES`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["end-to-end", "engine-only"] = "end-to-end"
    devices: tuple[str, ...] = ("cpu", "cuda")
    """Kinds of device that it is for."""
    program: str = ""
    """What else it needs on the PATH, for no package index has it."""


_TORCHVISION = {"eager": "eager FP32", "compile": "torch.compile FP32", "bf16": "channels_last BF16 autocast"}

PEERS: dict[str, Peer] = {
    **{
        f"torchvision-{mode}-{workers}": Peer(
            f"torchvision DataLoader, {name}, {workers} workers",
            "torchvision_loop",
            environment="torch",
            settings={"mode": mode, "workers": workers},
            program="c++" if mode == "compile" else "",
        )
        for mode, name in _TORCHVISION.items()
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
"""By a short name, for command lines."""


def installed(peer: Peer) -> bool:
    """Whether `take` can run it: in its own environment, or in ours where that happens to hold all that it needs."""
    return _python(peer) is not None


def install(peer: Peer) -> None:
    """Make the peer's own environment, if there is none or its script has come to need something else.

    Raises:
        subprocess.CalledProcessError: If pip fails; there is no environment then.
    """
    environment = _environment(peer)
    sharing = {other.script for other in PEERS.values() if _environment(other) == environment}
    install_environment(environment, map(script_path, sharing))


def take(peer: Peer, folder: Path, files: Sequence[Path], network: "Network", device: str) -> Sample:
    """Run ``peer`` once in a process of its own.

    Args:
        files: Below ``folder``.
        device: ``cpu`` or ``cuda:N``.

    Raises:
        RuntimeError: If it is not installed, takes longer than an hour, or fails; with the end of what it said.
    """
    manifest = Manifest.read(network.engine)
    folder = folder.absolute()
    job = {
        "folder": str(folder),
        "files": [str(file.absolute().relative_to(folder)) for file in files],
        "network": peer.network,
        **{item: str(getattr(network, item).absolute()) for item in ("engine", "weights", "onnx")},
        "labels": manifest.labels,
        "preprocess": asdict(manifest.preprocess),
        "device": device,
        "settings": peer.settings,
    }
    python = _python(peer)
    if python is None:
        raise RuntimeError(f"{peer.name} is not installed")
    answer, peak_memory_bytes = run_script(python, peer.script, job)
    own = python != Path(sys.executable)
    details = {"environment": "its own" if own else "batchcls's", **answer["details"]}
    return Sample(answer["elapsed_s"], answer["images"], answer["answers"], peak_memory_bytes, details)


def script_path(name: str) -> Path:
    """The file of a script in this folder."""
    return Path(__file__).parent / f"{name}.py"


def run_script(python: Path, script: str, job: Mapping[str, Any]) -> tuple[Any, int]:
    """What a script of this folder answers to ``job``, and the peak memory of its processes in bytes."""
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    # where it may leave what it likes; the path is short, for Ray's sockets are below it
    with TemporaryDirectory(prefix="peer") as scratch, TemporaryFile() as errors:
        command = [python, script_path(script)]
        with subprocess.Popen(
            command,
            cwd=scratch,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        ) as process:
            try:
                with Watch(process.pid) as watch:
                    out, _ = process.communicate(json.dumps(job).encode(), _LONGEST_S)
            except subprocess.TimeoutExpired as error:
                raise RuntimeError(f"{script} took longer than {_LONGEST_S:.0f} s") from error
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what it has started may be there still
        if process.returncode or not out.strip():
            errors.seek(0)
            said = errors.read().decode(errors="replace")[-_SHOWN_ERROR:]
            raise RuntimeError(f"{script} failed with exit code {process.returncode}: {said}")
        return json.loads(out.splitlines()[-1]), watch.peak_bytes


def _environment(peer: Peer) -> str:
    return peer.environment or peer.script


def _python(peer: Peer) -> Path | None:
    if peer.program and shutil.which(peer.program) is None:
        return None
    return python_for(script_path(peer.script), _environment(peer))
