"""Weights are found under any key, beside anything harmless; of several the taken ones are named, and can be chosen."""

import datetime
import decimal
import functools
import pathlib
import pickle
import random
import types
import uuid
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from click.testing import CliRunner
from lightning.fabric.utilities.data import AttributeDict
from PIL import Image
from torch import Tensor, nn

from batchcls.cli import main
from batchcls.engine.manifest import Manifest
from batchcls.errors import CheckpointError
from batchcls.explanation.model import trained_file_of_engine
from batchcls.networks.architectures import trainable_network
from batchcls.networks.checkpoint import load_network
from batchcls.networks.trained_file import load_trained_file

State = dict[str, Tensor]


def state(seed: int = 1) -> State:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return dict(trainable_network("cnn", 3).state_dict())


def begins_with(prefix: str, tensors: State) -> State:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def is_of(module: nn.Module, tensors: State) -> bool:
    return all(torch.equal(tensor, tensors[name]) for name, tensor in module.state_dict().items())


HARMLESS = {
    "NumPy numbers": {"best": np.float64(0.93), "epoch": np.int64(3), "ok": np.bool_(True), "name": np.str_("run")},
    "NumPy arrays": {"means": np.zeros((3, 4)), "names": np.array(["x", "y"]), "mixed": np.array(["a", None], object)},
    "a random state": {"random": np.random.RandomState(3).get_state()},
    "random generators": {
        "own": np.random.default_rng(3),
        "old": np.random.RandomState(3),
        "python": random.Random(3),
    },
    "Lightning's optimizer by Hydra": {
        "hyper_parameters": {
            "optimizer": functools.partial(torch.optim.AdamW, lr=1e-3),
            "scheduler": functools.partial(torch.optim.lr_scheduler.ReduceLROnPlateau, mode="min"),
        }
    },
    "choices": {
        "args": Namespace(
            interpolation=torchvision.transforms.InterpolationMode.BICUBIC, resample=Image.Resampling.BICUBIC
        )
    },
    "an element type": {"dtype": np.dtype("float32"), "kind": np.float32},
    "default dictionaries": {"history": defaultdict(list, {"loss": [1.0, 0.5]}), "n": defaultdict(int, a=1)},
    "ordered and counted": {"order": OrderedDict(a=1), "counts": Counter("abca"), "last": deque([1, 2], maxlen=5)},
    "sets": {"frozen": frozenset({1, 2}), "seen": {"a", "b"}},
    "namespaces": {
        "args": Namespace(lr=0.1, out=Path("x")),
        "more": types.SimpleNamespace(a=types.SimpleNamespace(b=1)),
    },
    "Lightning's parameters": {"hyper_parameters": AttributeDict(lr=0.1, nested=AttributeDict(a=1))},
    "paths": {"out": Path("/data/run"), "pure": pathlib.PureWindowsPath("C:/data")},
    "times": {
        "when": datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC),
        "took": datetime.timedelta(hours=3),
        "day": datetime.date(2024, 5, 1),
    },
    "numbers": {
        "exact": decimal.Decimal("0.1"),
        "id": uuid.UUID(int=5),
        "z": 1j,
        "range": range(3),
        "cut": slice(1, 2),
    },
    "types": {"factory": int, "kind": torch.float16, "device": torch.device("cpu"), "version": torch.__version__},
}


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("new", [True, False])
def test_what_is_harmless_beside_the_weights_is_read(name: str, new: bool, tmp_path: Path) -> None:
    content = {"state_dict": state(), **HARMLESS[name]}
    torch.save(content, tmp_path / "m.pth", _use_new_zipfile_serialization=new)

    assert is_of(load_network(tmp_path / "m.pth").module, state())


def test_layers_and_losses_as_parameters_of_a_training_are_read(tmp_path: Path) -> None:
    chosen = {"norm": functools.partial(nn.LayerNorm, eps=1e-6), "loss": nn.CrossEntropyLoss(weight=torch.ones(3))}
    content = {"hyper_parameters": chosen, "state_dict": state()}
    torch.save(content, tmp_path / "new.pth")
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)

    assert is_of(load_network(tmp_path / "new.pth").module, state())
    with pytest.raises(CheckpointError, match=r"holds a pickled module, and batchcls never runs code"):
        load_network(tmp_path / "old.pth")


