"""torchvision's networks without their weights, and what engines add to them."""

from itertools import pairwise
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
    "cnn": "fc",
}
"""Every architecture that is known, and its last layer as torchvision builds it; `SmallCnn` is our own."""

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
"""Where each still knows what stands where in an image, for the last time."""

ARCHITECTURES = tuple(LAST_LAYERS)
TRANSFORMING = ("googlenet", "inception_v3")
"""Networks with torchvision's ``transform_input``."""


class SmallCnn(nn.Module):
    """Five convolutions, each halving the image: what a network that knows of nothing better comes to."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 96, 128)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.flatten(self.avgpool(self.features(images)), 1))
        return logits


def trainable_network(architecture: str, classes: int, *, transform_input: bool = False) -> nn.Module:
    """A network with fresh random weights, in training mode, with its auxiliary heads where it has such."""
    if architecture == "cnn":
        return SmallCnn(classes)
    # Not torchvision's own initialisation, 0.01 everywhere: with it GoogLeNet's validation accuracy on four classes of
    # smears was 0.59 after an epoch instead of 0.94, and 0.87 at most after eight.
    inception = {"aux_logits": True, "init_weights": False, "transform_input": transform_input}
    options = inception if architecture in TRANSFORMING else {}
    module: nn.Module = torchvision.models.get_model(architecture, weights=None, num_classes=classes, **options)
    return module


def empty_network(architecture: str, classes: int, last_layer: str = "", *, transform_input: bool = False) -> nn.Module:
    """A network on the meta device, its auxiliary heads left out.

    Args:
        last_layer: ``classifier`` where all of it was replaced by one Linear; else as torchvision builds it.
        transform_input: Only for the networks that have such a step.
    """
    inception = {"aux_logits": False, "init_weights": False, "transform_input": transform_input}
    options = inception if architecture in TRANSFORMING else {}
    with torch.device("meta"):
        if architecture == "cnn":
            return SmallCnn(classes).eval()
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
        self.reverses = preprocess.channels == "BGR"
        mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        self.register_buffer("scale", (1 / (255 * std)).reshape(1, 3, 1, 1))
        self.register_buffer("shift", (-mean / std).reshape(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        images = pixels.float().permute(0, 3, 1, 2)  # TensorRT permutes no uint8
        normalised = (images.flip(1) if self.reverses else images) * self.scale + self.shift
        logits: Tensor = self.network(normalised.to(self.dtype))
        return logits.float()
