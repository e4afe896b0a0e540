"""Results travel in small pieces, which hold all rows in their order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from batchcls.inference.result_pieces import pickled_pieces, unpickled
from batchcls.records import BatchResult, Failure, Postponed, Predictions, Slide


@given(
    predicted=st.integers(0, 30),
    failed=st.integers(0, 5),
    postponed=st.integers(0, 3),
    classes=st.sampled_from([1, 4, 1000]),
    most_bytes=st.sampled_from([1, 2000, 30_000]),
)
def test_pieces_are_small_and_whole_together(
    predicted: int, failed: int, postponed: int, classes: int, most_bytes: int
) -> None:
    slides = [Slide("/slides", f"{number}.png") for number in range(predicted + failed + postponed)]
    probabilities = np.random.default_rng(0).random((predicted, classes), np.float32)
    result = BatchResult(
        slides[:predicted],
        [(number, 1) for number in range(predicted)],
        Predictions(np.arange(predicted, dtype=np.int32), probabilities, np.ones(predicted, np.bool_)),
        [Failure(slide, "empty", "it has no bytes") for slide in slides[predicted : predicted + failed]],
        [Postponed(slide, 7) for slide in slides[predicted + failed :]],
        {"read": 1.5},
    )

    pieces = list(pickled_pieces(result, most_bytes))

    parts = list(map(unpickled, pieces))
    assert [slide for part in parts for slide in part.slides] == list(result.slides)
    assert [size for part in parts for size in part.sizes] == list(result.sizes)
    assert np.array_equal(np.concatenate([part.predictions.probabilities for part in parts]), probabilities)
    assert [failure for part in parts for failure in part.failures] == list(result.failures)
    assert [file for part in parts for file in part.postponed] == list(result.postponed)
    assert sum(part.seconds.get("read", 0.0) for part in parts) == 1.5
    rows = [part.files + len(part.postponed) for part in parts]
    assert all(count <= 1 or len(piece) <= most_bytes for count, piece in zip(rows, pieces, strict=True))
