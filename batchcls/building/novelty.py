"""Let an engine learn, from images of the kind that its network was trained for, how strange others look."""

import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from batchcls.building.engine_folder import check_replaceable, replacing_folder
from batchcls.building.onnx.feature_output import add_features
from batchcls.building.probe_answers import record_features
from batchcls.building.reference_images import reference_images
from batchcls.building.verification import open_on_cpu
from batchcls.engine.manifest import ONNX, Manifest, checked_onnx_path, sha256
from batchcls.engine.novelty_check import check_novelty
from batchcls.engine.novelty_file import NOVELTY
from batchcls.engine.novelty_record import EXAMPLES, LearnedNovelty, learn
from batchcls.engine.plan_sidecar import PLANS
from batchcls.engine.probes import draw_candidates
from batchcls.errors import CheckpointError, VerificationError
from batchcls.storage.atomic import write_whole
from batchcls.storage.file_names import printable


def add_novelty(engine: Path, images: Path, console: Console) -> Manifest:
    """Give an engine folder statistics of novelty, and return its new manifest.

    An engine of an older version gets features as well, with which its ONNX file is another one: its plans are dropped.

    Args:
        engine: The engine folder, which is replaced, whole or not at all.
        images: Folder of images of the kind that the network was trained for.
        console: Where notes and progress are shown.

    Raises:
        EngineError: If ``engine`` is no engine folder of this user.
        CheckpointError: If the network has no layer that features could come from.
        SlidesError: If ``images`` holds too few images that can be read.
        OutputError: If the disk refuses.
    """
    manifest = Manifest.read(engine)
    onnx = checked_onnx_path(engine, manifest)
    check_replaceable(engine)
    with replacing_folder(engine) as folder:
        shutil.copyfile(onnx, folder / ONNX)
        if manifest.features is None:
            manifest = replace(manifest, features=add_features(folder / ONNX), onnx_sha256=sha256(folder / ONNX))
        elif (engine / PLANS).is_dir():
            shutil.copytree(engine / PLANS, folder / PLANS, symlinks=True)
        manifest.write(folder)
        record_features(folder, manifest)
        manifest = learn_novelty(folder, manifest, images, console)
        manifest.write(folder)
    return manifest


def learn_novelty(folder: Path, manifest: Manifest, images: Path, console: Console) -> Manifest:
    """Write the statistics of novelty into an engine folder, and return its manifest with their header.

    Args:
        folder: A complete engine folder.
        manifest: The folder's manifest.
        images: Folder of images of the kind that the network was trained for.

    Raises:
        CheckpointError: If the network has no layer that features could come from.
        SlidesError: If ``images`` holds too few images that can be read.
    """
    if manifest.features is None:
        raise CheckpointError(
            f"{manifest.checkpoint!r} has no layer behind a convolution, by which novelty is told; "
            "leave --novelty-from out"
        )
    reference = reference_images(folder, manifest, images, console)
    learned, notes = learn(reference, manifest.features, len(manifest.labels), printable(images.resolve().name))
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    return _with_novelty(folder, manifest, learned, console)


def adopt_novelty(folder: Path, manifest: Manifest, values: Mapping[str, Any], console: Console) -> Manifest:
    """Write the statistics of novelty that a training has learned into an engine folder; return its new manifest.

    Args:
        folder: A complete engine folder.
        values: The entry ``novelty`` of the checkpoint's metadata.
    """
    if manifest.features is None:
        return manifest
    drawn = draw_candidates(manifest.preprocess.size_px, range(EXAMPLES))
    with closing(open_on_cpu(folder, manifest, "f32", features=True)) as engine:
        features = engine.infer(drawn).features
    try:
        learned = LearnedNovelty.of_checkpoint(values, features, len(manifest.labels))
        return _with_novelty(folder, manifest, learned, console)
    except ValueError as error:
        console.print(
            f"without novelty, for that of the training does not fit the engine: {error}; give it some: "
            "batchcls build ENGINE --novelty-from DIR",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        return manifest


def _with_novelty(folder: Path, manifest: Manifest, learned: LearnedNovelty, console: Console) -> Manifest:
    """Write statistics into an engine folder; where this CPU's default arithmetic tells otherwise, ask for float32."""
    write_whole(folder / NOVELTY, learned.novelty.to_bytes())
    manifest = replace(manifest, novelty=learned.header)
    with closing(open_on_cpu(folder, manifest, features=True)) as engine:
        try:
            check_novelty(engine, folder, manifest)
        except VerificationError as error:
            console.print(f"a run will compute in float32 unless told otherwise: {error}", highlight=False)
            return replace(manifest, exact=True)
    return manifest
