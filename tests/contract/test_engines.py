"""Every engine answers alike, whatever an image is batched with."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from batchcls.engine.base import Engine
from batchcls.engine.manifest import Manifest
from batchcls.engine.postprocess import to_predictions
from batchcls.errors import EngineError
from batchcls.records import DevicePixels, Pixels
from benchmarks.workload import draw_field
from tests.conftest import ALL4
from tests.engines import opened_engine

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")


def has_cuda_provider() -> bool:
    """Whether the ONNX Runtime that is installed can use a GPU."""
    if not find_spec("onnxruntime"):
        return False
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


needs_cuda_provider = pytest.mark.skipif(not has_cuda_provider(), reason="onnxruntime-gpu is not installed")
WHERE = [
    pytest.param(("openvino", "cpu"), marks=pytest.mark.skipif(not find_spec("openvino"), reason="no openvino")),
    ("torch", "cpu"),
    ("onnxruntime", "cpu"),
    ("null", "cpu"),
    pytest.param(("torch", "cuda:0"), marks=pytest.mark.gpu),
    pytest.param(("tensorrt", "cuda:0"), marks=pytest.mark.gpu),
    pytest.param(("onnxruntime", "cuda:0"), marks=[pytest.mark.gpu, needs_cuda_provider]),
]
PRECISIONS = {
    ("openvino", "cpu"): {"bf16", "f32"},
    ("torch", "cpu"): {"f32"},
    ("torch", "cuda:0"): {"f16"},
    ("tensorrt", "cuda:0"): {"fp16"},
    ("onnxruntime", "cpu"): {"fp16"},
    ("onnxruntime", "cuda:0"): {"fp16"},
    ("null", "cpu"): {"none"},
}
ROUNDING = {"bf16": 0.0, "f32": 1e-3, "f16": 0.03, "fp16": 0.0, "none": 0.0}
"""That an answer may depend on what else is in the batch, by precision: kernels are chosen by its size."""


def open_on(where: tuple[str, str], gpu_engine: Path | None = None) -> Engine:
    backend, device = where
    if (backend, device) == ("onnxruntime", "cuda:0"):
        runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        if "CUDAExecutionProvider" not in runtime.get_available_providers():
            pytest.skip("onnxruntime-gpu is not installed")
    folder = gpu_engine if backend == "tensorrt" and gpu_engine else ALL4
    return opened_engine(folder, backend=backend, device=device, threads=2)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=WHERE, ids="-".join)
def where(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Backend and device."""
    return request.param


