# /// script
# dependencies = ["numpy", "onnx", "onnxruntime", "pillow", "torch", "torchvision", "ultralytics"]
# ///
"""Ultralytics' predict over a list of files, in batches of 32, with the PyTorch model."""

import json
import os
import sys
from pathlib import Path
from time import perf_counter

os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(Path.cwd())}

import torch
import ultralytics
from ultralytics import YOLO, settings
from ultralytics.nn.tasks import ClassificationModel

BATCH = 32


def main() -> None:
    job = json.load(sys.stdin)
    settings.update({"sync": False})
    yolo = YOLO(f"{job['network']}.yaml", task="classify", verbose=False)
    yolo.model = ClassificationModel(f"{job['network']}.yaml", nc=len(job["labels"]), verbose=False)
    yolo.model.load_state_dict(torch.load(job["weights"], weights_only=True))
    paths = [os.path.join(job["folder"], file) for file in job["files"]]
    options = {
        "stream": True,
        "batch": BATCH,
        "imgsz": job["preprocess"]["size_px"][0],
        "verbose": False,
        "device": job["device"],
    }

    def classify(paths: list[str]) -> dict[str, list[float]]:
        # predict decodes every path of a Python list before the first batch, but reads a file of paths lazily
        listing = Path("files.txt").absolute()
        listing.write_text("\n".join(paths), encoding="utf-8")
        results = yolo.predict(str(listing), **options)
        return {os.path.relpath(result.path, job["folder"]): result.probs.data.tolist() for result in results}

    classify(paths[:BATCH])
    since = perf_counter()
    answers = classify(paths)
    elapsed_s = perf_counter() - since
    versions = {"torch": torch.__version__, "ultralytics": ultralytics.__version__}
    details = {"batch_size": BATCH, "versions": versions}
    answer = {"elapsed_s": elapsed_s, "images": len(answers), "answers": answers, "details": details}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


if __name__ == "__main__":
    main()
