import json
import math
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from batchcls.errors import RecipeError
from batchcls.recipe import Recipe, labels_of
from batchcls.records import Preprocess
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
    ],
)
def test_labels_are_read_from_a_file_in_the_order_of_the_outputs(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert labels_of(str(path)) == ("Pro", "Early Pre-B", "Benign")


def test_labels_are_read_from_the_command_line_however_many_there_are() -> None:
    many = tuple(f"label {number}" for number in range(1000))
    assert labels_of("Pro, Early Pre-B,Benign") == ("Pro", "Early Pre-B", "Benign")
    assert labels_of(",".join(many)) == many


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
        labels_of(str(path))


@pytest.mark.parametrize("values", [{"labels": ()}, {"labels": []}])
def test_labels_may_be_left_open_until_the_checkpoint_is_read(values: dict[str, Any]) -> None:
    assert Recipe.compose(None, values).labels == ()
