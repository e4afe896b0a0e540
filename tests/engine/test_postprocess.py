import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from batchcls.engine.postprocess import predictions
from batchcls.records import Logits

SHAPES = st.tuples(st.integers(0, 6), st.integers(1, 6))
FINITE = SHAPES.flatmap(
    lambda shape: npst.arrays(np.float32, shape, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
)
ANY = SHAPES.flatmap(lambda shape: npst.arrays(np.float32, shape, elements=st.floats(width=32)))


@given(FINITE)
@example(np.array([[3e38, -3e38, 0]], np.float32))
def test_probabilities_are_the_softmax_of_the_logits(logits: Logits) -> None:
    exact = logits.astype(np.float64)
    exact = np.exp(exact - exact.max(axis=1, keepdims=True))
    exact /= exact.sum(axis=1, keepdims=True)

    answer = predictions(logits)

    assert answer.finite.all()
    assert answer.probabilities.dtype == np.float32
    np.testing.assert_allclose(answer.probabilities, exact, atol=1e-5)
    np.testing.assert_allclose(answer.probabilities.sum(axis=1), 1, atol=1e-6)


@given(FINITE)
def test_the_label_is_the_first_of_the_most_probable_classes(logits: Logits) -> None:
    answer = predictions(logits)
    for label, row in zip(answer.labels.tolist(), answer.probabilities.tolist(), strict=True):
        assert row.index(max(row)) == label


@given(ANY)
def test_a_row_that_is_not_a_number_is_marked_and_spoils_no_other(logits: Logits) -> None:
    sound = np.isfinite(logits).all(axis=1)

    answer, alone = predictions(logits), predictions(logits[sound])

    assert answer.finite.tolist() == sound.tolist()
    assert answer.labels[sound].tolist() == alone.labels.tolist()
    np.testing.assert_array_equal(answer.probabilities[sound], alone.probabilities)


def test_no_images_give_no_predictions() -> None:
    answer = predictions(np.empty((0, 4), np.float32))
    assert (answer.labels.shape, answer.probabilities.shape, answer.finite.shape) == ((0,), (0, 4), (0,))
