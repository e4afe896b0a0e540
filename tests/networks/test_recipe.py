import json
import math
import random
import subprocess
import sys
import tomllib
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchcls.errors import RecipeError
from batchcls.networks.preprocess import Preprocess
from batchcls.networks.recipe import Recipe, labels_from_argument
from tests.conftest import ROOT

RECIPES = sorted((ROOT / "engines").glob("*.toml"))
KEYS = {item.name for item in (*fields(Recipe), *fields(Preprocess))} - {"preprocess"}


def test_the_googlenet_recipe_shows_every_key_with_its_default() -> None:
    path = ROOT / "engines" / "googlenet.toml"
    assert set(tomllib.loads(path.read_text())) == KEYS
    assert Recipe.compose(path, {}) == Recipe.for_architecture("googlenet")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_in_engines_loads(path: Path) -> None:
    assert Recipe.compose(path, {}).architecture == path.stem


def test_inception_takes_its_own_size_unless_the_recipe_says_another() -> None:
    assert Recipe.compose(None, {"architecture": "inception_v3"}).preprocess.size_px == (299, 299)
    assert Recipe.compose(None, {"architecture": "inception_v3", "size_px": 320}).preprocess.size_px == (320, 320)


def test_the_command_line_wins_over_the_file_and_the_file_over_what_was_found(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('precision = "fp32"\nlabels = ["a", "b"]\n')
    found = {"precision": "fp16", "labels": ("x",), "size_px": (96, 96)}
    recipe = Recipe.compose(path, {"labels": ("c", "d")}, found)
    assert (recipe.precision, recipe.labels, recipe.preprocess.size_px) == ("fp32", ("c", "d"), (96, 96))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("colour = 1", "colour"),
        ("preprocess = 1", "preprocess"),
        ("architecture = 3", "architecture"),
        ('labels = "a,b"', "labels"),
        ("labels = [1, 2]", "labels"),
        ('labels = ["a", "a"]', "labels"),
        ('labels = ["a", " "]', "labels"),
        ('precision = "int4"', "precision"),
        ('layout = "HWC"', "layout"),
        ('size_px = ["224", "224"]', "size_px"),
        ("size_px = 224.0", "size_px"),
        ("size_px = true", "size_px"),
        ("size_px = [1, 2, 3]", "size_px"),
        ('resize = "squash"', "resize"),
        ("shorter_px = 256.5", "shorter_px"),
        ("mean = 0.5", "mean"),
        (f"mean = [1{400 * '0'}, 0, 0]", "mean"),
        ("mean = [nan, 0, 0]", "mean"),
        ("std = [1, 1, 0]", "std"),
        ("transform_input = 1", "transform_input"),
        ("labels = [", "TOML"),
        ("\x00", "TOML"),
        pytest.param(f"labels = {5000 * '['}", "TOML", id="deeply nested"),
    ],
)
def test_a_wrong_recipe_is_one_error_that_names_the_key(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=named):
        Recipe.compose(path, {})