class Own:
    """What only the user's code knows."""


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.path)!r}, 'w')",)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (lambda path: Own(), "Own"),
        (lambda path: {"nested": [Namespace(trap=Trap(path))]}, "exec"),
        (lambda path: np.array([Trap(path)], object), "exec"),
        (lambda path: defaultdict(list, {"a": Trap(path)}), "exec"),
        (lambda path: nn.Linear(2, 2), "Linear"),
        (lambda path: eval, "eval"),
        (lambda path: functools.partial(exec, f"open({str(path)!r}, 'w')"), "exec"),
        (lambda path: functools.partial(nn.LayerNorm, Trap(path)), "exec"),
        (lambda path: pickle.loads, "loads"),
    ],
)
def test_what_would_have_to_be_run_is_refused_as_before(
    content: Callable[[Path], Any], named: str, tmp_path: Path
) -> None:
    torch.save({"state_dict": state(), "more": content(tmp_path / "ran")}, tmp_path / "m.pth")

    with pytest.raises(CheckpointError, match=rf"holds a pickled [\w.]*{named}, and batchcls never runs code"):
        load_network(tmp_path / "m.pth")
    assert not (tmp_path / "ran").exists()


def test_an_object_that_claims_to_be_an_array_claims_no_memory(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return np.dtype, ("V1000000000",)

    torch.save({"state_dict": state(), "kind": Hostile(), "big": np.zeros(10**5)}, tmp_path / "m.pth")

    assert is_of(load_network(tmp_path / "m.pth").module, state())


OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(9)}, 1: {"exp_avg": torch.zeros(9)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: {"net": net},
        lambda net: {"weights": net, "best_acc": torch.tensor(0.9), "class_weights": torch.ones(3)},
        lambda net: {"my_cell_classifier": net, "optimizer": OPTIMIZER, "epoch": 3},
        lambda net: {"checkpoint": {"epoch": 3, "model": net}, "optimizer_state_dict": OPTIMIZER},
        lambda net: {"a": {"b": {"c": net}}},
        lambda net: {"ema": {"module": net}},
        lambda net: {"n_averaged": torch.tensor(7), **begins_with("module.", net)},
        lambda net: {"state_dict": net, "criterion": {"weight": torch.ones(3)}, "scaler": {"scale": torch.ones(())}},
        lambda net: {"model": net, "loss_fn": {f"w{number}": torch.ones(3) for number in range(99)}},
    ],
)
def test_weights_are_found_under_any_key(wrap: Callable[[State], Any], tmp_path: Path) -> None:
    torch.save(wrap(state()), tmp_path / "m.pth")

    network = load_network(tmp_path / "m.pth")

    assert is_of(network.module, state())
    assert network.other_weights_keys == ()


