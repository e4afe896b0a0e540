"""The answers of a run beyond labels and probabilities."""

from dataclasses import dataclass
from typing import Any, Self

from batchcls.engine.manifest import Manifest
from batchcls.engine.measures import measure_names
from batchcls.engine.novelty_file import group_names
from batchcls.errors import EngineError
from batchcls.inference.options import RunOptions
from batchcls.predictions.schema import COVERAGE, EMBEDDING, MEASURES, TOP


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """Answers that an engine can give beyond labels and probabilities, and that a run asks for."""

    measures: tuple[str, ...] = ()
    """Names of the measures of an image that come with its novelty; empty for an engine that cannot tell novelty."""
    novelty_statistics: str | None = None
    """Digest of the statistics of novelty; None for an engine that cannot tell novelty."""
    novel_above: float = 0.99
    """Least novelty, 0 to 1, of an image that counts as novel."""
    coverage: float | None = None
    """Promised share of images whose set of labels holds the true one; None for no sets."""
    set_thresholds: str | None = None
    """Digest of the thresholds of the sets; None for no sets."""
    top: int | None = None
    """Number of the best labels that a row lists; None for none."""
    embedding: int | None = None
    """Numbers of an image's embedding; None for none."""

    @classmethod
    def of(cls, manifest: Manifest, options: RunOptions) -> Self:
        """The answers of an engine, as ``options`` ask for them.

        Raises:
            EngineError: If the engine cannot give an answer that was asked for.
        """
        layers = manifest.features.layers if manifest.features else ()
        if options.embeddings and not layers:
            raise EngineError(
                f"embeddings were asked for, and engine {manifest.name!r} has no output for them; run: "
                "batchcls build CHECKPOINT --out ENGINE --overwrite, from a network that has convolutions"
            )
        coverage = _coverage(manifest, options.coverage)
        statistics = manifest.novelty["statistics"] if manifest.novelty else {}
        return cls(
            measures=measure_names(group_names(statistics)) if statistics else (),
            novelty_statistics=statistics.get("sha256"),
            coverage=coverage,
            set_thresholds=manifest.conformal.digest(coverage) if manifest.conformal and coverage else None,
            novel_above=options.novel_above,
            top=options.top and min(options.top, len(manifest.labels)),
            embedding=layers[-1].width if options.embeddings else None,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """The entries of a run's identity for these answers."""
        novelty = {
            MEASURES: list(self.measures),
            "novel_above": self.novel_above,
            "novelty_statistics": self.novelty_statistics,
        }
        sets = {COVERAGE: self.coverage, "set_thresholds": self.set_thresholds}
        others = {**sets, TOP: self.top, EMBEDDING: self.embedding}
        return {
            **(novelty if self.measures else {}),
            **{key: value for key, value in others.items() if value is not None},
        }

    @property
    def need_features(self) -> bool:
        """Whether the engine has to be opened with its features."""
        return bool(self.measures) or self.embedding is not None


def _coverage(manifest: Manifest, wanted: float | None) -> float | None:
    """The coverage that a run promises: the wanted one, or the highest of the engine; None if it promises none.

    Raises:
        EngineError: If the engine does not promise the wanted one.
    """
    promised = manifest.conformal.coverages if manifest.conformal else ()
    if wanted is None:
        return max(promised, default=None)
    if not promised:
        raise EngineError(
            f"coverage {wanted} was asked for, and engine {manifest.name!r} promises none; measure it: batchcls "
            "evaluate PREDICTIONS --truth TRUTH --out REPORT, then: batchcls build ENGINE --conformal "
            "REPORT/metrics.json"
        )
    if wanted not in promised:
        raise EngineError(
            f"coverage {wanted} was asked for, and engine {manifest.name!r} promises "
            f"{' and '.join(map(str, promised))}; name one of these, or leave it out for the highest"
        )
    return float(wanted)
