"""Read and write a plan's sidecar: the JSON file that records the plan's ONNX file, machine and check."""

import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, get_args, get_type_hints

from batchcls.engine.check_result import ProbeCheck
from batchcls.errors import EngineError
from batchcls.storage.atomic import write_whole
from batchcls.storage.regular_file import read_json

PLANS = "plans"
KERNELS_ENDING = ".kernels"
"""Ending of the files with the kernels that a GPU compiled for a plan."""
PLAN_ENDINGS = (".cache", KERNELS_ENDING, ".plan", ".json")
"""Endings of a plan's files; the sidecar's is the last, because no run takes a plan without one."""
_FORMAT = 1
_LARGEST_SIDECAR_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """The machines that a plan is for; a field that is None makes no demand on them."""

    module: str
    """``tensorrt`` or ``tensorrt_rtx``."""
    version: str
    """Version of the module; a plan runs with this version alone."""
    sm: str
    """Compute capability, such as ``sm86``."""
    gpu: str | None = None
    """Name of the GPU; None, as ``driver`` and ``cuda`` then, for a plan that fits any card of ``sm``."""
    driver: str | None = None
    """Version of the NVIDIA driver. A plan runs under others; since some have broken plans (TensorRT#3829), the user is
    told, and the answers to the probes decide."""
    cuda: str | None = None
    """Newest CUDA version that the driver runs; a plan runs where it is this one or a newer one."""

    def misfits(self, here: "Target") -> list[str]:
        """Fields in which ``here`` is another target, in words; empty if a plan for this target runs there.

        A driver runs plans that were made under older CUDA versions than its own, and under other drivers.

        Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/support-matrix.html
        """
        pairs = [
            (name, getattr(self, name), getattr(here, name)) for name in ("module", "version", "sm", "gpu", "cuda")
        ]
        return [
            f"{name} {wanted} here {own}"
            for name, wanted, own in pairs
            if wanted is not None and wanted != own and not (name == "cuda" and _is_older(wanted, own))
        ]

    def notes(self, here: "Target") -> list[str]:
        """Differences between ``here`` and the machine that made the plan under which the plan still runs, in words."""
        if self.driver is None or self.driver == here.driver:
            return []
        return [f"made under driver {self.driver}, here is {here.driver}"]

    @property
    def stem(self) -> str:
        """Name of the plan's files, without their endings."""
        name = "".join(letter if letter.isalnum() else "-" for letter in (self.gpu or "any").lower())
        return f"{self.sm}-{name}-{self.module}"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The contents of a plan's sidecar."""

    plan_sha256: str
    plan_bytes: int
    onnx_sha256: str
    target: Target
    batch_size: int
    """Images in a batch; the plan takes no other number."""
    precision: str
    """``fp16``, ``bf16``, ``fp32`` or ``int8``, of the ONNX file that the plan was made of."""
    optimization_level: int | None
    """TensorRT's optimization level, 0 to 5; None: TensorRT's own."""
    built: str
    """Time of the build: UTC, ISO 8601."""
    check: ProbeCheck | None = None
    """Result of the probes on the plan's GPU; None for a plan made without a GPU, which is not checked yet."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The sidecar in the file at ``path``.

        Raises:
            EngineError: If the file is no sidecar of this format.
        """
        try:
            values = read_json(path, _LARGEST_SIDECAR_BYTES)
            if values.pop("format") != _FORMAT:
                raise ValueError("it is of another format")
            target, check = Target(**values.pop("target")), values.pop("check")
            sidecar = cls(target=target, check=None if check is None else ProbeCheck(**check), **values)
            _check_types(sidecar)
            return sidecar
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise EngineError(f"{str(path)!r} cannot be read as a plan's sidecar: {error}") from error

    def misfits(self, onnx_sha256: str, here: Mapping[str, Target]) -> list[str]:
        """Reasons why the plan cannot run on this machine; empty if it can.

        Args:
            onnx_sha256: Digest of the engine folder's ONNX file.
            here: This machine as a target, by TensorRT module that is installed.
        """
        if self.target.module not in here:
            return [f"{self.target.module} is not installed"]
        reasons = self.target.misfits(here[self.target.module])
        if self.onnx_sha256 != onnx_sha256:
            reasons.append("made from another model.onnx")
        return reasons

    def write(self, path: Path) -> None:
        """Write the sidecar to ``path``, whole or not at all."""
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=2, ensure_ascii=False)
        write_whole(path, f"{text}\n".encode())


