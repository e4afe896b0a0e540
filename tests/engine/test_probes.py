"""Every run answers the probes of its engine first; what answers otherwise than verified does not begin."""

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.building.probe_selection import undecided_mixtures
from batchcls.engine.backends import open_engine
from batchcls.engine.check import check
from batchcls.engine.check_result import ProbeCheck
from batchcls.engine.manifest import Manifest
from batchcls.engine.postprocess import predictions
from batchcls.engine.probes import CANDIDATES, COUNT, WHOLE, candidate_pixels, probe_pixels
from batchcls.errors import EngineError, VerificationError
from batchcls.records import EngineInfo, Logits, Pixels
from tests.commandline import invoked
from tests.conftest import ALL4, draw


def answered(folder: Path, pixels: Pixels, **options: Any) -> Logits:
    with closing(open_engine(folder, **{"backend": "openvino", "device": "cpu", "threads": 2, **options})) as engine:
        return engine.infer(pixels)


def test_probes_are_the_same_pixels_on_every_machine() -> None:
    of_older_versions, of_now = probe_pixels((224, 224)), probe_pixels((224, 224), [(0, 47, 100), (12, 3, 256)])

    assert [hashlib.sha256(pixels.tobytes()).hexdigest()[:16] for pixels in (of_older_versions, of_now)] == [
        "175ca52949484180",
        "5b85676f53521a18",
    ]


@pytest.mark.parametrize("size_px", [(224, 224), (299, 320), (32, 48), (7, 3)])
def test_probes_are_images_of_the_size_that_is_asked_for(size_px: tuple[int, int]) -> None:
    pixels = probe_pixels(size_px)

    assert (pixels.shape, pixels.dtype) == ((COUNT, *size_px, 3), np.uint8)
    assert len({image.tobytes() for image in pixels}) == COUNT == 16


@given(
    st.lists(
        st.tuples(st.integers(0, CANDIDATES - 1), st.integers(0, CANDIDATES - 1), st.integers(0, WHOLE)),
        min_size=1,
        max_size=6,
    )
)
def test_a_mixture_lies_between_its_images(mixtures: list[tuple[int, int, int]]) -> None:
    candidates = candidate_pixels((24, 24)).astype(np.float64)

    mixed = probe_pixels((24, 24), mixtures)

    for image, (first, second, weight) in zip(mixed, mixtures, strict=True):
        exact = candidates[first] + (candidates[second] - candidates[first]) * weight / WHOLE
        assert np.abs(image - exact).max() <= 1


def test_probes_are_images_that_the_network_is_of_two_minds_about() -> None:
    exact = open_engine(ALL4, backend="torch", device="cpu", threads=2, precision="f32")

    mixtures = undecided_mixtures(exact.infer, (224, 224))
    found = predictions(exact.infer(probe_pixels((224, 224), mixtures)))

    assert len(mixtures) == COUNT
    assert len(set(found.labels.tolist())) >= 3
    assert found.probabilities.max() < 0.9


def test_a_network_that_knows_one_class_alone_is_probed_where_it_is_least_sure() -> None:
    def answer(pixels: Pixels) -> Logits:
        mean = pixels.mean(axis=(1, 2, 3), dtype=np.float32) / 64
        return np.stack([mean + 1, np.zeros_like(mean)], axis=1)

    mixtures = undecided_mixtures(answer, (24, 24))

    unsure = predictions(answer(candidate_pixels((24, 24)))).probabilities.max(axis=1)
    assert sorted(first for first, _, _ in mixtures) == sorted(np.argsort(unsure, kind="stable")[:COUNT].tolist())
    assert all(weight == 0 for _, _, weight in mixtures)


def test_the_committed_engine_carries_what_pytorch_answers_to_its_probes() -> None:
    manifest = Manifest.read(ALL4)

    ours = answered(ALL4, probe_pixels(manifest.preprocess.size_px, manifest.probes), backend="torch", precision="f32")

    np.testing.assert_allclose(ours, np.array(manifest.reference), atol=0.02)
    np.testing.assert_allclose(ours, np.array(manifest.answers), atol=0.002)
    assert len(set(np.array(manifest.reference).argmax(axis=1))) >= 3
    assert predictions(np.array(manifest.reference, np.float32)).probabilities.max() < 0.9


@pytest.mark.parametrize("precision", [None, "f32"])
@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_the_committed_engine_agrees_with_the_answers_that_it_carries(backend: Any, precision: str | None) -> None:
    with closing(open_engine(ALL4, backend=backend, device="cpu", threads=2, precision=precision)) as engine:
        found = check(engine, Manifest.read(ALL4))

    assert (found.probes, found.top1_agreement) == (16, 1.0)


OTHERWISE = {
    "one": lambda reference: (reference[0][::-1], *reference[1:]),
    "all": lambda reference: tuple(logits[::-1] for logits in reference),
    "weaker": lambda reference: tuple(tuple(logit / 2 for logit in logits) for logits in reference),
}


