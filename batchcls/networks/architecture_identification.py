"""Find the architecture of a file by its tensors, and by the names that the file gives."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from batchcls.errors import CheckpointError
from batchcls.networks.architecture_index import (
    CONSTANT,
    IndexedNetwork,
    Shapes,
    architecture_index,
    code_of,
    codes_of,
    fingerprint,
    resemblance,
    sketch,
)
from batchcls.networks.architecture_match import ArchitectureMatch, colored, read_head
from batchcls.networks.architectures import TIMM, is_architecture
from batchcls.networks.onnx_advice import export_advice
from batchcls.networks.tensors import TrainedTensors
from batchcls.networks.unpickling_stand_ins import ObjectStandIn, find_values

NETWORK_KEYS = (
    *("arch", "architecture", "model_name", "model", "backbone", "encoder", "encoder_name", "base_model", "net"),
)
"""Keys, in lower case, under which a checkpoint names its network."""
_LEAST_RESEMBLANCE = 0.5
"""Smallest fraction of equal tensors of a network that is called close."""
_MOST_CLOSEST = 3
_MOST_LISTED = 8
"""Largest numbers of networks that an error lists: of those that are close, and of those that fit."""
_LEAST_FRACTION = 0.3
"""Smallest fraction of a file's tensors that have the prefix of its network: the file may hold several."""


@dataclass(frozen=True, slots=True)
class Identification:
    """The architecture of a file, and what decided it."""

    architecture: str
    notes: tuple[str, ...] = ()


def identify(path: Path, trained: TrainedTensors) -> Identification:
    """The architecture of a file's tensors: the only one that they fit, or the one of several that the file names.

    Architectures that compute the same function are one. Whether timm is installed makes no difference.

    Raises:
        CheckpointError: If no architecture fits, or if several that compute differently do and the file names none.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in trained.tensors.items()}
    groups = [group for network in _fitting(shapes) for group in network.alike]
    if not groups:
        raise CheckpointError(f"{str(path)!r} {_of_no_network(trained.tensors)}")
    said = {name: key for key, value in find_values(trained.contents, NETWORK_KEYS) for name in _names(value, groups)}
    if len({group for group in groups for name in said if name.partition(".")[0] in group}) == 1:
        name = _preferred(list(said), trained.contents)
        return Identification(name, (f"architecture {name}, as {said[name]!r} in the file says",))
    if len(groups) > 1:
        firsts = [group[0] for group in groups]
        others = f" and {len(firsts) - _MOST_LISTED} others" if len(firsts) > _MOST_LISTED else ""
        raise CheckpointError(
            f"{str(path)!r} fits {len(firsts)} networks that compute differently, and does not say which it is: "
            f"{', '.join(firsts[:_MOST_LISTED])}{others}; name the one that was trained: --architecture NAME"
        )
    (group,) = groups
    return Identification(group[0], _siblings_note(group))


def closest_architectures(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the architectures that most of a file's tensors fit, the closest first; empty if none is close."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    best: dict[str, float] = {}
    for prefix in _prefixes(shapes):
        codes = codes_of(_below(prefix, shapes))
        for containers, networks in _by_containers().items():
            own = sketch(code for name, code in codes.items() if name.partition(".")[0] not in containers)
            for network in networks:
                name = network.names[0]
                best[name] = max(best.get(name, 0.0), resemblance(own, network.sketch))
    close = [name for name in best if best[name] >= _LEAST_RESEMBLANCE]
    return sorted(close, key=lambda name: (-best[name], name.startswith(TIMM), len(name)))[:_MOST_CLOSEST]


def _of_no_network(tensors: Mapping[str, Tensor]) -> str:
    """The text for an error on a file whose tensors fit no architecture."""
    closest = closest_architectures(tensors)
    if not closest:
        return f"holds no network of torchvision or timm, and is close to none; {export_advice()}"
    match = ArchitectureMatch.of(closest[0], tensors) if is_architecture(closest[0]) else None
    misfit = f"of {closest[0]!r} {match.misfit()}; " if match else ""
    return (
        f"holds no network of torchvision or timm as it is; it is closest to {', '.join(map(repr, closest))}, but "
        f"{misfit}if it was changed, {export_advice()}"
    )


def _fitting(shapes: Shapes) -> list[IndexedNetwork]:
    """The networks of the index that a file's tensors fit.

    Raises:
        CheckpointError: If the file holds several networks.
    """
    found: dict[str, list[IndexedNetwork]] = {}
    for prefix in _prefixes(shapes):
        networks = list(_networks(_below(prefix, shapes)))
        if networks:
            found[prefix] = networks
    if len(found) > 1:
        raise CheckpointError(f"the file holds several networks, under {sorted(found)}; choose one with --state-dict")
    return next(iter(found.values()), [])


def _networks(shapes: Shapes) -> Iterator[IndexedNetwork]:
    """The networks of the index with these tensors, but for the classes, replaced heads, and one input channel."""
    codes = codes_of(shapes)
    recolored = {name: code_of(name, colored(shape)) - codes[name] for name, shape in shapes.items() if name in codes}
    for containers, networks in _by_containers().items():
        head = {name: shape for name, shape in shapes.items() if name.partition(".")[0] in containers}
        trunk = fingerprint(code for name, code in codes.items() if name not in head)
        trunks = {trunk, *((trunk + change) % 2**64 for name, change in recolored.items() if name not in head)}
        for network in networks:
            if network.trunk in trunks and _head_fits(network, head):
                yield network


def _head_fits(network: IndexedNetwork, head: Shapes) -> bool:
    classes, replaced = read_head(network.head, head, torchvision=not network.names[0].startswith(TIMM))
    place = f"{replaced.place}." if replaced else None
    expected = {
        name: tuple(length or classes for length in shape)
        for name, shape in network.head.items()
        if place is None or not name.startswith(place)
    }
    present = {
        name: shape
        for name, shape in head.items()
        if not CONSTANT.search(name) and (place is None or not name.startswith(place))
    }
    return classes > 0 and expected == present


@lru_cache(maxsize=1)
def _by_containers() -> dict[tuple[str, ...], list[IndexedNetwork]]:
    networks: dict[tuple[str, ...], list[IndexedNetwork]] = defaultdict(list)
    for network in architecture_index():
        networks[network.containers].append(network)
    return dict(networks)


def _prefixes(shapes: Shapes) -> list[str]:
    """Beginnings that many of a file's names share, such as ``module.``, and the empty one."""
    counts: dict[str, int] = defaultdict(int)
    for name in shapes:
        parts = name.split(".")
        for length in range(len(parts)):
            counts["".join(f"{part}." for part in parts[:length])] += 1
    return [prefix for prefix, count in counts.items() if count >= _LEAST_FRACTION * len(shapes)]


