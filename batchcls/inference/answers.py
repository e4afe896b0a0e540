"""Answers of an engine on a device: opening it with its probes answered, and the results of a batch."""

from dataclasses import replace
from time import perf_counter

from batchcls.engine.backends import open_engine
from batchcls.engine.base import Engine
from batchcls.engine.check import check_answers
from batchcls.engine.manifest import ONNX
from batchcls.engine.novelty_check import check_novelty
from batchcls.engine.postprocess import to_predictions
from batchcls.errors import MemoryShortageError
from batchcls.inference.added_answers import AddedAnswers
from batchcls.inference.executor import DeviceConfig
from batchcls.records import Batch, BatchResult, Failure
from batchcls.storage.memory import available_bytes, format_bytes

_LEAST_START_BYTES = 320 << 20
"""Memory for a backend's libraries and threads."""
_MODEL_COPIES = 4
"""Memory of a compiled network and its compilation, as a multiple of the model file's size."""


def open_checked_engine(config: DeviceConfig) -> Engine:
    """The engine of ``config``, open, after its answers to its probes were found to be those of its build.

    An engine without probes is accepted on a CPU, and refused on a GPU, whose plan may be of another machine.

    Raises:
        EngineError: If the engine or its device cannot be used.
        VerificationError: If the engine's answers to its probes differ too much from the recorded ones.
        MemoryShortageError: If there is so little memory that the backend's libraries might end the process.
    """
    _check_memory(config)
    engine = open_engine(
        config.engine,
        config.manifest,
        backend=config.backend,
        device=config.opened_device,
        threads=config.threads,
        precision=config.precision,
        batch_size=config.batch_size,
        features=config.answers.need_features,
    )
    try:
        if engine.info.backend != "null" and (config.manifest.reference or config.device != "cpu"):
            check_answers(engine, config.manifest)
        if engine.info.backend != "null" and config.answers.measures:
            check_novelty(engine, config.engine, config.manifest)
    except BaseException:
        engine.close()
        raise
    return engine


def answer(engine: Engine, batch: Batch, added: AddedAnswers) -> BatchResult:
    """The predictions for a batch; an image whose logits are not finite becomes a failure."""
    since = perf_counter()
    outputs = engine.infer(batch.pixels)
    predictions = added.to(to_predictions(outputs.logits), outputs)
    seconds = {"read": batch.read_s, "decode": batch.decode_s, "infer": perf_counter() - since}
    if predictions.finite.all():
        return BatchResult(batch.slides, batch.sizes, predictions, batch.failures, batch.postponed, seconds)
    finite_rows = predictions.finite.nonzero()[0].tolist()
    without_answer = [
        Failure(batch.slides[row], "no answer", "the network's output is not a number", *batch.sizes[row])
        for row in (~predictions.finite).nonzero()[0].tolist()
    ]
    return BatchResult(
        slides=[batch.slides[row] for row in finite_rows],
        sizes=[batch.sizes[row] for row in finite_rows],
        predictions=predictions.rows(finite_rows),
        failures=[*batch.failures, *without_answer],
        postponed=batch.postponed,
        seconds=seconds,
    )


def with_taken_memory(result: BatchResult, taken_bytes: int) -> BatchResult:
    """``result``, whose postponed files need ``taken_bytes`` more: the memory of the process without its decoder."""
    if not result.postponed:
        return result
    return replace(
        result, postponed=[replace(file, needed_bytes=file.needed_bytes + taken_bytes) for file in result.postponed]
    )


def _check_memory(config: DeviceConfig) -> None:
    """Refuse to open an engine where a shortage of memory would make its libraries end the process."""
    model = config.engine / ONNX
    needed = _LEAST_START_BYTES + _MODEL_COPIES * (model.stat().st_size if model.exists() else 0)
    if config.backend != "null" and (left := available_bytes()) < needed:
        raise MemoryShortageError(
            f"{format_bytes(left)} of memory are left for this process, and its engine may need "
            f"{format_bytes(needed)}; free some, or raise its limits (ulimit -v, cgroup)"
        )
