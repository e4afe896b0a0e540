"""Run an unknown ONNX file for the first time in a process of its own, which may hang, crash or run out of memory."""

import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import cast

import onnx

from batchcls.building.onnx.session import ANSWER_TIMEOUT_S, as_network_input, normalize, onnx_runner
from batchcls.engine.backends.openvino_core import CORE
from batchcls.engine.probes import draw_probes
from batchcls.errors import CheckpointError
from batchcls.networks.preprocess import Channels, Preprocess
from batchcls.storage.memory import capacity_bytes

_IMAGES = 3
_MEMORY_SHARE = 0.75
"""Share of the memory available to this process that the other process may take."""
_OUT_OF_MEMORY = 3
"""Exit code of a process that met its memory limit."""
_MEMORY_WORDS = ("alloc", "memory")


def check_runs(
    path: Path, model: onnx.ModelProto, layout: str, preprocess: Preprocess, timeout_s: float = ANSWER_TIMEOUT_S
) -> None:
    """Check that a few images can be answered by ONNX Runtime and OpenVINO, in a process of its own.

    An error that a runtime raises is passed over: running the model later raises the error again.

    Args:
        path: The file that ``model`` was read from, for errors.
        layout: ``NCHW`` or ``NHWC``, of the model's input.
        preprocess: Size and channels of the images.

    Raises:
        CheckpointError: If the images take longer than ``timeout_s`` seconds or more memory than there is, or end the
            process.
    """
    arguments = [sys.executable, "-P", "-m", "batchcls.building.onnx.sandbox", layout]
    arguments += [*map(str, preprocess.size_px), preprocess.channels]
    try:
        done = subprocess.run(  # noqa: S603  # our own module, by our own Python
            arguments, input=model.SerializeToString(), capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(
            f"{str(path)!r} has not answered {_IMAGES} images after {timeout_s:g} s, as if it looped for ever; "
            "export it without loops"
        ) from error
    if done.returncode == _OUT_OF_MEMORY:
        raise CheckpointError(f"{str(path)!r} takes more memory for {_IMAGES} images than this machine can give")
    if done.returncode < 0:
        raise CheckpointError(
            f"{str(path)!r} ends the process that runs it, by signal {-done.returncode}; it is damaged, or takes more "
            "memory than there is"
        )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise CheckpointError(f"{str(path)!r} cannot be tried: {''.join(reason)}")


def _answer_images(layout: str, preprocess: Preprocess) -> None:
    """Answer a few images by the model on standard input: the other process of `check_runs`."""
    memory_bytes = int(capacity_bytes() * _MEMORY_SHARE)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (3600, 3600))  # ends the process should its parent be gone
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(
            "1000", encoding="ascii"
        )  # the kernel ends this process before any other
    model = onnx.load_model_from_string(sys.stdin.buffer.read())
    images = normalize(draw_probes(preprocess.size_px)[:_IMAGES], preprocess, plain=True)
    try:
        with suppress(CheckpointError):
            onnx_runner(Path("the file"), model, layout)(images)
        network = CORE.read_model(model.SerializeToString())
        batch = as_network_input(images, layout, network.input(0).element_type.to_dtype())
        network.reshape(batch.shape)
        CORE.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(batch)
    except MemoryError:
        sys.exit(_OUT_OF_MEMORY)
    except RuntimeError as error:
        if any(word in str(error) for word in _MEMORY_WORDS):
            sys.exit(_OUT_OF_MEMORY)


if __name__ == "__main__":
    _answer_images(sys.argv[1], Preprocess((int(sys.argv[2]), int(sys.argv[3])), channels=cast(Channels, sys.argv[4])))
