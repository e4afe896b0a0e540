"""What a run says of all its images: how many look novel, and how they drift from those of the engine's reference."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchcls.engine.drift import measure_drift
from batchcls.engine.drift_reference import DriftReference
from batchcls.engine.manifest import Manifest
from batchcls.engine.measure_sums import MeasureSums
from batchcls.engine.novelty import tells_novel
from batchcls.errors import EngineError
from batchcls.inference.answer_options import AnswerOptions
from batchcls.predictions.answer_columns import MANY_NOVEL

COLUMNS = ("label", "novelty", "novel", "measures")
"""Columns of the rows from which novelty and drift of a run are counted."""


@dataclass(frozen=True, slots=True)
class RunNovelty:
    """What an engine knows of the images that it was made for, to compare a run's images with."""

    manifest: Manifest
    answers: AnswerOptions
    reference: DriftReference | None
    """Reference of the drift; None if the engine has learned from too few images."""

    @classmethod
    def of(cls, manifest: Manifest, answers: AnswerOptions) -> "RunNovelty | None":
        """The knowledge of an engine; None if it cannot tell novelty.

        Raises:
            EngineError: If the manifest holds no such reference.
        """
        if not answers.measures or manifest.novelty is None:
            return None
        values = manifest.novelty.get("drift")
        try:
            reference = None if values is None else DriftReference.of_values(values)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise EngineError(
                f"engine {manifest.name!r} does not hold the reference of drift that it was given: {error}; give it "
                "another: batchcls build ENGINE --novelty-from DIR"
            ) from error
        return cls(manifest, answers, reference)

    def record(self, batches: Iterable[pa.RecordBatch]) -> dict[str, Any]:
        """The entries ``novelty`` and ``drift`` of a run's record; JSON values.

        Args:
            batches: All rows, as rows of parts, with `COLUMNS`.
        """
        sums = MeasureSums(self.answers.measures, len(self.manifest.labels))
        images = novel = 0
        for batch in batches:
            measured = batch.filter(batch["measures"].is_valid())
            values = measured["measures"].flatten().to_numpy().reshape(len(measured), len(self.answers.measures))
            sums.add(values, np.asarray(pc.fill_null(measured["label"], -1).to_numpy()))
            images += len(batch) - batch["novelty"].null_count
            novel += pc.sum(batch["novel"]).as_py() or 0
        header = self.manifest.novelty or {}
        calibration_images = header["statistics"]["calibration_images"]
        return {
            "novelty": {
                "above": self.answers.novel_above,
                "reference": header.get("folder"),
                "calibration_images": calibration_images,
                "images": images,
                "novel": novel if tells_novel(calibration_images, self.answers.novel_above) else None,
                "measures": list(self.answers.measures),
            },
            "drift": measure_drift(sums, self.reference, self.manifest.labels).values(),
        }


def novelty_warnings(record: Mapping[str, Any]) -> list[str]:
    """At most one warning, that many images of a run are novel.

    Args:
        record: The entry ``novelty`` of the run's record; empty for an engine that cannot tell novelty.
    """
    images, novel = record.get("images", 0), record.get("novel") or 0
    if novel <= MANY_NOVEL * images:
        return []
    return [
        f"{novel / images:.0%} OF THE IMAGES LOOK UNLIKE THOSE THAT THE ENGINE WAS MADE FOR: {novel:,} of {images:,} "
        f"look stranger than {100 * record['above']:.4g}% of those of {record['reference']!r}; their labels and "
        "probabilities mean little, however high"
    ]
