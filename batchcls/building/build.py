"""The build: a trained file becomes an engine folder, whole or not at all."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from batchcls import machine
from batchcls.building.engine_folder import check_replaceable, replacing_folder
from batchcls.building.input_description import input_line
from batchcls.building.model_sources import open_model
from batchcls.building.model_sources.base import ModelSource
from batchcls.building.novelty import adopt_novelty, learn_novelty
from batchcls.building.onnx.edits import divide_logits
from batchcls.building.onnx.feature_output import add_features
from batchcls.building.probe_answers import choose_probes, record_answers
from batchcls.building.quantization import write_int8
from batchcls.building.verification import verify_engine
from batchcls.engine.manifest import ONNX, Manifest, sha256
from batchcls.errors import RecipeError
from batchcls.networks.recipe import PREPROCESS_KEYS, recipe_keys
from batchcls.storage.file_names import printable


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How a trained file becomes an engine."""

    recipe: Path | None = None
    """TOML file of recipe keys; None if the trained file and ``values`` settle every key."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Recipe keys that win over the recipe file, and ``state_dict``: the key of the weights in a file that holds
    several."""
    calibration_images: Path | None = None
    """Folder of typical images that int8 ranges are measured on; int8 needs it, other precisions refuse it."""
    verification_images: Path | None = None
    """Folder of images on which the engine is compared with the training framework; None: no comparison."""
    novelty_images: Path | None = None
    """Folder of images of the kind that the network was trained for, from which the engine learns to tell how strange
    others look; None: it learns that from the trained file, if `batchcls train` made it, or not at all."""
    overwrite: bool = False
    """Whether an engine that stands in the way is replaced; files of other names in its folder are kept."""


def build_engine(checkpoint: Path, out: Path, options: BuildOptions, console: Console) -> Manifest:
    """Build an engine folder from a trained file, and return its manifest.

    Args:
        checkpoint: A trained file of any kind that `open_model` opens.
        out: The engine folder.
        options: Recipe, calibration, verification, and whether an engine is replaced.
        console: Where notes and progress are shown.

    Raises:
        CheckpointError: If the trained file cannot be read, or is not the network that the options name.
        RecipeError: If the recipe, or the labels, do not fit the trained file.
        SlidesError: If no image to calibrate or to verify with can be read.
        VerificationError: If the engine agrees too little with the training framework.
        EngineError: If ``out`` exists and is no engine folder, or is one that must not be replaced.
        OutputError: If the disk refuses.
    """
    check_replaceable(out, overwrite=options.overwrite)
    source = open_model(checkpoint, options.recipe, options.values)
    origin = _preprocess_origin(source, options)
    for note in (*source.notes, input_line(source.recipe.preprocess, origin)):
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    with replacing_folder(out) as folder:
        _write_network(source, options, folder / ONNX, console)
        features = add_features(folder / ONNX)
        manifest = _manifest(checkpoint, printable(out.resolve().name), source, folder)
        manifest = replace(manifest, features=features)
        manifest.write(folder)
        manifest = record_answers(folder, Manifest.read(folder), console)  # what cannot be read back is no engine
        if options.verification_images is not None:
            verification = verify_engine(folder, manifest, source, options.verification_images, console)
            manifest = replace(manifest, verification=verification)
        if options.novelty_images is not None:
            manifest = learn_novelty(folder, manifest, options.novelty_images, console)
        elif source.novelty is not None:
            manifest = adopt_novelty(folder, manifest, source.novelty, console)
        manifest.write(folder)
    return manifest


def _preprocess_origin(source: ModelSource, options: BuildOptions) -> str:
    """What says how images become the input: the options, the recipe, or what ``source`` names; empty for nothing."""
    recipe, origin = options.recipe, source.preprocess_origin
    by_recipe = f"recipe {recipe.name}" if recipe and PREPROCESS_KEYS & recipe_keys(recipe) else ""
    by_options = "the options" if PREPROCESS_KEYS & options.values.keys() else ""
    return " and ".join(filter(None, (by_options, "" if by_recipe in origin else by_recipe, origin)))


def _write_network(source: ModelSource, options: BuildOptions, path: Path, console: Console) -> None:
    """Write the engine's ONNX file, in the recipe's precision and with its temperature."""
    precision, temperature = source.recipe.precision, source.recipe.temperature
    if options.calibration_images and precision != "int8":
        raise RecipeError(f"{precision} needs nothing to calibrate with; leave --calibrate out")
    if precision == "int8":
        write_int8(source, options.calibration_images, path, console)
    else:
        source.write_onnx(path)
    if temperature != 1:
        divide_logits(path, temperature)


def _manifest(checkpoint: Path, name: str, source: ModelSource, folder: Path) -> Manifest:
    """The manifest with the network's probes, still without the engine's answers to them."""
    recipe = source.recipe
    probes, reference = choose_probes(source.reference.logits_of_pixels, recipe.preprocess.size_px)
    return Manifest(
        name=name,
        architecture=recipe.architecture,
        labels=recipe.labels,
        preprocess=recipe.preprocess,
        precision=recipe.precision,
        temperature=recipe.temperature,
        checkpoint=printable(checkpoint.resolve().name if checkpoint.is_dir() else checkpoint.name),
        checkpoint_sha256=_digest(source.files or (checkpoint,)),
        weights=source.weights,
        onnx_sha256=sha256(folder / ONNX),
        built=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=machine.versions(),
        probes=probes,
        reference=reference,
    )


def _digest(files: Sequence[Path]) -> str:
    """SHA-256 of a file; of several, the SHA-256 of their own ones in a row."""
    digests = [sha256(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
