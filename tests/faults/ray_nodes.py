"""Raylets of a Ray cluster killed at random while a run goes on: `python -m tests.faults.ray_nodes SCRATCH`.

Prints what came of it, and ends with 1 unless the file is that of an undisturbed local run.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import ray
from ray.cluster_utils import Cluster

from tests.commandline import command, links
from tests.conftest import ALL4, draw
from tests.faults.machine_line import machine_line

STORE_BYTES = 80 << 20
NODES = 2
COMMON = ("--engine", ALL4, "--backend", "null", "--decoder", "pillow", "--batch-size", "8")
"""Options of all runs; without inference, for it is the nodes that are tried."""


def used_store_bytes() -> float:
    """Bytes in the object stores of all nodes together, as Ray counts them."""
    there, free = ray.cluster_resources(), ray.available_resources()
    return float(there.get("object_store_memory", 0.0) - free.get("object_store_memory", 0.0))


def disturbed(
    arguments: list[str | Path], kills: int, seed: int
) -> tuple["subprocess.CompletedProcess[str]", int, float]:
    """The finished command on a cluster whose nodes are killed, the number of kills, and most bytes in its stores."""
    chance = random.Random(seed)
    options = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
    nodes = [cluster.add_node(num_cpus=1, **options) for _ in range(NODES)]
    ray.init(address=cluster.address, log_to_driver=False)
    run = subprocess.Popen(
        command(*arguments, "--cluster", cluster.address), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    killed, most_bytes = 0, 0.0
    partial = Path(f"{arguments[arguments.index('--out') + 1]}.partial", "run.json")
    while run.poll() is None and killed < kills:
        until = time.monotonic() + chance.uniform(1, 4)
        while run.poll() is None and time.monotonic() < until:
            most_bytes = max(most_bytes, used_store_bytes())
            time.sleep(0.2)
        if run.poll() is None and partial.exists():
            cluster.remove_node(nodes.pop(chance.randrange(len(nodes))), allow_graceful=False)
            killed += 1
            nodes.append(cluster.add_node(num_cpus=1, **options))
    output, errors = run.communicate()
    ray.shutdown()
    cluster.shutdown()
    return subprocess.CompletedProcess(run.args, run.returncode, output, errors), killed, most_bytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=17)
    options = parser.parse_args()
    log = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # raylets that are killed have much to say
    sources = [draw(options.scratch / "sources" / f"{seed}.jpg", seed, (64, 48)) for seed in range(40)]
    folder = links(options.scratch / "slides", options.files, sources)
    (folder / "broken.jpg").write_bytes(b"no image")
    whole, out = options.scratch / "whole.parquet", options.scratch / "cluster.parquet"
    subprocess.run(command(folder, *COMMON, "--out", whole, "--quiet"), check=True)

    done, killed, most_bytes = disturbed([folder, *COMMON, "--out", out], options.kills, options.seed)

    print(f"# {machine_line()}, Ray {ray.__version__}", file=log)
    print(
        f"{options.files + 1:,} files, {NODES} nodes with a core each, {killed} raylets killed, seed {options.seed}",
        file=log,
    )
    print(f"exit {done.returncode}, at most {most_bytes / 2**20:.1f} MiB in the object stores", file=log)
    if done.returncode:
        print(done.stderr, file=log)
        return 1
    table = pq.read_table(out)
    doubled = sum(count > 1 for count in Counter(table["path"].to_pylist()).values())
    equal = table.equals(pq.read_table(whole))
    print(
        f"{len(table):,} rows, {doubled} doubled, {'equal to' if equal else 'OTHER THAN'} those of a local run",
        file=log,
    )
    print(next(line for line in done.stdout.splitlines() if line.startswith("speed")), file=log)
    return int(not equal or killed < options.kills or most_bytes > 64 << 20)


if __name__ == "__main__":
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    sys.exit(main())
