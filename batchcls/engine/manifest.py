"""Read and write engine.json, which says what an engine was built from and how it was verified."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from batchcls.engine.base import EngineInfo
from batchcls.engine.check_result import Platform, ProbeCheck
from batchcls.engine.conformal import ConformalThresholds
from batchcls.engine.probes import CANDIDATE_COUNT, FULL_WEIGHT, Mixture
from batchcls.engine.verification import Verification
from batchcls.errors import EngineError, RecipeError
from batchcls.networks.feature_layout import FeatureLayout
from batchcls.networks.preprocess import Preprocess
from batchcls.networks.recipe import Recipe
from batchcls.storage.atomic import write_whole
from batchcls.storage.regular_file import read_json

MANIFEST = "engine.json"
"""Name of the manifest in an engine folder."""
ONNX = "model.onnx"
"""Name of the network's file in an engine folder."""
FORMAT = 1
_LARGEST_MANIFEST_BYTES = 64 << 20
_LARGEST_LOGIT = (2 - 2**-23) * 2.0**127
"""Largest number of float32."""


def keeps_precision(architecture: str) -> bool:
    """Whether a build keeps a network's own precision, or makes it int8: as of ONNX and Keras files."""
    return architecture == "onnx" or architecture.startswith("keras/")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of engine.json."""

    name: str
    """The engine folder's name when it was built."""
    architecture: str
    """Name in `networks.architectures.ARCHITECTURES`, or ``onnx`` for an engine built from an ONNX file."""
    labels: tuple[str, ...]
    """Class names, in the order of the logits."""
    preprocess: Preprocess
    precision: str
    """``fp16``, ``bf16``, ``fp32`` or ``int8``, of ``model.onnx``."""
    checkpoint: str
    """The trained file's name, without its folder."""
    checkpoint_sha256: str
    onnx_sha256: str
    built: str
    """Time of the build: UTC, ISO 8601."""
    exact: bool = False
    """Whether a CPU computes in float32 by default, because bfloat16 changes this network's answers too much."""
    temperature: float = 1.0
    """Number that the trained network's logits are divided by."""
    weights: str = ""
    """Key of the weights in a trained file that holds several; else empty."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the runtimes that were installed at the build, by name."""
    probes: tuple[Mixture, ...] = ()
    """The probes, as `batchcls.engine.probes.draw_probes` takes them; empty in folders of older versions."""
    reference: tuple[tuple[float, ...], ...] = ()
    """The training framework's float32 logits, by probe; empty in folders from before there were probes."""
    answers: tuple[tuple[float, ...], ...] = ()
    """Logits of ``model.onnx`` by exact arithmetic, by probe, with which every run is compared; empty in folders of
    older versions, which are compared with ``reference``."""
    features: FeatureLayout | None = None
    """Layout of the output ``features`` of ``model.onnx``; None if there is none, as in folders of older versions."""
    novelty: Mapping[str, Any] | None = None
    """Header of the statistics of novelty, as `batchcls.engine.novelty_file.read_novelty` takes it; None if the engine
    cannot tell novelty."""
    check: ProbeCheck | None = None
    """How far the engine was from ``reference`` when it was built; None in folders of older versions."""
    checked_on: Platform | None = None
    """Platform that ``check`` was measured on; None in folders of older versions."""
    verification: Verification | None = None
    """Comparison with the training framework on image files; None if the build was given no images."""
    conformal: ConformalThresholds | None = None
    """Thresholds of the sets of labels that a run writes; None until ``batchcls build ENGINE --conformal``."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest of an engine folder.

        Raises:
            EngineError: If the folder holds no manifest, or one that no build of this format wrote.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise EngineError(
                f"{str(folder)!r} holds no {MANIFEST}, so it is no engine; name another folder, or "
                "run: batchcls build CHECKPOINT --out ENGINE"
            )
        try:
            return cls._parse(read_json(path, _LARGEST_MANIFEST_BYTES))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecipeError, RecursionError) as error:
            raise EngineError(
                f"{str(path)!r} cannot be read: {error}; build the engine again: {_build_command(folder)}"
            ) from error

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
        reference = _logits(values, "reference", len(recipe.labels))
        answers = _logits(values, "answers", len(recipe.labels))
        if len(answers) not in (0, len(reference)):
            raise ValueError(
                f"it has {len(reference)} answers of the training framework, and {len(answers)} of its own"
            )
        check, checked_on, conformal = values.get("check"), values.get("checked_on"), values.get("conformal")
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
            features=FeatureLayout.of_values(values.get("features")),
            novelty=_novelty(values.get("novelty")),
            check=check and ProbeCheck(**check),
            checked_on=checked_on and Platform(**checked_on),
            verification=None if verification is None else Verification.of_values(verification),
            conformal=None if conformal is None else ConformalThresholds.from_values(conformal, recipe.labels),
            **{key: str(values[key]) for key in texts},
        )

    def info(self, *, backend: str, device: str, precision: str) -> EngineInfo:
        """Description of this engine as ``backend`` runs it on ``device``, computing in ``precision``."""
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
        """Write engine.json into an engine folder, whole or not at all."""
        values = {**asdict(self), "features": self.features and self.features.values()}
        text = json.dumps({"format": FORMAT, **values}, indent=2, ensure_ascii=False)
        write_whole(folder / MANIFEST, f"{text}\n".encode())


def _logits(values: Mapping[str, Any], name: str, classes: int) -> tuple[tuple[float, ...], ...]:
    """Logits of the field ``name``, by probe.

    Raises:
        ValueError: If a probe has another number of logits than ``classes``, or a logit is no finite float32.
    """
    rows = tuple(tuple(map(float, logits)) for logits in values.get(name, ()))
    if any(len(logits) != classes for logits in rows):
        raise ValueError(f"its {name} has another number of classes than it has labels")
    if not all(abs(logit) <= _LARGEST_LOGIT for logits in rows for logit in logits):
        raise ValueError(f"its {name} holds a number that is no finite float32")
    return rows


def _novelty(values: Any) -> Mapping[str, Any] | None:
    """The field ``novelty``, as far as it is checked before it is used.

    Raises:
        TypeError: If it is no object, or has no object of statistics.
    """
    if values is None:
        return None
    if not (isinstance(values, dict) and isinstance(values.get("statistics"), dict) and values["statistics"]):
        raise TypeError("its novelty has no statistics")
    return values


def _probes(values: Any, reference: tuple[tuple[float, ...], ...]) -> tuple[Mixture, ...]:
    """Mixtures of the field ``probes``.

    Raises:
        ValueError: If a mixture is none that `batchcls.engine.probes` can draw, or there are not as many mixtures as
            answers.
    """
    probes = tuple((int(first), int(second), int(weight)) for first, second, weight in values)
    if any(min(mixture) < 0 or max(mixture[:2]) >= CANDIDATE_COUNT or mixture[2] > FULL_WEIGHT for mixture in probes):
        raise ValueError("its probes are mixtures of images that do not exist")
    if probes and len(probes) != len(reference):
        raise ValueError(f"it has {len(probes)} probes and {len(reference)} answers to them")
    return probes


def checked_onnx_path(folder: Path, manifest: Manifest) -> Path:
    """Path of an engine folder's ONNX file, whose content is checked against the manifest.

    Raises:
        EngineError: If the file is missing, or is not the one that was built and verified.
    """
    path = folder / ONNX
    if not path.is_file():
        raise EngineError(f"engine {str(folder)!r} holds no {ONNX}; run: {_build_command(folder)}")
    digest = sha256(path)
    if digest != manifest.onnx_sha256:
        raise EngineError(
            f"{str(path)!r} has SHA-256 {digest[:12]}, its {MANIFEST} was written for {manifest.onnx_sha256[:12]}; "
            f"run: {_build_command(folder)}"
        )
    return path


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def engine_folders_below(folder: Path) -> list[Path]:
    """Engine folders directly below ``folder``, sorted by name."""
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))


def _build_command(folder: Path) -> str:
    """The command that builds the engine folder ``folder`` again."""
    return f"batchcls build CHECKPOINT --out {shlex.quote(str(folder))} --overwrite"
