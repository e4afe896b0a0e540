"""A stranger's ONNX file is run for the first time in a process of its own, which may hang, end or take all memory."""

import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import openvino as ov

from batchcls.building.onnx.session import ANSWER_TIMEOUT_S, as_fed, runner
from batchcls.engine.probes import probe_pixels
from batchcls.errors import CheckpointError
from batchcls.memory import capacity_bytes

_IMAGES = 3
_MEMORY_SHARE = 0.75
"""Of what this process could take, that a network may with all that runs it."""
_NO_MEMORY = 3
"""Exit code."""
_MEMORY_WORDS = ("alloc", "memory")


def try_out(
    path: Path, model: onnx.ModelProto, layout: str, size_px: tuple[int, int], timeout_s: float = ANSWER_TIMEOUT_S
) -> None:
    """Have a process of its own answer a few images by ONNX Runtime and OpenVINO; what they only refuse is passed over.

    Raises:
        CheckpointError: If that takes longer than ``timeout_s`` seconds, or more memory than there is, or ends the
            process.
    """
    arguments = [sys.executable, "-P", "-m", "batchcls.building.onnx.trial", layout, *map(str, size_px)]
    try:
        done = subprocess.run(  # noqa: S603  # it is ourselves
            arguments, input=model.SerializeToString(), capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(
            f"{str(path)!r} has not answered {_IMAGES} images after {timeout_s:g} s, as if it looped for ever; "
            "export it without loops"
        ) from error
    if done.returncode == _NO_MEMORY:
        raise CheckpointError(f"{str(path)!r} takes more memory for {_IMAGES} images than this machine can give")
    if done.returncode < 0:
        raise CheckpointError(
            f"{str(path)!r} ends the process that runs it, by signal {-done.returncode}; it is damaged, or takes more "
            "memory than there is"
        )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise CheckpointError(f"{str(path)!r} cannot be tried: {''.join(reason)}")


def _try(layout: str, size_px: tuple[int, int]) -> None:
    """The other side of `try_out`: the model comes on stdin."""
    memory_bytes = int(capacity_bytes() * _MEMORY_SHARE)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (3600, 3600))  # should nobody wait any more
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")  # it first
    model = onnx.load_model_from_string(sys.stdin.buffer.read())
    pixels = probe_pixels(size_px)[:_IMAGES]
    images = np.asarray(pixels.transpose(0, 3, 1, 2) / np.float32(255), np.float32)
    try:
        with suppress(CheckpointError):
            runner(Path("the file"), model, layout)(images)
        network = ov.Core().read_model(model.SerializeToString())
        batch = as_fed(images, layout, network.input(0).element_type.to_dtype())
        network.reshape(batch.shape)
        ov.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(batch)
    except MemoryError:
        sys.exit(_NO_MEMORY)
    except RuntimeError as error:
        if any(word in str(error) for word in _MEMORY_WORDS):
            sys.exit(_NO_MEMORY)


if __name__ == "__main__":
    _try(sys.argv[1], (int(sys.argv[2]), int(sys.argv[3])))
