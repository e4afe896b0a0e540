"""What is fuzzed: a parser, sound inputs of it, how they are changed, and what may come of it."""

import io
import json
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset  # before the memory is limited
import pyarrow.parquet as pq
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper

from batchcls.building.onnx.classifier import _image_input, read_model
from batchcls.cli.info import engine_facts
from batchcls.engine.manifest import MANIFEST, Manifest
from batchcls.engine.plan_sidecar import Sidecar
from batchcls.engine.plan_sidecar import Target as Plan
from batchcls.errors import BatchclsError
from batchcls.evaluation.evaluate import EvaluationOptions, evaluate_predictions
from batchcls.evaluation.provenance import describe_provenance, describe_throughput
from batchcls.evaluation.report import ReportOptions, write_report
from batchcls.images.formats.inspection import decode, examine
from batchcls.images.formats.jpeg_markers import jpeg_header
from batchcls.images.formats.refusal import RefusedError
from batchcls.images.labels.labeled_images import LabeledImages
from batchcls.networks.checkpoint_metadata import CheckpointMetadata
from batchcls.networks.label_files import read_labels
from batchcls.networks.label_resolution import resolve_labels
from batchcls.networks.recipe import Recipe
from batchcls.networks.tensors import read_trained_tensors
from batchcls.predictions.integrity import rewrite_notes
from batchcls.predictions.reader import PredictionsFile
from batchcls.predictions.schema import file_schema
from batchcls.records import METADATA_KEY
from batchcls.storage.resumable_output import ResumableOutput
from batchcls.training.history import HISTORY_SCHEMA
from benchmarks.workload import draw_field
from tests.conftest import ALL4
from tests.faults.mutations import Mutator, changed, mutated_bytes, mutated_json, mutated_words

_MOST_PIXELS = 4_000_000


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    seeds: Callable[[Path], Sequence[bytes]]
    """Made in an empty folder."""
    mutated: Mutator
    tried: Callable[[bytes, Path], object]
    """Reads an input in an empty folder; anything but `allowed` is a find."""
    allowed: tuple[type[BaseException], ...] = (BatchclsError,)


def _images(folder: Path) -> list[bytes]:
    picture = draw_field(np.random.default_rng(5), 40, 28)
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        *(
            ("JPEG", "RGB", save)
            for save in ({}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1})
        ),
        *(("JPEG", mode, {}) for mode in ("L", "CMYK")),
        *(("PNG", mode, {}) for mode in ("RGB", "L", "P", "RGBA", "1", "LA", "I;16")),
        *(("BMP", mode, {}) for mode in ("RGB", "L", "1", "RGBA")),
        *(("DIB", mode, {}) for mode in ("RGB", "L")),
        *(
            ("TIFF", "RGB", {"compression": name})
            for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
        ),
        *(("TIFF", mode, {}) for mode in ("L", "P", "CMYK", "RGBA", "1", "LAB")),
        ("TIFF", "1", {"compression": "group4"}),
        ("TIFF", "RGB", {"big_tiff": True}),
        *(("WEBP", mode, {"lossless": lossless}) for mode in ("RGB", "RGBA") for lossless in (True, False)),
        *(("JPEG2000", mode, {}) for mode in ("RGB", "L")),
        ("JPEG2000", "RGB", {"no_jp2": True}),
        *(("PPM", mode, {}) for mode in ("RGB", "L", "1")),
    ]
    found = []
    for kind, mode, save in kinds:
        stream = io.BytesIO()
        picture.convert("RGB").convert("L" if mode == "I;16" else mode).convert(mode).save(stream, kind, **save)
        found.append(stream.getvalue())
    return [*found, b"P3 2 2 255 1 2 3 4 5 6 7 8 9 10 11 12", b"P2 2 2 9 1 2 3 4", b"P1 2 2 0 1 1 0"]


