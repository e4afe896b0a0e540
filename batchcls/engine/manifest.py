"""engine.json: what an engine was built from, for what, and how it was verified."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from batchcls.engine.check_result import Platform, ProbeCheck
from batchcls.engine.probes import CANDIDATES, WHOLE, Mixture
from batchcls.errors import EngineError, RecipeError
from batchcls.networks.recipe import Recipe
from batchcls.records import EngineInfo, Preprocess
from batchcls.storage.atomic import write_whole
from batchcls.storage.regular_file import read_json

MANIFEST = "engine.json"
ONNX = "model.onnx"
FORMAT = 1
_LARGEST_MANIFEST_BYTES = 64 << 20
_LARGEST_LOGIT = (2 - 2**-23) * 2.0**127
"""Of float32."""


@dataclass(frozen=True, slots=True)
class Verification:
    """How far the shipped path and the training framework agree, on real files."""

    images: int
    top1_agreement: float
    """Share of ``images`` whose most probable class is the same, 0 to 1."""
    largest_difference: float
    mean_difference: float
    """Between the two paths' probabilities of any one class."""
    disagreements: tuple[str, ...]
    """Files whose most probable class differs, relative to ``folder``."""
    unreadable: int
    """Files that one of the paths, or both, could not decode; they count for nothing above."""
    folder: str
    shipped: str
    """Decoder, backend, precision and device that were measured."""
    reference: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of engine.json."""

    name: str
    architecture: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    precision: str
    checkpoint: str
    """The trained file's own name, without its folder."""
    checkpoint_sha256: str
    onnx_sha256: str
    built: str
    """UTC, ISO 8601."""
    exact: bool = False
    """A CPU computes in float32 unless told otherwise: bfloat16 changes this network's answers too much."""
    temperature: float = 1.0
    """That the logits of the trained network were divided by."""
    weights: str = ""
    """Where in the trained file the weights stand, if it holds several."""
    versions: Mapping[str, str] = field(default_factory=dict)
    probes: tuple[Mixture, ...] = ()
    """Mixtures of `batchcls.engine.probes`; empty in folders of older versions, whose probes are drawn as they are."""
    reference: tuple[tuple[float, ...], ...] = ()
    """Float32 logits of the training framework, by probe; empty in folders from before there were probes."""
    answers: tuple[tuple[float, ...], ...] = ()
    """Logits of ``model.onnx`` itself by exact arithmetic, by probe, which every run is held to; empty in folders of
    older versions, which are held to ``reference``."""
    check: ProbeCheck | None = None
    """How far the engine was from ``reference`` when it was built; None in folders of older versions."""
    checked_on: Platform | None = None
    """What computed those answers."""
    verification: Verification | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read an engine folder's manifest.

        Raises:
            EngineError: If the folder holds none, or one that no build of this format wrote.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise EngineError(f"{str(folder)!r} holds no {MANIFEST}, so it is no engine; run: batchcls build --help")
        try:
            return cls._parse(read_json(path, _LARGEST_MANIFEST_BYTES))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecipeError, RecursionError) as error:
            raise EngineError(f"{str(path)!r} cannot be read: {error}; build the engine again") from error

    @classmethod
    def _parse(cls, values: Any) -> Self:
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {values['format']!r}, this batchcls reads {FORMAT}")
        known = {"temperature": 1.0, **values}  # folders of older versions have none
        own = {key: known[key] for key in ("labels", "temperature", "precision")}
        recipe = Recipe().with_values({**own, **values["preprocess"]})
        if not recipe.labels:
            raise ValueError("it names no labels")
        if not isinstance(values["versions"], dict):
            raise TypeError("versions must be an object")
        verification = values["verification"]
        if verification is not None:
            verification["disagreements"] = tuple(verification["disagreements"])
        reference = _logits(values, "reference", len(recipe.labels))
        answers = _logits(values, "answers", len(recipe.labels))
        if len(answers) not in (0, len(reference)):
            raise ValueError(f"it has {len(reference)} answers of training's, and {len(answers)} of its own")
        check, checked_on = values.get("check"), values.get("checked_on")
        if checked_on is not None:
            checked_on["instructions"] = tuple(map(str, checked_on["instructions"]))
        texts = ("name", "architecture", "checkpoint", "checkpoint_sha256", "onnx_sha256", "built")
        return cls(
            labels=recipe.labels,
            preprocess=recipe.preprocess,
            temperature=recipe.temperature,
            precision=recipe.precision,
            exact=values.get("exact", False) is True,
            weights=str(values.get("weights", "")),
            versions={str(key): str(value) for key, value in values["versions"].items()},
            probes=_probes(values.get("probes", ()), reference),
            reference=reference,
            answers=answers,
            check=check and ProbeCheck(**check),
            checked_on=checked_on and Platform(**checked_on),
            verification=verification and Verification(**verification),
            **{key: str(values[key]) for key in texts},
        )

    def info(self, *, backend: str, device: str, precision: str) -> EngineInfo:
        """What this engine is once ``backend`` runs it on ``device``, computing in ``precision``."""
        return EngineInfo(
            name=self.name,
            labels=self.labels,
            preprocess=self.preprocess,
            onnx_sha256=self.onnx_sha256,
            checkpoint_sha256=self.checkpoint_sha256,
            backend=backend,
            device=device,
            precision=precision,
            temperature=self.temperature,
        )

    def write(self, folder: Path) -> None:
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=2, ensure_ascii=False)
        write_whole(folder / MANIFEST, f"{text}\n".encode())