@pytest.fixture(scope="module")
def engine(where: tuple[str, str], request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The committed engine, run by each backend on each of its devices."""
    gpu_engine = request.getfixturevalue("gpu_engine") if where[0] == "tensorrt" else None
    with closing(open_on(where, gpu_engine)) as ready:
        yield ready


@pytest.fixture(scope="module")
def fields() -> Pixels:
    """Twelve drawn fields."""
    return np.stack([np.asarray(draw_field(np.random.default_rng(seed), 224, 224)) for seed in range(12)])


def test_the_engine_says_what_it_is(engine: Engine, where: tuple[str, str]) -> None:
    manifest = Manifest.read(ALL4)
    info = engine.info
    assert info.backend.startswith(where[0])
    assert info.device == where[1]
    assert (info.name, info.labels, info.preprocess) == (manifest.name, manifest.labels, manifest.preprocess)
    assert (info.onnx_sha256, info.checkpoint_sha256) == (manifest.onnx_sha256, manifest.checkpoint_sha256)
    assert info.precision in PRECISIONS[where]


@pytest.mark.parametrize("images", [0, 1, 7, 33, 70])
def test_each_image_gets_one_row_of_logits(engine: Engine, fields: Pixels, images: int) -> None:
    logits = engine.infer(np.tile(fields, (6, 1, 1, 1))[:images]).logits
    assert logits.shape == (images, 4)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_images_that_differ_get_logits_that_differ(engine: Engine, fields: Pixels) -> None:
    assert len(np.unique(engine.infer(fields).logits, axis=0)) == len(fields)


def test_an_answer_depends_on_no_other_image_and_on_no_place(engine: Engine, fields: Pixels) -> None:
    together = engine.infer(fields).logits
    order = np.random.default_rng(0).permutation(len(fields))
    differences = [together - engine.infer(fields[order]).logits[order.argsort()]]
    differences += [together[row] - engine.infer(fields[row : row + 1]).logits[0] for row in (0, 11)]
    differences.append(
        together[:3] - engine.infer(np.concatenate([fields[:3], np.full_like(fields[:3], 255)])).logits[:3]
    )
    allowed = ROUNDING[engine.info.precision]
    assert max(float(np.abs(difference).max()) for difference in differences) <= allowed


def test_how_the_pixels_lie_in_memory_makes_no_difference(engine: Engine, fields: Pixels) -> None:
    strided = np.asfortranarray(fields[:6])[::2]
    np.testing.assert_allclose(
        engine.infer(strided).logits,
        engine.infer(fields[:6:2].copy()).logits,
        atol=max(1e-3, ROUNDING[engine.info.precision]),
    )


def test_an_answer_is_the_callers_own(engine: Engine, fields: Pixels) -> None:
    pixels = fields[:3].copy()
    first = engine.infer(pixels).logits
    then = first.copy()
    engine.infer(fields[3:6])
    np.testing.assert_array_equal(first, then)
    np.testing.assert_array_equal(pixels, fields[:3])
    first[:] = 0
    np.testing.assert_allclose(engine.infer(pixels).logits, then, atol=max(1e-3, ROUNDING[engine.info.precision]))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 224, 224, 3), np.float32),
        np.zeros((2, 3, 224, 224), np.uint8),
        np.zeros((2, 224, 225, 3), np.uint8),
        np.zeros((224, 224, 3), np.uint8),
        np.zeros((0, 224, 224), np.uint8),
    ],
    ids=lambda wrong: f"{wrong.shape} {wrong.dtype}",
)
def test_pixels_of_another_shape_or_type_are_refused(engine: Engine, fields: Pixels, wrong: Pixels) -> None:
    with pytest.raises(EngineError, match="224"):
        engine.infer(wrong)
    assert len(engine.infer(fields[:1]).logits) == 1, "it goes on after that"


def test_closing_twice_is_harmless(where: tuple[str, str], request: pytest.FixtureRequest) -> None:
    engine = open_on(where, request.getfixturevalue("gpu_engine") if where[0] == "tensorrt" else None)
    engine.close()
    engine.close()


def test_as_many_threads_as_it_says_may_ask_it_at_one_time(engine: Engine, fields: Pixels) -> None:
    with ThreadPoolExecutor(engine.lanes) as pool:
        answers = [outputs.logits for outputs in pool.map(engine.infer, [fields] * 8)]
    for answer in answers:
        np.testing.assert_allclose(answer, answers[0], atol=ROUNDING[engine.info.precision])


def test_pixels_on_the_gpu_are_answered_as_those_on_the_host(engine: Engine, fields: Pixels) -> None:
    if engine.info.device == "cpu":
        pytest.skip("of engines on a GPU")
    there = torch.from_numpy(fields).to(engine.info.device)
    torch.cuda.synchronize()
    for images in (0, 5, 12):
        on_gpu = engine.infer(DevicePixels((images, *fields.shape[1:]), there.data_ptr(), there)).logits
        np.testing.assert_allclose(on_gpu, engine.infer(fields[:images]).logits, atol=ROUNDING[engine.info.precision])


@pytest.mark.skipif(not find_spec("openvino"), reason="no openvino")
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_the_speed_and_not_the_answer(fields: Pixels, threads: int) -> None:
    with (
        closing(opened_engine(ALL4, threads=threads)) as several,
        closing(opened_engine(ALL4, threads=2)) as two,
    ):
        np.testing.assert_array_equal(several.infer(fields).logits, two.infer(fields).logits)


def test_every_backend_answers_as_pytorch_does_in_float32(engine: Engine, fields: Pixels) -> None:
    if engine.info.backend == "null":
        pytest.skip("it answers nothing")
    with closing(opened_engine(ALL4, backend="torch", threads=2)) as reference:
        ours, theirs = to_predictions(engine.infer(fields).logits), to_predictions(reference.infer(fields).logits)
    assert np.abs(ours.probabilities - theirs.probabilities).max() < 0.05
    decided = np.sort(theirs.probabilities, axis=1)[:, -1] - np.sort(theirs.probabilities, axis=1)[:, -2] > 0.1
    assert decided.sum() > 10
    np.testing.assert_array_equal(ours.labels[decided], theirs.labels[decided])


def test_tensorrt_refuses_the_cpu() -> None:
    pytest.importorskip("cuda.bindings")
    with pytest.raises(EngineError, match="--device cuda"):
        opened_engine(ALL4, backend="tensorrt", threads=1)


@pytest.mark.skipif(not find_spec("openvino"), reason="no openvino")
def test_a_device_that_a_backend_cannot_use_is_refused() -> None:
    with pytest.raises(EngineError, match="cuda:0"):
        opened_engine(ALL4, backend="openvino", device="cuda:0", threads=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_pytorch_without_a_gpu_refuses_one() -> None:
    with pytest.raises(EngineError, match="cuda:0"):
        opened_engine(ALL4, backend="torch", device="cuda:0", threads=1)


def test_pytorch_refuses_an_engine_that_came_from_onnx(tiny_engine: Path) -> None:
    with pytest.raises(EngineError, match="--backend openvino"):
        opened_engine(tiny_engine, backend="torch", threads=1)