def is_plan_file(name: str) -> bool:
    """Whether ``name`` is that of a plan, a sidecar, or a file of TensorRT's timings or compiled kernels."""
    return name.endswith(PLAN_ENDINGS)


def sidecar_paths(folder: Path) -> list[Path]:
    """Paths of the sidecars in an engine folder, sorted by name."""
    return sorted((folder / PLANS).glob("*.json"))


def read_fitting_plan(folder: Path, onnx_sha256: str, here: Mapping[str, Target], device: str) -> tuple[Sidecar, bytes]:
    """Sidecar and content of the newest plan in an engine folder that fits this machine; the content is checked.

    Args:
        onnx_sha256: Digest of the engine folder's ONNX file.
        here: This machine as a target, by TensorRT module that is installed.
        device: The GPU that the plan is for, as ``cuda:N``, which errors name.

    Raises:
        EngineError: If no plan fits, with the reason for each plan, or the plan is not the one that its sidecar
            describes.
    """
    remedy = _build_command(folder, device)
    fitting: list[tuple[str, Path, Sidecar]] = []
    misfits: list[str] = []
    for path in sidecar_paths(folder):
        try:
            sidecar = Sidecar.read(path)
        except EngineError as error:  # another plan may fit
            misfits.append(str(error))
            continue
        if reasons := sidecar.misfits(onnx_sha256, here):
            misfits.append(f"{path.stem} ({'; '.join(reasons)})")
        else:
            fitting.append((sidecar.built, path, sidecar))
    if not fitting:
        own = next(iter(here.values()))
        others = f"; it has {', '.join(misfits)}" if misfits else ""
        raise EngineError(f"engine {str(folder)!r} has no plan for this {own.gpu} ({own.sm}){others}; {remedy}")
    _, path, sidecar = max(fitting, key=lambda item: item[:2])
    return sidecar, _content(path.with_suffix(".plan"), sidecar, remedy)


def plan_notes(sidecar: Sidecar, folder: Path, here: Target, device: str) -> list[str]:
    """Notes for the user about a plan that fits this machine, one line each, with the command that mends it.

    Args:
        folder: The engine folder.
        here: This machine as a target.
        device: The GPU that runs the plan, as ``cuda:N``.
    """
    remedy = _build_command(folder, device)
    return [f"the plan was {note}; a new one may be faster; {remedy}" for note in sidecar.target.notes(here)]


def _build_command(folder: Path, device: str) -> str:
    return f"run: batchcls build {shlex.quote(str(folder))} --device {device}"


def _content(path: Path, sidecar: Sidecar, remedy: str) -> bytes:
    """Content of the plan at ``path``, if it is the one that ``sidecar`` describes."""
    try:
        size = path.stat().st_size
        if size != sidecar.plan_bytes:  # checked before memory is taken for it
            raise EngineError(
                f"plan {str(path)!r} has {size:,} bytes, its sidecar says {sidecar.plan_bytes:,}; {remedy}"
            )
        content = path.read_bytes()
    except OSError as error:
        raise EngineError(f"plan {str(path)!r} cannot be read: {error.strerror}; {remedy}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sidecar.plan_sha256:
        raise EngineError(
            f"plan {str(path)!r} has SHA-256 {digest[:12]}, its sidecar was written for {sidecar.plan_sha256[:12]}; "
            f"{remedy}"
        )
    return content


def _is_older(version: str, than: str | None) -> bool:
    """Whether a CUDA version such as ``13.0`` is older than another; an unknown or strange one is not."""
    pair = [text.split(".") for text in (version, than or "")]
    if not all(part.isascii() and part.isdigit() and len(part) < 9 for parts in pair for part in parts):
        return False
    own, other = ([int(part) for part in parts] for parts in pair)
    return own < other


def _check_types(values: Sidecar | Target | ProbeCheck) -> None:
    """Refuse values of types and ranges that JSON allows and a build never writes."""
    for name, hint in get_type_hints(type(values)).items():
        value = getattr(values, name)
        types = get_args(hint) or (hint,)
        if type(value) not in types and not (float in types and type(value) is int):
            raise TypeError(f"{name} is {value!r}")
        if isinstance(value, Target | ProbeCheck):
            _check_types(value)
        elif isinstance(value, int | float) and not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value!r}")
    if isinstance(values, Sidecar) and not (values.plan_bytes and values.batch_size):
        raise ValueError("it describes a plan of no bytes, or of no images")
