"""``batchcls info``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchcls.cli.terminal import answer
from batchcls.errors import EngineError
from batchcls.storage.terminal_text import escaped_json

if TYPE_CHECKING:
    from batchcls.engine.manifest import Manifest

_LONG = 60
"""Characters; such items of a list stand on lines of their own."""


@click.command()
@click.argument("engine", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def info(engine: Path | None, as_json: bool) -> None:
    """What this machine has and lacks, and what is in ENGINE and where it can run."""
    from batchcls import machine
    from batchcls.engine.manifest import Manifest, checked_onnx

    found: dict[str, Any] = {"machine": machine.description() | {"missing_for_gpus": machine.missing_for_gpus()}}
    if engine is not None:
        manifest = Manifest.read(engine)
        checked_onnx(engine, manifest)
        found["engine"] = described(engine, manifest)
    if as_json:
        answer(*escaped_json(json.dumps(found, indent=2, ensure_ascii=False)).split("\n"))
    answer(*_lines("", found))


def described(engine: Path, manifest: "Manifest") -> dict[str, Any]:
    """An engine folder, its plans, and the devices of this machine that it is ready for."""
    from batchcls import machine
    from batchcls.engine.backends import tensorrt_api
    from batchcls.engine.sidecar import Sidecar, sidecars

    gpus = machine.gpus()
    here = {gpu: {name: tensorrt_api.here(name, gpu) for name in tensorrt_api.installed()} for gpu in gpus}
    ready: list[str] = ["cpu"]
    plans: dict[str, Any] = {}
    for path in sidecars(engine):
        try:
            sidecar = Sidecar.read(path)
        except EngineError as error:
            plans[path.stem] = str(error)
            continue
        fitting = [f"cuda:{gpu.number}" for gpu in gpus if not sidecar.misfits(manifest.onnx_sha256, here[gpu])]
        plans[path.stem] = asdict(sidecar) | {"runs_on": fitting}
        ready += [device for device in fitting if device not in ready]
    shown = asdict(manifest) | {
        "probes": len(manifest.reference),
        "check": manifest.check and asdict(manifest.check),
        "checked_on": checked_on(manifest),
    }
    del shown["reference"], shown["answers"]
    return shown | {"plans": plans, "ready_for": ready}


def checked_on(manifest: "Manifest") -> str:
    """What an engine was verified on, and whether this machine's CPU is the like."""
    from batchcls import machine

    if (made := manifest.checked_on) is None:
        return "not recorded; every run answers the probes first" if manifest.reference else "nothing: it has no probes"
    if list(made.instructions) == machine.cpu_features():
        return f"{made}: the like of this CPU"
    return f"{made}; this CPU differs, so a run shows by the probes whether it holds"


def _lines(indent: str, values: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in values.items():
        word = name.replace("_", " ")
        if isinstance(value, dict) and value:
            lines += [f"{indent}{word}:", *_lines(indent + "  ", value)]
        elif isinstance(value, list) and any(len(str(item)) > _LONG for item in value):
            lines += [f"{indent}{word}:", *(f"{indent}  {_shown(item)}" for item in value)]
        elif isinstance(value, list | tuple | dict):
            lines.append(f"{indent}{word}: {', '.join(map(_shown, value)) or 'none'}")
        else:
            lines.append(f"{indent}{word}: {'none' if value in (None, '') else value}")
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return str(value)
