"""What a file is that holds no checkpoint, as its first bytes tell, and what to do with it instead."""

import pickletools
import re
import shlex
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from batchcls.networks.allow_list import UNREADABLE
from batchcls.networks.onnx_advice import export_advice
from batchcls.networks.saving_advice import training_advice, unused_path

_HEAD_BYTES = 1 << 16
"""Number of bytes at the beginning of a file that are looked at."""
_MOST_OPERATIONS = 200
"""Largest number of operations of a pickle that are looked at; none of them is carried out."""
_ANOTHER = "name the file that the training saved"
_KERAS = "give it the ending .keras, by which batchcls build knows such files"
_HDF5 = "give it the ending .h5, by which batchcls build knows such files"

_BY_FIRST_BYTES = {
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file, as Keras writes it", _HDF5),
    b"\xff\xd8\xff": ("a JPEG image", _ANOTHER),
    b"\x89PNG": ("a PNG image", _ANOTHER),
    b"GIF8": ("a GIF image", _ANOTHER),
    b"II*\x00": ("a TIFF image", _ANOTHER),
    b"MM\x00*": ("a TIFF image", _ANOTHER),
    b"%PDF": ("a PDF document", _ANOTHER),
    b"\x93NUMPY": ("an array of NumPy", _ANOTHER),
    b"version https://git-lfs": ("a pointer of Git LFS in the place of the file", "fetch the file: git lfs pull"),
    b"<": ("a page of HTML or XML", "the download went wrong, perhaps for want of a login: fetch the file again"),
    b"{": ("JSON text", _ANOTHER),
}
"""What a file with these first bytes is, and what to do."""
_ONNX = re.compile(rb"\x08[\x03-\x20](\x12|\x1a|\x22|\x28|\x32|\x3a|\x42)")
"""First bytes of an ONNX file: its version of the format, 3 or later, then another field of `onnx.ModelProto`."""
_TORCH_SAVE = re.compile(rb"\x80.\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", re.DOTALL)
"""First bytes of what `torch.save` wrote before version 1.6."""
_SAFETENSORS = re.compile(rb".{8}\{\s*\"", re.DOTALL)


def foreign_kind(path: Path, size_px: tuple[int, int] = (224, 224)) -> str:
    """What a file is that is no checkpoint of PyTorch, and what to do instead, as text for an error; else empty.

    Args:
        path: A file that can be read.
        size_px: Height and width of the network's input, for advice on an export.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if not head:
        return f"is empty; {_ANOTHER}"
    if _SAFETENSORS.match(head):
        ending = "is a safetensors file, by its content; give it the ending .safetensors"
        return "" if path.suffix == ".safetensors" else ending
    for beginning, (kind, remedy) in _BY_FIRST_BYTES.items():
        if head.startswith(beginning):
            return f"is {kind}, not a checkpoint; {remedy}"
    if head[4:8] == b"TFL3":
        return f"is a network of TensorFlow Lite, not a checkpoint; {_conversion('--tflite', path)}"
    if head.startswith(b"\x1f\x8b"):
        own_name = path.with_suffix("") if path.suffix == ".gz" else path.with_stem(f"{path.stem}_unpacked")
        unpacking = f"zcat {shlex.quote(str(path))} > {shlex.quote(str(unused_path(own_name)))}"
        return f"is compressed by gzip; unpack it, and name that file: {unpacking}"
    if path.suffix == ".pb":
        return f"is a graph of TensorFlow, not a checkpoint; {_conversion('--saved-model', path.parent)}"
    if _ONNX.match(head):
        return "is an ONNX file, by its content; give it the ending .onnx"
    is_archive = head.startswith(b"PK\x03\x04")
    kind = _kind_of_archive(path, size_px) if is_archive else _kind_of_pickle(path, head)
    if not kind and path.suffix == ".safetensors" and (is_archive or _TORCH_SAVE.match(head)):
        return "is a checkpoint of PyTorch, by its content; give it the ending .pth"
    return kind


def kind_of_folder(path: Path) -> str:
    """What a folder is that holds no network in a known form, and what to do, as text for an error."""
    if (path / "saved_model.pb").is_file():
        return f"is a SavedModel of TensorFlow; {_conversion('--saved-model', path)}"
    return "holds no config.json, so it is no folder of Hugging Face; name a trained file"


def _conversion(option: str, path: Path) -> str:
    """The commands that turn a network of TensorFlow into ONNX and build it, as text for an error."""
    return (
        f"turn it into ONNX: python -m tf2onnx.convert {option} {shlex.quote(str(path))} --output model.onnx; "
        "then: batchcls build model.onnx --labels A,B,... --out engines/model"
    )


def _kind_of_archive(path: Path, size_px: tuple[int, int]) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (*UNREADABLE, zipfile.BadZipFile):
        return ""
    own = {name.partition("/")[2] for name in names}
    if {"config.json", "metadata.json"} <= set(names):
        return f"is a Keras file, by its content; {_KERAS}"
    if "constants.pkl" in own:
        return f"is a TorchScript archive, which is code and which PyTorch would run; {export_advice(size_px)}"
    if own & {"archive_format", "serialized_exported_program.json"} or "serialized_exported_program.json" in names:
        return (
            "is a .pt2 archive of torch.export, which PyTorch unpickles, and batchcls never runs code from a file; "
            f"{export_advice(size_px)}"
        )
    if "data.pkl" in own:
        return ""
    if all(name.endswith(".npy") for name in names):
        return f"is an archive of NumPy arrays, not a checkpoint; {_ANOTHER}"
    return f"is a ZIP archive, not a checkpoint; unpack it, and {_ANOTHER}"


def _kind_of_pickle(path: Path, head: bytes) -> str:
    """What a pickle that `torch.save` did not write holds; empty for any other file."""
    if not head.startswith(b"\x80") or _TORCH_SAVE.match(head):
        return ""
    first = next(_names_of(head), "")
    if first.partition(".")[0] in ("sklearn", "xgboost", "lightgbm", "joblib"):
        return f"is a pickle of {first}, and batchcls builds neural networks alone; {_ANOTHER}"
    return (
        f"is a pickle that torch.save did not write, and batchcls never runs code from a file; {training_advice(path)}"
    )


def _names_of(head: bytes) -> Iterator[str]:
    """Names of the classes and functions that the beginning of a pickle refers to; nothing in it is carried out."""
    texts: list[str] = []
    with suppress(ValueError, IndexError, UnicodeError):  # the beginning of a pickle ends within an operation
        for operation, argument, _ in islice(pickletools.genops(head), _MOST_OPERATIONS):
            if operation.name == "GLOBAL":
                yield str(argument).replace(" ", ".")
            elif operation.name == "STACK_GLOBAL":
                yield ".".join(texts[-2:])
            elif isinstance(argument, str):
                texts.append(argument)
