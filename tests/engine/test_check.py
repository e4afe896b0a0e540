"""Every run checks the answers of its engine first; what answers otherwise than verified does not begin."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from batchcls.building.gpu_plans import build_plan_here
from batchcls.building.tensorrt_plan import PlanOptions
from batchcls.engine.base import EngineInfo
from batchcls.engine.check import check_answers
from batchcls.engine.check_result import ProbeCheck
from batchcls.engine.manifest import Manifest
from batchcls.engine.probes import draw_probes
from batchcls.errors import EngineError, VerificationError
from batchcls.records import Outputs
from tests.commandline import invoked
from tests.conftest import ALL4, draw
from tests.engines import engine_logits, opened_engine


@pytest.mark.parametrize("precision", [None, "f32"])
@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_the_committed_engine_agrees_with_the_answers_that_it_carries(backend: Any, precision: str | None) -> None:
    with closing(opened_engine(ALL4, backend=backend, threads=2, precision=precision)) as engine:
        check = check_answers(engine, Manifest.read(ALL4))

    assert (check.probes, check.top1_agreement) == (16, 1.0)


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
        closing(opened_engine(ALL4, threads=2)) as engine,
        pytest.raises(VerificationError, match=r"probabilities differ by up to 0\.\d+, .*; run: batchcls "),
    ):
        check_answers(engine, otherwise)


class FixedEngine:
    """An engine whose answers to the probes are given."""

    batch_size = 64
    notes = ()
    lanes = 1

    def __init__(self, info: EngineInfo, logits: Any) -> None:
        self.info = info
        self._logits = np.array(logits, np.float32)

    def infer(self, pixels: Any) -> Outputs:
        return Outputs.without_features(self._logits[: len(pixels)])

    def close(self) -> None:
        """Nothing is open."""


def probe_check(precision: str, answers: Any, expected: Any, backend: str = "tensorrt") -> ProbeCheck:
    """The check of a GPU's engine that computes in ``precision``, for four classes."""
    expected = tuple(map(tuple, expected))
    manifest = replace(Manifest.read(ALL4), precision=precision, reference=expected, answers=expected)
    return check_answers(
        FixedEngine(manifest.info(backend=backend, device="cuda:0", precision=precision), answers), manifest
    )


def test_an_engine_without_an_answer_is_not_taken_for_a_good_one() -> None:
    """Such as one whose half precision overflows on an image."""
    expected = [[3.0, 0.0, 0.0, 0.0]] * 16

    with pytest.raises(VerificationError, match=r"differ by up to 1\.0000, .*top-1 agreement is 0\.9375"):
        probe_check("int8", [*expected[:15], [np.nan] * 4], expected)


@pytest.mark.parametrize(
    ("precision", "good"), [("fp32", False), ("fp16", True), ("bf16", True), ("int8", True), ("fp4", False)]
)
def test_how_far_an_engine_may_be_off_depends_on_its_precision(precision: str, good: bool) -> None:
    expected = [[2.0, 0.0, 0.0, 0.0]] * 16
    answers = [*expected[:15], [2.15, 0.0, 0.0, 0.0]]  # 0.711 and 0.741 of the first class

    if good:
        assert probe_check(precision, answers, expected).largest_difference == pytest.approx(0.0298, abs=1e-4)
    else:
        with pytest.raises(VerificationError, match=r"differ by up to 0\.0298"):
            probe_check(precision, answers, expected)


def test_what_is_off_a_little_everywhere_is_off_too_much() -> None:
    expected = [[2.0, 0.0, 0.0, 0.0]] * 16

    with pytest.raises(VerificationError, match=r"differ by up to 0\.06\d\d, 0\.06\d\d on average"):
        probe_check("bf16", [[2.35, 0.0, 0.0, 0.0]] * 16, expected)


def test_logarithms_tell_what_probabilities_near_one_hide() -> None:
    expected = [[9.0, 0.0, 0.0, 0.0]] * 16

    with pytest.raises(VerificationError, match=r"differ by up to 0\.00\d\d, .*their logarithms by 1\.\d+; bf16"):
        probe_check("bf16", [[7.0, 0.0, 0.0, 0.0]] * 16, expected)


