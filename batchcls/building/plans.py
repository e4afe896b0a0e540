"""An engine folder is fitted to GPUs: each gets a plan, checked where it can run."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from batchcls import machine
from batchcls.building.tensorrt_plan import PlanOptions, compile_plan, targets_without_gpu
from batchcls.engine.backends import open_engine
from batchcls.engine.backends.tensorrt_api import here, module_for
from batchcls.engine.check import check, no_reference
from batchcls.engine.manifest import MANIFEST, ONNX, Manifest, checked_onnx
from batchcls.engine.sidecar import PLANS, Sidecar, Target
from batchcls.errors import EngineError, OutputError
from batchcls.storage.atomic import kind_of
from batchcls.storage.own_folder import OwnFolder
from batchcls.storage.scratch import scratch_folder


def build_plan_here(folder: Path, device: str, options: PlanOptions, console: Console) -> Sidecar:
    """Give an engine folder a plan for a GPU of this machine, once it has answered the probes as in training.

    Args:
        device: ``cuda:N``.

    Raises:
        EngineError: If the folder, the GPU or TensorRT refuses.
        VerificationError: If the plan answers otherwise than the recorded reference; none is left behind.
    """
    manifest, onnx = _read(folder)
    if not manifest.reference:  # before minutes are spent on what could not be checked
        raise no_reference(manifest)
    gpu = machine.gpu(device)
    module = module_for(gpu.sm)
    try:
        from batchcls.engine.backends import cuda  # cuda-python is installed where there are GPUs only
    except ImportError as error:
        raise EngineError(f"{error.name} is not installed; run: pip install 'cuda-bindings>=13'") from error

    cuda.use(gpu.number)
    with _scratch(folder) as scratch:
        sidecar = _made(scratch, manifest, onnx, here(module, gpu), options, console)
        with closing(open_engine(scratch, backend="tensorrt", device=device, threads=1)) as engine:
            checked = replace(sidecar, check=check(engine, manifest))
        _put(scratch, folder, checked)
    return checked


def build_plans_for(folder: Path, names: Sequence[str], options: PlanOptions, console: Console) -> list[Sidecar]:
    """Give an engine folder plans for cards that are not here, by compute capability (``sm86``).

    They are checked by nobody before they run.

    Raises:
        EngineError: If the folder or TensorRT for RTX refuses.
    """
    targets = targets_without_gpu(names)
    manifest, onnx = _read(folder)
    with _scratch(folder) as scratch:
        made = [_made(scratch, manifest, onnx, target, options, console) for target in targets]
        for sidecar in made:
            _put(scratch, folder, sidecar)
    return made


def _read(folder: Path) -> tuple[Manifest, bytes]:
    manifest = Manifest.read(folder)
    onnx = checked_onnx(folder, manifest).read_bytes()
    if manifest.precision == "int8":
        from batchcls.building.onnx.signed import signed_activations  # onnx is needed for these alone

        onnx = signed_activations(onnx)
    return manifest, onnx


def _made(
    scratch: Path, manifest: Manifest, onnx: bytes, target: Target, options: PlanOptions, console: Console
) -> Sidecar:
    """A plan and its sidecar, written to ``scratch``."""
    cache = scratch / PLANS / f"{target.stem}.cache"
    plan, sidecar = compile_plan(onnx, manifest.precision, target, options, cache, console)
    sidecar = replace(sidecar, onnx_sha256=manifest.onnx_sha256)
    (scratch / PLANS / f"{target.stem}.plan").write_bytes(plan)
    sidecar.write(scratch / PLANS / f"{target.stem}.json")
    return sidecar


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An engine folder inside ``folder`` for the time being, with its network, its timings and no plan."""
    try:
        with scratch_folder(folder) as scratch:
            (scratch / PLANS).mkdir()
            for name in (MANIFEST, ONNX):
                os.symlink(os.path.join("..", name), scratch / name)
            if kind_of(folder / PLANS):
                _copy_caches(folder / PLANS, scratch / PLANS)
            yield scratch
    except OSError as error:
        raise OutputError(
            f"cannot write to engine {str(folder)!r}: {error.strerror or error}; make room there"
        ) from error


def _copy_caches(plans: Path, to: Path) -> None:
    """Take over what TensorRT has timed before."""
    with OwnFolder(plans) as own:
        for name in own.names():
            if name.endswith(".cache"):
                own.check_file(name)
                shutil.copy(plans / name, to)


def _put(scratch: Path, folder: Path, sidecar: Sidecar) -> None:
    """Move a plan to its place; without its sidecar, which comes last, nobody would take it."""
    stem = sidecar.target.stem
    sidecar.write(scratch / PLANS / f"{stem}.json")
    names = [f"{stem}{ending}" for ending in (".cache", ".plan", ".json")]
    with OwnFolder.made(folder / PLANS) as plans, OwnFolder(scratch / PLANS) as made:
        for name in names:
            plans.check_file(name)
        for name in filter(made.holds, names):
            made.move(name, plans)
