"""The build: a trained file becomes an engine folder, whole or not at all."""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console
from torch import nn

from batchcls import machine
from batchcls.building.engine_folder import check_replaceable, whole_folder
from batchcls.building.export import export, export_network
from batchcls.building.onnx.classifier import (
    OnnxClassifier,
    load_classifier,
    onnx_notes,
    own_answer,
    with_preprocessing,
)
from batchcls.building.onnx.temperature import temper, tempered
from batchcls.building.probing import chosen_probes, open_on_cpu, probed
from batchcls.building.quantization import IMAGES, QuantizedNetwork, quantize
from batchcls.building.reference import Reference, torch_answer
from batchcls.building.verification import verify
from batchcls.engine.manifest import ONNX, Manifest, Verification, sha256
from batchcls.errors import CheckpointError, RecipeError, SlidesError, VerificationError, temporary_files
from batchcls.images.decoders import DEFAULT, open_decoder
from batchcls.images.sources.folder import FolderSource
from batchcls.networks.known_labels import settled_labels
from batchcls.networks.recipe import Recipe
from batchcls.networks.trained import trained_file
from batchcls.records import Preprocess
from batchcls.storage.file_names import printable

LEAST_AGREEMENT = 0.995
"""Share of images; an engine that agrees less with its own training is not worth having."""
_LARGEST_IMAGE_PIXELS = 200_000_000
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class _Source:
    """A trained file, read: what it is, how it answers, and how to write it as ONNX."""

    recipe: Recipe
    classes: int
    reference: Reference
    reference_name: str
    notes: tuple[str, ...]
    write: Callable[[Path], None]
    """Writes the ONNX file of the engine folder."""
    network: Callable[[], OnnxClassifier]
    """The network alone, in float32, to be quantised."""
    weights: str = ""
    """Key of the chosen weights in a file that holds several; else empty."""


def build_engine(
    checkpoint: Path,
    out: Path,
    *,
    recipe: Path | None,
    values: Mapping[str, Any],
    images: Path | None,
    console: Console,
    calibrate: Path | None = None,
) -> Manifest:
    """Build an engine folder from a trained file.

    Args:
        checkpoint: A PyTorch or safetensors state_dict, or an ONNX classifier.
        out: The engine folder; one that is there is replaced, files of other names in it are kept.
        recipe: A TOML file; ``values``, by the names of its keys, win over it.
        images: A folder of images to verify with.
        calibrate: A folder of typical images, for int8.

    Raises:
        CheckpointError: If the file cannot be read, or is another network than was said.
        RecipeError: If the recipe, or the labels, do not fit it.
        VerificationError: If the engine agrees too little with the training framework.
        EngineError: If ``out`` is something else than an engine folder.
        OutputError: If the disk refuses.
    """
    check_replaceable(out)
    read = _read_onnx if checkpoint.suffix == ".onnx" else _read_weights
    source = read(checkpoint, recipe, values)
    for note in source.notes:
        console.print(note, markup=False, highlight=False)
    with whole_folder(out) as folder:
        if calibrate and source.recipe.precision != "int8":
            raise RecipeError(f"{source.recipe.precision} needs nothing to calibrate with; leave --calibrate out")
        if source.recipe.precision == "int8":
            _write_int8(source, calibrate, folder / ONNX, console)
        else:
            source.write(folder / ONNX)
        if source.recipe.temperature != 1:
            temper(folder / ONNX, source.recipe.temperature)
        manifest = _manifest(checkpoint, printable(out.resolve().name), source, folder)
        manifest.write(folder)
        manifest = probed(folder, manifest, console)
        manifest.write(folder)
        if images is not None:
            manifest = replace(manifest, verification=_verified(folder, source, images, console))
            manifest.write(folder)
    return manifest


def _read_weights(checkpoint: Path, recipe: Path | None, values: Mapping[str, Any]) -> _Source:
    trained = trained_file(checkpoint, recipe, values)
    network, full = trained.network, trained.recipe
    full = replace(full, precision="fp16" if full.precision == "auto" else full.precision)
    return _Source(
        recipe=full,
        classes=network.classes,
        reference=Reference(tempered(torch_answer(network.module), full.temperature), full.preprocess),
        reference_name="Pillow, torchvision transforms, torch float32",
        notes=trained.notes,
        write=lambda path: export(network.module, full.preprocess, full.precision, path),
        network=lambda: _exported(network.module, full.preprocess),
        weights=network.weights if network.others else "",
    )


