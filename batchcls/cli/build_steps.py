"""The steps of ``batchcls build``, each with the lines that it prints."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchcls.cli.build_summary import (
    accuracy_summary,
    agreement_summary,
    novelty_summary,
    order_warning,
    plan_summary,
    promise_summary,
    unreadable_warning,
)
from batchcls.cli.libraries import extra
from batchcls.cli.printing import echo
from batchcls.errors import EngineError

if TYPE_CHECKING:
    from rich.console import Console

    from batchcls.building.tensorrt_plan import PlanOptions


def store_promise(folder: Path, metrics: Path) -> None:
    """Put the conformal thresholds of an evaluation into the engine that it was of."""
    from batchcls.building.conformal import store_thresholds

    echo(*promise_summary(store_thresholds(folder, metrics)))


def teach_novelty(folder: Path, images: Path, console: "Console") -> None:
    """Let an engine learn from a folder of images how strange others look."""
    with extra("build", "giving an engine novelty"):
        from batchcls.building.novelty import add_novelty

    echo(*novelty_summary(add_novelty(folder, images, console)))


def build_folder(
    source: Path, out: Path, novelty_images: Path | None, trained_file_options: dict[str, Any], console: "Console"
) -> None:
    """Build an engine folder from a trained file."""
    from batchcls.networks.label_folder import folder_labels_note
    from batchcls.networks.recipe import labels_from_argument

    with extra("build", "building a trained file"):
        from batchcls.building.build import BuildOptions, build_engine

    values = dict(trained_file_options)
    if "labels" in values:
        text = values["labels"]
        values["labels"] = labels_from_argument(text)
        if os.path.isdir(text):
            console.print(folder_labels_note(text, values["labels"]), markup=False, highlight=False, soft_wrap=True)
    recipe, calibrate, verify = (values.pop(key, None) for key in ("recipe", "calibrate", "verify"))
    overwrite = bool(values.pop("overwrite", False))
    manifest = build_engine(
        source, out, BuildOptions(recipe, values, calibrate, verify, novelty_images, overwrite), console
    )
    accuracy = manifest.verification.accuracy if manifest.verification else None
    if warning := order_warning(accuracy):
        echo(warning, err=True)
    if warning := unreadable_warning(manifest):
        echo(warning)
    echo(f"{manifest.architecture} {manifest.precision} with {len(manifest.labels)} classes -> {out}")
    echo(agreement_summary(manifest))
    if accuracy:
        echo(accuracy_summary(accuracy))
    echo(*novelty_summary(manifest))


def build_plans_elsewhere(
    folder: Path, capabilities: Sequence[str], options: "PlanOptions", console: "Console"
) -> None:
    """Make plans for GPUs that are not in this machine."""
    from batchcls.building.gpu_plans import build_plans_for

    for sidecar in build_plans_for(folder, capabilities, options, console):
        echo(plan_summary(sidecar))


def build_plan(folder: Path, device: str, options: "PlanOptions", console: "Console", *, required: bool) -> None:
    """Make a plan for a GPU of this machine; without a GPU or TensorRT, make none unless it is ``required``."""
    from batchcls import machine
    from batchcls.building.gpu_plans import build_plan_here
    from batchcls.engine.backends import tensorrt_api

    (plan_device,) = machine.resolve_devices(
        "cuda" if required and device == "auto" else device, alternative="make plans for cards elsewhere with --target"
    )
    if plan_device == "cpu":
        return
    if not required:
        try:
            tensorrt_api.module_for(machine.gpu(plan_device).sm)
        except EngineError as error:
            console.print(f"no plan for the GPU was made: {error}", highlight=False)
            return
    echo(plan_summary(build_plan_here(folder, plan_device, options, console)))
