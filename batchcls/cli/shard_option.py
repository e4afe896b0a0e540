"""The option ``--shard``: the part of a job that is this process's, as the user or the scheduler numbers it."""

import os
import re
from collections.abc import Mapping
from typing import Any

import click

from batchcls.errors import SlidesError
from batchcls.storage.shards import Shard

_EXPLICIT = re.compile(r"(-?\d{1,9})/(-?\d{1,9})", re.ASCII)
_AUTO = re.compile(r"auto(?:/(\d{1,9}))?", re.ASCII)
SHARDS_VARIABLE = "BATCHCLS_SHARDS"
"""Environment variable of the number of shards, for schedulers that do not tell it."""

Environment = Mapping[str, str]


class ShardType(click.ParamType[Shard]):
    """A shard, as ``K/N``; or ``auto`` or ``auto/N``, as the variables of a scheduler number it."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        explicit, auto = _EXPLICIT.fullmatch(str(value)), _AUTO.fullmatch(str(value))
        if not explicit and not auto:
            self.fail(f"{value!r} is no shard; use K/N, such as 17/1000, or auto, or auto/N.", param, ctx)
        try:
            if explicit:
                return Shard(int(explicit[1]), int(explicit[2]))
            return scheduled_shard(os.environ, int(auto[1]) if auto and auto[1] else None)
        except SlidesError as error:
            self.fail(f"{error}.", param, ctx)


SHARD = click.option(
    "--shard",
    type=ShardType(),
    metavar="K/N|auto|auto/N",
    is_eager=True,  # because --out names a folder with it, and a file without it
    help="Classify only part K of N, counted from 0, into a file of its own in the folder --out, for batchcls merge. "
    "auto: the part that the variables of Slurm, Kubernetes or SkyPilot tell; auto/N: of N parts.",
)


def scheduled_shard(environment: Environment, count: int | None = None) -> Shard:
    """The shard of this process, by the variables that its scheduler has set.

    Args:
        count: Number of shards that the user names; None if only the environment tells it.

    Raises:
        SlidesError: If the variables of no scheduler are set, of more than one, or they do not tell the shard for
            certain.
    """
    if told := environment.get(SHARDS_VARIABLE):
        number = _number(environment, SHARDS_VARIABLE)
        if count not in (None, number):
            raise SlidesError(f"auto/{count} was asked for, and {SHARDS_VARIABLE} is {told}; name one number of shards")
        count = number
    schedulers = {name: shard for name, read in _SCHEDULERS.items() if (shard := read(environment, count))}
    if len(schedulers) > 1:
        raise SlidesError(f"auto: the variables of {' and '.join(schedulers)} are set; name the shard: --shard K/N")
    if not schedulers:
        raise SlidesError(
            "auto: none of SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX, SKYPILOT_JOB_RANK and SKYPILOT_NODE_RANK numbers "
            "this process; name the shard: --shard K/N"
        )
    return next(iter(schedulers.values()))


def _slurm(environment: Environment, count: int | None) -> Shard | None:
    """The shard of a task of a job array; with ``count``, its number in the array is that of the shard."""
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return None
    task = _number(environment, "SLURM_ARRAY_TASK_ID")
    if count is not None:
        return Shard(task, count)
    first, last, tasks, step = (
        _number(environment, f"SLURM_ARRAY_TASK_{name}") for name in ("MIN", "MAX", "COUNT", "STEP")
    )
    is_whole = first in (0, 1) and step >= 1 and last - first == step * (tasks - 1) and (task - first) % step == 0
    if not is_whole:
        raise SlidesError(
            f"auto: an array of {tasks} tasks from {first} to {last} may be a part of a larger one, so the number of "
            f"shards is not certain; name it: --shard auto/N, or {SHARDS_VARIABLE}=N"
        )
    return Shard((task - first) // step, tasks)


def _kubernetes(environment: Environment, count: int | None) -> Shard | None:
    """The shard of a pod of an Indexed Job, whose number of completions Kubernetes does not tell."""
    if "JOB_COMPLETION_INDEX" not in environment:
        return None
    if count is None:
        raise SlidesError(
            "auto: Kubernetes does not tell its pods the number of completions; name it: --shard auto/N, or "
            f"{SHARDS_VARIABLE}=N"
        )
    return Shard(_number(environment, "JOB_COMPLETION_INDEX"), count)


def _skypilot(environment: Environment, count: int | None) -> Shard | None:
    """The shard of a node of a job of several nodes, of a job of several in a pool, or of both."""
    ranks = [("SKYPILOT_JOB_RANK", "SKYPILOT_NUM_JOBS"), ("SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES")]
    index, total = 0, 1
    for rank, size in ranks:
        if rank in environment:
            index = index * _number(environment, size) + _number(environment, rank)
            total *= _number(environment, size)
    if total == 1:  # as every job of one node has it, so that several would each take themselves for the only one
        return None
    if count not in (None, total):
        raise SlidesError(f"auto/{count} was asked for, and SkyPilot runs {total} nodes and jobs; name the same number")
    return Shard(index, total)


_SCHEDULERS = {"Slurm": _slurm, "Kubernetes": _kubernetes, "SkyPilot": _skypilot}


def _number(environment: Environment, name: str) -> int:
    text = environment.get(name, "")
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise SlidesError(f"auto: the variable {name} is {text!r}, which is no number; name the shard: --shard K/N")
    return int(text)
