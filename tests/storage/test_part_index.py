"""The index of parts in an object store: what is written is read back, and anything else is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.storage.part_index import Finish, PartIndex

TOKENS = st.text("0123456789abcdef", min_size=16, max_size=16)
FINISHES = st.builds(
    Finish,
    st.integers(0, 2**50),
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.none() | TOKENS.map(lambda token: f"beside-{token}.json"),
)
INDEXES = st.builds(
    PartIndex,
    st.none() | st.builds(lambda number, token: f"run-{number}-{token}.json", st.integers(0, 10**6), TOKENS),
    st.lists(st.sampled_from(["0" * 16, "a" * 16, "b" * 16]), max_size=40),
    st.none() | FINISHES,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.sampled_from(["parts", "note", "finish", "size"]), values),
)


@given(INDEXES)
def test_an_index_is_read_as_it_was_written(index: PartIndex) -> None:
    assert PartIndex.from_json(index.to_json("0" * 16, 1), 40) == index


@given(JSON)
def test_anything_else_is_an_index_or_refused(values: object) -> None:
    try:
        index = PartIndex.from_json(json.dumps(values).encode(), 100)
    except ValueError:
        return
    assert len(index.parts) <= 100


@pytest.mark.parametrize(
    "change",
    [
        {"note": "../secrets.json"},
        {"note": "lock/../../x"},
        {"parts": [["../../other", 1]]},
        {"parts": [["0" * 16, 10**12]]},
        {"parts": [["0" * 16, -1], ["0" * 16, 3]]},
        {"parts": [["0" * 16, float("inf")]]},
        {"finish": {"size": 1, "sha256": "", "beside": "../x.json"}},
    ],
)
def test_an_index_names_no_objects_elsewhere(change: dict[str, object]) -> None:
    sound = {"note": None, "parts": [["0" * 16, 2]], "finish": None}
    assert PartIndex.from_json(json.dumps(sound).encode(), 100).parts == ["0" * 16] * 2

    with pytest.raises(ValueError, match="it "):
        PartIndex.from_json(json.dumps({**sound, **change}).encode(), 100)
