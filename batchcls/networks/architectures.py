"""The supported architectures as modules without trained weights, and a module that normalizes their input."""

from itertools import pairwise
from typing import cast

import torch
import torchvision
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from batchcls.records import LUMA, LUMA_TOTAL, Preprocess

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
"""Name of the last layer of every known architecture, as torchvision builds it; ``cnn`` is `SmallCnn`."""

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

ARCHITECTURES = tuple(LAST_LAYERS)
TRANSFORM_INPUT_ARCHITECTURES = ("googlenet", "inception_v3")
"""Architectures with torchvision's option ``transform_input``, by which the input is normalized a second time."""


class SmallCnn(nn.Module):
    """Five convolutions, each followed by a pooling that halves the image: a small network to compare others with.

    Args:
        num_classes: Number of logits.
    """

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
    """A network with random weights, in training mode on the CPU, with auxiliary heads if its architecture has any.

    Args:
        architecture: One of `ARCHITECTURES`.
        classes: Number of logits.
        transform_input: See `TRANSFORM_INPUT_ARCHITECTURES`; ignored for others.
    """
    if architecture == "cnn":
        return SmallCnn(classes)
    # Not torchvision's own initialization, 0.01 everywhere: with it GoogLeNet's validation accuracy on four classes of
    # smears was 0.59 after an epoch instead of 0.94, and 0.87 at most after eight.
    inception = {"aux_logits": True, "init_weights": False, "transform_input": transform_input}
    options = inception if architecture in TRANSFORM_INPUT_ARCHITECTURES else {}
    module: nn.Module = torchvision.models.get_model(architecture, weights=None, num_classes=classes, **options)
    return module


def empty_network(architecture: str, classes: int, last_layer: str = "", *, transform_input: bool = False) -> nn.Module:
    """A network without weights, on the meta device, in eval mode and without auxiliary heads.

    Args:
        architecture: One of `ARCHITECTURES`.
        classes: Number of logits.
        last_layer: ``classifier`` for a network whose whole classifier was replaced by one Linear; any other value for
            the last layer as torchvision builds it.
        transform_input: See `TRANSFORM_INPUT_ARCHITECTURES`; ignored for others.
    """
    inception = {"aux_logits": False, "init_weights": False, "transform_input": transform_input}
    options = inception if architecture in TRANSFORM_INPUT_ARCHITECTURES else {}
    with torch.device("meta"):
        if architecture == "cnn":
            return SmallCnn(classes).eval()
        module = torchvision.models.get_model(architecture, weights=None, num_classes=classes, **options)
        if last_layer == "classifier":
            features = next(layer.in_features for layer in module.classifier if isinstance(layer, nn.Linear))
            module.classifier = nn.Linear(features, classes)
    return cast(nn.Module, module.eval())


def fuse_batch_norm(network: nn.Module) -> nn.Module:
    """A copy of ``network`` with each batch normalization folded into the convolution before it, in the same precision.

    If folded in float32, the statistics never have to be stored in half precision. The other modules keep their names,
    so that their weights can be identified in an exported ONNX file.
    """
    return cast(nn.Module, fuse(network))


class PixelClassifier(nn.Module):
    """A network with its normalization in front: (N, H, W, 3) uint8 RGB in, (N, classes) float32 logits out.

    Args:
        network: Takes (N, 3, H, W) normalized images, or (N, 1, H, W) in gray; moved to ``dtype``.
        preprocess: Channels, mean and standard deviation of the normalization, which is computed in float32.
        dtype: Number type that the network computes in.
    """

    scale: Tensor
    shift: Tensor
    luma: Tensor

    def __init__(self, network: nn.Module, preprocess: Preprocess, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network.to(dtype)
        self.dtype = dtype
        self.channels = preprocess.channels
        mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        self.register_buffer("scale", (1 / (255 * std)).reshape(1, -1, 1, 1))
        self.register_buffer("shift", (-mean / std).reshape(1, -1, 1, 1))
        self.register_buffer("luma", torch.from_numpy(LUMA))

    def forward(self, pixels: Tensor) -> Tensor:
        colors = self._gray(pixels) if self.channels == "L" else pixels.float()
        images = colors.permute(0, 3, 1, 2)  # TensorRT permutes no uint8
        normalized = (images.flip(1) if self.channels == "BGR" else images) * self.scale + self.shift
        logits: Tensor = self.network(normalized.to(self.dtype))
        return logits.float()

    def _gray(self, pixels: Tensor) -> Tensor:
        """(N, H, W, 1) float32, as `Preprocess.ordered`; of integers, which no runtime rounds to bfloat16."""
        parts = (pixels.int() * self.luma).sum(3, keepdim=True, dtype=torch.int32) + LUMA_TOTAL // 2
        return (parts - parts % LUMA_TOTAL).float() / LUMA_TOTAL
