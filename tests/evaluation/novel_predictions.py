"""Predictions of drawn images, of which some are novel."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchcls.records import METADATA_KEY
from tests.conftest import draw
from tests.evaluation.test_evaluate import LABELS, Row, predictions_file, truth_csv


def with_novelty(
    path: Path, novelty: Sequence[float | None], novel: Sequence[bool | None], record: Mapping[str, Any] | None = None
) -> Path:
    """The predictions file with columns of novelty, and more in the record of the run."""
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[METADATA_KEY]) | (record or {})
    table = table.append_column("novelty", pa.array(novelty, pa.float32()))
    table = table.append_column("novel", pa.array(novel, pa.bool_()))
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata)}), path)
    return path


def novel_predictions(folder: Path, images: int = 40, every: int = 5, **record: Any) -> tuple[Path, Path]:
    """Predictions and truth: one image of ``every`` is novel, and wrong; the first file cannot be read."""
    rows: list[Row] = []
    for number in range(images):
        draw(folder / "slides" / f"{number:02d}.png", seed=number)
        rows.append((f"{number:02d}.png", LABELS[number % 3] if number else None, 0.5 + number / 100))
    novel = [number % every == 1 for number in range(images)]
    labels = [LABELS[(number + novel[number]) % 3] for number in range(images)]
    path = predictions_file(folder / "p.parquet", rows, roots=str(folder / "slides"))
    novelty = [0.995 + 0.0001 * (number == 6) if novel[number] else number / 100 for number in range(images)]
    with_novelty(path, [None, *novelty[1:]], [None, *novel[1:]], record)
    return path, truth_csv(folder / "t.csv", [(row[0], label) for row, label in zip(rows, labels, strict=True)])
