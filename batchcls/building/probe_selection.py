"""Probes are chosen for a network: images that it is of two minds about, which tell most of how it answers."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

from batchcls.engine.postprocess import predictions
from batchcls.engine.probes import CANDIDATES, COUNT, WHOLE, Mixture, candidate_pixels, probe_pixels
from batchcls.records import Logits, Pixels

_CONFIDENCE = 0.65
"""Probability of a probe's first class: undecided enough to move with every fault, decided enough to keep its label."""
_STEPS = 7
"""Halvings of the mixture between two images of different classes."""


def undecided_mixtures(answer: Callable[[Pixels], Logits], size_px: tuple[int, int]) -> tuple[Mixture, ...]:
    """Sixteen mixtures, each between images of two classes, about whose first class the network is little sure.

    A network that gives all candidates one class is probed with those of them that it is least sure of.

    Args:
        answer: From (N, H, W, 3) uint8 to (N, classes) logits, in float32.
    """
    found = predictions(answer(candidate_pixels(size_px)))
    pairs = list(islice(_pairs(found.labels.tolist()), COUNT))
    if not pairs:
        least_sure = np.argsort(found.probabilities.max(axis=1), kind="stable")[:COUNT].tolist()
        return tuple((number, number, 0) for number in least_sure)
    classes = found.labels[[first for first, _ in pairs]]
    sure, unsure = np.zeros(len(pairs), int), np.full(len(pairs), WHOLE)
    for _ in range(_STEPS):
        middle = (sure + unsure) // 2
        mixtures = [(*pair, weight) for pair, weight in zip(pairs, middle.tolist(), strict=True)]
        probabilities = predictions(answer(probe_pixels(size_px, mixtures))).probabilities
        still = probabilities[np.arange(len(pairs)), classes] >= _CONFIDENCE
        sure, unsure = np.where(still, middle, sure), np.where(still, unsure, middle)
    return tuple((*pair, weight) for pair, weight in zip(pairs, sure.tolist(), strict=True))


def _pairs(labels: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Two candidates of different classes, each two classes in turn, both ways round, so that all are met."""
    members = defaultdict(list)
    for number, label in enumerate(labels):
        members[label].append(number)
    ways = [(one, other) for one in sorted(members) for other in sorted(members) if one != other]
    for turn in range(CANDIDATES):
        for one, other in ways:
            yield members[one][turn % len(members[one])], members[other][-1 - turn % len(members[other])]
