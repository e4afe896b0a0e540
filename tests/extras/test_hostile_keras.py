"""Hostile Keras files run nothing, read nothing beside themselves, take little memory, and are refused in one line."""

import json
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.building.keras.configuration import UnsafeConfigurationError, checked_configuration
from batchcls.building.keras.known_layers import CLASSES
from tests.extras.answers import refusal
from tests.extras.keras_models import keras, layers, small_network

LABELS = ("--labels", "a,b,c,d")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, in itself


@pytest.fixture(scope="module")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("networks") / "net.keras"
    small_network().save(path)
    return path


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(source: Path, path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a `.keras` file with another configuration."""
    contents = entries(source)
    configuration = json.loads(contents["config.json"])
    change(configuration)
    contents["config.json"] = json.dumps(configuration).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def replaced(layer: Any) -> Callable[[dict[str, Any]], object]:
    """A change that puts a layer behind the input layer."""
    return lambda configuration: configuration["config"]["layers"].insert(1, layer)


def set_value(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    """A change of a setting of the first convolution."""
    return lambda configuration: configuration["config"]["layers"][1]["config"].__setitem__(key, value)


TOUCH = "__import__('pathlib').Path('ran').touch()"
LAMBDA = {"class_name": "__lambda__", "config": {"code": "4wAAAA==", "defaults": None, "closure": None}}


def named(name: str, module: str | None, config: Any = None, registered: str | None = None) -> dict[str, Any]:
    return {"class_name": name, "module": module, "config": config or {"name": "x"}, "registered_name": registered}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced(named("Lambda", "keras.layers", {"name": "x", "function": LAMBDA})), "is Python code"),
        (replaced(named("Lambda", "keras.src.layers.core.lambda_layer", {"function": LAMBDA})), "is Python code"),
        (replaced(named("system", "os", {"command": "touch ran"})), "of class 'system' of module 'os'"),
        (replaced(named("Dense", "os", {"units": 3})), "of class 'Dense' of module 'os'"),
        (replaced(named("Dense", "keras_hub.layers", {"units": 3})), "of class 'Dense' of module 'keras_hub.layers'"),
        (replaced(named("Dense", "keras.layers", {"units": 3}, "mine>Dense")), "registered as 'mine>Dense'"),
        (replaced(named("Mine", None, registered="mine>Mine")), "of class 'Mine'"),
        (replaced(named("TFSMLayer", "keras.layers", {"filepath": "/etc"})), "reads a SavedModel"),
        (replaced(named("TorchModuleWrapper", "keras.layers", {"module": TOUCH})), "is a pickled module of PyTorch"),
        (replaced(named("JaxLayer", "keras.layers")), "none that batchcls knows to be safe"),
        (replaced(named("StringLookup", "keras.layers", {"vocabulary": "/etc/passwd"})), "knows to be safe"),
        (replaced(named("TextVectorization", "keras.layers", {"vocabulary": "/etc/passwd"})), "knows to be safe"),
        (replaced(named("FeatureSpace", "keras.utils")), "knows to be safe"),
        (replaced(named("get_file", "keras.utils", {"origin": "http://127.0.0.1/x"})), "knows to be safe"),
        (replaced(named("Map", "keras.src.ops.core", {"function": LAMBDA})), "knows to be safe"),
        (replaced(named("TimeDistributed", "keras.layers", {"layer": named("Lambda", None)})), "knows to be safe"),
        (set_value("activation", LAMBDA), "is Python code"),
        (set_value("activation", "os.system"), "activation 'os.system' is none of Keras's own"),
        (set_value("activation", named("function", "os", "system", "system")), "of class 'function' of module 'os'"),
        (set_value("dtype", named("QuantizedDTypePolicy", "keras", {"mode": "int8"})), "knows to be safe"),
        (set_value("filters", named("system", "os", {"command": "touch ran"})), "of module 'os'"),
        (set_value("filters", 1 << 40), "filters is 1099511627776, beyond"),
        (set_value("filters", 1 << 20), "bytes of weights for a network of"),
        (set_value("padding", ["same"] * 10_000), "padding holds 10,000 items"),
        (set_value("unknown_setting", 3), "cannot be made by Keras: .*unknown_setting"),
        (lambda configuration: configuration["config"].pop("layers"), "cannot be"),
        (lambda configuration: configuration.update(class_name="Subclass"), "whose code is not in the file"),
        (lambda configuration: configuration.update(module="subprocess"), "of module 'subprocess'"),
    ],
)
def test_a_configuration_that_names_more_than_layers_is_refused(
    change: Any, message: str, network_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = changed(network_file, tmp_path / "net.keras", change)

    line = refusal(path, tmp_path, *LABELS)

    assert re.search(message, line), line
    assert not (tmp_path / "ran").exists()


def test_initializers_regularizers_and_constraints_are_never_looked_at(network_file: Path, tmp_path: Path) -> None:
    evil = named("system", "os", {"command": "touch ran"})
    keys = ("kernel_initializer", "kernel_regularizer", "activity_regularizer", "bias_constraint")

    configuration = json.loads(entries(network_file)["config.json"])
    configuration["config"]["layers"][1]["config"].update(dict.fromkeys(keys, evil))
    configuration["compile_config"] = {"optimizer": evil, "loss": evil}

    assert '"os"' not in json.dumps(checked_configuration(configuration))


def lambda_in_hdf5(path: Path) -> None:
    """What Keras itself would run: safe_mode is ignored for such files."""
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Lambda(lambda x: x * 2), layers.Flatten(), layers.Dense(4)]
    )
    model.save(path)


def soft_link(path: Path) -> None:
    small_network().save(path)
    with h5py.File(path, "a") as file:
        file["model_weights/link"] = h5py.SoftLink("/model_weights")


def external_link(path: Path) -> None:
    with h5py.File(path.with_name("secret.h5"), "w") as secret:
        secret["kernel"] = np.zeros((3, 3, 3, 8))
    small_network().save(path)
    with h5py.File(path, "a") as file:
        file["model_weights/link"] = h5py.ExternalLink("secret.h5", "/kernel")


def external_storage(path: Path) -> None:
    path.with_name("secret").write_bytes(b"\x00" * 1024)
    small_network().save(path)
    with h5py.File(path, "a") as file:
        file.create_dataset("model_weights/more", (256,), "f4", external=[(str(path.with_name("secret")), 0, 1024)])


def virtual_dataset(path: Path) -> None:
    small_network().save(path)
    layout = h5py.VirtualLayout((16,), "f4")
    layout[:] = h5py.VirtualSource(str(path.with_name("secret.h5")), "x", (16,))
    with h5py.File(path, "a") as file:
        file["model_weights"].create_virtual_dataset("more", layout)


def huge_shape(path: Path) -> None:
    small_network().save(path)
    with h5py.File(path, "a") as file:
        file.create_dataset("model_weights/more", (1 << 40,), "f4", chunks=(1 << 16,))


def bomb(path: Path) -> None:
    small_network().save(path)
    with h5py.File(path, "a") as file:
        file.create_dataset("model_weights/more", data=np.zeros(1 << 23, "f4"), compression="gzip")


def objects_for_numbers(path: Path) -> None:
    small_network().save(path)
    with h5py.File(path, "a") as file:
        file.create_dataset("model_weights/more", data=["x"] * 3, dtype=h5py.string_dtype())


def circle(path: Path) -> None:
    small_network().save(path)
    with h5py.File(path, "a") as file:
        file["model_weights/again"] = file["model_weights"]


def huge_configuration(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs.create("model_config", np.zeros(1 << 16, "S1024"))


def other_weights(path: Path) -> None:
    small_network().save(path)
    with h5py.File(path, "a") as file:
        group = file["model_weights"]
        name = next(name for name in group if name.startswith("dense"))
        del group[name]


def text(path: Path) -> None:
    path.write_text("no HDF5")


def cut(path: Path) -> None:
    small_network().save(path)
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda_in_hdf5, "of class 'Lambda' is Python code, which batchcls never runs from a file; replace it"),
        (soft_link, "'/model_weights/link' is a link, which is never followed"),
        (external_link, "'/model_weights/link' is a link to 'secret.h5', which is never followed"),
        (external_storage, "lies in another file, which is never read"),
        (virtual_dataset, "lies in parts of other files, which is never read"),
        (huge_shape, "but claims 4,39"),
        (bomb, "but claims 33,5"),
        (objects_for_numbers, "holds object, and not numbers"),
        (circle, "is in a circle"),
        (huge_configuration, "is no text of a usual length"),
        (other_weights, "holds weights that do not fit its network"),
        (text, "is damaged, or no file of Keras"),
        (cut, "is damaged, or no file of Keras"),
    ],
)
def test_an_hdf5_file_with_more_than_a_network_is_refused(
    write: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "net.h5")

    assert message in refusal(tmp_path / "net.h5", tmp_path, *LABELS)


def rewritten(source: Path, path: Path, **contents: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (entries(source) | contents).items():
            archive.writestr(name, content)


def zip_bomb(source: Path, path: Path) -> None:
    rewritten(source, path, **{"model.weights.h5": bytes(1 << 26)})


def configuration_bomb(source: Path, path: Path) -> None:
    rewritten(source, path, **{"config.json": b" " * (1 << 26)})


def lying_size(source: Path, path: Path) -> None:
    """The archive's directory says that a bomb is small."""
    zip_bomb(source, path)
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 1 << 26), struct.pack("<I", 1000)))