def _below(prefix: str, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def _names(value: Any, groups: list[tuple[str, ...]]) -> list[str]:
    """The name of an architecture of ``groups`` that a value in a file stands for, with timm's tag if it has one."""
    if not isinstance(value, str):
        return []
    plain = value.rpartition(":")[2].removeprefix(TIMM)  # hf-hub:timm/resnet50.a1_in1k
    bare, _, tag = plain.partition(".")
    known = [name for group in groups for name in group]
    if value.startswith(TIMM) or value != plain or tag:
        return [TIMM + plain] if TIMM + bare in known else []
    return [name for name in known if _letters(name.removeprefix(TIMM)) == _letters(bare)]  # ResNet-18


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _preferred(names: list[str], contents: Mapping[Any, Any]) -> str:
    """Of torchvision's and timm's name for one network the one whose library trained it."""
    of_timm = [name for name in names if name.startswith(TIMM)]
    by_timm = any(isinstance(value, ObjectStandIn) for _, value in find_values(contents, ("args",)))
    return of_timm[0] if of_timm and (by_timm or len(of_timm) == len(names)) else names[0]


def _siblings_note(group: tuple[str, ...]) -> tuple[str, ...]:
    """A line on the other names of a network of timm, which may go with another preprocessing."""
    if not group[0].startswith(TIMM) or len(group) == 1:
        return ()
    more = f" and {len(group) - 1 - _MOST_CLOSEST} others" if len(group) - 1 > _MOST_CLOSEST else ""
    return (
        f"architecture {group[0]}, by its tensors; {', '.join(group[1 : 1 + _MOST_CLOSEST])}{more} compute the same, "
        "but may take images in another way: if one of these was trained, name it with --architecture",
    )
