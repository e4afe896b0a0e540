"""Random weights of PyTorch networks whose answers differ from image to image."""

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.agreement.prepared import SEED, Probabilities

_SMALLEST = 1e-3
"""Weights of one axis that are all smaller are those of layer scales, or zeros that switch a branch off."""
_SPREAD = 1.5
"""Standard deviation of each logit over the images."""
_BATCH_SIZE = 16


def seed() -> None:
    """Make the next random weights the same in every run."""
    torch.manual_seed(SEED)


def probabilities(network: nn.Module, images: Tensor) -> Probabilities:
    """(N, classes) float64, 0 to 1, of (N, C, H, W) float32 images."""
    return np.asarray(_logits(network, images).double().softmax(1).numpy())


def spread_answers(network: nn.Module, last: nn.Linear, images: Tensor) -> None:
    """Change the weights of a new network in place so that each label is that of some of ``images``.

    Branches that begin switched off are switched on, batch normalizations take their statistics from the images and
    shift their results up, so that most units are on, as in trained networks: else what an image differs by, rounding
    included, grows from layer to layer. The last layer is scaled so that each logit has a mean of 0 and a standard
    deviation of 1.5 over them.

    Args:
        last: Layer of ``network`` that computes the logits.
        images: (N, C, H, W) float32, normalized.
    """
    network.eval()
    with torch.inference_mode():
        for name, weights in network.named_parameters():
            if weights.ndim == 1 and not name.endswith("bias") and weights.abs().max() < _SMALLEST:
                weights.uniform_(0.2, 1)
        _take_statistics(network, images)
        logits = _logits(network, images)
        factor = _SPREAD / logits.std(0)
        last.weight.mul_(factor[:, None])
        last.bias.copy_((last.bias - logits.mean(0)) * factor)


def _take_statistics(network: nn.Module, images: Tensor) -> None:
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.bias.fill_(1)
        norm.momentum = None  # the mean over all batches
        norm.train()
    _logits(network, images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        answers = [network(images[start : start + _BATCH_SIZE]) for start in range(0, len(images), _BATCH_SIZE)]
    return torch.cat([answer if isinstance(answer, Tensor) else answer.logits for answer in answers])
