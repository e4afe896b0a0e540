# /// script
# dependencies = ["numpy", "ray[data]", "torch", "torchvision"]
# ///
"""Ray Data's recipe for image classification: read_images, map, and map_batches with an actor that owns the model.

Source: https://docs.ray.io/en/latest/data/working-with-images.html, "Performing inference on images".

Ray starts the actor together with the dataset and reads nothing until the actor is ready. The clock starts then, so
that planning the dataset is not measured. A run over the first images comes before that, so that the decoding processes
have been started.
"""

import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from torchvision import transforms
from torchvision.models import googlenet

BATCH = 32


class Classifier:
    """The actor that owns the model."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.device = "cpu" if job["device"] == "cpu" else "cuda"  # an actor sees only its own GPU
        model = googlenet(num_classes=len(job["labels"]), aux_logits=False, init_weights=False)
        model.load_state_dict(torch.load(job["weights"], weights_only=True))
        self.model = model.eval().to(self.device)
        with torch.inference_mode():
            self.model(torch.zeros(BATCH, 3, *job["preprocess"]["size_px"], device=self.device)).tolist()
        Path(job["ready"]).write_text(str(time.monotonic()))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        with torch.inference_mode():
            probabilities = self.model(torch.as_tensor(batch["image"], device=self.device)).softmax(1)
        return {"path": batch["path"], "probabilities": probabilities.cpu().numpy()}


def classify(job: dict[str, Any], files: list[str]) -> tuple[float, float, dict[str, list[float]]]:
    """Monotonic times at which the actor was ready and the last answer arrived, and probabilities by relative path."""
    preprocess = job["preprocess"]
    size, interpolation = preprocess["size_px"], transforms.InterpolationMode(preprocess["interpolation"])
    resize = [transforms.Resize(size, interpolation)]
    if preprocess["resize"] == "shorter":
        resize = [transforms.Resize(preprocess["shorter_px"], interpolation), transforms.CenterCrop(size)]
    normalize = transforms.Normalize(preprocess["mean"], preprocess["std"])
    transform = transforms.Compose([transforms.ToPILImage(), *resize, transforms.ToTensor(), normalize])

    def transform_row(row: dict[str, Any]) -> dict[str, Any]:
        return {"path": row["path"], "image": transform(row["image"]).numpy()}

    paths = [os.path.join(job["folder"], file) for file in files]
    images = ray.data.read_images(paths, include_paths=True, mode="RGB").map(transform_row)
    rows = images.map_batches(
        Classifier,
        fn_constructor_args=(job,),
        concurrency=1,
        batch_size=BATCH,
        num_gpus=0 if job["device"] == "cpu" else 1,
    )
    answers = {
        os.path.relpath(row["path"], job["folder"]): np.asarray(row["probabilities"]).tolist()
        for row in rows.iter_rows()
    }
    return float(Path(job["ready"]).read_text()), time.monotonic(), answers


def main() -> None:
    job = json.load(sys.stdin)
    with tempfile.TemporaryDirectory(prefix="ray") as scratch:
        job["ready"] = os.path.join(scratch, "ready")
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, _temp_dir=scratch)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.wait_for_min_actors_s = 600
        classify(job, job["files"][:BATCH])
        ready, end, answers = classify(job, job["files"])
        ray.shutdown()
    versions = {"ray": ray.__version__, "torch": torch.__version__}
    details = {"batch_size": BATCH, "versions": versions}
    json.dump({"elapsed_s": end - ready, "images": len(answers), "answers": answers, "details": details}, sys.stdout)


if __name__ == "__main__":
    main()
