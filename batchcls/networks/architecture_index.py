"""The index of all networks of torchvision and timm, by the names and shapes of their tensors."""

import json
import lzma
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from importlib.resources import files

INDEX_NAME = "architecture_index.json.xz"
"""Name of the index beside this module, which ``docs/architecture_index.py`` writes."""
CONSTANT = re.compile(
    r"(^|\.)(num_batches_tracked|relative_position_index|relative_coords_table|attn_mask|attention_bias_idxs)$"
)
"""Names of tensors that a network computes by itself: a file may lack them, or hold those of an older library."""
SKETCH_LENGTH = 20
"""Largest number of tensors by which networks that do not fit are compared; see `sketch`."""

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by name."""


@dataclass(frozen=True, slots=True)
class IndexedNetwork:
    """Architectures with the same names and shapes of tensors."""

    trunk: int
    """`fingerprint` of all tensors but those of the head."""
    containers: tuple[str, ...]
    """Beginnings of the names of the head's tensors, such as ``fc``."""
    head: Shapes
    """Shapes of the head's tensors by name; an axis of length 0 has the length of the classes."""
    sketch: frozenset[int]
    alike: tuple[tuple[str, ...], ...]
    """Names of architectures, in groups that compute the same function; the usual groups and names first."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names of all groups."""
        return tuple(name for group in self.alike for name in group)


@lru_cache(maxsize=1)
def architecture_index() -> tuple[IndexedNetwork, ...]:
    """All networks of the index."""
    values = json.loads(lzma.decompress((files(__package__) / INDEX_NAME).read_bytes()))
    return tuple(
        IndexedNetwork(
            trunk=int(trunk, 16),
            containers=tuple(containers),
            head={name: tuple(shape) for name, shape in head.items()},
            sketch=frozenset(int(code[start : start + 6], 16) for start in range(0, len(code), 6)),
            alike=tuple(tuple(group) for group in alike),
        )
        for trunk, containers, head, code, alike in values["networks"]
    )


def is_indexed(architecture: str) -> bool:
    """Whether a name, with or without timm's tag, is that of a network of the index."""
    library, slash, name = architecture.rpartition("/")
    bare = f"{library}{slash}{name.partition('.')[0]}"
    return any(bare in network.names for network in architecture_index())


def code_of(name: str, shape: Iterable[int]) -> int:
    """64 bits that stand for a tensor's name and shape."""
    return int.from_bytes(blake2b(f"{name} {tuple(shape)}".encode(), digest_size=8).digest(), "big")


def codes_of(shapes: Shapes) -> dict[str, int]:
    """`code_of` each tensor that is not `CONSTANT`, by name."""
    return {name: code_of(name, shape) for name, shape in shapes.items() if not CONSTANT.search(name)}


def fingerprint(codes: Iterable[int]) -> int:
    """64 bits that stand for a set of tensors, in any order."""
    return sum(codes) % 2**64


def sketch(codes: Iterable[int]) -> frozenset[int]:
    """The smallest 24-bit codes of a set of tensors, at most `SKETCH_LENGTH`: a random sample of the set.

    Source: Broder, On the resemblance and containment of documents, 1997.
    """
    return frozenset(sorted({code >> 40 for code in codes})[:SKETCH_LENGTH])


def resemblance(first: frozenset[int], second: frozenset[int]) -> float:
    """Estimate, from two sketches, of the fraction of the tensors of two networks that are in both, 0 to 1."""
    sample = sorted(first | second)[:SKETCH_LENGTH]
    return sum(code in first and code in second for code in sample) / max(1, len(sample))
