"""However a network was saved it is read as the same, and what does not fit is named."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from batchcls.errors import BatchclsError
from batchcls.networks.architectures import empty_network
from batchcls.networks.checkpoint import load_network
from batchcls.networks.heads import Head, HeadLayer

State = dict[str, Tensor]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small images gain nothing from more, and lose much where other processes want the cores too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A MobileNetV2 for four classes, with random weights and statistics."""
    return randomised(torchvision.models.mobilenet_v2(num_classes=4))


def randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(4)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.dtype.is_floating_point:
            tensor.normal_(0, tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1, generator=generator)
    return module.eval()


def answers_equal(ours: nn.Module, theirs: nn.Module, tolerance: float = 0.0) -> bool:
    images = torch.randn((2, 3, 96, 96), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        return torch.allclose(ours(images), theirs(images), rtol=0, atol=tolerance)


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def lightning(state: State) -> dict[str, Any]:
    return {
        "epoch": 7,
        "pytorch-lightning_version": "2.5.0",
        "hyper_parameters": {"lr": 1e-3, "labels": ["a", "b"]},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(9)}}, "param_groups": [{"lr": 1e-3}]}],
        "state_dict": {**prefixed("net.", state), "loss.weight": torch.ones(4)},
    }


@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        lambda state: {"state_dict": prefixed("module.", state), "epoch": 3},
        lambda state: {"model_state_dict": prefixed("_orig_mod.", state), "optimizer_state_dict": {"state": {}}},
        lambda state: {"model": prefixed("module.model.", state)},
        lambda state: {"model": {"state_dict": prefixed("model.", state)}},
        lightning,
    ],
)
def test_a_checkpoint_may_be_wrapped(wrap: Callable[[State], Any], trained: nn.Module, tmp_path: Path) -> None:
    torch.save(wrap(trained.state_dict()), tmp_path / "a.pth")

    network = load_network(tmp_path / "a.pth")

    assert (network.architecture, network.classes) == ("mobilenet_v2", 4)
    assert network.ignored == (("loss.weight",) if wrap is lightning else ())
    assert answers_equal(network.module, trained)


def test_a_checkpoint_may_be_safetensors_or_of_the_old_format(trained: nn.Module, tmp_path: Path) -> None:
    save_file(prefixed("model.", trained.state_dict()), tmp_path / "a.safetensors")
    torch.save(trained.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)

    for name in ("a.safetensors", "old.pth"):
        assert answers_equal(load_network(tmp_path / name).module, trained)


def test_half_precision_is_read_as_float32(trained: nn.Module, tmp_path: Path) -> None:
    kinds = torch.float16, torch.bfloat16
    state = {name: tensor.to(kinds[place % 2]) for place, (name, tensor) in enumerate(trained.state_dict().items())}
    torch.save(state, tmp_path / "a.pth")

    module = load_network(tmp_path / "a.pth").module

    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert all(torch.equal(tensor, state[name].float()) for name, tensor in module.named_parameters())


@pytest.mark.parametrize(("auxiliary", "transform_input"), [(True, True), (False, False)])
def test_googlenet_may_carry_its_auxiliary_heads(auxiliary: bool, transform_input: bool, tmp_path: Path) -> None:
    options = {"num_classes": 4, "init_weights": False, "transform_input": transform_input}
    trained = randomised(torchvision.models.googlenet(aux_logits=auxiliary, **options))
    torch.save(trained.state_dict(), tmp_path / "a.pth")

    network = load_network(tmp_path / "a.pth", transform_input=transform_input)

    assert (network.architecture, network.classes) == ("googlenet", 4)
    assert answers_equal(network.module, trained)


@pytest.mark.parametrize(
    ("architecture", "last_layer", "head"),
    [
        ("resnet18", "fc", lambda: nn.Sequential(nn.Dropout(0.3), nn.Linear(512, 3))),
        ("mobilenet_v2", "classifier", lambda: nn.Linear(1280, 3)),
        ("alexnet", "classifier", lambda: nn.Sequential(nn.Dropout(0.3), nn.Linear(9216, 3))),
    ],
)
def test_the_last_layer_may_have_been_replaced(
    architecture: str, last_layer: str, head: Callable[[], nn.Module], tmp_path: Path
) -> None:
    trained = torchvision.models.get_model(architecture, weights=None)
    setattr(trained, last_layer, head())
    torch.save(randomised(trained).state_dict(), tmp_path / "a.pth")

    network = load_network(tmp_path / "a.pth", architecture)

    assert (network.architecture, network.classes) == (architecture, 3)
    assert answers_equal(network.module, trained, 1e-6)


SHORT = Head("classifier", (HeadLayer("", "linear", 25088, 5, has_bias=True),))
"""The head of a VGG whose file has not half a gigabyte."""


@pytest.mark.parametrize("architecture", ["cnn", "inception_v3", "resnet34", "resnet101", "vgg16", "vgg16_bn"])
def test_an_architecture_is_known_by_its_weights(architecture: str, tmp_path: Path) -> None:
    replaced = SHORT if architecture.startswith("vgg") else None
    state = empty_network(architecture, 5, replaced).state_dict()
    torch.save({name: torch.zeros(tensor.shape, dtype=torch.float16) for name, tensor in state.items()}, tmp_path / "a")

    network = load_network(tmp_path / "a")

    assert (network.architecture, network.classes) == (architecture, 5)


def two_networks(state: State) -> State:
    return prefixed("student.", state) | prefixed("teacher.", state)


def normalized_head(state: State) -> State:
    norm = dict.fromkeys(("weight", "bias", "running_mean"), torch.zeros(1280))
    return {**state, **{f"classifier.0.{name}": tensor for name, tensor in norm.items()}}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (
            dict,
            {"architecture": "resnet50"},
            r"does not fit 'resnet50': \d+ of its tensors are missing .*closest to 'mobilenet_v2'",
        ),
        (dict, {"architecture": "resnet"}, "architecture 'resnet' is not known; nearest are "),
        (dict, {"transform_input": True}, "transform_input is true, but mobilenet_v2 has no such step"),
        (two_networks, {}, "holds several networks, under .*student.*teacher"),
        (
            lambda state: {**state, "extra.weight": torch.zeros(3)},
            {},
            "closest to 'mobilenet_v2', but .*build model.onnx",
        ),
        (normalized_head, {}, r"closest to 'mobilenet_v2', but .*unexpected \(classifier.0.weight, "),
    ],
)
def test_what_does_not_fit_is_refused_with_the_names_that_differ(
    change: Callable[[State], State], options: dict[str, Any], message: str, trained: nn.Module, tmp_path: Path
) -> None:
    torch.save(change(trained.state_dict()), tmp_path / "a.pth")

    with pytest.raises(BatchclsError, match=message):
        load_network(tmp_path / "a.pth", **options)
