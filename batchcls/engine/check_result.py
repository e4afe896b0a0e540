"""The result of checking an engine by its probes, and the platform that computed its answers."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProbeCheck:
    """How far an engine's answers to its probes are from the answers that its folder carries."""

    probes: int
    """Number of probes."""
    top1_agreement: float
    """Share of the probes whose most probable class is the same, 0 to 1."""
    largest_difference: float
    """Largest difference of a class's probability, 0 to 1."""
    mean_difference: float | None = None
    """Share of a probe's probability that moved to other classes, averaged over probes; None in older records."""
    log_difference: float | None = None
    """Root mean square difference of natural logarithms of probabilities, of which smaller ones than 0.0001 count as
    0.0001; None in older versions' records."""

    def __post_init__(self) -> None:
        known = [value for value in (self.mean_difference, self.log_difference) if value is not None]
        for value in (self.probes, self.top1_agreement, self.largest_difference, *known):
            if type(value) not in (int, float) or not 0 <= value < math.inf:
                raise ValueError(f"a probe check cannot have the value {value!r}")


@dataclass(frozen=True, slots=True)
class Platform:
    """Backend, precision and device that compute an engine's answers."""

    backend: str
    precision: str
    """Precision of the backend's arithmetic, which may be narrower than the file's."""
    device: str
    """``cpu``, or the GPU's name."""
    instructions: tuple[str, ...] = ()
    """The CPU's instruction sets that make a difference to networks, as `machine.cpu_features` names them."""

    def __str__(self) -> str:
        instructions = f" with {', '.join(self.instructions)}" if self.instructions else ""
        return f"{self.backend} {self.precision} on {self.device}{instructions}"
