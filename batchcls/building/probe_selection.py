"""Choose a network's probes: mixtures of images between two classes, whose answers every fault changes."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

from batchcls.engine.postprocess import to_predictions
from batchcls.engine.probes import CANDIDATE_COUNT, FULL_WEIGHT, PROBE_COUNT, Mixture, draw_candidates, draw_probes
from batchcls.records import Logits, Pixels

_CONFIDENCE = 0.65
"""Probability of a probe's most probable class: low enough for every fault to show, high enough to keep the label."""
_STEPS = 7
"""Halvings of the range of mixtures between two images of different classes."""


def select_mixtures(answer: Callable[[Pixels], Logits], size_px: tuple[int, int]) -> tuple[Mixture, ...]:
    """Mixtures of two images of different classes each, in which the first class is only just the more probable one.

    A network that gives every candidate the same class is probed with the candidates that it is least sure of.

    Args:
        answer: The network, from (N, H, W, 3) uint8 to (N, classes) float32 logits.
        size_px: Height and width of the probes.

    Returns:
        `batchcls.engine.probes.PROBE_COUNT` mixtures.
    """
    candidates = to_predictions(answer(draw_candidates(size_px)))
    pairs = list(islice(_candidate_pairs(candidates.labels.tolist()), PROBE_COUNT))
    if not pairs:
        least_sure = np.argsort(candidates.probabilities.max(axis=1), kind="stable")[:PROBE_COUNT].tolist()
        return tuple((number, number, 0) for number in least_sure)
    classes = candidates.labels[[first for first, _ in pairs]]
    # A bisection: at weight `sure` the network is_sure sees the first image's class, at `unsure` it may not.
    sure, unsure = np.zeros(len(pairs), int), np.full(len(pairs), FULL_WEIGHT)
    for _ in range(_STEPS):
        middle = (sure + unsure) // 2
        mixtures = [(*pair, weight) for pair, weight in zip(pairs, middle.tolist(), strict=True)]
        probabilities = to_predictions(answer(draw_probes(size_px, mixtures))).probabilities
        is_sure = probabilities[np.arange(len(pairs)), classes] >= _CONFIDENCE
        sure, unsure = np.where(is_sure, middle, sure), np.where(is_sure, unsure, middle)
    return tuple((*pair, weight) for pair, weight in zip(pairs, sure.tolist(), strict=True))


def _candidate_pairs(labels: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Numbers of two candidates with different labels, for every ordered pair of labels in turn."""
    members = defaultdict(list)
    for number, label in enumerate(labels):
        members[label].append(number)
    label_pairs = [(one, other) for one in sorted(members) for other in sorted(members) if one != other]
    for turn in range(CANDIDATE_COUNT):
        for one, other in label_pairs:
            yield members[one][turn % len(members[one])], members[other][-1 - turn % len(members[other])]
