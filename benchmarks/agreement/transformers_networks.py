"""Networks of transformers, saved as a folder, and fed by their own image processor."""

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from PIL import Image

from benchmarks.agreement.prepared import LABELS, Prepared
from benchmarks.agreement.random_weights import probabilities, seed, spread_answers

_NETWORKS = {
    "ViT": ("ViT", {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}),
    "ConvNeXt": ("ConvNext", {}),
}
"""Prefix of the library's classes, and what the configuration has beside its defaults; by name."""


def prepare(name: str, folder: Path, files: Sequence[Path]) -> Prepared:
    """A network of transformers, saved in ``folder``, with its answers to ``files``."""
    seed()
    prefix, values = _NETWORKS[name]
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: place for place, label in enumerate(LABELS)}}
    network = getattr(transformers, f"{prefix}ForImageClassification")(
        getattr(transformers, f"{prefix}Config")(**values, **names)
    )
    getattr(transformers, f"{prefix}ImageProcessor")().save_pretrained(folder / "model")
    # Pillow's backend: the default one, for tensors, resizes to pixels that differ from Pillow's by up to 2 of 255.
    processor = transformers.AutoImageProcessor.from_pretrained(folder / "model", backend="pil")
    images = torch.cat(
        [processor(Image.open(file).convert("RGB"), return_tensors="pt")["pixel_values"] for file in files]
    )
    spread_answers(network, network.classifier, images)
    network.save_pretrained(folder / "model")
    return Prepared("model", [], probabilities(network, images))
