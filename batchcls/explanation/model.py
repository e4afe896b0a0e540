"""The trained file that an engine was built from, which Grad-CAM needs, for an ONNX file gives no gradients."""

from pathlib import Path

from batchcls.engine.manifest import Manifest, sha256
from batchcls.errors import EngineError
from batchcls.networks.architectures import is_of_pytorch
from batchcls.networks.checkpoint import load_network
from batchcls.networks.recipe import Recipe
from batchcls.networks.trained_file import TrainedFile
from batchcls.storage.file_names import original


def trained_file_of_engine(folder: Path, checkpoint: Path | None) -> TrainedFile:
    """The trained file that an engine was built from, with the engine's labels and preprocessing.

    Args:
        folder: Engine folder.
        checkpoint: Path of the trained file; None: a file of the recorded name and content in the engine folder, or
            beside that folder.

    Raises:
        EngineError: If the engine was built from ONNX, or the trained file is missing or differs from the engine's.
        CheckpointError: If the trained file cannot be read.
    """
    manifest = Manifest.read(folder)
    if not is_of_pytorch(manifest.architecture) or manifest.checkpoint.endswith(".onnx"):
        raise EngineError(
            f"engine {str(folder)!r} was built from {manifest.checkpoint!r}, whose layers cannot be looked into; "
            "Grad-CAM needs a checkpoint of PyTorch, such as the one it was made from: batchcls explain CHECKPOINT ..."
        )
    path = checkpoint or _beside(folder, manifest)
    if (digest := sha256(path)) != manifest.checkpoint_sha256:
        raise EngineError(
            f"engine {str(folder)!r} was built from {manifest.checkpoint!r} with SHA-256 {manifest.checkpoint_sha256}, "
            f"{str(path)!r} has {digest}; name the right file: --checkpoint FILE"
        )
    recipe = Recipe(
        manifest.architecture, manifest.labels, temperature=manifest.temperature, preprocess=manifest.preprocess
    )
    transform_input = manifest.preprocess.transform_input
    network = load_network(path, manifest.architecture, transform_input=transform_input, weights=manifest.weights)
    if len(recipe.labels) != network.classes:
        raise EngineError(
            f"engine {str(folder)!r} names {len(recipe.labels)} labels, {str(path)!r} has {network.classes}"
        )
    return TrainedFile(path, network, recipe)


def _beside(folder: Path, manifest: Manifest) -> Path:
    name = Path(original(manifest.checkpoint)).name
    for path in (folder / name, folder.absolute().parent / name):
        if path.is_file() and sha256(path) == manifest.checkpoint_sha256:
            return path
    raise EngineError(
        f"Grad-CAM needs {manifest.checkpoint!r}, the trained file of engine {str(folder)!r} with SHA-256 "
        f"{manifest.checkpoint_sha256}, which is neither in that folder nor beside it; name it: --checkpoint FILE"
    )
