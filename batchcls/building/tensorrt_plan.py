"""Compile ONNX to a TensorRT plan: for the GPU in this machine, or without a GPU for other cards."""

import hashlib
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from batchcls.engine.backends.tensorrt_api import logged_errors, module_logger, rtx_capabilities, tensorrt_module
from batchcls.engine.plan_sidecar import Sidecar, Target
from batchcls.errors import EngineError
from batchcls.storage.atomic import write_whole

if TYPE_CHECKING:
    import tensorrt
    import tensorrt_rtx

_MOST_REASONS = 3
"""Most reasons of TensorRT that an error repeats."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How a plan is compiled."""

    batch_size: int = 64
    """Images in a batch: the one shape that TensorRT tunes for, and that can be captured as a CUDA graph."""
    optimization_level: int | None = None
    """0 to 5; higher levels take longer to compile. None: TensorRT's own, 3."""
    workspace_bytes: int | None = None
    """GPU memory that a layer may use as scratch space; None: all of it."""


def targets_without_gpu(names: Sequence[str]) -> list[Target]:
    """Targets of TensorRT for RTX for any card of a compute capability.

    Args:
        names: Compute capabilities, such as ``sm86``.

    Raises:
        EngineError: If TensorRT for RTX is not installed, or does not know one of ``names``.
    """
    known, version = rtx_capabilities(), str(tensorrt_module("tensorrt_rtx").__version__)
    if unknown := [name for name in names if name not in known]:
        raise EngineError(
            f"target {', '.join(map(repr, unknown))} was asked for, TensorRT for RTX {version} makes plans for "
            f"{', '.join(known)}; for another GPU run in its machine: batchcls build ENGINE --device cuda"
        )
    return [Target("tensorrt_rtx", version, name) for name in names]


def compile_plan(
    onnx: bytes, precision: str, target: Target, options: PlanOptions, cache: Path, console: Console
) -> tuple[bytes, Sidecar]:
    """The plan of an engine folder's network, and the sidecar that belongs beside the plan.

    Args:
        onnx: Content of ``model.onnx``.
        precision: Precision of ``onnx``, for the record; TensorRT takes the types in the file as they are.
        target: With a GPU's name, the plan is tuned on the current CUDA device; without, it is for any card of the
            target's compute capability.
        cache: File of TensorRT's timings, which is written for targets with a GPU.

    Raises:
        EngineError: If TensorRT cannot compile the plan; the message repeats TensorRT's reasons.
        KeyboardInterrupt: If SIGINT stopped the compilation.
    """
    trt = tensorrt_module(target.module)
    with logged_errors(target.module) as errors, _progress_monitor(target.module, console) as monitor:
        builder = trt.Builder(module_logger(target.module))
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, module_logger(target.module))
        if not parser.parse(onnx):
            raise _refusal_error(target, "read this network", _reasons(parser))
        config = builder.create_builder_config()
        config.progress_monitor = monitor
        profile, pixels = builder.create_optimization_profile(), network.get_input(0)
        shape = (options.batch_size, *list(pixels.shape)[1:])
        pixels.shape = shape  # so that the plan itself tells its batch size
        profile.set_shape(pixels.name, shape, shape, shape)
        config.add_optimization_profile(profile)
        if options.optimization_level is not None:
            config.builder_optimization_level = options.optimization_level
        if options.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        if target.module == "tensorrt_rtx":
            _configure_rtx(target, config)
        with _timing_cache(target, config, cache):
            built = builder.build_serialized_network(network, config)
        if monitor.stopped:
            raise KeyboardInterrupt
        if built is None:
            raise _refusal_error(target, f"make a plan of it for batches of {options.batch_size}", errors)
    plan = bytes(built)
    return plan, Sidecar(
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        target=target,
        batch_size=options.batch_size,
        precision=precision,
        optimization_level=options.optimization_level,
        built=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _reasons(parser: "tensorrt.OnnxParser") -> list[str]:
    """Why a parser could not read a network, by operator."""
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    return [f"{error.node_operator()} {error.node_name()}: {' '.join(error.desc().split())}" for error in errors]


def _configure_rtx(target: Target, config: "tensorrt_rtx.IBuilderConfig") -> None:
    """Set the options that only TensorRT for RTX has: capture as a CUDA graph, and the card to compile for."""
    rtx = tensorrt_module("tensorrt_rtx")
    config.set_flag(rtx.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if target.gpu is not None:
        return
    config.num_compute_capabilities = 1
    config.set_compute_capability(rtx.ComputeCapability.__members__[target.sm.upper()], 0)


@contextmanager
def _timing_cache(target: Target, config: "tensorrt.IBuilderConfig", cache: Path) -> Iterator[None]:
    """Let TensorRT reuse its timings of earlier builds. TensorRT for RTX has none: it tunes where the plan runs."""
    if target.module != "tensorrt":
        yield
        return
    before = cache.read_bytes() if cache.is_file() else b""
    timings = config.create_timing_cache(before)
    if timings is None or not config.set_timing_cache(timings, False):  # of another GPU or version
        config.set_timing_cache(config.create_timing_cache(b""), False)
    yield
    after = config.get_timing_cache()
    write_whole(cache, bytes(after.serialize()))


def _refusal_error(target: Target, action: str, reasons: list[str]) -> EngineError:
    listed = "; ".join(dict.fromkeys(reasons[:_MOST_REASONS])) or "it does not say why"
    return EngineError(
        f"{target.module} {target.version} cannot {action}: {listed}; without a plan run: batchcls run --backend "
        "onnxruntime, or with --device cpu"
    )


@contextmanager
def _progress_monitor(module: str, console: Console) -> Iterator[Any]:
    """An IProgressMonitor that draws bars on ``console``, and that lets SIGINT stop the compilation.

    SIGINT must not raise KeyboardInterrupt in the monitor: TensorRT, which calls it, cannot catch one.
    """
    trt = tensorrt_module(module)

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined,misc]  # the module is known at run time only
        def __init__(self, bars: Progress) -> None:
            super().__init__()
            self._bars = bars
            self._tasks: dict[str, Any] = {}
            self.stopped = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._tasks[phase_name] = self._bars.add_task(phase_name, total=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._bars.update(self._tasks[phase_name], completed=step + 1)
            return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            self._bars.remove_task(self._tasks.pop(phase_name))

        def stop(self, number: int, frame: FrameType | None) -> None:
            self.stopped = True

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with ExitStack() as stack:
        bars = stack.enter_context(Progress(*columns, console=console, disable=not console.is_terminal, transient=True))
        monitor = Monitor(bars)
        before = signal.signal(signal.SIGINT, monitor.stop)
        stack.callback(signal.signal, signal.SIGINT, before)
        yield monitor
