"""The recipes of the guide to many machines, run by a scheduler that sets the variables of the real one."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.commandline import PATIENCE_S, finished, links
from tests.conftest import ROOT, draw

GUIDE = ROOT / "docs" / "guides" / "scale-out.md"
SHARDS = 4
SHELL = f"""
srun() {{ "$@"; }}
batchcls() {{ "{sys.executable}" -m batchcls "$@"; }}
export -f batchcls
"""
"""What a node has: Slurm's starter of job steps, and our command."""
OF_SCHEDULERS = ("SLURM_", "JOB_COMPLETION_INDEX", "SKYPILOT_", "BATCHCLS_")
"""How the variables begin that tell a process its shard."""


def surroundings(**variables: str) -> dict[str, str]:
    """The environment variables of a process on a node, also where these tests are a scheduler's job themselves."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OF_SCHEDULERS)}
    return inherited | {"PYTHONPATH": str(ROOT)} | variables


def block(language: str, holding: str) -> str:
    """The block of the guide in a language that holds a text."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (text,) = [text for text in found if holding in text]
    return str(text)


def of_few_shards(recipe: str) -> str:
    """A recipe for a thousand shards, for a few."""
    return recipe.replace("0-999", f"0-{SHARDS - 1}").replace("1000", str(SHARDS))


def batchcls(*arguments: str | Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "batchcls", *map(str, arguments)],
        cwd=folder,
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture(scope="module")
def place(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an engine, images, their list, and the predictions of a single run."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "engines").mkdir()
    (folder / "engines" / "mine").symlink_to(tiny_engine)
    images = [draw(folder / f"{seed}.bmp", seed, (16, 12)) for seed in range(3)]
    links(folder / "slides", 40, images)
    assert batchcls("list", "slides", "--out", "files.parquet", folder=folder).returncode == 0
    single = finished("files.parquet", "--engine", "engines/mine", "--out", "whole.parquet", cwd=folder)
    assert single.returncode == 0, single.stderr
    return folder


def array_indexes(text: str) -> list[int]:
    """The numbers of an array's tasks, as in ``3,7-9%2``."""
    ranges = [part.split("-") for part in text.partition("%")[0].split(",")]
    return [index for first, *last in ranges for index in range(int(first), int(last[0] if last else first) + 1)]


def sbatch(script: str, indexes: Sequence[int], folder: Path, lost: Sequence[int] = ()) -> None:
    """Run a script as Slurm runs the tasks of an array; those that are lost never start."""
    for index in indexes:
        if index in lost:
            continue
        array = {"ID": index, "MIN": min(indexes), "MAX": max(indexes), "COUNT": len(indexes), "STEP": 1}
        done = subprocess.run(
            ["bash", "-e", "-c", SHELL + script],
            cwd=folder,
            env=surroundings(
                SLURM_CPUS_PER_TASK="1", **{f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()}
            ),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_the_slurm_array_and_what_merge_says_to_submit_again(place: Path) -> None:
    script = (
        of_few_shards(block("sh", "#SBATCH")).replace("preds/", "slurm/").replace("--threads", "--device cpu --threads")
    )
    array = re.search(r"^#SBATCH --array=(\S+)$", script, re.MULTILINE)
    assert array is not None

    sbatch(script, array_indexes(array[1]), place, lost=(0, 2, 3))
    refused = batchcls("merge", "slurm", "--out", "slurm.parquet", folder=place)
    again = re.search(r"sbatch --array=(\S+) SCRIPT", refused.stderr)
    assert (refused.returncode, again and again[1]) == (1, "0,2-3"), refused.stderr
    sbatch(script, array_indexes("0,2-3"), place)
    merged = batchcls("merge", "slurm", "--out", "slurm.parquet", folder=place)

    assert merged.returncode == 0, merged.stderr
    assert pq.read_table(place / "slurm.parquet").equals(pq.read_table(place / "whole.parquet"))


def pods(job: dict[str, Any]) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The arguments of each pod of an Indexed Job, and its variables."""
    container = job["spec"]["template"]["spec"]["containers"][0]
    for index in range(job["spec"]["completions"]):
        yield container["args"], {"JOB_COMPLETION_INDEX": str(index)}


def test_the_kubernetes_job_is_one_that_kubernetes_takes_and_its_pods_do_all_shards(place: Path) -> None:
    job = yaml.safe_load(of_few_shards(block("yaml", "kind: Job")))
    spec, template = job["spec"], job["spec"]["template"]["spec"]
    container = template["containers"][0]
    ignored, failed = spec["podFailurePolicy"]["rules"]
    assert (job["apiVersion"], job["kind"], spec["completionMode"]) == ("batch/v1", "Job", "Indexed")
    assert template["restartPolicy"] == "Never"  # as backoffLimitPerIndex and podFailurePolicy ask for
    assert spec["backoffLimitPerIndex"] > 0
    assert 0 < spec["maxFailedIndexes"] < 1000
    assert (ignored["action"], ignored["onPodConditions"]) == ("Ignore", [{"type": "DisruptionTarget"}])
    assert (failed["action"], failed["onExitCodes"]["values"]) == ("FailJob", [2])
    assert failed["onExitCodes"]["containerName"] == container["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in template["volumes"]}

    for arguments, variables in pods(job):
        local = [argument.replace("/data/", f"{place}/").replace("preds", "pods") for argument in arguments]
        local = [f"{argument}" if "files.parquet" not in argument else "files.parquet" for argument in local]
        done = subprocess.run(
            [sys.executable, "-m", "batchcls", *local, "--device=cpu"],
            cwd=place,
            env=surroundings(**variables),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert batchcls("merge", "pods", "--out", "pods.parquet", folder=place).returncode == 0
    assert pq.read_table(place / "pods.parquet").equals(pq.read_table(place / "whole.parquet"))


def test_a_wrong_command_line_ends_with_the_code_that_ends_the_job(place: Path) -> None:
    wrong = batchcls("run", "files.parquet", "--shard", "5/5", "--out", "preds", folder=place)
    assert wrong.returncode == 2
    assert "shards count from 0" in wrong.stderr


def test_the_nodes_of_skypilot_do_all_shards(place: Path) -> None:
    task = yaml.safe_load(block("yaml", "num_nodes"))
    bucket = place / "bucket"
    bucket.mkdir()
    (bucket / "engines").symlink_to(place / "engines")
    for node in range(SHARDS):
        run = task["run"].replace("/job/files.parquet", "files.parquet").replace("/job/", f"{bucket}/")
        run = run.replace("s3://my-bucket", str(bucket))
        subprocess.run(
            ["bash", "-e", "-c", SHELL + run.replace("--shard", "--device cpu --shard")],
            cwd=place,
            env=surroundings(SKYPILOT_NODE_RANK=str(node), SKYPILOT_NUM_NODES=str(SHARDS)),
            timeout=PATIENCE_S,
            check=True,
        )
    assert batchcls("merge", bucket / "preds", "--out", "sky.parquet", folder=place).returncode == 0
    assert pq.read_table(place / "sky.parquet").equals(pq.read_table(place / "whole.parquet"))