def test_a_network_that_was_compiled_wrongly_can_be_run_as_it_is() -> None:
    expected = [[2.0, 0.0, 0.0, 0.0]] * 16

    with pytest.raises(
        VerificationError, match=r"torch\.compile on cuda:0 .*; run: TORCHDYNAMO_DISABLE=1 batchcls run"
    ):
        probe_check("f16", [[0.0, 2.0, 0.0, 0.0]] * 16, expected, "torch.compile")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_plan_that_answers_otherwise_is_to_be_built_again_first(precision: str) -> None:
    expected = [[2.0, 0.0, 0.0, 0.0]] * 16

    with pytest.raises(
        VerificationError, match="; run: batchcls build ENGINE --device cuda:0, or batchcls build CHECK"
    ):
        probe_check(precision, [[0.0, 2.0, 0.0, 0.0]] * 16, expected)


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
    values["reference"] = engine_logits(tiny_engine, draw_probes((32, 32)), precision="f32").tolist()
    (folder / "engine.json").write_text(json.dumps(values))
    draw(tmp_path / "slides" / "a.jpg")

    sound = invoked(tmp_path / "slides", "--engine", folder, "--out", tmp_path / "o.parquet")
    values["reference"] = [logits[::-1] for logits in values["reference"]]
    (folder / "engine.json").write_text(json.dumps(values))
    other = invoked(tmp_path / "slides", "--engine", folder, "--out", tmp_path / "other.parquet")

    assert (sound.exit_code, other.exit_code) == (0, 1)
    assert "otherwise than verified" in other.stderr


@pytest.mark.parametrize("name", ["small_fp32", "small_int8", "partly_int8", "resnet_bf16", "resnet_int8"])
def test_an_engine_agrees_with_the_answers_that_it_carries(name: str, request: Any) -> None:
    folder = request.getfixturevalue(name)
    manifest = Manifest.read(folder)
    with closing(opened_engine(folder)) as engine:
        check = check_answers(engine, manifest)

    assert check.probes == len(manifest.answers) == 16
    assert manifest.check is not None
    assert manifest.checked_on is not None
    assert (manifest.checked_on.backend, manifest.checked_on.precision) == ("openvino", engine.info.precision)


@pytest.mark.parametrize(
    "reference", [[[0.0] * 3] * 15, [[0.0] * 3] * 17, [[float("nan")] * 3] * 16], ids=["15", "17", "nan"]
)
def test_answers_that_no_engine_could_be_checked_by_are_refused(
    altered_engine: Callable[..., Path], reference: Any, small_fp32: Path
) -> None:
    folder = altered_engine(reference=reference, probes=..., answers=...)

    with (
        closing(opened_engine(small_fp32, threads=1)) as engine,
        pytest.raises(EngineError),
    ):
        check_answers(engine, Manifest.read(folder))


@pytest.mark.parametrize("absent", [..., []], ids=["absent", "empty"])
def test_a_folder_from_before_there_were_probes_runs_with_a_warning_and_can_have_no_plan(
    altered_engine: Callable[..., Path], absent: Any, field_images: Path, tmp_path: Path
) -> None:
    folder = altered_engine(reference=absent, probes=absent, answers=absent, check=..., checked_on=...)

    assert Manifest.read(folder).reference == ()
    result = invoked(field_images, "--engine", folder, "--out", tmp_path / "o.parquet")
    assert result.exit_code == 0, result.output
    assert (
        "warning: engine 'fp32' was built before engines had probes, so its answers cannot be checked" in result.stderr
    )
    with pytest.raises(EngineError, match=r"answers to 0 probes of 16, .* checked; run: batchcls build CHECK"):
        build_plan_here(folder, "cuda:0", PlanOptions(), Console(quiet=True))
    assert sorted(path.name for path in folder.iterdir()) == ["engine.json", "model.onnx", "probe_features.bin"]