def nested(source: Path, path: Path) -> None:
    rewritten(source, path, **{"config.json": b"[" * 100_000})


def path_traversal(source: Path, path: Path) -> None:
    """Other entries are never unpacked, so that this one does nothing; the network is without its weights."""
    contents = entries(source)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", contents["config.json"])
        archive.writestr("../../model.weights.h5", contents["model.weights.h5"])
        archive.writestr("assets/../../ran", "x")


def linked_weights(source: Path, path: Path) -> None:
    weights = path.with_name("w.h5")
    weights.write_bytes(entries(source)["model.weights.h5"])
    with h5py.File(weights, "a") as file:
        file["layers/link"] = h5py.ExternalLink("/etc/passwd", "/")
    rewritten(source, path, **{"model.weights.h5": weights.read_bytes()})


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (zip_bomb, "would inflate to 67,108,864"),
        (configuration_bomb, "would inflate to 67,108,864"),
        (lying_size, "is damaged, or no file of Keras"),
        (nested, "is no JSON"),
        (path_traversal, "holds no config.json and model.weights.h5"),
        (linked_weights, "is a link to '/etc/passwd', which is never followed"),
    ],
)
def test_an_archive_with_more_than_a_network_is_refused(
    write: Callable[[Path, Path], None], message: str, network_file: Path, tmp_path: Path
) -> None:
    write(network_file, tmp_path / "net.keras")

    assert message in refusal(tmp_path / "net.keras", tmp_path, *LABELS)
    assert not (tmp_path.parent / "ran").exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["class_name", "module", "config", "registered_name", "layers", "name", "activation", "dtype"]
            )
            | st.text(max_size=8),
            inner
            | st.sampled_from(
                ["Functional", "Sequential", "Dense", "Lambda", "__lambda__", "function", "os", "keras.layers"]
            ),
            max_size=5,
        )
    ),
    max_leaves=20,
)


def class_names(value: Any) -> list[tuple[Any, Any]]:
    """Each class that a configuration names, with its module."""
    if isinstance(value, list):
        return [found for item in value for found in class_names(item)]
    if not isinstance(value, dict):
        return []
    own = [(value["class_name"], value.get("module"))] if "class_name" in value else []
    return own + [found for item in value.values() for found in class_names(item)]


@given(layers=st.lists(JSON, max_size=4), inner=JSON)
def test_what_passes_the_check_names_nothing_but_known_classes(layers: list[Any], inner: Any) -> None:
    value = {"class_name": "Sequential", "module": "keras", "config": {"name": "x", "layers": layers, "more": inner}}
    known = {(name, module) for (_, name), module in CLASSES.items()}
    constants = {"__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__"}
    try:
        checked = checked_configuration(value)
    except UnsafeConfigurationError:
        return

    for name, module in class_names(checked):
        assert (name, module) in known or (name in constants and module is None)
