"""Export a PyTorch network to ONNX."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import nn

from batchcls.errors import CheckpointError
from batchcls.networks.architectures import PixelClassifier
from batchcls.networks.batch_norm import fuse_batch_norm
from batchcls.networks.onnx_advice import export_advice
from batchcls.networks.preprocess import Preprocess

_LARGEST_HALF = 65504.0
"""Largest finite number of float16."""
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
_LONGEST_REASON = 300
_OPSETS = {"bf16": 22}
"""ONNX operator set by precision: 22 is the first whose convolutions know bfloat16. Others get `_OPSET`."""
_OPSET = 20
"""Operator set of other precisions: older than the newest one, so that more runtimes can read the file."""


def export_classifier(network: nn.Module, preprocess: Preprocess, precision: str, path: Path) -> None:
    """Write ``network`` to ``path`` as ONNX: (N, H, W, 3) uint8 pixels in, (N, classes) float32 logits out, N free.

    Args:
        network: Float32, in eval mode, on the CPU; it is not changed.
        preprocess: Normalization that goes into the ONNX file.
        precision: ``fp16``, ``bf16`` or ``fp32``, of weights and arithmetic; normalization and logits are float32.

    Raises:
        CheckpointError: If a weight is too large for the precision, or PyTorch cannot export the network.
    """
    folded = fuse_batch_norm(network)
    largest = max((float(weight.abs().max()) for weight in folded.state_dict().values() if weight.numel()), default=0.0)
    if precision == "fp16" and not largest <= _LARGEST_HALF:
        raise CheckpointError(f"a weight of {largest:.3g} does not fit half precision; build with --precision fp32")
    classifier = PixelClassifier(folded, preprocess, _DTYPES[precision]).eval()
    _write(
        classifier, torch.zeros((2, *preprocess.size_px, 3), dtype=torch.uint8), path, _OPSETS.get(precision, _OPSET)
    )


def export_network(network: nn.Module, preprocess: Preprocess, path: Path) -> None:
    """Write ``network`` to ``path`` as float32 ONNX without preprocessing: normalized images, (N, 3, H, W), N free."""
    _write(fuse_batch_norm(network), torch.zeros((2, preprocess.channel_count, *preprocess.size_px)), path, _OPSET)


def export_module(module: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write ``module`` to ``path`` as ONNX as it is, with a free batch size.

    Args:
        module: Float32, in eval mode, on the CPU.
        example: (2, ...) input, whose other sides become those of the ONNX file's input.

    Raises:
        CheckpointError: If the module cannot be exported.
    """
    _write(module, example, path, _OPSET)


def _write(module: nn.Module, example: torch.Tensor, path: Path, opset: int) -> None:
    with _exporter_silenced(), _translated():
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
        part.ClearField("metadata_props")  # stack traces with paths of this machine
        part.ClearField("doc_string")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the exporter's exceptions into a `CheckpointError`."""
    try:
        yield
    except torch.onnx.errors.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:_LONGEST_REASON]
        raise CheckpointError(
            f"PyTorch cannot export the network to ONNX: {reason}; with another version of PyTorch, which may fail as "
            f"well, {export_advice()}"
        ) from error


@contextmanager
def _exporter_silenced() -> Iterator[None]:
    """Hide the exporter's log lines and warnings; exceptions are still raised."""
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
