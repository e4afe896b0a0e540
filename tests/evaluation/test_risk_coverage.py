"""The risk-coverage curve and the threshold: held to what a threshold promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.evaluation.risk_coverage import risk_coverage_curve


@given(
    st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]),
)
def test_a_threshold_accepts_all_that_it_can_and_errs_no_more_than_wanted(
    images: list[tuple[int, bool]], wanted: float
) -> None:
    top = np.array([score for score, _ in images], np.float32) / 20
    right = np.array([is_right for _, is_right in images])

    threshold = risk_coverage_curve(top, right, wanted).threshold

    possible = [value for value in np.unique(top) if (~right[top >= value]).mean() <= wanted]
    if threshold is None:
        assert possible == []
    else:
        accepted = top >= np.float32(threshold.probability)
        assert threshold.probability == min(possible)
        assert threshold.accepted == accepted.sum()
        assert threshold.to_a_human == (~accepted).sum()
        assert threshold.errors == (~right[accepted]).sum()
        assert threshold.error_rate <= wanted
        assert threshold.error_rate <= threshold.error_rate_at_most <= 1


def test_the_bound_of_no_error_in_n_is_the_rule_of_three() -> None:
    threshold = risk_coverage_curve(np.full(300, 0.9, np.float32), np.ones(300, bool), 0.01).threshold

    assert threshold is not None
    assert threshold.error_rate_at_most == pytest.approx(1 - 0.05 ** (1 / 300))


def test_images_of_one_probability_share_a_fate() -> None:
    curve = risk_coverage_curve(np.full(10, 0.9, np.float32), np.arange(10) > 0, 0.05)

    assert curve.threshold is None
    assert curve.coverage == (1.0,)
    assert curve.aurc == pytest.approx(0.1)
