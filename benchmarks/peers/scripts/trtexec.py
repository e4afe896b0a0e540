# /// script
# dependencies = []
# ///
"""TensorRT's trtexec on the engine's network, in the precisions of the ONNX file; no record of it exists yet."""

import json
import re
import subprocess
import sys

BATCH, SECONDS = 64, 10

job = json.load(sys.stdin)
height, width = job["preprocess"]["size_px"]
help_text = subprocess.run(["trtexec", "--help"], capture_output=True, text=True, check=False).stdout  # noqa: S607
command = ["trtexec", f"--onnx={job['engine']}/model.onnx", f"--device={job['device'].removeprefix('cuda:')}"]
command += [f"--shapes=pixels:{BATCH}x{height}x{width}x3", f"--duration={SECONDS}"]
if "--stronglyTyped" in help_text:  # the only mode of TensorRT 11
    command.append("--stronglyTyped")
out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
batches_per_s = float(re.findall(r"Throughput: ([\d.]+) qps", out)[-1])
answer = {"elapsed_s": SECONDS, "images": round(BATCH * batches_per_s * SECONDS), "answers": {}}
json.dump(answer | {"details": {"batch_size": BATCH, "images_per_s": BATCH * batches_per_s}}, sys.stdout)
