"""Make an image classifier of the library transformers from a configuration that is checked before."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from batchcls.building.hugging_face.folder import HuggingFaceFolder
from batchcls.building.hugging_face.library import library_failures, transformers_library
from batchcls.building.library_errors import translated
from batchcls.errors import CheckpointError

_LEFT_OUT = frozenset(
    (
        *(
            "attn_implementation",
            "experts_implementation",
            "dtype",
            "torch_dtype",
            "transformers_version",
            "name_or_path",
        ),
        *("architectures", "label2id", "problem_type", "torchscript", "pruned_heads", "return_dict"),
        *("output_attentions", "output_hidden_states", "chunk_size_feed_forward", "gradient_checkpointing"),
    )
)
"""Keys of a configuration that say nothing of the network itself."""
_REFUSED = {
    "auto_map": "names code of its own, which is never run",
    "custom_pipelines": "names code of its own, which is never run",
    "quantization_config": "is quantized",
    "backbone": "takes a part from another folder",
    "use_timm_backbone": "takes a part from timm",
    "use_pretrained_backbone": "takes a part from another folder",
}
"""Keys that mean more than a network of transformers alone, and how an error says so."""
_LARGEST_NUMBER = 1 << 20
_MOST_LAYERS = 1000
_LARGE_WINDOW = 256
"""Height and width of a pooling window that no map of features reaches."""
_LARGEST_EXPANSION = 4
_SMALL_BYTES = 1 << 20
_EXPORT = "export it to ONNX where it was trained, then: batchcls build model.onnx"


class LogitsOnly(nn.Module):
    """A classifier of transformers that answers (N, 3, H, W) normalized images with logits, (N, classes)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(pixel_values=images, return_dict=True).logits
        return logits


def load_classifier(folder: HuggingFaceFolder) -> tuple[str, nn.Module]:
    """The name of a folder's network, such as ``ViTForImageClassification``, and the network with its weights.

    The network is in eval mode, float32, on the CPU. Nothing is fetched.

    Raises:
        CheckpointError: If the configuration asks for code or for other files, is no image classifier that
            transformers knows, or the weights are not those of the network.
        BatchclsError: If transformers is not installed.
    """
    values = _checked(folder.path, folder.configuration)
    transformers = transformers_library()
    name = _class_name(folder)
    tensors = folder.tensors()
    with translated(folder.path, "is no network that transformers can make", library_failures()):
        network_class = getattr(transformers, name)
        configuration = transformers.CONFIG_MAPPING[folder.configuration["model_type"]].from_dict(values)
        with torch.device("meta"):
            claimed = sum(4 * tensor.numel() for tensor in network_class(configuration).state_dict().values())
        held = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        if claimed > _LARGEST_EXPANSION * held + _SMALL_BYTES:
            raise ValueError(f"it has {held:,} bytes of weights for a network of {claimed:,}")
        network, report = network_class.from_pretrained(
            None,
            config=configuration,
            state_dict=tensors,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are in the report, which must be empty
            output_loading_info=True,
        )
    _check_report(folder.path, name, report)
    if wrong := next((key for key, value in network.state_dict().items() if not torch.isfinite(value).all()), None):
        raise CheckpointError(f"{str(folder.path)!r} holds values in {wrong!r} that are NaN or infinite")
    return name, LogitsOnly(network).eval().requires_grad_(False)


def exportable(network: nn.Module) -> nn.Module:
    """``network``, or a copy that computes the same without a pooling that no runtime of ONNX can compute.

    The EfficientNet of transformers pools whole images by windows that are far larger than the images.
    """
    oversized = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.AvgPool2d) and module.ceil_mode and module.kernel_size in range(_LARGE_WINDOW, 1 << 20)
    ]
    if not oversized:
        return network
    network = copy.deepcopy(network)
    for name in oversized:
        network.set_submodule(name, nn.AdaptiveAvgPool2d(1))
    return network


def _checked(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with plain values that describe a network alone.

    Raises:
        CheckpointError: If it asks for more.
    """
    if values.get("problem_type") == "multi_label_classification":
        raise CheckpointError(
            f"{str(path)!r} gives an image several labels at once (problem_type multi_label_classification); "
            "batchcls gives each just one"
        )
    checked = {}
    for key, value in values.items():
        if key in _REFUSED and value:
            raise CheckpointError(f"{str(path)!r} {_REFUSED[key]} ({key}), which batchcls does not build; {_EXPORT}")
        if key in _LEFT_OUT or key.startswith("_"):
            continue
        if isinstance(value, Mapping) and key != "id2label":
            value = _checked(path, value)
        _check_size(path, key, value)
        checked[key] = value
    return checked


def _check_size(path: Path, key: str, value: Any) -> None:
    """Refuse a number that no network of images has, so that a small file cannot take much time or memory."""
    most = _MOST_LAYERS if any(part in key for part in ("layers", "depth", "blocks", "repeat")) else _LARGEST_NUMBER
    numbers = value if isinstance(value, list) else [value]
    if len(numbers) > _MOST_LAYERS or any(isinstance(item, int) and abs(item) > most for item in numbers):
        raise CheckpointError(f"{str(path)!r} says {key} {str(value)[:60]}, beyond what a network of images has")


def _class_name(folder: HuggingFaceFolder) -> str:
    """The class of a folder's network, which must be one that transformers maps for image classification."""
    mapping = transformers_library().models.auto.modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    kind, named = folder.configuration.get("model_type"), folder.configuration.get("architectures")
    known = mapping.get(kind, ()) if isinstance(kind, str) else ()
    names = (known,) if isinstance(known, str) else known
    if not isinstance(named, list) or len(named) != 1 or named[0] not in names:
        raise CheckpointError(
            f"{str(folder.path)!r} holds {named} of model_type {kind!r}, which is no image classifier of transformers; "
            "save one: AutoModelForImageClassification...save_pretrained(DIR)"
        )
    return str(named[0])


def _check_report(path: Path, name: str, report: Mapping[str, Any]) -> None:
    """Refuse weights that are missing from the files, unknown to the network, or of another shape."""
    wrong = {key: sorted(map(str, report[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(wrong.values()):
        texts = [f"{key.removesuffix('_keys')}: {', '.join(names[:4])}" for key, names in wrong.items() if names]
        raise CheckpointError(f"{str(path)!r} holds other weights than {name} has ({'; '.join(texts)})")
