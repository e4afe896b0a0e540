"""``batchcls info``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("engine", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def info(engine: Path | None, as_json: bool) -> None:
    """What this machine has, and what is in ENGINE and where it can run."""
    from batchcls import machine
    from batchcls.manifest import Manifest, checked_onnx

    found: dict[str, Any] = {"machine": machine.description()}
    if engine is not None:
        manifest = Manifest.read(engine)
        checked_onnx(engine, manifest)
        found["engine"] = asdict(manifest) | {"ready_for": ["cpu"]}
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else "\n".join(_lines("", found)))


def _lines(indent: str, values: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in values.items():
        word = name.replace("_", " ")
        if isinstance(value, dict):
            lines += [f"{indent}{word}:", *_lines(indent + "  ", value)]
        elif isinstance(value, list | tuple):
            lines.append(f"{indent}{word}: {', '.join(map(_shown, value)) or 'none'}")
        else:
            lines.append(f"{indent}{word}: {'none' if value is None else value}")
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return str(value)
