"""Which shard a process takes, by the variables of its scheduler."""

import pytest

from batchcls.cli.shard_option import scheduled_shard
from batchcls.errors import SlidesError
from batchcls.storage.shards import Shard


def slurm(task: int, first: int, last: int, count: int, step: int = 1) -> dict[str, str]:
    names = ("ID", "MIN", "MAX", "COUNT", "STEP")
    return {
        f"SLURM_ARRAY_TASK_{name}": str(value)
        for name, value in zip(names, (task, first, last, count, step), strict=True)
    }


@pytest.mark.parametrize(
    ("environment", "count", "shard"),
    [
        (slurm(17, 0, 999, 1000), None, (17, 1000)),
        (slurm(1000, 1, 1000, 1000), None, (999, 1000)),
        (slurm(90, 0, 90, 10, 10), None, (9, 10)),
        (slurm(7, 3, 9, 4), 1000, (7, 1000)),
        (slurm(7, 3, 9, 4) | {"BATCHCLS_SHARDS": "1000"}, None, (7, 1000)),
        (slurm(7, 3, 9, 4) | {"BATCHCLS_SHARDS": "1000"}, 1000, (7, 1000)),
        (slurm(0, 0, 0, 1), None, (0, 1)),
        ({"JOB_COMPLETION_INDEX": "3"}, 8, (3, 8)),
        ({"JOB_COMPLETION_INDEX": "3", "BATCHCLS_SHARDS": "8"}, None, (3, 8)),
        ({"SKYPILOT_NODE_RANK": "2", "SKYPILOT_NUM_NODES": "4"}, None, (2, 4)),
        ({"SKYPILOT_JOB_RANK": "5", "SKYPILOT_NUM_JOBS": "10"}, None, (5, 10)),
        (
            {
                "SKYPILOT_JOB_RANK": "5",
                "SKYPILOT_NUM_JOBS": "10",
                "SKYPILOT_NODE_RANK": "1",
                "SKYPILOT_NUM_NODES": "2",
            },
            20,
            (11, 20),
        ),
    ],
)
def test_a_scheduler_tells_the_shard(environment: dict[str, str], count: int | None, shard: tuple[int, int]) -> None:
    assert scheduled_shard(environment, count) == Shard(*shard)


@pytest.mark.parametrize(
    ("environment", "count", "message"),
    [
        ({}, None, "name the shard: --shard K/N"),
        ({"BATCHCLS_SHARDS": "8"}, None, "name the shard: --shard K/N"),
        (slurm(7, 3, 9, 4), None, "an array of 4 tasks from 3 to 9 may be a part of a larger one"),
        (slurm(7, 7, 9, 3), None, r"name it: --shard auto/N, or BATCHCLS_SHARDS=N"),
        (slurm(3, 0, 9, 4), None, "may be a part of a larger one"),
        (
            slurm(1000, 1, 1000, 1000),
            1000,
            "shard 1000/1000 was asked for; shards count from 0, so the last one is 999",
        ),
        ({"SLURM_ARRAY_TASK_ID": "x"}, 8, "SLURM_ARRAY_TASK_ID is 'x', which is no number"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, None, "SLURM_ARRAY_TASK_MIN is ''"),
        ({"JOB_COMPLETION_INDEX": "3"}, None, "Kubernetes does not tell its pods the number of completions"),
        ({"JOB_COMPLETION_INDEX": "8"}, 8, "shards count from 0"),
        ({"JOB_COMPLETION_INDEX": "3", "BATCHCLS_SHARDS": "8"}, 9, "auto/9 was asked for, and BATCHCLS_SHARDS is 8"),
        ({"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NUM_NODES": "1"}, None, "name the shard: --shard K/N"),
        ({"SKYPILOT_NODE_RANK": "2", "SKYPILOT_NUM_NODES": "4"}, 8, "SkyPilot runs 4 nodes and jobs"),
        (slurm(1, 0, 3, 4) | {"JOB_COMPLETION_INDEX": "3"}, 4, "the variables of Slurm and Kubernetes are set"),
    ],
)
def test_what_is_not_certain_is_refused(environment: dict[str, str], count: int | None, message: str) -> None:
    with pytest.raises(SlidesError, match=message):
        scheduled_shard(environment, count)
