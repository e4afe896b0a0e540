"""PyTorch runs the engines that it can run, and refuses the others."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from batchcls.engine.manifest import Manifest, sha256
from batchcls.engine.probes import draw_probes
from batchcls.errors import EngineError
from tests.conftest import ALL4
from tests.engines import engine_logits, largest_difference, opened_engine
from tests.quantized_engines import normalized, resized_images


@pytest.mark.parametrize("name", ["small_int8", "resnet_int8"])
def test_pytorch_refuses_an_int8_engine_and_names_the_way_out(name: str, request: Any) -> None:
    with pytest.raises(
        EngineError, match=r"in int8, which PyTorch cannot run; .* choose --backend openvino, .*tensorrt"
    ):
        opened_engine(request.getfixturevalue(name), backend="torch", threads=1)


def test_pytorch_runs_a_bf16_engine(resnet_bf16: Path, resnet: tuple[nn.Module, Path], field_images: Path) -> None:
    pixels = resized_images(field_images, 224)[::4]
    with torch.inference_mode():
        exact = resnet[0](torch.from_numpy(normalized(pixels))).numpy()

    assert 0 < largest_difference(engine_logits(resnet_bf16, pixels, backend="torch"), exact) < 0.03


def test_pytorch_runs_an_engine_whose_biases_are_all_zero(resnet_bf16: Path, tmp_path: Path) -> None:
    """The exporter leaves such biases out, as of a network that was never trained."""
    engine = Path(shutil.copytree(resnet_bf16, tmp_path / "e"))
    model = onnx.load(engine / "model.onnx")
    biases = [
        node.input.pop()
        for node in model.graph.node
        if node.op_type == "Conv" and not node.output[0].startswith("features/")
    ]
    for item in [item for item in model.graph.initializer if item.name in biases]:
        model.graph.initializer.remove(item)
    onnx.save(model, engine / "model.onnx")
    replace(Manifest.read(engine), onnx_sha256=sha256(engine / "model.onnx")).write(engine)
    pixels = draw_probes((224, 224))[:4]

    assert len(biases) == 20
    assert largest_difference(engine_logits(engine, pixels, backend="torch"), engine_logits(engine, pixels)) < 0.03


def test_the_batch_size_is_the_users_or_the_backends_own() -> None:
    assert opened_engine(ALL4, backend="torch").batch_size == 64
    assert opened_engine(ALL4, backend="torch", batch_size=24).batch_size == 24
    for backend in ("openvino", "null"):  # they compute in portions of their own
        assert opened_engine(ALL4, backend=backend, batch_size=24).batch_size == 64