def _read_onnx(checkpoint: Path, recipe: Path | None, values: Mapping[str, Any]) -> _Source:
    if "weights" in values:
        raise CheckpointError(f"{str(checkpoint)!r} is ONNX, which holds one network alone; leave --weights out")
    first = Recipe.compose(recipe, values)
    classifier = load_classifier(checkpoint, first.layout, first.preprocess, first.output)
    found: dict[str, Any] = {"architecture": "onnx"}
    if classifier.size_px:
        found |= {"size_px": classifier.size_px, "shorter_px": max(classifier.size_px)}
    if classifier.normalises:
        found |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    full = Recipe.compose(recipe, values, found)
    if full.preprocess.size_px != (classifier.size_px or full.preprocess.size_px):
        raise RecipeError(f"{str(checkpoint)!r} takes {classifier.size_px} pixels, not {full.preprocess.size_px}")
    if classifier.normalises and (full.preprocess.mean, full.preprocess.std) != (found["mean"], found["std"]):
        raise RecipeError(f"{str(checkpoint)!r} takes bytes, and normalises them itself; leave mean and std out")
    quantisable = classifier.precision == "fp32" and not classifier.normalises
    if full.precision not in ("auto", classifier.precision) and not (full.precision == "int8" and quantisable):
        raise RecipeError(
            f"{str(checkpoint)!r} computes in {classifier.precision}, which cannot be made {full.precision}; "
            "export it so, or leave --precision out"
        )
    precision = classifier.precision if full.precision == "auto" else full.precision
    told = {item.key: item.value for item in classifier.model.metadata_props}
    labels, notes = settled_labels(checkpoint, classifier.classes, full.labels, told)
    return _Source(
        recipe=full.with_values({"precision": precision, "layout": classifier.layout, "labels": labels}),
        classes=classifier.classes,
        reference=Reference(tempered(own_answer(checkpoint, classifier), full.temperature), full.preprocess),
        reference_name="Pillow, torchvision transforms, the ONNX file itself by ONNX Runtime",
        notes=notes + onnx_notes(checkpoint, classifier, full.preprocess),
        write=lambda path: onnx.save(with_preprocessing(classifier, full.preprocess), path),
        network=lambda: classifier,
    )


def _exported(module: nn.Module, preprocess: Preprocess) -> OnnxClassifier:
    with temporary_files(), tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / ONNX
        export_network(module, preprocess, path)
        return load_classifier(path, preprocess=preprocess, outputs="logits")


def _write_int8(source: _Source, calibrate: Path | None, path: Path, console: Console) -> None:
    """Quantise the network, and then put its preprocessing in front: else that would be quantised too."""
    if calibrate is None:
        raise RecipeError("int8 needs typical images to take its ranges from; name a folder: --calibrate DIR")
    listing = FolderSource([calibrate])
    files = [slide.file for slide in listing]
    images = source.reference.normalised(files[:: -(-len(files) // IMAGES) or 1])
    if not images:
        raise SlidesError(f"no image that can be read was found in {str(calibrate)!r} to calibrate with")
    classifier = source.network()
    axes = (0, 1, 2, 3) if classifier.layout == "NCHW" else (0, 2, 3, 1)
    images = [np.ascontiguousarray(image.transpose(axes)) for image in images]
    with temporary_files():  # of NNCF
        found = quantize(classifier.model, images, LEAST_AGREEMENT)
    if found.float_layers or not found.enough:
        console.print(_left_in_float(found, len(images)), highlight=False)
    onnx.save(with_preprocessing(replace(classifier, model=found.model), source.recipe.preprocess), path)


def _left_in_float(found: QuantizedNetwork, images: int) -> str:
    names = [name.removeprefix("network/") for name in found.float_layers]
    few = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
    layers = f"{len(names)} layer{'s' if len(names) != 1 else ''} left in float32{': ' if names else ''}{few}"
    enough = "" if found.enough else f", below {LEAST_AGREEMENT}; build with --precision fp16"
    return f"int8 with {layers}; top-1 agreement over {images:,} images of --calibrate is {found.agreement:.4f}{enough}"


def _manifest(checkpoint: Path, name: str, source: _Source, folder: Path) -> Manifest:
    recipe = source.recipe
    probes, reference = chosen_probes(source.reference.logits_of_pixels, recipe.preprocess.size_px)
    return Manifest(
        name=name,
        architecture=recipe.architecture,
        labels=recipe.labels,
        preprocess=recipe.preprocess,
        precision=recipe.precision,
        temperature=recipe.temperature,
        checkpoint=printable(checkpoint.name),
        checkpoint_sha256=sha256(checkpoint),
        weights=source.weights,
        onnx_sha256=sha256(folder / ONNX),
        built=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=machine.versions(),
        probes=probes,
        reference=reference,
    )


def _verified(folder: Path, source: _Source, images: Path, console: Console) -> Verification:
    """Compare the engine in ``folder`` with its source on ``images``."""
    threads = machine.cores()
    decoder = open_decoder(
        DEFAULT, source.recipe.preprocess, batch_size=32, threads=threads, max_pixels=_LARGEST_IMAGE_PIXELS
    )
    with closing(open_on_cpu(folder)) as engine, closing(decoder):
        shipped = f"{DEFAULT}, {engine.info.backend} {engine.info.precision} on {engine.info.device}"
        names = shipped, source.reference_name
        verification = verify(images, decoder, engine, source.reference, console, names=names)
    if verification.top1_agreement < LEAST_AGREEMENT:
        differing = verification.disagreements
        more = f" and {len(differing) - _SHOWN:,} more" if len(differing) > _SHOWN else ""
        raise VerificationError(
            f"top-1 agreement over {verification.images:,} images is {verification.top1_agreement:.4f}, "
            f"below {LEAST_AGREEMENT}; these differ: {', '.join(differing[:_SHOWN])}{more}; "
            "compare the recipe with the training, or build with --precision fp32"
        )
    return verification
