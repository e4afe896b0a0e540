"""How far an engine's answers to its probes were from those that are right, and what computed them."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProbeCheck:
    """How far an engine and the training framework agree, on the probes that the engine folder has answers for."""

    probes: int
    top1_agreement: float
    """Share of the probes whose most probable class is the same, 0 to 1."""
    largest_difference: float
    """Between the two paths' probabilities of any one class."""
    mean_difference: float | None = None
    """Share of a probe's probability that goes to other classes, on average; None in records of older versions."""
    log_difference: float | None = None
    """Root mean square between the logarithms of probabilities, natural, taken from 0.0001 on; None as above."""

    def __post_init__(self) -> None:
        known = [value for value in (self.mean_difference, self.log_difference) if value is not None]
        for value in (self.probes, self.top1_agreement, self.largest_difference, *known):
            if type(value) not in (int, float) or not 0 <= value < math.inf:
                raise ValueError(f"a check of probes says {value!r}")


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
