"""What a TensorRT plan was made of and for: the JSON file beside it, read before the plan is."""

import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self, get_args, get_type_hints

from batchcls.engine.check_result import ProbeCheck
from batchcls.errors import EngineError
from batchcls.storage.atomic import write_whole
from batchcls.storage.regular_file import read_json

PLANS = "plans"
_ENDINGS = (".plan", ".json", ".cache")
_FORMAT = 1
_LARGEST_SIDECAR_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """The machines that a plan is for: a plan fits where every field that it knows is the same."""

    module: str
    """``tensorrt`` or ``tensorrt_rtx``."""
    version: str
    """Of the module; plans are of one exact version."""
    sm: str
    """Compute capability, as ``sm86``."""
    gpu: str | None = None
    """The GPU's name. None, as for driver and CUDA: the plan was made without a GPU, for any card of ``sm``."""
    driver: str | None = None
    cuda: str | None = None
    """What the driver runs; other drivers have broken plans (TensorRT#3829)."""

    def misfits(self, here: "Target") -> list[str]:
        """Why a plan for this target is not one for ``here``; empty if it is."""
        pairs = ((item.name, getattr(self, item.name), getattr(here, item.name)) for item in fields(self))
        return [f"{name} {made} here {found}" for name, made, found in pairs if made is not None and made != found]

    @property
    def stem(self) -> str:
        """The plan's file name, without its ending."""
        name = "".join(letter if letter.isalnum() else "-" for letter in (self.gpu or "any").lower())
        return f"{self.sm}-{name}-{self.module}"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The contents of the file beside a plan."""

    plan_sha256: str
    plan_bytes: int
    onnx_sha256: str
    target: Target
    batch_size: int
    """Images at a time; the plan knows no other."""
    precision: str
    """Of the ONNX file's weights and arithmetic."""
    optimization_level: int | None
    built: str
    """UTC, ISO 8601."""
    check: ProbeCheck | None = None
    """None: made without a GPU to run it on."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a sidecar.

        Raises:
            EngineError: If it is no sidecar of this format.
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
        """Why the plan cannot run in an engine folder with such a network on this machine; empty if it can.

        Args:
            here: This machine, by TensorRT module.
        """
        if self.target.module not in here:
            return [f"{self.target.module} is not installed"]
        wrong = self.target.misfits(here[self.target.module])
        if self.onnx_sha256 != onnx_sha256:
            wrong.append("made from another model.onnx")
        return wrong

    def write(self, path: Path) -> None:
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=2, ensure_ascii=False)
        write_whole(path, f"{text}\n".encode())


def is_of_a_plan(name: str) -> bool:
    """Whether a file of `PLANS` is called as a plan, its sidecar or its timings are."""
    return name.endswith(_ENDINGS)


def sidecars(folder: Path) -> list[Path]:
    """The sidecars in an engine folder, by name."""
    return sorted((folder / PLANS).glob("*.json"))


def fitting_plan(folder: Path, onnx_sha256: str, here: Mapping[str, Target]) -> tuple[Sidecar, bytes]:
    """The newest plan in an engine folder that fits this machine, and its content, which is then known to be whole.

    Args:
        here: This machine, by TensorRT module.

    Raises:
        EngineError: If there is none, with what each is for.
    """
    fitting: list[tuple[str, Path, Sidecar]] = []
    misfits: list[str] = []
    for path in sidecars(folder):
        try:
            sidecar = Sidecar.read(path)
        except EngineError as error:  # of another plan, perhaps
            misfits.append(str(error))
            continue
        if wrong := sidecar.misfits(onnx_sha256, here):
            misfits.append(f"{path.stem} ({'; '.join(wrong)})")
        else:
            fitting.append((sidecar.built, path, sidecar))
    if not fitting:
        of = next(iter(here.values()))
        found = f"; it has {', '.join(misfits)}" if misfits else ""
        raise EngineError(
            f"engine {str(folder)!r} has no plan for this {of.gpu} ({of.sm}){found}; "
            f"run: batchcls build {shlex.quote(str(folder))} --device cuda"
        )
    _, path, sidecar = max(fitting, key=lambda item: item[:2])
    return sidecar, _content(path.with_suffix(".plan"), sidecar, folder)


def _content(path: Path, sidecar: Sidecar, folder: Path) -> bytes:
    mend = f"run: batchcls build {shlex.quote(str(folder))} --device cuda"
    try:
        size = path.stat().st_size
        if size != sidecar.plan_bytes:  # before memory is taken for it
            raise EngineError(f"plan {str(path)!r} has {size:,} bytes, its sidecar says {sidecar.plan_bytes:,}; {mend}")
        content = path.read_bytes()
    except OSError as error:
        raise EngineError(f"plan {str(path)!r} cannot be read: {error.strerror}; {mend}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sidecar.plan_sha256:
        raise EngineError(
            f"plan {str(path)!r} has SHA-256 {found[:12]}, its sidecar was written for {sidecar.plan_sha256[:12]}; "
            f"{mend}"
        )
    return content


def _check_types(values: Sidecar | Target | ProbeCheck) -> None:
    """Refuse what JSON allows and a build does not write."""
    for name, hint in get_type_hints(type(values)).items():
        found = getattr(values, name)
        wanted = get_args(hint) or (hint,)
        if type(found) not in wanted and not (float in wanted and type(found) is int):
            raise TypeError(f"{name} is {found!r}")
        if isinstance(found, Target | ProbeCheck):
            _check_types(found)
        elif isinstance(found, int | float) and not 0 <= found < math.inf:
            raise ValueError(f"{name} is {found!r}")
    if isinstance(values, Sidecar) and not (values.plan_bytes and values.batch_size):
        raise ValueError("its plan is of nothing")