@pytest.mark.parametrize("field", ["answers", "reference"])
@pytest.mark.parametrize("other", OTHERWISE)
def test_an_engine_that_answers_otherwise_is_refused(other: str, field: str) -> None:
    """Also by what training answered, which is all that a folder of an older version has."""
    manifest = Manifest.read(ALL4)
    otherwise = replace(manifest, **{"answers": (), field: OTHERWISE[other](manifest.reference)})
    with (
        closing(open_engine(ALL4, backend="openvino", device="cpu", threads=2)) as engine,
        pytest.raises(VerificationError, match=r"probabilities differ by up to 0\.\d+, .*; run: batchcls "),
    ):
        check(engine, otherwise)


class Answering:
    """An engine whose answers to the probes are given."""

    batch_size = 64
    lanes = 1

    def __init__(self, info: EngineInfo, logits: Any) -> None:
        self.info = info
        self._logits = np.array(logits, np.float32)

    def infer(self, pixels: Any) -> Logits:
        return self._logits[: len(pixels)]

    def close(self) -> None:
        """Nothing is open."""


def checked(precision: str, answers: Any, expected: Any) -> ProbeCheck:
    """The check of a GPU's engine that computes in ``precision``, for four classes."""
    expected = tuple(map(tuple, expected))
    manifest = replace(Manifest.read(ALL4), precision=precision, reference=expected, answers=expected)
    return check(Answering(manifest.info(backend="tensorrt", device="cuda:0", precision=precision), answers), manifest)


def test_an_engine_without_an_answer_is_not_taken_for_a_good_one() -> None:
    """Such as one whose half precision overflows on an image."""
    expected = [[3.0, 0.0, 0.0, 0.0]] * 16

    with pytest.raises(VerificationError, match=r"differ by up to 1\.0000, .*top-1 agreement is 0\.9375"):
        checked("int8", [*expected[:15], [np.nan] * 4], expected)


@pytest.mark.parametrize(
    ("precision", "good"), [("fp32", False), ("fp16", True), ("bf16", True), ("int8", True), ("fp4", False)]
)
def test_how_far_an_engine_may_be_off_depends_on_its_precision(precision: str, good: bool) -> None:
    expected = [[2.0, 0.0, 0.0, 0.0]] * 16
    answers = [*expected[:15], [2.15, 0.0, 0.0, 0.0]]  # 0.711 and 0.741 of the first class

    if good:
        assert checked(precision, answers, expected).largest_difference == pytest.approx(0.0298, abs=1e-4)
    else:
        with pytest.raises(VerificationError, match=r"differ by up to 0\.0298"):
            checked(precision, answers, expected)


def test_what_is_off_a_little_everywhere_is_off_too_much() -> None:
    expected = [[2.0, 0.0, 0.0, 0.0]] * 16

    with pytest.raises(VerificationError, match=r"differ by up to 0\.06\d\d, 0\.06\d\d on average"):
        checked("bf16", [[2.35, 0.0, 0.0, 0.0]] * 16, expected)


def test_logarithms_tell_what_probabilities_near_one_hide() -> None:
    expected = [[9.0, 0.0, 0.0, 0.0]] * 16

    with pytest.raises(VerificationError, match=r"differ by up to 0\.00\d\d, .*their logarithms by 1\.\d+; bf16"):
        checked("bf16", [[7.0, 0.0, 0.0, 0.0]] * 16, expected)


@pytest.fixture
def other_answers(tiny_engine: Path, tmp_path: Path) -> Callable[..., Path]:
    """The tiny engine, which was verified to answer otherwise."""

    def change(**options: Any) -> Path:
        folder = Path(shutil.copytree(tiny_engine, tmp_path / "other"))
        values = json.loads((folder / "engine.json").read_text())
        values["answers"] = [logits[::-1] for logits in values["answers"]]
        (folder / "engine.json").write_text(json.dumps(values | options))
        return folder

    return change


def test_a_run_whose_engine_answers_otherwise_does_not_begin(
    other_answers: Callable[..., Path], tmp_path: Path
) -> None:
    draw(tmp_path / "slides" / "a.jpg")
    out = tmp_path / "o.parquet"

    result = invoked(tmp_path / "slides", "--engine", other_answers(), "--out", out)

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert (
        "answers the probes by openvino on cpu otherwise than verified: probabilities differ by up to" in result.stderr
    )
    assert "; run: batchcls " in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "slides"]


def test_a_folder_of_the_version_before_runs_and_is_checked_by_what_training_answered(
    tiny_engine: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_engine, tmp_path / "before"))
    values = json.loads((folder / "engine.json").read_text())
    for name in ("probes", "answers", "check", "checked_on"):
        del values[name]
    values["reference"] = answered(tiny_engine, probe_pixels((32, 32)), precision="f32").tolist()
    (folder / "engine.json").write_text(json.dumps(values))
    draw(tmp_path / "slides" / "a.jpg")

    sound = invoked(tmp_path / "slides", "--engine", folder, "--out", tmp_path / "o.parquet")
    values["reference"] = [logits[::-1] for logits in values["reference"]]
    (folder / "engine.json").write_text(json.dumps(values))
    other = invoked(tmp_path / "slides", "--engine", folder, "--out", tmp_path / "other.parquet")

    assert (sound.exit_code, other.exit_code) == (0, 1)
    assert "otherwise than verified" in other.stderr


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
