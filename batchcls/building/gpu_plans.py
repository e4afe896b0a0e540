"""Add TensorRT plans to an engine folder: for a GPU of this machine, or for cards that are elsewhere."""

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
from batchcls.engine.backends.tensorrt_api import local_target, module_for
from batchcls.engine.check import check_answers, missing_answers_error
from batchcls.engine.manifest import MANIFEST, ONNX, Manifest, checked_onnx_path
from batchcls.engine.plan_sidecar import PLAN_ENDINGS, PLANS, Sidecar, Target
from batchcls.errors import EngineError, OutputError
from batchcls.storage.atomic import kind_of
from batchcls.storage.owned_folder import OwnedFolder
from batchcls.storage.temporary_folders import temporary_folder


def build_plan_here(folder: Path, device: str, options: PlanOptions, console: Console) -> Sidecar:
    """Add a plan for a GPU of this machine to an engine folder, checked by the engine's probes.

    Args:
        device: ``cuda:N``.

    Returns:
        The plan's sidecar, with the result of the check.

    Raises:
        EngineError: If the folder is no engine, the GPU is missing, or TensorRT cannot make the plan.
        VerificationError: If the plan's answers to the probes differ too much from the recorded ones; no plan is added
            then.
    """
    manifest, onnx = _read_network(folder)
    if not manifest.reference:  # before minutes are spent on a plan that could not be checked
        raise missing_answers_error(manifest)
    gpu = machine.gpu(device)
    module = module_for(gpu.sm)
    try:
        from batchcls.engine.backends import cuda  # cuda-python is installed where there are GPUs only
    except ImportError as error:
        raise EngineError(f"{error.name} is not installed; run: pip install 'cuda-bindings>=13'") from error

    cuda.use_gpu(gpu.number)
    with _scratch(folder) as scratch:
        sidecar = _write_plan(scratch, manifest, onnx, local_target(module, gpu), options, console)
        with closing(open_engine(scratch, manifest, backend="tensorrt", device=device, threads=1)) as engine:
            checked = replace(sidecar, check=check_answers(engine, manifest))
        _move_plan(scratch, folder, checked)
    return checked


def build_plans_for(folder: Path, names: Sequence[str], options: PlanOptions, console: Console) -> list[Sidecar]:
    """Add plans for cards that are elsewhere to an engine folder; a run on such a card is the first to check its plan.

    Args:
        names: Compute capabilities, such as ``sm86``.

    Returns:
        The sidecar of each plan.

    Raises:
        EngineError: If the folder is no engine, or TensorRT for RTX cannot make a plan; no plan is added then.
    """
    targets = targets_without_gpu(names)
    manifest, onnx = _read_network(folder)
    with _scratch(folder) as scratch:
        new_sidecars = [_write_plan(scratch, manifest, onnx, target, options, console) for target in targets]
        for sidecar in new_sidecars:
            _move_plan(scratch, folder, sidecar)
    return new_sidecars


def _read_network(folder: Path) -> tuple[Manifest, bytes]:
    """An engine's manifest, and its ONNX file as TensorRT can compute it."""
    manifest = Manifest.read(folder)
    onnx = checked_onnx_path(folder, manifest).read_bytes()
    if manifest.precision == "int8":
        from batchcls.building.onnx.edits import with_signed_activations  # int8 engines alone need the package onnx

        onnx = with_signed_activations(onnx)
    return manifest, onnx


def _write_plan(
    scratch: Path, manifest: Manifest, onnx: bytes, target: Target, options: PlanOptions, console: Console
) -> Sidecar:
    """Compile a plan, write it and its sidecar to ``scratch``, and return the sidecar."""
    cache = scratch / PLANS / f"{target.stem}.cache"
    plan, sidecar = compile_plan(onnx, manifest.precision, target, options, cache, console)
    sidecar = replace(sidecar, onnx_sha256=manifest.onnx_sha256)
    (scratch / PLANS / f"{target.stem}.plan").write_bytes(plan)
    sidecar.write(scratch / PLANS / f"{target.stem}.json")
    return sidecar


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A temporary engine folder inside ``folder``: the same network and TensorRT timings, and no plans."""
    try:
        with temporary_folder(folder) as scratch:
            (scratch / PLANS).mkdir()
            for name in (MANIFEST, ONNX):
                os.symlink(os.path.join("..", name), scratch / name)
            if kind_of(folder / PLANS):
                _copy_caches(folder / PLANS, scratch / PLANS)
            yield scratch
    except OSError as error:
        raise OutputError(
            f"cannot write to engine {str(folder)!r}: {error.strerror or error}; make room there, or copy the folder "
            "to a place that can be written to"
        ) from error


def _copy_caches(plans: Path, to: Path) -> None:
    """Copy TensorRT's timings of earlier builds."""
    with OwnedFolder(plans) as own:
        for name in own.names():
            if name.endswith(".cache"):
                own.check_file(name)
                shutil.copy(plans / name, to)


def _move_plan(scratch: Path, folder: Path, sidecar: Sidecar) -> None:
    """Move a plan into the engine folder; its sidecar comes last, because no run takes a plan without one."""
    stem = sidecar.target.stem
    sidecar.write(scratch / PLANS / f"{stem}.json")
    names = [f"{stem}{ending}" for ending in PLAN_ENDINGS]
    with OwnedFolder.made(folder / PLANS) as plans, OwnedFolder(scratch / PLANS) as new_plans:
        for name in names:
            plans.check_file(name)
        for name in filter(new_plans.holds, names):
            new_plans.move(name, plans)
