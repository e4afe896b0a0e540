"""Probes are the same everywhere, suit their network, and have their answers in the engine folder."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from batchcls.building.probe_selection import select_mixtures
from batchcls.engine.manifest import Manifest
from batchcls.engine.postprocess import to_predictions
from batchcls.engine.probes import CANDIDATE_COUNT, FULL_WEIGHT, PROBE_COUNT, draw_candidates, draw_probes
from batchcls.errors import EngineError
from batchcls.records import Logits, Pixels
from tests.commandline import invoked
from tests.conftest import ALL4, draw
from tests.engines import engine_logits, opened_engine
from tests.quantized_engines import normalized


def test_probes_are_the_same_pixels_on_every_machine() -> None:
    of_older_versions, of_now = draw_probes((224, 224)), draw_probes((224, 224), [(0, 47, 100), (12, 3, 256)])

    assert [hashlib.sha256(pixels.tobytes()).hexdigest()[:16] for pixels in (of_older_versions, of_now)] == [
        "175ca52949484180",
        "5b85676f53521a18",
    ]


@pytest.mark.parametrize("size_px", [(224, 224), (299, 320), (32, 48), (7, 3)])
def test_probes_are_images_of_the_size_that_is_asked_for(size_px: tuple[int, int]) -> None:
    pixels = draw_probes(size_px)

    assert (pixels.shape, pixels.dtype) == ((PROBE_COUNT, *size_px, 3), np.uint8)
    assert len({image.tobytes() for image in pixels}) == PROBE_COUNT == 16


@given(
    st.lists(
        st.tuples(
            st.integers(0, CANDIDATE_COUNT - 1), st.integers(0, CANDIDATE_COUNT - 1), st.integers(0, FULL_WEIGHT)
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_mixture_lies_between_its_images(mixtures: list[tuple[int, int, int]]) -> None:
    candidates = draw_candidates((24, 24)).astype(np.float64)

    mixed = draw_probes((24, 24), mixtures)

    for image, (first, second, weight) in zip(mixed, mixtures, strict=True):
        exact = candidates[first] + (candidates[second] - candidates[first]) * weight / FULL_WEIGHT
        assert np.abs(image - exact).max() <= 1


def test_probes_are_images_that_the_network_is_of_two_minds_about() -> None:
    exact = opened_engine(ALL4, backend="torch", threads=2, precision="f32")

    mixtures = select_mixtures(lambda pixels: exact.infer(pixels).logits, (224, 224))
    answers = to_predictions(exact.infer(draw_probes((224, 224), mixtures)).logits)

    assert len(mixtures) == PROBE_COUNT
    assert len(set(answers.labels.tolist())) >= 3
    assert answers.probabilities.max() < 0.9


def test_a_network_that_knows_one_class_alone_is_probed_where_it_is_least_sure() -> None:
    def answer(pixels: Pixels) -> Logits:
        mean = pixels.mean(axis=(1, 2, 3), dtype=np.float32) / 64
        return np.stack([mean + 1, np.zeros_like(mean)], axis=1)

    mixtures = select_mixtures(answer, (24, 24))

    unsure = to_predictions(answer(draw_candidates((24, 24)))).probabilities.max(axis=1)
    assert sorted(first for first, _, _ in mixtures) == sorted(np.argsort(unsure, kind="stable")[:PROBE_COUNT].tolist())
    assert all(weight == 0 for _, _, weight in mixtures)


def test_the_committed_engine_carries_what_pytorch_answers_to_its_probes() -> None:
    manifest = Manifest.read(ALL4)

    ours = engine_logits(
        ALL4, draw_probes(manifest.preprocess.size_px, manifest.probes), backend="torch", precision="f32"
    )

    np.testing.assert_allclose(ours, np.array(manifest.reference), atol=0.02)
    np.testing.assert_allclose(ours, np.array(manifest.answers), atol=0.002)
    assert len(set(np.array(manifest.reference).argmax(axis=1))) >= 3
    assert to_predictions(np.array(manifest.reference, np.float32)).probabilities.max() < 0.9


@pytest.mark.parametrize(("option", "computed"), [("fp32", "f32"), (None, None)])
def test_a_run_says_what_it_computed_in(
    option: str | None, computed: str | None, tiny_engine: Path, tmp_path: Path
) -> None:
    draw(tmp_path / "slides" / "a.jpg")
    options = ["--precision", option] if option else []

    result = invoked(tmp_path / "slides", "--engine", tiny_engine, "--out", tmp_path / "o.parquet", *options)

    assert result.exit_code == 0, result.output
    said = json.loads(pq.read_schema(tmp_path / "o.parquet").metadata[b"batchcls"])["precision"]
    assert said == computed if computed else said in ("bf16", "f32")


@pytest.mark.parametrize("kind", ["answers", "reference"])
@pytest.mark.parametrize("logit", [1e39, 10**400, float("inf"), None, "x"], ids=str)
def test_answers_that_no_network_gives_are_refused(logit: Any, kind: str, tmp_path: Path) -> None:
    values = json.loads((ALL4 / "engine.json").read_text())
    values[kind] = [[logit, *row[1:]] for row in values["reference"]]
    (tmp_path / "engine.json").write_text(json.dumps(values))

    with pytest.raises(EngineError, match="build the engine again"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("precision", ["fp64", "", 16, None], ids=str)
def test_a_precision_that_no_engine_has_is_refused(precision: Any, tmp_path: Path) -> None:
    values = json.loads((ALL4 / "engine.json").read_text())
    (tmp_path / "engine.json").write_text(json.dumps(values | {"precision": precision}))

    with pytest.raises(EngineError, match="precision is"):
        Manifest.read(tmp_path)


def test_an_engine_carries_the_answers_of_the_network_before_it_was_rounded(
    resnet_bf16: Path, resnet_int8: Path, resnet: tuple[nn.Module, Path]
) -> None:
    for engine in (resnet_bf16, resnet_int8):
        manifest = Manifest.read(engine)
        with torch.inference_mode():
            exact = resnet[0](torch.from_numpy(normalized(draw_probes((224, 224), manifest.probes)))).numpy()

        np.testing.assert_allclose(np.array(manifest.reference), exact, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "reference",
    [
        [[0.0] * 4] * 16,
        [[0.0] * 2] * 16,
        [[0.0] * 3] * 15 + [[0.0] * 2],
        [[]] * 16,
        [["a", "b", "c"]] * 16,
        [0.0] * 16,
        5,
    ],
    ids=["more", "fewer", "one fewer", "none", "texts", "flat", "number"],
)
def test_answers_of_another_number_of_classes_are_refused(altered_engine: Callable[..., Path], reference: Any) -> None:
    folder = altered_engine(reference=reference)

    with pytest.raises(EngineError, match="build the engine again"):
        Manifest.read(folder)


@pytest.mark.parametrize(
    "written",
    [
        {"probes": [[0, 1, 2]] * 15},
        {"probes": [[0, 48, 2]] * 16},
        {"probes": [[0, -1, 2]] * 16},
        {"probes": [[0, 1, 257]] * 16},
        {"probes": [[0, 1]] * 16},
        {"probes": 5},
        {"answers": [[0.0] * 3] * 15},
        {"answers": [[0.0] * 2] * 16},
        {"check": {"probes": 16, "top1_agreement": "all", "largest_difference": 0.0}},
        {"check": {"moon": "full"}},
        {"checked_on": {"backend": "openvino"}},
        {"checked_on": 5},
    ],
    ids=str,
)
def test_probes_that_no_build_writes_are_refused(altered_engine: Callable[..., Path], written: dict[str, Any]) -> None:
    folder = altered_engine(**written)

    with pytest.raises(EngineError, match="build the engine again"):
        Manifest.read(folder)
