# /// script
# dependencies = ["numpy", "onnx", "onnxruntime", "pillow", "torch", "torchvision", "ultralytics"]
# ///
"""Make a network of random weights whose answers differ between images, for peers to run; no peer itself.

In: ``network``, ``classes``, ``images`` (files of the network's input size), ``mean``, ``std``, ``out`` (a folder).
Out: ``weights.pt`` and, for a network of Ultralytics, ``model.onnx`` in that folder.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(Path.cwd())}


def calibrate(model: nn.Module, images: Tensor) -> None:
    """Set the parameters that training would have set, so that different images get different labels.

    Batch normalizations take their statistics from ``images``. The last layer projects its inputs on the directions in
    which ``images`` differ most, with both signs of each direction.

    Args:
        model: Network whose last linear layer gives the logits; changed in place.
        images: (N, 3, H, W) float32, normalized.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean of all batches
    features: list[Tensor] = []
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        model.train()
        model(images)
        model.eval()
        hook = last.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].double()))
        model(images)
        hook.remove()
        mean = features[0].mean(0)
        _, strengths, directions = torch.linalg.svd(features[0] - mean, full_matrices=False)
        half = (last.out_features + 1) // 2
        weighted = directions[:half] / (strengths[:half, None] / len(images) ** 0.5)
        weight = torch.stack([weighted, -weighted], 1).flatten(0, 1)[: last.out_features]
        last.weight.copy_(weight)
        last.bias.copy_(-weight @ mean)


def ultralytics_network(name: str, classes: int) -> tuple[Any, nn.Module]:
    """A network of Ultralytics with random weights: the YOLO object that exports it, and its PyTorch module."""
    from ultralytics import YOLO, settings
    from ultralytics.nn.tasks import ClassificationModel

    settings.update({"sync": False})
    yolo = YOLO(f"{name}.yaml", task="classify", verbose=False)
    model = ClassificationModel(f"{name}.yaml", nc=classes, verbose=False)
    model.args, model.task = yolo.model.args, yolo.model.task  # attributes that only models made by YOLO have
    yolo.model = model
    return yolo, model


def main() -> None:
    job = json.load(sys.stdin)
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB"), np.float32) for file in job["images"]])
    images = (torch.from_numpy(pixels) / 255 - torch.tensor(job["mean"])) / torch.tensor(job["std"])
    torch.manual_seed(0)
    yolo = None
    if job["network"].startswith("yolo"):
        yolo, model = ultralytics_network(job["network"], job["classes"])
    else:
        from torchvision.models import get_model

        model = get_model(job["network"], num_classes=job["classes"])
    calibrate(model, images.permute(0, 3, 1, 2).contiguous())
    out = Path(job["out"])
    torch.save(model.state_dict(), out / "weights.pt")
    if yolo is not None:
        exported = yolo.export(format="onnx", dynamic=True, imgsz=images.shape[1], simplify=False, verbose=False)
        Path(exported).replace(out / "model.onnx")
    sys.stdout.write("\n{}\n")


if __name__ == "__main__":
    main()
