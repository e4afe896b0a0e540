"""``python -m benchmarks.novelty_table``: the share of images that an engine flags as novel, in each arithmetic."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from batchcls import machine
from batchcls.engine.manifest import Manifest
from batchcls.errors import BatchclsError
from batchcls.inference.options import RunOptions
from batchcls.inference.run import classify_images
from batchcls.progress import SafeConsole
from benchmarks.checkout import THIS_CHECKOUT
from benchmarks.record import checkout_commit

_SURE = 0.9
"""Probability above which a label counts as given for sure."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """One way to compute an engine on a CPU."""

    name: str
    options: dict[str, Any]


ARITHMETICS = (
    Arithmetic("openvino float32", {"precision": "fp32"}),
    Arithmetic("openvino bfloat16", {"precision": "bf16"}),
    Arithmetic("onnxruntime", {"backend": "onnxruntime"}),
    Arithmetic("torch float32", {"backend": "torch"}),
)
_INT8 = Arithmetic("openvino int8", {})


@click.command()
@click.argument("engines", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--own", required=True, type=click.Path(exists=True, path_type=Path), help="Images of the engine's kind.")
@click.option("--other", multiple=True, type=click.Path(exists=True, path_type=Path), help="Images of other kinds.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON Lines file to append a record to, one an engine.")
def main(engines: tuple[Path, ...], own: Path, other: tuple[Path, ...], out: Path | None) -> None:
    """Measure which images ENGINES flag as novel: of their own kind, on which they did not learn, and of others.

    An engine whose name ends in -int8 is computed as it is; all others in each arithmetic that this machine has.
    """
    for engine in engines:
        record = {
            "engine": engine.name,
            "architecture": Manifest.read(engine).architecture,
            "commit": checkout_commit(THIS_CHECKOUT),
            "cpu": machine.description()["cpu"],
            "instructions": machine.cpu_features(),
            "sets": {folder.name: _flags_of(engine, folder) for folder in (own, *other)},
        }
        click.echo(json.dumps(record, indent=1))
        if out:
            with out.open("a") as stream:
                stream.write(f"{json.dumps(record)}\n")


def _flags_of(engine: Path, folder: Path) -> dict[str, Any]:
    """Share of flagged images of a folder by arithmetic, and of images that are flagged otherwise than by the first."""
    first: npt.NDArray[np.bool_] | None = None
    result: dict[str, Any] = {}
    for arithmetic, rows in _answers(engine, folder):
        novel = np.array(rows["novel"].to_pylist(), bool)
        first = novel if first is None else first
        result["images"] = len(novel)
        result[arithmetic.name] = {
            "flagged": float(novel.mean()),
            "flagged_otherwise": float((novel != first).mean()),
            "surely_labeled": float((rows["probability"].to_numpy() > _SURE).mean()),
        }
    return result


def _answers(engine: Path, folder: Path) -> Iterator[tuple[Arithmetic, Any]]:
    """The readable images' rows in each arithmetic that this machine has."""
    console = SafeConsole(stderr=True, quiet=True)
    for arithmetic in (_INT8,) if engine.name.endswith("-int8") else ARITHMETICS:
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "rows.parquet"
            try:
                classify_images([folder], engine, out, RunOptions(device="cpu", **arithmetic.options), console)
            except BatchclsError as error:  # no bfloat16 here, or no such network of PyTorch
                click.echo(f"{engine.name}, {arithmetic.name}: {error}", err=True)
                continue
            table = pq.read_table(out, columns=["probability", "novel", "error"])
        yield arithmetic, table.filter(table["error"].is_null())


if __name__ == "__main__":
    main()