SEVERAL: dict[str, tuple[Callable[[State, State], Any], str]] = {
    "state_dict_ema": (lambda raw, mean: {"state_dict": raw, "state_dict_ema": mean}, "state_dict_ema"),
    "the mean first": (lambda raw, mean: {"model_ema": mean, "model": raw}, "model_ema"),
    "ema": (lambda raw, mean: {"model": raw, "ema": {"module": mean, "updates": 9}}, "ema"),
    "swa": (lambda raw, mean: {"net": raw, "swa_model": begins_with("module.", mean)}, "swa_model"),
    "an unknown key": (lambda raw, mean: {"classifier": raw, "classifier_ema": mean}, "classifier_ema"),
    "of a callback": (
        lambda raw, mean: {"state_dict": raw, "callbacks": {"EMACallback": {"ema_state_dict": mean}}},
        "ema_state_dict",
    ),
    "Lightning's StochasticWeightAveraging": (
        lambda raw, mean: {
            "state_dict": begins_with("net.", raw),
            "callbacks": {
                "StochasticWeightAveraging": {
                    "n_averaged": torch.tensor(3),
                    "average_model_state": begins_with("net.", mean),
                }
            },
        },
        "average_model_state",
    ),
    "AveragedModel": (
        lambda raw, mean: {
            "model": raw,
            "swa_state_dict": {"n_averaged": torch.tensor(7), **begins_with("module.", mean)},
        },
        "swa_state_dict",
    ),
    "by their names": (
        lambda raw, mean: {"state_dict": begins_with("model.", raw) | begins_with("ema_model.", mean)},
        "ema_model",
    ),
    "best beside last": (lambda raw, mean: {"state_dict": raw, "best_state": mean}, "best_state"),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_of_several_weights_the_plain_ones_are_taken_and_the_others_named_and_can_be_chosen(
    name: str, tmp_path: Path
) -> None:
    wrap, key = SEVERAL[name]
    torch.save(wrap(state(1), state(2)), tmp_path / "m.pth")
    labels = {"labels": ("a", "b", "c")}

    plain = load_trained_file(tmp_path / "m.pth", None, labels)
    chosen = load_trained_file(tmp_path / "m.pth", None, {**labels, "state_dict": key})

    assert is_of(plain.network.module, state(1))
    assert any(
        "left out" in note and f"--state-dict {plain.network.other_weights_keys[0]} takes" in note
        for note in plain.notes
    )
    assert is_of(chosen.network.module, state(2))
    assert is_of(
        load_trained_file(
            tmp_path / "m.pth", None, {**labels, "state_dict": plain.network.other_weights_keys[0]}
        ).network.module,
        state(2),
    )


def parameters(tensors: State) -> State:
    return {name: tensor for name, tensor in tensors.items() if "running_" not in name and "num_batches" not in name}


@pytest.mark.parametrize(
    ("wrap", "key"),
    [
        (lambda raw, mean: {"model": raw, "shadow": parameters(mean)}, "shadow"),
        (
            lambda raw, mean: {"model": raw, "ema": {"decay": 0.99, "shadow_params": [*parameters(mean).values()]}},
            "shadow_params",
        ),
    ],
    ids=["by name", "in order"],
)
def test_a_mean_of_the_parameters_alone_takes_the_statistics_of_the_plain_weights(
    wrap: Callable[[State, State], Any], key: str, tmp_path: Path
) -> None:
    raw, mean = state(1), state(2)
    raw["features.1.running_mean"] += 1
    torch.save(wrap(raw, mean), tmp_path / "m.pth")

    plain, chosen = load_network(tmp_path / "m.pth"), load_network(tmp_path / "m.pth", weights=key)

    assert is_of(plain.module, raw)
    assert any(key in other for other in plain.other_weights_keys)
    assert is_of(chosen.module, {**raw, **parameters(mean)})


def test_an_engine_of_chosen_weights_is_explained_with_the_same(tmp_path: Path) -> None:
    torch.save({"state_dict": state(1), "state_dict_ema": state(2)}, tmp_path / "m.pth")
    arguments = ["build", tmp_path / "m.pth", "--out", tmp_path / "e", "--labels", "a,b,c", "--device", "cpu"]

    result = CliRunner().invoke(main, [*map(str, arguments), "--state-dict", "state_dict_ema"])

    assert result.exit_code == 0, result.output
    assert "weights state_dict_ema; left out: state_dict, which --state-dict state_dict takes" in result.stderr
    assert Manifest.read(tmp_path / "e").weights == "state_dict_ema"
    assert is_of(trained_file_of_engine(tmp_path / "e", None).network.module, state(2))


@pytest.mark.parametrize(
    ("content", "weights", "message"),
    [
        (
            {"state_dict": state(), "ema": state(2)},
            "emma",
            "holds no weights under 'emma'; --state-dict takes ema or state",
        ),
        (
            {"student": state(), "teacher": state(2)},
            "",
            "several sets of weights; choose one: --state-dict student or teacher",
        ),
        (state(), "ema", "holds no weights under 'ema'; --state-dict takes none: there is one set alone"),
    ],
)
def test_what_is_not_there_or_not_clear_is_refused_with_the_keys_that_are(
    content: Any, weights: str, message: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "m.pth")

    with pytest.raises(CheckpointError, match=message):
        load_network(tmp_path / "m.pth", weights=weights)


def test_one_of_two_networks_in_a_file_is_chosen_by_what_its_names_begin_with(tmp_path: Path) -> None:
    torch.save(begins_with("student.", state(1)) | begins_with("teacher.", state(2)), tmp_path / "m.pth")

    assert is_of(load_network(tmp_path / "m.pth", weights="teacher").module, state(2))


def test_an_onnx_file_holds_one_network(tiny_onnx: Path, tmp_path: Path) -> None:
    arguments = ["build", tiny_onnx, "--out", tmp_path / "e", "--labels", "a,b,c", "--state-dict", "ema"]

    result = CliRunner().invoke(main, list(map(str, arguments)))

    assert result.exit_code == 1
    assert "is ONNX, which holds one network alone; leave --state-dict out" in result.stderr


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda tensor: tensor.to_sparse(),
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor.to("meta"),
    ],
    ids=["quantized", "sparse", "complex", "meta"],
)
def test_weights_that_are_no_plain_numbers_are_refused(change: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    tensors = state()
    tensors["fc.weight"] = change(tensors["fc.weight"])
    torch.save(tensors, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"holds 'fc.weight' as a quantized, sparse, complex or empty tensor"):
        load_network(tmp_path / "model.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_weights_of_a_training_that_went_astray_are_refused(value: float, tmp_path: Path) -> None:
    tensors = state()
    tensors["fc.weight"][1, 2] = value
    torch.save(tensors, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"holds values in 'fc\.weight' that are NaN or infinite"):
        load_network(tmp_path / "model.pth")