def _try_image(data: bytes, folder: Path) -> None:
    header = examine("image", data, _MOST_PIXELS)
    try:
        pixels = decode(data, header)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # a decoder turns it into the file's row
        return
    if pixels.shape != (header.height, header.width, 3) or pixels.dtype != np.uint8:
        raise AssertionError(f"{pixels.shape} {pixels.dtype} of {header}")


def _jpegs(folder: Path) -> list[bytes]:
    return [data for data in _images(folder) if data.startswith(b"\xff\xd8")]


def _try_manifest(data: bytes, folder: Path) -> None:
    (folder / MANIFEST).write_bytes(data)
    manifest = Manifest.read(folder)
    json.dumps(engine_facts(folder, manifest), ensure_ascii=False).encode()
    manifest.info(backend="openvino", device="cpu", precision="f32")
    manifest.write(folder)
    if asdict(Manifest.read(folder)) != asdict(manifest):
        raise AssertionError("it reads otherwise once it was written")


def _sidecars(folder: Path) -> list[bytes]:
    plan = Plan("tensorrt", "10.16", "sm86", "NVIDIA RTX A4000", "570.1", "13.0")
    sidecar = Sidecar("0" * 64, 12, "1" * 64, plan, 64, "fp16", 3, "2026-11-26T00:00:00+00:00")
    path = folder / "plan.json"
    sidecar.write(path)
    check = {"probes": 16, "top1_agreement": 1.0, "largest_difference": 0.01}
    return [path.read_bytes(), json.dumps({**json.loads(path.read_bytes()), "check": check}).encode()]


def _try_sidecar(data: bytes, folder: Path) -> None:
    path = folder / "plan.json"
    path.write_bytes(data)
    sidecar = Sidecar.read(path)
    sidecar.misfits("1" * 64, {"tensorrt": Plan("tensorrt", "10.16", "sm86")})
    json.dumps(asdict(sidecar), ensure_ascii=False).encode()


_RECIPE = b"""architecture = "googlenet"  # a comment
labels = ["Benign", 'Early', "Pre", "Pro"]
precision = "fp16"
temperature = 1.25
size_px = [224, 224]
resize = "shorter"
shorter_px = 256
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 1]
interpolation = "bicubic"
"""


def _try_recipe(data: bytes, folder: Path) -> None:
    path = folder / "recipe.toml"
    path.write_bytes(data)
    json.dumps(asdict(Recipe.compose(path, {"channels": "BGR"})), ensure_ascii=False).encode()


def _weights() -> dict[str, torch.Tensor]:
    return {"conv.weight": torch.ones(2, 3, 1, 1), "fc.weight": torch.ones(3, 2), "fc.bias": torch.zeros(3)}


def _safetensors(folder: Path) -> list[bytes]:
    recipe = {"recipe": {"architecture": "cnn", "labels": ["a", "b", "c"]}, "training": {"images": "0" * 64}}
    says = {METADATA_KEY.decode(): json.dumps(recipe), "id2label": '{"0": "a", "1": "b", "2": "c"}'}
    return [safetensors.torch.save(_weights(), says), safetensors.torch.save(_weights())]


