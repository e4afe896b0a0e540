"""A file's network is found from its weights alone where one candidate fits, and has to be named where several do."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from batchcls.errors import BatchclsError, CheckpointError, RecipeError
from batchcls.networks.architecture_index import architecture_index, resemblance, sketch
from batchcls.networks.architectures import check_architecture, empty_network
from batchcls.networks.checkpoint import load_network
from batchcls.networks.torchvision_networks import torchvision_names

State = dict[str, Tensor]


def zeros(architecture: str, classes: int = 5, dtype: torch.dtype = torch.float16) -> State:
    """A file's tensors, small on the disk."""
    state = empty_network(architecture, classes).state_dict()
    return {name: torch.zeros(tensor.shape, dtype=dtype) for name, tensor in state.items()}


def file_of(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "model.pth")
    return folder / "model.pth"


@pytest.mark.parametrize(
    "architecture", ["squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5", "mobilenet_v3_small", "regnet_y_400mf", "cnn"]
)
def test_a_network_is_known_by_its_weights_where_only_one_fits(architecture: str, tmp_path: Path) -> None:
    network = load_network(file_of(zeros(architecture), tmp_path))

    assert (network.architecture, network.classes) == (architecture, 5)


@pytest.mark.parametrize(
    ("architecture", "another"),
    [("resnet18", "timm/resnetblur18"), ("resnet50", "timm/resnetblur50"), ("resnet50", "timm/resnetaa50")],
)
def test_weights_that_several_networks_fit_need_a_name(architecture: str, another: str, tmp_path: Path) -> None:
    path = file_of(zeros(architecture), tmp_path)

    with pytest.raises(CheckpointError, match=f"that compute differently.*: {architecture}, .*{another}") as refusal:
        load_network(path)
    assert "name the one that was trained: --architecture NAME" in str(refusal.value)
    assert load_network(path, architecture).architecture == architecture


@pytest.mark.parametrize(
    ("said", "by"),
    [
        ({"arch": "resnet18", "epoch": 3}, "arch"),
        ({"hyper_parameters": {"model_name": "resnet18"}}, "model_name"),
        ({"config": Namespace(architecture="resnet18", backbone="of mine")}, "architecture"),
    ],
)
def test_a_name_in_the_file_decides(said: dict[str, Any], by: str, tmp_path: Path) -> None:
    network = load_network(file_of({"state_dict": zeros("resnet18"), **said}, tmp_path))

    assert network.architecture == "resnet18"
    assert network.notes == (f"architecture resnet18, as '{by}' in the file says",)


def test_a_name_that_does_not_fit_the_weights_decides_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"several|compute differently"):
        load_network(file_of({"state_dict": zeros("resnet18"), "arch": "resnet34"}, tmp_path))


def test_a_replaced_head_and_one_channel_and_a_prefix_do_not_hide_a_network(tmp_path: Path) -> None:
    network = torchvision.models.mobilenet_v3_small()
    network.classifier[3] = nn.Sequential(nn.Linear(1024, 9), nn.ReLU(), nn.Linear(9, 4))
    network.features[0][0] = nn.Conv2d(1, 16, 3, 2, 1, bias=False)
    state = {f"model.net.{name}": tensor for name, tensor in network.state_dict().items()}

    found = load_network(file_of({"state_dict": state, "loss.weight": torch.ones(4)}, tmp_path))

    assert (found.architecture, found.classes, found.in_channels) == ("mobilenet_v3_small", 4, 1)


def test_what_is_close_to_a_network_names_it_and_the_way_by_onnx(tmp_path: Path) -> None:
    state = zeros("mobilenet_v3_small")
    state["features.5.block.1.0.weight"] = torch.zeros(96, 1, 7, 7)

    with pytest.raises(CheckpointError, match=r"closest to 'mobilenet_v3_small'") as refusal:
        load_network(file_of(state, tmp_path))
    assert "1 of its tensors are missing or of another shape (features.5.block.1.0.weight)" in str(refusal.value)
    assert "dynamic_shapes=({0: torch.export.Dim('batch')},)" in str(refusal.value)


def test_what_is_close_to_no_network_is_not_called_close(tmp_path: Path) -> None:
    own = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(99, 2))

    with pytest.raises(CheckpointError, match="no network of torchvision or timm, and is close to none") as refusal:
        load_network(file_of(own.state_dict(), tmp_path))
    assert "torch.onnx.export(model, (torch.zeros(2, 3, 224, 224),), 'model.onnx'" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("resnet81", "resnet18"), ("mobilenet_v3", "mobilenet_v3_large"), ("ResNet-18", "resnet18"), ("vgg", "vgg1")],
)
def test_a_name_with_a_typo_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(RecipeError, match=f"architecture '{name}' is not known; nearest are .*{nearest}"):
        check_architecture(name)


def test_the_index_knows_every_network_of_torchvision() -> None:
    known = {name for network in architecture_index() for name in network.names}

    assert {*torchvision_names(), "cnn"} <= known
    assert sum(name.startswith("timm/") for name in known) > 1000


def test_the_two_names_of_one_function_are_one_candidate() -> None:
    groups = [group for network in architecture_index() for group in network.alike]

    for group in groups:
        assert len(set(group)) == len(group)
    assert any({"resnet50", "timm/resnet50"} <= set(group) for group in groups)
    assert not any({"timm/efficientnet_b0", "timm/tf_efficientnet_b0"} <= set(group) for group in groups)


@given(st.sets(st.integers(0, 2**64 - 1), min_size=1), st.sets(st.integers(0, 2**64 - 1)))
def test_a_resemblance_is_whole_for_equal_sets_and_never_more(first: set[int], second: set[int]) -> None:
    assert resemblance(sketch(first), sketch(first)) == 1
    assert 0 <= resemblance(sketch(first), sketch(second)) == resemblance(sketch(second), sketch(first)) <= 1


@given(
    st.dictionaries(
        st.text("ab.01", max_size=12), st.lists(st.integers(0, 3), max_size=4).map(tuple), min_size=1, max_size=9
    )
)
def test_any_names_and_shapes_end_in_a_network_or_in_one_line(shapes: dict[str, tuple[int, ...]]) -> None:
    from batchcls.networks.architecture_identification import identify
    from batchcls.networks.tensors import TrainedTensors

    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    with pytest.raises(BatchclsError, match=r"^'model\.pth' holds no network"):
        identify(Path("model.pth"), TrainedTensors(tensors, "", (), {}))