def _logits(values: Mapping[str, Any], name: str, classes: int) -> tuple[tuple[float, ...], ...]:
    """Raises:
    ValueError: If they are not of so many classes, or no finite numbers of float32.
    """
    found = tuple(tuple(map(float, logits)) for logits in values.get(name, ()))
    if any(len(logits) != classes for logits in found):
        raise ValueError(f"its {name} has another number of classes than it has labels")
    if not all(abs(logit) <= _LARGEST_LOGIT for logits in found for logit in logits):
        raise ValueError(f"its {name} holds what no float32 is")
    return found


def _probes(values: Any, reference: tuple[tuple[float, ...], ...]) -> tuple[Mixture, ...]:
    """Mixtures whose numbers are those of images that `batchcls.engine.probes` draws.

    Raises:
        ValueError: If they are others, or are not as many as there are answers.
    """
    probes = tuple((int(first), int(second), int(weight)) for first, second, weight in values)
    if any(min(mixture) < 0 or max(mixture[:2]) >= CANDIDATES or mixture[2] > WHOLE for mixture in probes):
        raise ValueError("its probes are of images that nobody draws")
    if probes and len(probes) != len(reference):
        raise ValueError(f"it has {len(probes)} probes and {len(reference)} answers to them")
    return probes


def checked_onnx(folder: Path, manifest: Manifest) -> Path:
    """The path of an engine folder's network, once its content is known to be the manifest's.

    Raises:
        EngineError: If it is missing, or is not the file that was built and verified.
    """
    path = folder / ONNX
    if not path.is_file():
        raise EngineError(f"engine {str(folder)!r} holds no {ONNX}; {_rebuild(folder)}")
    found = sha256(path)
    if found != manifest.onnx_sha256:
        raise EngineError(
            f"{str(path)!r} has SHA-256 {found[:12]}, its {MANIFEST} was written for {manifest.onnx_sha256[:12]}; "
            f"{_rebuild(folder)}"
        )
    return path


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def engines_below(folder: Path) -> list[Path]:
    """Every engine folder directly below ``folder``, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))


def _rebuild(folder: Path) -> str:
    return f"run: batchcls build CHECKPOINT --out {shlex.quote(str(folder))}"
