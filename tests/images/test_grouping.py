"""`--group-by PATTERN` groups as Python's regular expressions do, and never runs for ever."""

import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchcls.errors import LabelsError
from batchcls.images.labels.grouping import groups_of_paths

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning")]

_ATOMS = st.sampled_from(
    ["a", "b", "1", "_", "/", "-", ".", "é", r"\.", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", r"\(", "[ab]", "[^/]"]
    + ["[^_]", r"[\w-]", r"[\d_]", "[[ab]", "[]a]", "[^]a]", r"[\[\]]", "[(]", "[a-z]", "patient", "^", "$", r"\b"]
    + [r"\A", r"\Z", r"[\s.]", r"[\W_]"]
)
_REPEATS = st.sampled_from(["", "", "", "+", "*", "?", "+?", "*?", "{2}", "{1,3}", "{,2}", "{2,}"])


def _joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = st.tuples(st.sampled_from(["({})", "(?:{})", "(?P<name>{})", "(?i:{})", "{}|{}"]), inner, inner)
    return st.lists(group.map(lambda item: item[0].format(item[1], item[2])) | inner, min_size=1, max_size=3).map(
        "".join
    )


_PATTERNS = st.recursive(st.tuples(_ATOMS, _REPEATS).map("".join), _joined, max_leaves=8)
_PATHS = st.lists(st.text("aAbB12_/-. ()[]éßÄ", max_size=12), min_size=1, max_size=4)


def groups(pattern: str, paths: list[str]) -> list[str]:
    return list(groups_of_paths(pa.chunked_array([paths], pa.string()), pattern).to_pylist())


def pythons(pattern: str, paths: list[str]) -> list[str] | None:
    """What Python finds; None if the pattern does not match everywhere, or is none."""
    try:
        expression = re.compile(pattern)
    except re.error:
        return None
    matches = [expression.search(path) for path in paths]
    found = [match and match[1 if expression.groups else 0] for match in matches]
    return None if any(text is None for text in found) else [str(text) for text in found]


@settings(max_examples=500)
@given(_PATTERNS, _PATHS)
def test_the_groups_are_pythons(pattern: str, paths: list[str]) -> None:
    expected = pythons(pattern, paths)
    found, refusal = expected, ""
    try:
        found = groups(pattern, paths)
    except LabelsError as error:
        refusal = str(error)
    assert found == expected
    assert bool(refusal) == (expected is None) or "more than is understood" in refusal


@pytest.mark.parametrize(
    ("pattern", "paths", "expected"),
    [
        (r"^([^/]+)/", ["p1/a.png", "p2/b.png"], ["p1", "p2"]),
        (r"patient_(\d+)", ["ALL/patient_007_3.jpg"], ["007"]),
        (r"(?P<who>\w+?)_(?P<what>\d+)\.png$", ["x/Müller_12.png"], ["Müller"]),
        (r"(?i)slide\d+", ["SLIDE12/a.png"], ["SLIDE12"]),
        (r"[[(]\d+", ["a[12].png", "b(3).png"], ["[12", "(3"]),
        (r"s{,2}(\d*)", ["ss.png", "s1"], ["", "1"]),
        (r"\b(\w+)\.", ["a b.png"], ["b"]),
    ],
)
def test_usual_patterns_are_understood(pattern: str, paths: list[str], expected: list[str]) -> None:
    assert groups(pattern, paths) == expected == pythons(pattern, paths)


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"^(a|aa)+$", r"(a*)*c", r"(.*a){20}c"])
def test_none_runs_for_ever(pattern: str) -> None:
    with pytest.raises(LabelsError, match="finds nothing in 1 of 1 paths: 'a"):
        groups(pattern, ["a" * 5000 + "b"])


@pytest.mark.parametrize("pattern", [r"(?=a)", r"(a)\1", r"(?<!x)a", r"(?>a+)", r"a++", r"a{2000}", r"(?x) a"])
def test_what_is_not_understood_is_said(pattern: str) -> None:
    with pytest.raises(LabelsError, match=r"is more than is understood: .*give a table with a column"):
        groups(pattern, ["aa"])


def test_word_ends_beside_accents_are_refused_rather_than_found_elsewhere() -> None:
    with pytest.raises(LabelsError, match=r"not all paths are of these"):
        groups(r"\b(\w+)", ["élan/a.png"])
    assert groups(r"(\w+)", ["élan/a.png"]) == ["élan"]


def test_a_pattern_that_matches_nothing_or_not_by_its_group_is_refused() -> None:
    with pytest.raises(LabelsError, match="finds nothing in 1 of 2 paths: 'b'"):
        groups("a", ["a", "b"])
    with pytest.raises(LabelsError, match="does not take part in every match"):
        groups("(a)?b", ["ab", "b"])
    with pytest.raises(LabelsError, match="neither a column nor a regular expression"):
        groups("(a", ["a"])
