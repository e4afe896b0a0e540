"""Write the index of all networks of torchvision and timm, batchcls/networks/architecture_index.json.xz.

Run it where both are installed, after an update of either: python docs/architecture_index.py (half an hour). Networks
with the same tensors are given the same random weights, and compared by their answers to one image.
"""

import json
import lzma
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from batchcls.networks import architecture_index as index
from batchcls.networks.architectures import TIMM, architecture_names, empty_network, untrained_network
from batchcls.networks.timm_networks import timm_config

CLASSES = 10007
"""Number of classes, a prime that is no width of any network."""
LARGEST_PARAMETERS = 330_000_000
"""Networks with more are not compared, and count as different."""
TOLERANCE = 1e-4
"""Largest difference of two answers that are the same, as a fraction of the deviation of the logits."""


def main() -> None:
    groups: dict[tuple[int, str], list[str]] = defaultdict(list)
    sketches: dict[tuple[int, str], str] = {}
    for name in architecture_names():
        described = entry(empty_network(name, CLASSES).state_dict())
        if described is None:
            report("no classifier:", name)
            continue
        key, sketches[key] = described
        groups[key].append(name)
    write(
        [
            [f"{trunk:016x}", *json.loads(head), sketches[trunk, head], alike(sorted(names, key=rank))]
            for (trunk, head), names in groups.items()
        ]
    )


def entry(tensors: Mapping[str, Tensor]) -> tuple[tuple[int, str], str] | None:
    """A network's fingerprint and head, as JSON, and its sketch; None if no tensor has an axis of `CLASSES`."""
    shapes = {key: tuple(value.shape) for key, value in tensors.items() if not index.CONSTANT.search(key)}
    containers = sorted({key.partition(".")[0] for key, shape in shapes.items() if shape[:1] == (CLASSES,)})
    if not containers:
        return None
    head = {key: shape for key, shape in shapes.items() if key.partition(".")[0] in containers}
    codes = index.codes_of({key: shape for key, shape in shapes.items() if key not in head})
    counted = {key: [0 if length == CLASSES else length for length in shape] for key, shape in head.items()}
    code = "".join(f"{code:06x}" for code in sorted(index.sketch(codes.values())))
    return (index.fingerprint(codes.values()), json.dumps([containers, counted])), code


def write(networks: list[list[Any]]) -> None:
    versions = {"timm": timm.__version__, "torchvision": torchvision.__version__}
    content = json.dumps({"versions": versions, "networks": networks}, separators=(",", ":")).encode()
    path = Path(index.__file__).with_name(index.INDEX_NAME)
    path.write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    report(f"{len(networks)} networks, {path.stat().st_size:,} bytes, of {versions}")


def report(*words: object) -> None:
    sys.stderr.write(" ".join(map(str, words)) + "\n")


def rank(name: str) -> tuple[bool, int, int, str]:
    """Sort key, for the usual networks first: torchvision's; then short names; then those with many trained weights."""
    weights = len(timm.list_models(f"{name.removeprefix(TIMM)}.*", pretrained=True)) if name.startswith(TIMM) else 0
    return name.startswith(TIMM), len(name), -weights, name


def alike(names: list[str]) -> list[list[str]]:
    """Names in groups that compute the same."""
    found: list[list[str]] = []
    for name in names:
        group = next((group for group in found if computes_alike(group[0], name)), None)
        if group is None:
            found.append([name])
        else:
            group.append(name)
    return found


def computes_alike(first: str, second: str) -> bool:
    empty = empty_network(first, 10)
    if sum(parameter.numel() for parameter in empty.parameters()) > LARGEST_PARAMETERS:
        return False
    network, other = untrained_network(first, 10), untrained_network(second, 10)
    randomize(network)
    other.load_state_dict(network.state_dict())
    for side in dict.fromkeys((input_px(first), input_px(second))):
        image = torch.randn((1, 3, side, side), generator=torch.Generator().manual_seed(1))
        answers = list(answers_of((network, other), image))
        if len(answers) == 2:
            return bool((answers[0] - answers[1]).abs().max() <= TOLERANCE * answers[0].std())
    return False


def answers_of(networks: tuple[nn.Module, nn.Module], image: Tensor) -> Iterator[Tensor]:
    for network in networks:
        try:
            with torch.inference_mode():
                yield network(image)
        except (RuntimeError, AssertionError, ValueError) as error:
            report("cannot take", tuple(image.shape), str(error)[:80])


def input_px(name: str) -> int:
    if name.startswith(TIMM):
        return int(timm_config(name.removeprefix(TIMM)).get("input_size", (3, 224, 224))[-1])
    return 299 if name == "inception_v3" else 224


@torch.no_grad()
def randomize(network: nn.Module) -> None:
    """Give all weights and statistics random values under which activations neither vanish nor grow."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if not value.is_floating_point() or index.CONSTANT.search(name):
            continue
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif name.endswith(("bias", "running_mean")):
            value.normal_(0, 0.1, generator=generator)
        elif value.ndim < 2:
            value.uniform_(0.5, 1.5, generator=generator)
        else:
            value.normal_(0, value[0].numel() ** -0.5, generator=generator)


if __name__ == "__main__":
    main()
