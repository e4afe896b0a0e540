# /// script
# dependencies = ["pillow", "torch", "torchvision"]
# ///
"""torchvision's GoogLeNet behind a DataLoader: eager FP32, compiled FP32, or BF16 autocast in channels_last.

The time includes the start of the DataLoader's workers, because a DataLoader starts them for each pass over a folder.
"""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import googlenet

BATCH = 32


class Files(Dataset[tuple[Tensor, str]]):
    """Images and their names, read as ImageFolder reads them."""

    def __init__(self, folder: Path, files: list[str], transform: Callable[[Image.Image], Tensor]) -> None:
        self.folder, self.files, self.transform = folder, files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> tuple[Tensor, str]:
        file = self.files[position]
        with Image.open(self.folder / file) as image:
            return self.transform(image.convert("RGB")), file


def input_transform(preprocess: dict[str, Any]) -> transforms.Compose:
    """From an image to a normalized (3, H, W) tensor."""
    size, interpolation = preprocess["size_px"], transforms.InterpolationMode(preprocess["interpolation"])
    resize = [transforms.Resize(size, interpolation)]
    if preprocess["resize"] == "shorter":
        resize = [transforms.Resize(preprocess["shorter_px"], interpolation), transforms.CenterCrop(size)]
    normalize = transforms.Normalize(preprocess["mean"], preprocess["std"])
    return transforms.Compose([*resize, transforms.ToTensor(), normalize])


def load_model(job: dict[str, Any]) -> nn.Module:
    """The network on its device, prepared for the mode of the job."""
    model: nn.Module = googlenet(num_classes=len(job["labels"]), aux_logits=False, init_weights=False)
    model.load_state_dict(torch.load(job["weights"], weights_only=True))
    model = model.eval().to(job["device"])
    if job["settings"]["mode"] == "bf16":
        return model.to(memory_format=torch.channels_last)
    if job["settings"]["mode"] == "compile":
        model.compile(dynamic=False)
    return model


def classify(model: nn.Module, images: Tensor, mode: str) -> Tensor:
    """(N, classes) probabilities of one batch."""
    count = len(images)
    if mode == "compile" and count < BATCH:  # or the smaller last batch would be compiled anew
        images = nn.functional.pad(images, (0, 0, 0, 0, 0, 0, 0, BATCH - count))
    if mode == "bf16":
        images = images.contiguous(memory_format=torch.channels_last)
    logits: Tensor = model(images)[:count]
    return logits.float().softmax(1)


def main() -> None:
    job = json.load(sys.stdin)
    mode, device = job["settings"]["mode"], job["device"]
    model = load_model(job)
    files = Files(Path(job["folder"]), job["files"], input_transform(job["preprocess"]))
    workers = job["settings"]["workers"]
    loader = DataLoader(files, BATCH, num_workers=workers, pin_memory=device != "cpu")
    precision = torch.autocast(torch.device(device).type, torch.bfloat16) if mode == "bf16" else nullcontext()
    answers: dict[str, list[float]] = {}
    with torch.inference_mode(), precision:
        classify(model, torch.zeros(BATCH, 3, *job["preprocess"]["size_px"], device=device), mode).tolist()
        since = perf_counter()
        for images, names in loader:
            probabilities = classify(model, images.to(device, non_blocking=True), mode)
            answers.update(zip(names, probabilities.tolist(), strict=True))
        elapsed_s = perf_counter() - since
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    details = {"batch_size": BATCH, "versions": versions}
    json.dump({"elapsed_s": elapsed_s, "images": len(answers), "answers": answers, "details": details}, sys.stdout)


if __name__ == "__main__":
    main()