def test_a_recipe_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"labels = ['\xff\xfe']")
    with pytest.raises(RecipeError, match="TOML"):
        Recipe.compose(tmp_path / "recipe.toml", {})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "Pro\nEarly Pre-B\n\n  Benign  \n"),
        ("windows.txt", "\ufeffPro\r\nEarly Pre-B\r\nBenign\r\n"),
        ("labels.json", '["Pro", "Early Pre-B", "Benign"]'),
        ("class_to_idx.json", '{"Benign": 2, "Pro": 0, "Early Pre-B": 1}'),
        ("idx_as_text.json", '{"Benign": "2", "Pro": "0", "Early Pre-B": "1"}'),
        ("id2label.json", '{"2": "Benign", "0": "Pro", "1": "Early Pre-B"}'),
        ("config.json", '{"id2label": {"0": "Pro", "1": "Early Pre-B", "2": "Benign"}, "num_labels": 3}'),
        (
            "both.json",
            '{"id2label": {"0": "Pro", "1": "Early Pre-B", "2": "Benign"}, "names": ["Pro", "Early Pre-B", "Benign"]}',
        ),
        (
            "categories.json",
            '[{"id": 1, "name": "Early Pre-B"}, {"id": 0, "name": "Pro"}, {"id": 2, "name": "Benign"}]',
        ),
        ("numbered.txt", "0 Pro\n1 Early Pre-B\n2 Benign\n"),
        ("any_order.txt", "2: Benign\n0: Pro\n1: Early Pre-B\n"),
        ("dots.txt", "0. Pro\n1. Early Pre-B\n2. Benign\n"),
        ("behind.txt", "Benign,2\nPro,0\nEarly Pre-B,1\n"),
        ("behind_a_blank.txt", "Benign 2\nPro 0\nEarly Pre-B 1\n"),
        ("data.yaml", "nc: 3\nnames:\n  0: Pro\n  1: Early Pre-B\n  2: Benign\n"),
        ("list.yml", "train: images\nnames: [Pro, Early Pre-B, Benign]\n"),
        ("plain.yaml", "- Pro\n- Early Pre-B\n- Benign\n"),
        ("class_to_idx.yaml", "Benign: 2\nPro: 0\nEarly Pre-B: 1\n"),
        ("labels.csv", "index,label\n1,Early Pre-B\n0,Pro\n2,Benign\n"),
        ("excel.csv", "\ufeffsep=;\nclass;nr\nBenign;2\nEarly Pre-B;1\nPro;0\n"),
        ("pandas.csv", ",label\n0,Pro\n1,Early Pre-B\n2,Benign\n"),
        ("no_head.csv", "2,Benign\n0,Pro\n1,Early Pre-B\n"),
        ("column.csv", "label\nPro\nEarly Pre-B\nBenign\n"),
        ("tabs.tsv", "id\tname\n0\tPro\n1\tEarly Pre-B\n2\tBenign\n"),
    ],
)
def test_labels_are_read_from_a_file_in_the_order_of_the_outputs(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert labels_from_argument(str(path)) == ("Pro", "Early Pre-B", "Benign")


def test_yaml_leaves_labels_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [No, 1e3, null, 2024-05-01]\n")
    assert labels_from_argument(str(tmp_path / "data.yaml")) == ("No", "1e3", "null", "2024-05-01")


def test_yaml_makes_no_objects_and_an_avalanche_of_references_takes_no_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    for text in ("!!python/object/apply:os.mkdir ['ran']", "\n".join([*lines, "names: *a29"])):
        (tmp_path / "data.yaml").write_text(text)
        with suppress(RecipeError):
            assert labels_from_argument(str(tmp_path / "data.yaml")) == ("ran",)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.json",
            '{"0": "1", "1": "2", "2": "0"}',
            r"read in two ways: labels by position \['1', '2', '0'\]; or positions",
        ),
        ("a.yaml", "0: 1\n1: 2\n2: 0\n", "read in two ways"),
        (
            "a.json",
            '{"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}}',
            r"label2id \['b', 'a'\]; id2label",
        ),
        ("a.json", '{"0": "a", "2": "b"}', "its positions are not 0 to 1, each once"),
        ("a.json", '{"a": 0, "b": 1, "a": 2}', "it names 'a' more than once"),
        ("a.yaml", "names: {0: a, 0: b}", "it names '0' more than once"),
        ("a.yaml", "names: [a", "it is no YAML"),
        ("a.txt", "1 Benign\n2 Early\n", "its lines are numbered 1, 2, not 0 to 1, each once"),
        ("a.txt", "0 Benign\n0 Early\n", "its lines are numbered 0, 0, not 0 to 1"),
        ("a.txt", "0 1\n1 2\n2 0\n", r"read in two ways: labels by position \['1', '2', '0'\]; or positions"),
        ("a.txt", "0: 1\n1: 2\n2: 0\n", "read in two ways"),
        ("a.json", '["\\ud800", "b"]', "hold halves of characters"),
        ("a.json", '[{"index": 0, "label": []}, {"index": 1, "label": "b"}]', "not empty"),
        ("a.csv", "index,label\n1,a\n2,b\n", "must hold the positions 0 to 1"),
        ("a.csv", "0,1\n1,0\n", "must hold the positions 0 to 1"),
        ("a.csv", "index,label\n0,a,x\n1,b\n", "its rows differ in length"),
    ],
)
def test_labels_whose_order_is_not_clear_are_refused(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(RecipeError, match=message) as refusal:
        Recipe(labels=labels_from_argument(str(tmp_path / name)))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("levels", [2, 40])
@pytest.mark.parametrize("value", ["{a: *a}", "{names: *a, classes: *a, labels: *a, label_names: *a}", "[*a, *a, *a]"])
def test_no_nesting_of_references_takes_long(value: str, levels: int, tmp_path: Path) -> None:
    lines = ["a0: &a0 {a: 0, b: 1}"]
    lines += [f"a{n}: &a{n} {value.replace('*a', f'*a{n - 1}')}" for n in range(1, levels)]
    (tmp_path / "data.yaml").write_text("\n".join([*lines, f"names: {{x: *a{levels - 1}, y: 1}}"]))
    with pytest.raises(RecipeError, match=r"not 0 to 1, each once; it holds {'x': (dict|list), 'y'"):
        labels_from_argument(str(tmp_path / "data.yaml"))


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_labels_in_another_encoding_than_utf_8_are_refused_with_the_remedy(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Blässe\nb\n", encoding=encoding)
    with pytest.raises(RecipeError, match="is not UTF-8; save it in that encoding"):
        labels_from_argument(str(tmp_path / "a.txt"))


def test_only_the_end_of_a_line_parts_labels(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("a\u2028x\r\nb\x0cx\n\n".encode())
    assert labels_from_argument(str(tmp_path / "a.txt")) == ("a\u2028x", "b\x0cx")


def test_numbers_as_labels_are_read_where_only_one_reading_is_possible(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"class_to_idx": {"0": 1, "1": 2, "2": 0}}')
    (tmp_path / "same.json").write_text('{"0": 0, "1": 1, "2": 2}')
    (tmp_path / "a.txt").write_text("0\n1\n10\n2\n")
    assert labels_from_argument(str(tmp_path / "a.json")) == ("2", "0", "1")
    assert labels_from_argument(str(tmp_path / "same.json")) == ("0", "1", "2")
    assert labels_from_argument(str(tmp_path / "a.txt")) == ("0", "1", "10", "2")


@given(
    labels=st.lists(
        st.from_regex(r"[A-Za-z][A-Za-z -]{0,8}[A-Za-z]", fullmatch=True), min_size=2, max_size=12, unique=True
    ),
    order=st.randoms(use_true_random=False),
)
def test_whatever_the_labels_and_their_order_every_way_to_write_them_is_read_alike(
    labels: list[str], order: random.Random
) -> None:
    pairs = list(enumerate(labels))
    order.shuffle(pairs)
    ways = {
        "a.json": json.dumps({name: place for place, name in pairs}),
        "b.json": json.dumps({str(place): name for place, name in pairs}),
        "a.txt": "\n".join(f"{place} {name}" for place, name in pairs),
        "b.txt": "\n".join(labels),
        "a.csv": "\n".join(["index,label", *(f"{place},{name}" for place, name in pairs)]),
        "b.csv": "\n".join(f"{name};{place}" for place, name in pairs),
        "a.yaml": "names:\n" + "\n".join(f"  {place}: {json.dumps(name)}" for place, name in pairs),
    }
    with TemporaryDirectory() as folder:
        for name, content in ways.items():
            (Path(folder) / name).write_text(content)
            assert labels_from_argument(str(Path(folder) / name)) == tuple(labels)


@settings(max_examples=200)
@given(suffix=st.sampled_from([".txt", ".json", ".yaml", ".csv"]), content=st.text(max_size=60))
def test_any_text_is_labels_or_an_error(suffix: str, content: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"labels{suffix}"
        path.write_text(content, encoding="utf-8", errors="replace")
        with suppress(RecipeError):
            assert all(isinstance(label, str) for label in labels_from_argument(str(path)))


def test_labels_are_read_from_the_command_line_however_many_there_are() -> None:
    many = tuple(f"label {number}" for number in range(1000))
    assert labels_from_argument("Pro, Early Pre-B,Benign") == ("Pro", "Early Pre-B", "Benign")
    assert labels_from_argument(",".join(many)) == many


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(json.dumps(value), id=str(value))
        for value in (3, None, "a", [1, 2], [["a"]], {"a": 0, "b": 0}, {"a": 1, "b": 2}, {"a": [0]}, {"a": math.nan})
    ]
    + ['["a"', "", pytest.param("[" * 100_000, id="deeply nested")],
)
def test_a_labels_file_of_something_else_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(RecipeError, match="labels"):
        labels_from_argument(str(path))


@pytest.mark.parametrize("values", [{"labels": ()}, {"labels": []}])
def test_labels_may_be_left_open_until_the_checkpoint_is_read(values: dict[str, Any]) -> None:
    assert Recipe.compose(None, values).labels == ()


def test_a_recipe_is_read_without_pytorch() -> None:
    code = "import sys, batchcls.networks.recipe as r; r.Recipe.compose(None, {'size_px': 64}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "torchvision"}.isdisjoint(done.stdout.split())
