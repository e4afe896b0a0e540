# /// script
# dependencies = ["openvino"]
# ///
"""OpenVINO's benchmark_app with the throughput hint, on the engine's network and without images."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path


def main() -> None:
    job = json.load(sys.stdin)
    batch, seconds = job["settings"]["batch_size"], job["settings"]["seconds"]
    height, width = job["preprocess"]["size_px"]
    command = [str(Path(sys.executable).with_name("benchmark_app")), "-m", f"{job['engine']}/model.onnx", "-d", "CPU"]
    command += ["-hint", "throughput", "-t", str(seconds), "-shape", f"[{batch},{height},{width},3]"]
    command += ["-report_type", "no_counters", "-report_folder", ".", "-json_stats"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    (report,) = Path().glob("*.json")
    results = json.loads(report.read_text(encoding="utf-8"))["execution_results"]
    elapsed_s = float(results["total execution time (ms)"]) / 1000
    speed = float(results["throughput"])
    details = {"batch_size": batch, "images_per_s": speed, "versions": {"openvino": version("openvino")}}
    answer = {"elapsed_s": elapsed_s, "images": round(speed * elapsed_s), "answers": {}, "details": details}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
