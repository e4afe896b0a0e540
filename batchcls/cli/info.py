"""The command ``batchcls info``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchcls.cli.printing import print_and_exit
from batchcls.errors import EngineError
from batchcls.storage.terminal_text import escaped_json

if TYPE_CHECKING:
    from batchcls.engine.manifest import Manifest

_LONG_ITEM = 60
"""Characters of a list's longest item above which each item is printed on a line of its own."""


@click.command()
@click.argument("engine", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def info(engine: Path | None, as_json: bool) -> None:
    """Show what this machine has and lacks, what is in ENGINE, and where ENGINE can run."""
    from batchcls import machine
    from batchcls.engine.manifest import Manifest, checked_onnx_path
    from batchcls.inference.devices import divided_gpus

    facts: dict[str, Any] = {"machine": machine.description() | {"missing_for_gpus": missing_for_gpus()}}
    if divided := divided_gpus():
        facts["machine"]["devices_of_a_run"] = [f"{device.name} {device.visible}" for device in divided]
    if engine is not None:
        manifest = Manifest.read(engine)
        checked_onnx_path(engine, manifest)
        facts["engine"] = engine_facts(engine, manifest)
    if as_json:
        print_and_exit(*escaped_json(json.dumps(facts, indent=2, ensure_ascii=False)).split("\n"))
    print_and_exit(*_lines("", facts))


def missing_for_gpus() -> list[str]:
    """The drivers and packages that a fast run on a GPU lacks here, each with the command that installs it."""
    from batchcls import machine

    versions = machine.versions()
    newest = machine.cuda_version()
    missing = []
    if newest is None:
        missing.append(f"no NVIDIA driver: install one for CUDA {machine.DALI_CUDA} or later from nvidia.com/drivers")
    elif int(newest.partition(".")[0]) < machine.DALI_CUDA:
        missing.append(
            f"the driver runs CUDA {newest}, DALI needs {machine.DALI_CUDA}: update it from nvidia.com/drivers"
        )
    elif not machine.gpus():
        missing.append("the driver shows no GPU: run nvidia-smi")
    if not versions.keys() & {"tensorrt", "tensorrt_rtx"}:
        missing.append(
            "no TensorRT: pip install 'tensorrt>=10.12' (any GPU), or pip install 'tensorrt-rtx>=1.4' (GeForce, RTX)"
        )
    if "cuda_bindings" not in versions:
        missing.append("no cuda-bindings, which TensorRT's backend needs: pip install 'cuda-bindings>=13'")
    if "dali" not in versions:
        missing.append("no DALI, which decodes on a GPU: pip install 'batchcls[gpu]'")
    elif not machine.has_nvjpeg():
        missing.append("no nvJPEG, with which DALI decodes on a GPU: pip install nvidia-nvjpeg")
    return missing


def engine_facts(engine: Path, manifest: "Manifest") -> dict[str, Any]:
    """An engine folder's manifest, its plans, and the devices of this machine that can run it; JSON values."""
    from batchcls import machine
    from batchcls.building.input_description import describe_input
    from batchcls.engine.backends import tensorrt_api
    from batchcls.engine.plan_sidecar import Sidecar, sidecar_paths

    gpus = machine.gpus()
    local_targets = {
        gpu: {name: tensorrt_api.local_target(name, gpu) for name in tensorrt_api.installed_modules()} for gpu in gpus
    }
    ready: list[str] = ["cpu"]
    plans: dict[str, Any] = {}
    for path in sidecar_paths(engine):
        try:
            sidecar = Sidecar.read(path)
        except EngineError as error:
            plans[path.stem] = str(error)
            continue
        fitting = [
            f"cuda:{gpu.number}" for gpu in gpus if not sidecar.misfits(manifest.onnx_sha256, local_targets[gpu])
        ]
        plans[path.stem] = asdict(sidecar) | {"runs_on": fitting}
        ready += [device for device in fitting if device not in ready]
    about = asdict(manifest)
    above = ("name", "architecture", "labels")
    facts = {key: about.pop(key) for key in above} | {"input": describe_input(manifest.preprocess)} | about
    facts |= {
        "probes": len(manifest.reference),
        "check": manifest.check and asdict(manifest.check),
        "checked_on": checked_on(manifest),
    }
    del facts["reference"], facts["answers"]
    layers = manifest.features.layers if manifest.features else ()
    facts["features"] = [f"{layer.name} ({layer.width})" for layer in layers]
    facts["novelty"] = novelty_facts(manifest)
    return facts | {"plans": plans, "ready_for": ready}


def novelty_facts(manifest: "Manifest") -> dict[str, Any] | None:
    """Numbers of images that an engine learned novelty from; None for an engine that cannot tell novelty."""
    if manifest.novelty is None:
        return None
    numbers = {key: manifest.novelty["statistics"].get(key) for key in ("fitted_images", "calibration_images")}
    return {"folder": manifest.novelty.get("folder"), **numbers, "drift": manifest.novelty.get("drift") is not None}


def checked_on(manifest: "Manifest") -> str:
    """The platform that an engine was checked on, and whether this machine's CPU has the same instruction sets."""
    from batchcls import machine

    if (platform := manifest.checked_on) is None:
        return "not recorded; every run answers the probes first" if manifest.reference else "nothing: it has no probes"
    if list(platform.instructions) == machine.cpu_features():
        return f"{platform}; this CPU has the same instruction sets"
    return f"{platform}; this CPU differs, so each run checks the probes' answers on it"


def _lines(indent: str, values: dict[str, Any]) -> list[str]:
    """Nested values as indented lines of text."""
    lines = []
    for name, value in values.items():
        title = name.replace("_", " ")
        if isinstance(value, dict) and value:
            lines += [f"{indent}{title}:", *_lines(indent + "  ", value)]
        elif isinstance(value, list) and any(len(str(item)) > _LONG_ITEM for item in value):
            lines += [f"{indent}{title}:", *(f"{indent}  {_text(item)}" for item in value)]
        elif isinstance(value, list | tuple | dict):
            lines.append(f"{indent}{title}: {', '.join(map(_text, value)) or 'none'}")
        else:
            lines.append(f"{indent}{title}: {'none' if value in (None, '') else value}")
    return lines


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return str(value)
