"""The lines that ``batchcls run`` prints at its end."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchcls.inference.stats import RunStats
    from batchcls.predictions.comparison import UpdateCounts


def run_summary(stats: "RunStats", out: Path | str) -> list[str]:
    """The lines that the command prints after a finished run."""
    info = stats.info
    why = f", because {stats.why}" if stats.why else ""
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in stats.seconds.items())
    lines = [
        f"{stats.rows:,} rows, {stats.unreadable:,} unreadable -> {out}",
        f"engine    {info.name}, {info.backend} {info.precision} on {info.device}{why}",
        f"labels    {_counts_text(stats.labels)}",
        f"speed     {stats.images_per_s:,.1f} images/s; {stats.elapsed_s:,.1f} s in all",
        f"memory    {stats.peak_memory_bytes / 2**20:,.0f} MiB at most",
        f"seconds   {stages} (stages overlap)",
    ]
    if stats.coverage is not None and stats.sets:
        lines.insert(3, f"sets      {_sets_text(stats)}")
    if stats.novelty:
        lines.insert(3, f"novel     {_novelty_text(stats.novelty)}")
    if stats.drift:
        lines.insert(4, f"drift     {_drift_text(stats.drift)}")
    if stats.transient_errors:
        lines.append(
            f"again     {stats.transient_errors:,} files could not be read this time; the same command reads them again"
        )
    if stats.errors:
        lines.insert(3, f"errors    {_counts_text(stats.errors)}")
    if stats.skipped:
        lines.insert(3, f"passed by {_counts_text(stats.skipped)}")
    if stats.updated:
        lines.insert(1, f"updated   {_update_text(stats.updated)}")
    elif stats.resumed_rows:
        lines.insert(1, f"resumed   {stats.resumed_rows:,} of the rows were done before")
    if stats.hint:
        lines.append(f"hint      {stats.hint}")
    return lines


def _novelty_text(novelty: "Mapping[str, Any]") -> str:
    """How many images look unlike those of the engine's reference."""
    if not novelty["images"]:
        return "unknown: the engine gave no features here; see the warnings"
    if novelty["novel"] is None:
        return (
            f"unknown: {novelty['calibration_images']} held-back images are too few to call an image novel from "
            f"{novelty['above']:.4g} on"
        )
    share = novelty["novel"] / novelty["images"]
    return (
        f"{novelty['novel']:,} of {novelty['images']:,} images ({share:.1%}) look stranger than "
        f"{100 * novelty['above']:.4g}% of those of {novelty['reference']!r}"
    )


def _drift_text(drift: "Mapping[str, Any]") -> str:
    """Differences of the run's images, as a whole, from those of the engine's reference, as text."""
    if drift["note"]:
        return str(drift["note"])
    drifts = [effect for effect in drift["effects"] if effect["is_drift"]]
    words = dict.fromkeys(
        "stranger to the network" if effect["kind"].startswith("distance_") else effect["words"] for effect in drifts
    )
    return (
        f"as a whole the images are {', '.join(words)}"
        if words
        else "none: as a whole the images are as the reference's"
    )


def _sets_text(stats: "RunStats") -> str:
    """Promise of the sets of labels, and numbers of their labels, as text."""
    sets, images = stats.sets, stats.labels.total()
    void = f"; {sets['void']:,} void, for the images are novel" if sets["void"] else ""
    mean = f"{sets['labels'] / (images - sets['void']):.2f} labels on average, " if images > sets["void"] else ""
    return (
        f"promised to hold the true label of {stats.coverage} of each class: {mean}{sets['single']:,} of one label, "
        f"{sets['empty']:,} empty{void}"
    )


def _update_text(counts: "UpdateCounts") -> str:
    """Numbers of new, changed, unchanged and gone files of an update, as text."""
    dropped = (
        "their rows are dropped" if counts.pruned == counts.gone else f"{counts.pruned:,} of their rows are dropped"
    )
    gone = f" ({dropped if counts.pruned else '--prune drops their rows'})" if counts.gone else ""
    return f"{counts.new:,} new, {counts.changed:,} changed, {counts.unchanged:,} unchanged, {counts.gone:,} gone{gone}"


def _counts_text(counts: dict[str, int]) -> str:
    """Names with their counts, the largest first."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1])) or "none"
