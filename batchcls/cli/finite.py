"""A range of numbers that NaN is not in."""

import math
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """As click's own, which takes NaN for a number between any two."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is no finite number.", param, ctx)
        return number
