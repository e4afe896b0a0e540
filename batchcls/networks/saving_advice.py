"""The advice to save the weights alone, under a name that nothing has, for files that batchcls does not read."""

import os
import shlex
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from batchcls.networks.allow_list import STAND_INS, UNREADABLE
from batchcls.networks.unpickling_stand_ins import ObjectStandIn

_MOST_NAMES = 1000
"""Largest number of names of classes in a file that is looked into for an advice."""


def saving_advice(path: Path) -> str:
    """The lines of Python that save the weights of a file alone, and the command to build them, as text for an error.

    Args:
        path: A file saved by PyTorch, which stays as it is: the lines name a file that is not there.
    """
    return (
        "if you trust it, save its weights alone, in the program that made it: import torch; "
        f"{_loading(path)}; torch.save(weights, {str(_new_path(path))!r}); then: {_command(path)}"
    )


def training_advice(path: Path) -> str:
    """The line of Python by which a training saves weights, and the command to build them, as text for an error."""
    return f"in training, run: torch.save(model.state_dict(), {str(_new_path(path))!r}); then: {_command(path)}"


def weights_alone_advice(path: Path) -> str:
    """How to get a copy of a trained file that holds nothing but weights, as text for an error."""
    if path.suffix == ".safetensors":
        copy = str(unused_path(path.with_stem(f"{path.stem}_state_dict")))
        lines = f"from safetensors.torch import load_file, save_file; save_file(load_file({str(path)!r}), {copy!r})"
        return f"copy its weights alone: {lines}"
    if path.suffix == ".onnx":
        copy = str(unused_path(path.with_stem(f"{path.stem}_network")))
        lines = (
            f"import onnx; model = onnx.load({str(path)!r}); del model.metadata_props[:]; onnx.save(model, {copy!r})"
        )
        return f"copy it without its metadata: {lines}"
    return f"save the weights alone, in another file: torch.save(model.state_dict(), {str(_new_path(path))!r})"


def unused_path(path: Path) -> Path:
    """``path``, or where something is there already, a path with a number at the end of the name."""
    number, unused = 1, path
    while os.path.lexists(unused):
        number += 1
        unused = path.with_stem(f"{path.stem}{number}")
    return unused


def _command(path: Path) -> str:
    command = ["batchcls", "build", str(_new_path(path)), "--labels", "A,B,...", "--out", f"engines/{path.stem}"]
    return shlex.join(command)


def _new_path(path: Path) -> Path:
    """The path of a file that does not exist, beside ``path``."""
    return unused_path(path.with_name(f"{path.stem}_state_dict.pth"))


def _loading(path: Path) -> str:
    """The Python that takes the weights out of a file, for a whole module, a dictionary of one, or one of weights."""
    load = f"torch.load({str(path)!r}, weights_only=False)"
    contents = _contents_by_stand_ins(path)
    if isinstance(contents, Mapping):
        for key, value in contents.items():
            if isinstance(value, ObjectStandIn) and "_modules" in value.attributes():
                return f"weights = {load}[{key!r}].state_dict()"
        for key, value in contents.items():
            if isinstance(value, Mapping) and any(isinstance(tensor, Tensor) for tensor in value.values()):
                return f"weights = {load}[{key!r}]"
    return f"model = {load}; weights = model.state_dict()"


def _contents_by_stand_ins(path: Path) -> Any:
    """What a file holds, with a stand-in for each object of any class, so that nothing is run; None if unknown."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if len(names) > _MOST_NAMES:
            return None
        others = [(ObjectStandIn, name) for name in names]
        with warnings.catch_warnings(), torch.serialization.safe_globals([*STAND_INS, *others]):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="meta", weights_only=True)
    except UNREADABLE:
        return None
