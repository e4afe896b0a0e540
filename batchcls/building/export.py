"""A network becomes ONNX with its preprocessing inside: uint8 pixels in, float32 logits out."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import nn

from batchcls.errors import CheckpointError
from batchcls.networks.architectures import PixelClassifier, fused
from batchcls.records import Preprocess

_LARGEST_HALF = 65504.0


_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
_OPSETS = {"bf16": 22}
"""The first whose convolutions know bfloat16; for the others, 20 asks less of who reads it."""


def export(network: nn.Module, preprocess: Preprocess, precision: str, path: Path) -> None:
    """Write ``network`` to ``path`` as ONNX with its preprocessing inside, and a free batch size.

    Args:
        network: Float32, in eval mode, on the CPU; left as it is.
        precision: Of weights and arithmetic, but for normalisation and logits: ``fp16``, ``bf16`` or ``fp32``.

    Raises:
        CheckpointError: If a weight does not fit the precision.
    """
    folded = fused(network)
    largest = max((float(weight.abs().max()) for weight in folded.state_dict().values() if weight.numel()), default=0.0)
    if precision == "fp16" and not largest <= _LARGEST_HALF:
        raise CheckpointError(f"a weight of {largest:.3g} does not fit half precision; run with --precision fp32")
    classifier = PixelClassifier(folded, preprocess, _DTYPES[precision]).eval()
    _write(classifier, torch.zeros((2, *preprocess.size_px, 3), dtype=torch.uint8), path, _OPSETS.get(precision, 20))


def export_network(network: nn.Module, preprocess: Preprocess, path: Path) -> None:
    """Write ``network`` alone to ``path``, float32: it takes normalised images, (N, 3, H, W)."""
    _write(fused(network), torch.zeros((2, 3, *preprocess.size_px)), path, 20)


def _write(module: nn.Module, example: torch.Tensor, path: Path, opset: int) -> None:
    with _exporter_silenced():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export answered with nothing")
    model = program.model_proto
    for part in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
    ):
        part.ClearField("metadata_props")  # stack traces of this machine
        part.ClearField("doc_string")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


@contextmanager
def _exporter_silenced() -> Iterator[None]:
    """Without the exporter's chatter; its exceptions still come through."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
