"""The last layer of a network whose output has a height and a width, for Grad-CAM."""

from typing import Any

import torch
from torch import Tensor, nn

from batchcls.errors import CheckpointError
from batchcls.networks.preprocess import Preprocess

CAM_LAYERS = {
    "googlenet": "inception5b",
    "inception_v3": "Mixed_7c",
    "resnet18": "layer4",
    "resnet34": "layer4",
    "resnet50": "layer4",
    "resnet101": "layer4",
    "vgg16": "features",
    "vgg16_bn": "features",
    "alexnet": "features",
    "mobilenet_v2": "features",
    "cnn": "features",
}
"""Name, by architecture, of the last layer with an output that has a height and a width, for Grad-CAM."""


def cam_layer(network: nn.Module, architecture: str, preprocess: Preprocess) -> nn.Module:
    """The layer of ``network`` whose output Grad-CAM looks at.

    Args:
        network: In eval mode on the CPU, from (N, channels, H, W).
        architecture: Name of the architecture.
        preprocess: Size and channels of the input.

    Raises:
        CheckpointError: If the layers before the last ones have no height and width, as in a transformer.
    """
    if architecture in CAM_LAYERS:
        return network.get_submodule(CAM_LAYERS[architecture])
    outputs = _outputs(network, (preprocess.channel_count, *preprocess.size_px))
    places = [(layer, shape) for layer, shape in outputs if len(shape) == 4 and shape[2] * shape[3] > 1]
    tokens = [number for number, (_, shape) in enumerate(outputs) if len(shape) == 3 and shape[1] > 1]
    last_place = max((number for number, output in enumerate(outputs) if output in places), default=-1)
    is_map = bool(places) and _is_map(places[-1][1], preprocess.size_px) and max(tokens, default=-1) < last_place
    if not is_map:
        raise CheckpointError(
            f"{architecture} has no last layer with a height and a width, which Grad-CAM needs: transformers see an "
            "image as a list of patches; explain a convolutional network, such as resnet50, in its place"
        )
    return places[-1][0]


def _outputs(network: nn.Module, input_shape: tuple[int, int, int]) -> list[tuple[nn.Module, tuple[int, ...]]]:
    """Each module but the network itself, in the order in which they end, with the shape of its output."""
    outputs: list[tuple[nn.Module, tuple[int, ...]]] = []

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs.append((module, tuple(output.shape)))

    handles = [module.register_forward_hook(record) for module in network.modules() if module is not network]
    try:
        with torch.inference_mode():
            network(torch.zeros((1, *input_shape)))
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _is_map(shape: tuple[int, ...], size_px: tuple[int, int]) -> bool:
    """Whether (1, C, H, W) has the proportions of the input; (1, H, W, C), as Swin has it, has not."""
    height, width = shape[2:]
    return abs(height * size_px[1] - width * size_px[0]) < size_px[0] + size_px[1]
