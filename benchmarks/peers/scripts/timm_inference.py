# /// script
# dependencies = ["timm", "torch", "torchvision"]
# ///
"""The steps of timm's inference.py with its number of workers, in batches of 32 like the other peers.

Source: https://github.com/huggingface/pytorch-image-models, inference.py. The CSV file that it writes is left out.
"""

import json
import os
import sys
from time import perf_counter

import timm
import torch
from timm.data import create_dataset, create_loader

BATCH, WORKERS = 32, 2


def main() -> None:
    job = json.load(sys.stdin)
    preprocess, device = job["preprocess"], torch.device(job["device"])
    model = timm.create_model(job["network"], num_classes=len(job["labels"]), checkpoint_path=job["weights"])
    model = model.to(device).eval()
    dataset = create_dataset(name="", root=job["folder"])
    paths = {os.path.join(job["folder"], file) for file in job["files"]}
    dataset.reader.samples = [sample for sample in dataset.reader.samples if sample[0] in paths]
    height, width = preprocess["size_px"]
    shorter = preprocess["resize"] == "shorter"
    loader = create_loader(
        dataset,
        input_size=(3, height, width),
        batch_size=BATCH,
        use_prefetcher=True,
        num_workers=WORKERS,
        device=device,
        interpolation=preprocess["interpolation"],
        mean=preprocess["mean"],
        std=preprocess["std"],
        crop_pct=height / preprocess["shorter_px"] if shorter else 1.0,
        crop_mode="center" if shorter else "squash",
    )
    outputs: list[list[float]] = []
    with torch.inference_mode():
        model(torch.zeros(BATCH, 3, height, width, device=device)).tolist()
        since = perf_counter()
        for images, _ in loader:
            outputs += model(images).softmax(-1).tolist()
        elapsed_s = perf_counter() - since
    answers = dict(zip(dataset.filenames(), outputs, strict=True))
    versions = {"timm": timm.__version__, "torch": torch.__version__}
    details = {"batch_size": BATCH, "workers": WORKERS, "versions": versions}
    json.dump({"elapsed_s": elapsed_s, "images": len(answers), "answers": answers, "details": details}, sys.stdout)


if __name__ == "__main__":
    main()
