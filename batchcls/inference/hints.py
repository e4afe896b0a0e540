"""What a user should know of an engine on this machine, before they trust its answers or wait for them."""

from pathlib import Path

from batchcls.engine.manifest import Manifest
from batchcls.records import EngineInfo


def unchecked(engine: Path, info: EngineInfo) -> list[str]:
    """A warning of an engine that has no probes to answer, if it is one."""
    if info.backend == "null" or Manifest.read(engine).reference:
        return []
    return [
        f"engine {info.name!r} is from before engines had probes, so nobody knows whether it answers here as it did "
        "where it was built; run: batchcls build CHECKPOINT --out ENGINE"
    ]


def faster(engine: Path, info: EngineInfo, precision: str | None) -> str:
    """What would be faster where a CPU computes in float32 for want of bfloat16.

    Args:
        precision: That the user asked for, if any.
    """
    by_itself = precision is None and not Manifest.read(engine).exact
    if info.backend != "openvino" or info.precision != "f32" or not by_itself:
        return ""
    return (
        "this CPU has no bfloat16, so it computed in float32; an int8 engine would be about twice as fast: "
        "batchcls build CHECKPOINT --out ENGINE --precision int8 --calibrate DIR"
    )
