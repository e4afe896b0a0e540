# /// script
# dependencies = ["numpy", "onnxruntime", "pillow"]
# ///
"""ONNX Runtime on the float32 network, while a pool of threads decodes the next batch with Pillow."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

BATCH = 32

Floats = npt.NDArray[np.float32]


def read(file: str, preprocess: dict[str, Any]) -> Floats:
    """A file's pixels as a (3, H, W) float32 array, resized and normalized."""
    height, width = preprocess["size_px"]
    resampling = Image.Resampling[preprocess["interpolation"].upper()]
    with Image.open(file) as stored:
        image = stored.convert("RGB")
    if preprocess["resize"] == "stretch":
        image = image.resize((width, height), resampling)
    else:
        scale = preprocess["shorter_px"] / min(image.size)
        image = image.resize((int(image.width * scale), int(image.height * scale)), resampling)
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        image = image.crop((left, top, left + width, top + height))
    mean, std = (np.asarray(preprocess[key], np.float32) for key in ("mean", "std"))
    normalized: Floats = (np.asarray(image, np.float32) / np.float32(255) - mean) / std
    return normalized.transpose(2, 0, 1)


def probabilities(session: Any, images: Floats) -> list[list[float]]:
    """(N, classes) probabilities of a batch."""
    (logits,) = session.run(None, {session.get_inputs()[0].name: images})
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    rows: list[list[float]] = (exponentials / exponentials.sum(1, keepdims=True)).tolist()
    return rows


def main() -> None:
    job = json.load(sys.stdin)
    preprocess = job["preprocess"]
    session = onnxruntime.InferenceSession(job["onnx"], providers=["CPUExecutionProvider"])
    probabilities(session, np.zeros((BATCH, 3, *preprocess["size_px"]), np.float32))
    batches = [job["files"][start : start + BATCH] for start in range(0, len(job["files"]), BATCH)]
    answers: dict[str, list[float]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def start_reading(batch: list[str]) -> Any:
            return pool.map(lambda file: read(os.path.join(job["folder"], file), preprocess), batch)

        since = perf_counter()
        pending = [start_reading(batch) for batch in batches[:1]]
        for batch, following in zip(batches, [*batches[1:], []], strict=True):
            images = np.stack(list(pending.pop()))
            pending.append(start_reading(following))
            answers.update(zip(batch, probabilities(session, images), strict=True))
        elapsed_s = perf_counter() - since
    details = {"batch_size": BATCH, "versions": {"onnxruntime": onnxruntime.__version__}}
    json.dump({"elapsed_s": elapsed_s, "images": len(answers), "answers": answers, "details": details}, sys.stdout)


if __name__ == "__main__":
    main()
