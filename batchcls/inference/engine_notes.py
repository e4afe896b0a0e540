"""Notes for the user about an engine on this machine: whether it was checked, and what would be faster."""

from batchcls.engine.base import EngineInfo
from batchcls.engine.manifest import Manifest


def no_probes_warnings(manifest: Manifest, info: EngineInfo) -> list[str]:
    """A warning if the engine has no probes, so that its answers cannot be checked; else nothing."""
    if info.backend == "null" or manifest.reference:
        return []
    return [
        f"engine {info.name!r} was built before engines had probes, so its answers cannot be checked on this machine; "
        " run: batchcls build CHECKPOINT --out ENGINE --overwrite"
    ]


def speed_hint(manifest: Manifest, info: EngineInfo, precision: str | None) -> str:
    """Advice for a CPU that computes in float32 because it has no bfloat16; else empty.

    Args:
        precision: The precision that the user chose, if any.
    """
    is_default = precision is None and not manifest.exact
    if info.backend != "openvino" or info.precision != "f32" or not is_default:
        return ""
    return (
        "this CPU has no bfloat16, so it computed in float32; an int8 engine would be about twice as fast: "
        "batchcls build CHECKPOINT --out ENGINE --overwrite --precision int8 --calibrate DIR"
    )
