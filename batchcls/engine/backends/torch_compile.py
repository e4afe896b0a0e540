"""Compile a network for a GPU with `torch.compile`, where Triton and a C compiler are installed."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from subprocess import SubprocessError
from time import perf_counter

import torch
from torch import Tensor, nn

Classify = Callable[[Tensor], Tensor]
"""(N, H, W, 3) uint8 RGB to (N, classes) float32 logits, on one device."""
_OLDEST_CAPABILITY = (7, 0)
"""Compute capability of the oldest GPUs that Triton compiles for."""
_COMPILER_REMEDY = "if a C compiler or Python's headers are missing, run: apt-get install gcc python3-dev"
_LONG_COMPILATION_S = 10.0
"""Seconds of compilation from which on the user is told why the start took so long."""


def compiled(classifier: nn.Module, pixels: Tensor) -> tuple[Classify | None, str]:
    """`classifier` compiled for batches like ``pixels``, and a note for the user, which may be empty.

    PyTorch keeps the compiled kernels in the folder that TORCHINDUCTOR_CACHE_DIR names, by default in one of this user
    below the folder for temporary files, so that only the first start on a machine takes long.

    Args:
        classifier: In eval mode, on the device of ``pixels``.
        pixels: (N, H, W, 3) uint8; the compiled function is called with them once, which compiles it.

    Returns:
        The compiled function, or None if the network cannot be compiled here; the note says why then.

    Raises:
        torch.OutOfMemoryError: If the GPU has not enough memory for the batch.

    Source: https://docs.pytorch.org/docs/stable/torch.compiler.html
    """
    if pixels.is_cuda and (obstacle := _obstacle(pixels.device)):
        return None, obstacle
    since = perf_counter()
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # they advise developers of networks
            torch.compiler.reset()  # PyTorch compiles a class for 8 networks at most
            function: Classify = torch.compile(classifier, fullgraph=True, dynamic=False)
            if function is classifier or torch._dynamo.config.disable:
                return None, _not_compiled(
                    "the environment says so", "run: unset TORCHDYNAMO_DISABLE TORCH_COMPILE_DISABLE"
                )
            function(pixels)
    except torch.OutOfMemoryError:
        raise
    # Triton compiles its launcher with the C compiler, and loads the library: either may fail in its own way. PyTorch
    # asserts that its guards hold, which they did not in 2.11 for an array of NumPy in a forward function.
    except (RuntimeError, AssertionError, OSError, ImportError, SubprocessError) as error:
        return None, _not_compiled(_first_line(error), _COMPILER_REMEDY)
    seconds = perf_counter() - since
    if seconds < _LONG_COMPILATION_S:
        return function, ""
    return function, (
        f"the network was compiled for this GPU in {seconds:.0f} s; the next start takes less, unless PyTorch's cache "
        "is cleared, which a reboot may do: to keep it, export TORCHINDUCTOR_CACHE_DIR=DIR"
    )


def _obstacle(device: torch.device) -> str:
    """The note about a GPU that nothing can be compiled for; empty if there is no obstacle."""
    if (capability := torch.cuda.get_device_capability(device)) < _OLDEST_CAPABILITY:
        needed, own = ("{}.{}".format(*version) for version in (_OLDEST_CAPABILITY, capability))
        return _not_compiled(f"Triton needs compute capability {needed}, this GPU has {own}")
    if not find_spec("triton"):
        return _not_compiled("Triton is not installed", "run: pip install triton")
    return ""


def _not_compiled(reason: str, remedy: str = "") -> str:
    return "; ".join(filter(None, (f"the network is not compiled, and so computed more slowly: {reason}", remedy)))


def _first_line(error: BaseException) -> str:
    """The first line of what a compiler says."""
    inner = getattr(error, "inner_exception", error)  # `torch._dynamo.exc.BackendCompilerFailed` wraps the cause
    lines = str(inner).strip().splitlines()
    return f"{type(inner).__name__}: {lines[0].strip()}" if lines else type(inner).__name__
