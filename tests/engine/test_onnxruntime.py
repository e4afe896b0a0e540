"""ONNX Runtime runs the engines that PyTorch does not, and never on another device than was asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from batchcls.engine.check import check_answers
from batchcls.engine.manifest import Manifest
from batchcls.errors import EngineError
from tests.engines import engine_logits, opened_engine

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.mark.parametrize("name", ["tiny_engine", "small_int8"])
def test_engines_that_pytorch_does_not_run_answer_their_probes(name: str, request: Any) -> None:
    folder = request.getfixturevalue(name)
    engine = opened_engine(folder, backend="onnxruntime")

    assert check_answers(engine, Manifest.read(folder)).top1_agreement == 1.0
    assert engine.info.precision == Manifest.read(folder).precision


def test_more_images_than_are_computed_at_a_time_are_answered_in_their_order(tiny_engine: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (21, 32, 32, 3), np.uint8)

    logits = engine_logits(tiny_engine, pixels, backend="onnxruntime")

    np.testing.assert_allclose(logits, engine_logits(tiny_engine, pixels, precision="f32"), atol=1e-3)


def test_another_precision_than_the_files_is_refused(tiny_engine: Path) -> None:
    with pytest.raises(EngineError, match=r"computes in fp32, .* not in bf16; .*run: batchcls run --backend openvino"):
        opened_engine(tiny_engine, backend="onnxruntime", precision="bf16")


@pytest.mark.skipif(HAS_CUDA, reason="it is about an ONNX Runtime for the CPU")
def test_without_cuda_it_is_an_error_with_the_commands_that_bring_it(tiny_engine: Path) -> None:
    with pytest.raises(EngineError) as refused:
        opened_engine(tiny_engine, backend="onnxruntime", device="cuda:0")

    message = str(refused.value)
    assert message.startswith(f"this ONNX Runtime ({onnxruntime.__version__}) cannot use cuda:0: ")
    assert message.endswith("; run: pip uninstall -y onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]>=1.31'")
