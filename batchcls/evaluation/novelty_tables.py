"""Novel and familiar images of an evaluation as sentences and a table, for pages, Markdown and the terminal."""

from batchcls.evaluation.results import Evaluation
from batchcls.evaluation.tables import Table, format_estimate


def novelty_warning(evaluation: Evaluation) -> str | None:
    """The sentence that stands at the top where more than a tenth of the images is novel."""
    result = evaluation.novelty
    if result is None or not result.is_many:
        return None
    return (
        f"{result.share:.1%} of the images are novel: unlike those that the engine knows. Its probabilities say little "
        "of such images, and figures over all images mix two kinds: read those of novel and familiar images apart."
    )


def novelty_sentences(evaluation: Evaluation) -> list[str]:
    """What novelty is, and of how many images it is not known; none for predictions without novelty."""
    if (result := evaluation.novelty) is None:
        return []
    unknown = f"Of {result.unjudged:,} images the predictions do not say whether they are novel."
    return [
        "A novel image looks stranger to the engine than nearly all images that its novelty was calibrated on. "
        "Intervals are Wilson's, at 95 %.",
        *([unknown] if result.unjudged else []),
    ]


def novelty_table(evaluation: Evaluation) -> Table:
    """A table with the number and the accuracy of familiar and of novel images; empty without novelty."""
    if (result := evaluation.novelty) is None:
        return []
    groups = {"familiar": result.familiar, "novel": result.novel}
    rows = [[name, f"{group.images:,}", format_estimate(group.accuracy)] for name, group in groups.items()]
    return [["images", "number", "accuracy"], *rows]


def novelty_lines(evaluation: Evaluation) -> list[str]:
    """The lines for the terminal; none for predictions without novelty."""
    if (result := evaluation.novelty) is None:
        return []
    return [
        f"familiar    {result.familiar.images:,} images, accuracy {format_estimate(result.familiar.accuracy)}",
        f"novel       {result.novel.images:,} images, accuracy {format_estimate(result.novel.accuracy)}",
    ]
