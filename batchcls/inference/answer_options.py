"""The answers of a run beyond labels and probabilities."""

from dataclasses import dataclass
from typing import Any, Self

from batchcls.engine.manifest import Manifest
from batchcls.errors import EngineError
from batchcls.inference.options import RunOptions
from batchcls.predictions.schema import EMBEDDING, MEASURES, TOP


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """Answers that an engine can give beyond labels and probabilities, and that a run asks for."""

    measures: tuple[str, ...] = ()
    """Names of the measures of an image that come with its novelty; empty for an engine that cannot tell novelty."""
    novel_above: float = 0.99
    """Least novelty, 0 to 1, of an image that counts as novel."""
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
        return cls(
            novel_above=options.novel_above,
            top=options.top and min(options.top, len(manifest.labels)),
            embedding=layers[-1].width if options.embeddings else None,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """The entries of a run's identity for these answers."""
        novelty = {MEASURES: list(self.measures), "novel_above": self.novel_above} if self.measures else {}
        others = {TOP: self.top, EMBEDDING: self.embedding}
        return {**novelty, **{key: value for key, value in others.items() if value is not None}}

    @property
    def need_features(self) -> bool:
        """Whether the engine has to be opened with its features."""
        return bool(self.measures) or self.embedding is not None
