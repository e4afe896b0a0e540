"""torchvision's networks without their weights, and what engines add to them."""

from typing import cast

import torch
import torchvision
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from batchcls.records import Preprocess

LAST_LAYERS = {
    "googlenet": "fc",
    "inception_v3": "fc",
    "resnet18": "fc",
    "resnet34": "fc",
    "resnet50": "fc",
    "resnet101": "fc",
    "vgg16": "classifier.6",
    "vgg16_bn": "classifier.6",
    "alexnet": "classifier.6",
    "mobilenet_v2": "classifier.1",
}
"""Every architecture that is known, and its last layer as torchvision builds it."""

ARCHITECTURES = tuple(LAST_LAYERS)
TRANSFORMING = ("googlenet", "inception_v3")
"""Networks with torchvision's ``transform_input``."""


def empty_network(architecture: str, classes: int, last_layer: str = "", *, transform_input: bool = False) -> nn.Module:
    """A network on the meta device, its auxiliary heads left out.

    Args:
        last_layer: ``classifier`` where all of it was replaced by one Linear; else as torchvision builds it.
        transform_input: Only for the networks that have such a step.
    """
    inception = {"aux_logits": False, "init_weights": False, "transform_input": transform_input}
    options = inception if architecture in TRANSFORMING else {}
    with torch.device("meta"):
        module = torchvision.models.get_model(architecture, weights=None, num_classes=classes, **options)
        if last_layer == "classifier":
            features = next(layer.in_features for layer in module.classifier if isinstance(layer, nn.Linear))
            module.classifier = nn.Linear(features, classes)
    return cast(nn.Module, module.eval())


def fused(network: nn.Module) -> nn.Module:
    """``network`` with each batch normalisation folded into the convolution before it, in its own precision.

    Folded in float32, the statistics never have to fit half precision; and what is left keeps the names of the
    network's own modules, so that weights can be found in the ONNX file again.
    """
    return cast(nn.Module, fuse(network))


class PixelClassifier(nn.Module):
    """A network that eats (N, H, W, 3) uint8 RGB, and answers (N, classes) float32 logits.

    Args:
        network: Moved to ``dtype``, in which it then computes; normalisation is float32.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, preprocess: Preprocess, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network.to(dtype)
        self.dtype = dtype
        mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        self.register_buffer("scale", (1 / (255 * std)).reshape(1, 3, 1, 1))
        self.register_buffer("shift", (-mean / std).reshape(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        normalised = pixels.float().permute(0, 3, 1, 2) * self.scale + self.shift  # TensorRT permutes no uint8
        logits: Tensor = self.network(normalised.to(self.dtype))
        return logits.float()
