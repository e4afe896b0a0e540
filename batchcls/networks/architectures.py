"""Architectures by name, as modules with and without trained weights, and a module that normalizes their input."""

from collections.abc import Mapping
from difflib import SequenceMatcher, get_close_matches
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from batchcls.errors import RecipeError
from batchcls.networks.architecture_index import CONSTANT
from batchcls.networks.heads import Head
from batchcls.networks.preprocess import LUMA, LUMA_TOTAL, Preprocess
from batchcls.networks.torchvision_networks import ParametersOnMeta, torchvision_names, torchvision_network

SMALL_CNN = "cnn"
"""Name of `SmallCnn`; all other names are torchvision's own, and timm's with `TIMM` before them."""
TIMM = "timm/"
"""Prefix of the names of timm's networks, as in ``timm/efficientnet_b0`` and ``timm/efficientnet_b0.ra_in1k``."""
_NEAREST = 3
"""Number of similar names that an error lists."""


def architecture_names() -> list[str]:
    """Names of all architectures: `SMALL_CNN`, torchvision's, and those of the timm that is installed, if it is."""
    timm_names = timm_wrapper().timm_names() if find_spec("timm") else []
    return [SMALL_CNN, *torchvision_names(), *(TIMM + name for name in timm_names)]


def is_architecture(name: str) -> bool:
    """Whether `empty_network` knows an architecture; False for one of timm's where timm is not installed."""
    if name.startswith(TIMM):
        return find_spec("timm") is not None and bool(timm_wrapper().is_timm_network(name.removeprefix(TIMM)))
    return name == SMALL_CNN or name in torchvision_names()


def is_of_pytorch(name: str) -> bool:
    """Whether a name is that of a network of torchvision or timm, whether or not timm is installed."""
    return name.startswith(TIMM) or is_architecture(name)


def check_architecture(name: str) -> None:
    """Refuse a name that is no architecture.

    Raises:
        RecipeError: If there is no such architecture, with the names most like it, or timm is needed and missing.
    """
    if name.startswith(TIMM) and not find_spec("timm"):
        raise RecipeError(
            f"architecture {name!r} needs timm, which is not installed; run: pip install 'batchcls[timm]'"
        )
    if is_architecture(name):
        return
    known = architecture_names()
    bare, _, tag = name.removeprefix(TIMM).partition(".")
    if tag and TIMM + bare in known:
        tags = timm_wrapper().timm_tags(bare)
        known_tags = f"it has {', '.join(tags)}" if tags else f"leave it out: {TIMM}{bare}"
        raise RecipeError(f"architecture {name!r}: timm knows no weights {tag!r} of {bare}; {known_tags}")
    exact = [other for other in (bare, TIMM + bare) if other in known]
    similar = get_close_matches(name.lower(), known, 10 * _NEAREST)
    similar.sort(key=lambda other: (-SequenceMatcher(None, other, name.lower()).ratio(), other))
    nearest = list(dict.fromkeys([*exact, *similar]))[:_NEAREST]
    advice = f"nearest are {', '.join(nearest)}" if nearest else "it takes torchvision's names, and timm/NAME"
    raise RecipeError(f"architecture {name!r} is not known; {advice}")


def timm_wrapper() -> Any:
    """The module that wraps timm, which takes a second to load, and need not be installed."""
    return import_module("batchcls.networks.timm_networks")


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
        architecture: Name that `is_architecture`.
        classes: Number of logits.
        transform_input: See `TRANSFORM_INPUT_ARCHITECTURES`; ignored for others.
    """
    return _network(architecture, classes, auxiliary=True, transform_input=transform_input)


def empty_network(
    architecture: str,
    classes: int,
    head: Head | None = None,
    *,
    in_channels: int = 3,
    transform_input: bool = False,
) -> nn.Module:
    """A network with the names and shapes of its tensors, which are on the meta device, in eval mode.

    Args:
        architecture: Name that `is_architecture`.
        classes: Number of logits.
        head: Layers that replace a part of the network; None: the network as its library makes it.
        in_channels: Channels of the input: 3, or 1.
        transform_input: See `TRANSFORM_INPUT_ARCHITECTURES`; ignored for others.
    """
    with torch.device("meta") if architecture.startswith(TIMM) else ParametersOnMeta():
        network = _network(architecture, classes, in_channels=in_channels, transform_input=transform_input)
        return _with_head(network, head).eval()


def loaded_network(
    architecture: str,
    tensors: Mapping[str, Tensor],
    classes: int,
    head: Head | None = None,
    *,
    in_channels: int = 3,
    transform_input: bool = False,
) -> nn.Module:
    """A network with trained weights, in eval mode on the CPU, without gradients and without auxiliary heads.

    Args:
        tensors: Every tensor of the network by name; those that a network computes by itself may be left out.
        architecture, classes, head, in_channels, transform_input: See `empty_network`.

    Raises:
        RuntimeError: If ``tensors`` are not those of the network.
    """
    network = untrained_network(architecture, classes, head, in_channels=in_channels, transform_input=transform_input)
    state = network.state_dict()  # with the versions of its modules, which MNASNet asks for
    for name in [name for name in state if not CONSTANT.search(name)]:
        del state[name]
    state.update(tensors)
    network.load_state_dict(state)
    return network


def untrained_network(
    architecture: str,
    classes: int,
    head: Head | None = None,
    *,
    in_channels: int = 3,
    transform_input: bool = False,
) -> nn.Module:
    """A network for trained weights, with random ones, on the CPU in eval mode; see `empty_network`.

    It is not made by way of the meta device, for some of timm's compute buffers that no file holds.
    """
    network = _network(architecture, classes, in_channels=in_channels, transform_input=transform_input)
    return _with_head(network, head).eval().requires_grad_(False)


def _network(
    architecture: str, classes: int, *, auxiliary: bool = False, in_channels: int = 3, transform_input: bool = False
) -> nn.Module:
    if architecture.startswith(TIMM):
        options = {} if in_channels == 3 else {"in_chans": in_channels}
        return cast(nn.Module, timm_wrapper().timm_network(architecture.removeprefix(TIMM), classes, **options))
    if architecture == SMALL_CNN:
        network: nn.Module = SmallCnn(classes)
    else:
        network = torchvision_network(architecture, classes, auxiliary=auxiliary, transform_input=transform_input)
    if in_channels != 3:
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        first.in_channels = in_channels
        first.weight = nn.Parameter(first.weight.detach()[:, :in_channels].clone())
    return network


def _with_head(network: nn.Module, head: Head | None) -> nn.Module:
    if head is not None:
        network.set_submodule(head.place, head.module())
    return network


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
