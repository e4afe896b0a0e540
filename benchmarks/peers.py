"""What people run instead: a torchvision DataLoader around an eager PyTorch model."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import googlenet

from batchcls.manifest import ONNX, Manifest
from batchcls.reference import training_transform
from benchmarks.sample import Sample

_BATCH = 32


class _Files(Dataset[tuple[Tensor, int]]):
    """As ImageFolder does it, without the folders' labels."""

    def __init__(self, files: list[Path], manifest: Manifest) -> None:
        self._files = files
        self._transform = training_transform(manifest.preprocess)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        with Image.open(self._files[position]) as image:
            return self._transform(image.convert("RGB")), position


def torchvision_loop(
    files: list[Path], folder: Path, engine: Path, device: str, *, workers: int, expert: bool
) -> Sample:
    """Classify ``files`` as a PyTorch user would.

    Args:
        files: Below ``folder``.
        workers: Of the DataLoader.
        expert: channels_last and bfloat16 autocast, instead of float32 as the model comes.
    """
    manifest = Manifest.read(engine)
    model = unfused_googlenet(engine, len(manifest.labels)).to(device)
    precision = torch.autocast(torch.device(device).type, torch.bfloat16) if expert else nullcontext()
    if expert:
        model = model.to(memory_format=torch.channels_last)
    with torch.inference_mode(), precision:
        _answers(model, torch.zeros(_BATCH, 3, *manifest.preprocess.size_px, device=device), expert)
        loader = DataLoader(_Files(files, manifest), _BATCH, num_workers=workers, pin_memory=device != "cpu")
        since = perf_counter()
        labels = dict(_loop(model, loader, expert, device))
        elapsed_s = perf_counter() - since
    names = {str(files[position].relative_to(folder)): manifest.labels[label] for position, label in labels.items()}
    return Sample(elapsed_s, len(files), names)


def _loop(
    model: nn.Module, loader: DataLoader[tuple[Tensor, int]], expert: bool, device: str
) -> Iterator[tuple[int, int]]:
    for images, positions in loader:
        labels = _answers(model, images.to(device, non_blocking=True), expert).softmax(1).argmax(1)
        yield from zip(positions.tolist(), labels.tolist(), strict=True)


def _answers(model: nn.Module, images: Tensor, expert: bool) -> Tensor:
    logits: Tensor = model(images.contiguous(memory_format=torch.channels_last) if expert else images)
    return logits


def unfused_googlenet(engine: Path, classes: int) -> nn.Module:
    """torchvision's GoogLeNet as it is trained, with an engine's weights.

    An engine holds each batch normalisation folded into its convolution; here it is one of its own again, which
    shifts by the folded bias and scales by one, so that this model costs what a checkpoint's would.
    """
    model: nn.Module = googlenet(weights=None, num_classes=classes, aux_logits=False, init_weights=False).eval()
    weights = {
        item.name.removeprefix("network."): torch.from_numpy(numpy_helper.to_array(item).astype(np.float32))
        for item in onnx.load(engine / ONNX).graph.initializer
    }
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            convolution = name.removesuffix("bn") + "conv"
            nn.init.constant_(module.weight, (1 + module.eps) ** 0.5)
            module.bias.data = weights.pop(f"{convolution}.bias")
    model.load_state_dict({name: weights.get(name, value) for name, value in model.state_dict().items()})
    return model
