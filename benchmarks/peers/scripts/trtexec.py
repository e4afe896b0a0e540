# /// script
# dependencies = []
# ///
"""TensorRT's own trtexec on the engine's network, in the precisions that its file holds. It was never run by us yet."""

import json
import re
import subprocess
import sys

BATCH, SECONDS = 64, 10

job = json.load(sys.stdin)
height, width = job["preprocess"]["size_px"]
known = subprocess.run(["trtexec", "--help"], capture_output=True, text=True, check=False).stdout  # noqa: S607
command = ["trtexec", f"--onnx={job['engine']}/model.onnx", f"--device={job['device'].removeprefix('cuda:')}"]
command += [f"--shapes=pixels:{BATCH}x{height}x{width}x3", f"--duration={SECONDS}"]
if "--stronglyTyped" in known:  # TensorRT 11 knows nothing else
    command.append("--stronglyTyped")
out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
batches_per_s = float(re.findall(r"Throughput: ([\d.]+) qps", out)[-1])
answer = {"elapsed_s": SECONDS, "images": round(BATCH * batches_per_s * SECONDS), "answers": {}}
json.dump(answer | {"details": {"batch_size": BATCH, "images_per_s": BATCH * batches_per_s}}, sys.stdout)
