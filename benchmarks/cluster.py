"""``python -m benchmarks.cluster``: a Ray cluster of two nodes with a core each, against two processes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import click
from ray.cluster_utils import Cluster
from rich.console import Console

from benchmarks.options import CHECKOUT, engine_option, out_option, repeats_option
from benchmarks.record import MIN_SAMPLES, RESULTS, Record, utc_now
from benchmarks.runs import speedups
from benchmarks.suite import SuiteConfig, case_candidates, run_suite
from benchmarks.workload import CROPS, link_images

WORKLOAD = "cluster"
"""Name of the workload in records."""
_SCRATCH = CHECKOUT / "demo"
_CORES = 2
_STORE_BYTES = 80 << 20
_GOAL = 0.95
"""Least speed of the cluster as a fraction of that of the processes."""


@click.command()
@click.option(
    "--files", type=click.IntRange(1), default=4_096, show_default=True, help="Files, which are links to drawn crops."
)
@click.option("--backend", type=click.Choice(["openvino", "null"]), default="openvino", show_default=True)
@engine_option
@repeats_option(MIN_SAMPLES, "each side")
@out_option("benchmarks/results/cluster")
def main(files: int, backend: str, engine: Path, repeats: int, out: Path | None) -> None:
    """Classify a folder on a local Ray cluster of two nodes, and in two processes, in turns on the same two cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_CORES])  # before the nodes inherit it
    folder = link_images(CROPS.draw(_SCRATCH), files)
    config = SuiteConfig(WORKLOAD, folder, engine, _SCRATCH, "cpu", Console(stderr=True))
    with local_cluster(_CORES) as address:
        sides: list[dict[str, Any]] = [{"processes": _CORES}, {"cluster": address}]
        candidates = [
            candidate
            for side in sides
            for candidate in case_candidates(config, ["end-to-end"], backend=backend, **side)
        ]
        processes, cluster = run_suite(config, candidates, repeats=repeats)
    for record in (processes, cluster):
        record.append(out or RESULTS / "cluster" / f"{utc_now()[:10]}.jsonl")
    click.echo(_summary(processes, cluster))


@contextmanager
def local_cluster(nodes: int) -> Iterator[str]:
    """A context that yields the address of a Ray cluster on this machine: a head without cores, and nodes with one."""
    options = {"object_store_memory": _STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, **options)
        yield cluster.address
    finally:
        cluster.shutdown()


def _summary(processes: Record, cluster: Record) -> str:
    ratios = speedups(cluster, processes)
    return (
        f"{processes.images:,} files, {len(ratios)} turns: two processes {processes.images_per_s:,.1f} images/s, Ray "
        f"cluster of two nodes {cluster.images_per_s:,.1f}; ratio {median(ratios):.3f} ({min(ratios):.3f} to "
        f"{max(ratios):.3f}), the goal is {_GOAL}"
    )


if __name__ == "__main__":
    main()