def _mutated_safetensors(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    if chance.random() < 0.2:
        return mutated_bytes(chance, seeds)
    seed = chance.choice([seed for seed in seeds if len(seed) > 8])
    (length,) = struct.unpack("<Q", seed[:8])
    header = mutated_json(chance, [seed[8 : 8 + length]])
    return struct.pack("<Q", len(header)) + header + seed[8 + length :]


def _try_weights(name: str) -> Callable[[bytes, Path], None]:
    def tried(data: bytes, folder: Path) -> None:
        path = folder / name
        path.write_bytes(data)
        Recipe.compose(None, {}, CheckpointMetadata.read(path).recipe)
        trained = read_trained_tensors(path)
        resolve_labels(path, 3, ("a", "b", "c"), trained.contents)

    return tried


def _checkpoints(folder: Path) -> list[bytes]:
    held = {"state_dict": _weights(), "epoch": 3, "class_to_idx": {"a": 0, "b": 1, "c": 2}, "mean": np.float64(0.5)}
    found = []
    for values in (_weights(), held, {"model": _weights(), "names": np.array(["a", "b", "c"])}):
        for zipped in (True, False):
            stream = io.BytesIO()
            torch.save(values, stream, _use_new_zipfile_serialization=zipped)
            found.append(stream.getvalue())
    return [*found, pickle.dumps({"a": [1, 2.5, "x", None]}, protocol=2)]


def _mutated_checkpoint(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Of an archive mostly the pickle in it, for its checksums hide the rest."""
    seed = chance.choice(seeds)
    if not seed.startswith(b"PK") or chance.random() < 0.2:
        return mutated_bytes(chance, [seed, *seeds])
    try:
        with zipfile.ZipFile(io.BytesIO(seed)) as archive:
            items = {name: archive.read(name) for name in archive.namelist()}
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        OSError,
        ValueError,
        EOFError,
        RuntimeError,
        zlib.error,
    ):  # one that was changed before
        items = {}
    if not any(name.endswith("data.pkl") for name in items):
        return mutated_bytes(chance, seeds)
    name = chance.choice([name for name in items if name.endswith("data.pkl")] * 3 + list(items))
    items[name] = mutated_bytes(chance, [items[name]])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in items.items():
            archive.writestr(name, content)
    return stream.getvalue()


_LABELS = {
    ".json": (
        [b'["a", "b", "c"]', b'{"0": "a", "1": "b"}', b'{"a": 0, "b": 1}', b'{"id2label": {"0": "a", "1": "b"}}']
        + [b'[{"index": 0, "label": "a"}, {"index": 1, "label": "b"}]'],
        mutated_json,
    ),
    ".yaml": (
        [b"names:\n  0: a\n  1: b\n", b"- a\n- b\n", b"labels: &a [a, b]\nnames: *a\n", b"{a: 0, b: 1}"],
        mutated_words,
    ),
    ".csv": ([b"index,label\n0,a\n1,b\n", b"a;0\nb;1\n", b'sep=;\nname;id\n"a b";1\nc;0\n', b"a,b,c\n"], mutated_words),
    ".txt": ([b"a\nb\nc\n", b"0 a\n1 b\n", b"a: 0\nb: 1\n", b"1) a\n2) b\n", b"a 0\r\nb 1\r\n"], mutated_words),
}


def _try_labels(suffix: str) -> Callable[[bytes, Path], None]:
    def tried(data: bytes, folder: Path) -> None:
        path = folder / f"labels{suffix}"
        path.write_bytes(data)
        Recipe.compose(None, {"labels": read_labels(path)})

    return tried


_TABLE = b"path,label,group,split\n" + b"".join(
    b"a/%d.png,c%d,p%d,%s\n" % (n, n % 3, n % 5, b"train") for n in range(12)
)
_TABLES = [
    _TABLE,
    _TABLE.replace(b",", b";").replace(b"\n", b"\r\n"),
    b"sep=\t\n" + _TABLE.replace(b",", b"\t"),
    _TABLE.decode().encode("utf-16"),
    b'\xef\xbb\xbfPath, Label \n"a\\b.png","x,y"\n"c ""d"".png",z\n',
    "path,label\nä.png,é\n".encode("cp1252"),
]
_ROWS = b"".join(b'{"path": "a/%d.png", "label": "c%d", "split": "test"}\n' % (n, n % 2) for n in range(6))


def _try_table(suffix: str) -> Callable[[bytes, Path], None]:
    def tried(data: bytes, folder: Path) -> None:
        path = folder / f"table{suffix}"
        path.write_bytes(data)
        LabeledImages.read(path, "path").of_split(None, path)
        LabeledImages.read(path, r"^([^/]+)/").of_split(None, path)

    return tried


def _tables(folder: Path) -> list[bytes]:
    table = pa.table({"path": [f"a/{n}.png" for n in range(6)], "label": list("ababab"), "split": ["test"] * 6})
    found = []
    for options in ({}, {"compression": "zstd"}, {"use_dictionary": False, "version": "1.0"}):
        pq.write_table(table, folder / "table.parquet", **options)
        found.append((folder / "table.parquet").read_bytes())
    return found


_COLUMNS: dict[str, Any] = {
    "root": ["/slides"] * 4,
    "path": ["a/1.png", "a/2.png", "b/3.png", "b/4.png"],
    "label": ["a", "b", None, "a"],
    "probability": [0.75, 0.875, None, 0.5],
    "probabilities": [[0.75, 0.25], [0.125, 0.875], None, [0.5, 0.5]],
    "width": [640, 640, None, 640],
    "height": [480, 480, None, 480],
    "error": [None, None, "corrupt: x", None],
}
_METADATA: dict[str, Any] = {
    "labels": ["a", "b"],
    "engine": {"name": "tiny", "onnx_sha256": "0", "checkpoint_sha256": "1"},
    "preprocess": {"size_px": [224, 224], "resize": "stretch", "shorter_px": 256, "interpolation": "bilinear"}
    | {"mean": [0.5] * 3, "std": [0.5] * 3, "transform_input": False, "channels": "BGR"},
    "throughput": {
        "files": 4,
        "images_per_s": 2.5,
        "elapsed_s": 1.5,
        "peak_memory_bytes": 2**28,
        "seconds": {"read": 1},
    },
    "counts": {"rows": 4, "labels": {"a": 2, "b": 1}, "errors": {"corrupt": 1}, "resumed_rows": 0, "skipped": {}},
    "unlisted_folders": [],
    "versions": {"batchcls": "1"},
    "arguments": ["run"],
}


def _table(columns: dict[str, Any], metadata: Any) -> bytes:
    said = {METADATA_KEY: metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()}
    try:
        table = pa.table({name: columns[name] for name in file_schema(2).names}, file_schema(2).with_metadata(said))
    except (pa.ArrowException, KeyError, TypeError, ValueError, OverflowError):
        arrays = {name: _array(values) for name, values in columns.items()}
        longest = max(map(len, arrays.values()), default=0)
        padded = [pa.concat_arrays([item, pa.nulls(longest - len(item), item.type)]) for item in arrays.values()]
        table = pa.table(padded, list(arrays))
        table = table.replace_schema_metadata(said)
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def _array(values: Any) -> pa.Array:
    with suppress(pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.array(values if isinstance(values, list) else [values])
    return pa.array(
        [str(value).encode("utf-8", "replace").decode() for value in (values if isinstance(values, list) else [values])]
    )


def _predictions(folder: Path) -> list[bytes]:
    return [_table(_COLUMNS, _METADATA), _table(_COLUMNS, {})]


def _mutated_predictions(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    kind = chance.random()
    if kind < 0.2:
        return mutated_bytes(chance, seeds)
    columns, metadata = _COLUMNS, _METADATA
    for _ in range(chance.choice((1, 1, 2, 4))):
        if kind < 0.6:
            metadata = changed(chance, metadata)
        else:
            columns = changed(chance, columns)
    if not isinstance(columns, dict) or not columns:
        columns = _COLUMNS
    text = json.dumps(metadata, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        return _table({str(name).encode("utf-8", "replace").decode(): values for name, values in columns.items()}, text)
    except (pa.ArrowException, ValueError):  # what Parquet has no place for
        return mutated_bytes(chance, seeds)


_LINES = b"".join(
    b'{"root": "s", "path": "%d.png", "label": "a", "probability": 0.75, "probabilities": {"a": 0.75, "b": 0.25}, '
    b'"width": 64, "height": 48, "size_bytes": 100, "modified": "2026-11-26T13:47:41.216638Z", "error": null}\n'
    % number
    for number in range(4)
)


def _try_predictions(ending: str) -> Callable[[bytes, Path], None]:
    def attempt(data: bytes, folder: Path) -> None:
        path = folder / f"rows{ending}"
        path.write_bytes(data)
        with suppress(BatchclsError):
            for part in PredictionsFile.parts(path):
                _look_at(part)
        _look_at(PredictionsFile.read(path))

    return attempt


def _look_at(predicted: PredictionsFile) -> None:
    rows = len(predicted.table)
    shapes = predicted.readable.shape, predicted.codes.shape, predicted.probabilities.shape, len(predicted.files)
    if shapes != ((rows,), (rows,), (rows, len(predicted.labels)), rows):
        raise AssertionError(f"{shapes} of {rows} rows")
    json.dumps([describe_provenance(predicted.metadata), list(predicted.errors)])
    describe_throughput(predicted.metadata)
    rewrite_notes(predicted.metadata, predicted.labels, rows)


def _try_report(data: bytes, folder: Path) -> None:
    path = folder / "rows.parquet"
    path.write_bytes(data)
    write_report(path, folder / "page.html", ReportOptions(images=1))


def _try_evaluation(data: bytes, folder: Path) -> None:
    path, truth = folder / "rows.parquet", folder / "truth.csv"
    path.write_bytes(data)
    truth.write_text("path,label\na/1.png,a\na/2.png,b\nb/3.png,a\nb/4.png,b\n")
    evaluate_predictions(EvaluationOptions(path, truth), folder / "evaluation")


_IDENTITY = {"slides": ["/slides"], "engine": {"name": "tiny", "labels": ["a", "b"]}, "decoder": "turbo", "number": 3}
_RUN = json.dumps({"started": "2026-11-26T00:00:00.000+00:00", "identity": _IDENTITY}).encode()


def _try_run(data: bytes, folder: Path) -> None:
    (folder / "rows.parquet.partial").mkdir()
    (folder / "rows.parquet.partial" / "run.json").write_bytes(data)
    ResumableOutput(folder / "rows.parquet", HISTORY_SCHEMA, _IDENTITY).close()


def _networks(folder: Path) -> list[bytes]:
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["image"], ["mean"]), helper.make_node("Flatten", ["mean"], ["flat"])]
        + [helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.ones(3, np.float32)))]
        + [helper.make_node("Gemm", ["flat", "w", "k"], ["scores"], transB=1)],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"names": "a,b,c"})
    return [model.SerializeToString()]


def _try_network(data: bytes, folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(data)
    _image_input(path, read_model(path))


TARGETS = (
    Target("images", _images, mutated_bytes, _try_image, (RefusedError,)),
    Target("JPEG markers", _jpegs, mutated_bytes, lambda data, folder: jpeg_header(data), ()),
    Target("engine.json", lambda folder: [(ALL4 / MANIFEST).read_bytes()], mutated_json, _try_manifest),
    Target("sidecars", _sidecars, mutated_json, _try_sidecar),
    Target("recipes", lambda folder: [_RECIPE], mutated_words, _try_recipe),
    Target("safetensors", _safetensors, _mutated_safetensors, _try_weights("a.safetensors")),
    Target("checkpoints", _checkpoints, _mutated_checkpoint, _try_weights("a.pth")),
    *(
        Target(f"labels {suffix}", lambda folder, seeds=seeds: seeds, mutated, _try_labels(suffix))
        for suffix, (seeds, mutated) in _LABELS.items()
    ),
    Target("tables .csv", lambda folder: _TABLES, mutated_words, _try_table(".csv")),
    Target("tables .jsonl", lambda folder: [_ROWS], mutated_words, _try_table(".jsonl")),
    Target("tables .parquet", _tables, mutated_bytes, _try_table(".parquet")),
    Target("predictions", _predictions, _mutated_predictions, _try_predictions(".parquet")),
    Target("predictions .jsonl", lambda folder: [_LINES], mutated_words, _try_predictions(".jsonl")),
    Target("report", _predictions, _mutated_predictions, _try_report),
    Target("evaluate", _predictions, _mutated_predictions, _try_evaluation),
    Target("run.json", lambda folder: [_RUN], mutated_json, _try_run),
    Target("ONNX", _networks, mutated_bytes, _try_network),
)
