"""Each peer that is installed answers as the network in float32 does; the others are skipped by name."""

import ast
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from batchcls.building.onnx.classifier import load_classifier, own_answer
from batchcls.building.reference import Reference, torch_answer
from batchcls.engine.manifest import Manifest
from batchcls.engine.postprocess import predictions
from benchmarks import peers
from benchmarks.networks import Network, prepared, unfused_googlenet
from benchmarks.peers.environment import dependencies, install, python_for
from benchmarks.peers.memory import Watch
from benchmarks.workload import CROPS
from tests.conftest import ALL4

CROPS_64 = replace(CROPS, images=64)
SCRIPTS = sorted({peer.script for peer in peers.PEERS.values()} | {"seeded_network"})
PEERS = [name for name in peers.PEERS if not name.endswith(("-0", "-1")) and "compile" not in name]
"""One number of workers each. Compiling alone takes over a minute; how far it agrees is in every record of it."""
DISTRIBUTIONS = {"PIL": "pillow"}
"""Where they are not named as their module is."""

Prepare = Callable[[str], Network]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return sorted(CROPS_64.draw(tmp_path_factory.mktemp("peers")).iterdir())


@pytest.fixture(scope="module")
def prepare(tmp_path_factory: pytest.TempPathFactory) -> Prepare:
    scratch = tmp_path_factory.mktemp("networks")
    return cache(lambda name: prepared(name, scratch))


def expected(network: Network, files: list[Path]) -> npt.NDArray[np.float32]:
    """The probabilities by the float32 ONNX file."""
    reference = Reference(
        own_answer(network.onnx, load_classifier(network.onnx)), Manifest.read(network.engine).preprocess
    )
    _, logits = reference.logits([str(file) for file in files])
    return predictions(logits).probabilities


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_stands_alone_and_names_what_it_imports(script: str) -> None:
    path = peers.script_path(script)
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)}
    modules = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names
    named = {requirement.partition("[")[0] for requirement in dependencies(path)}
    assert {DISTRIBUTIONS.get(module, module) for module in modules} <= named


def test_a_script_without_metadata_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import torch\n")
    with pytest.raises(ValueError, match=r"script\.py.*inline metadata"):
        dependencies(script)


def test_an_environment_is_made_once_and_again_if_its_scripts_need_something_else(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("# /// script\n# dependencies = []\n# ///\n")
    assert install("empty", [script], tmp_path)
    (python,) = {python_for(script, "empty", tmp_path)}
    assert python == tmp_path / "empty" / "bin" / "python"
    made = (tmp_path / "empty" / "pyvenv.cfg").stat().st_mtime_ns
    assert not install("empty", [script], tmp_path)
    assert (tmp_path / "empty" / "pyvenv.cfg").stat().st_mtime_ns == made
    script.write_text('# /// script\n# dependencies = ["no-such-package"]\n# ///\n')
    assert python_for(script, "empty", tmp_path) is None


def test_without_an_environment_ours_will_do_if_it_holds_everything(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text('# /// script\n# dependencies = ["numpy>=2", "pillow"]\n# ///\n')
    assert python_for(script, "none", tmp_path) == Path(sys.executable)


def test_what_a_peer_starts_counts_for_its_memory() -> None:
    hold = "import time; held = b'1' * {}; time.sleep({})"
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold.format(200 << 20, 2)!r}])"
    process = subprocess.Popen([sys.executable, "-c", start])
    with Watch(process.pid) as watch:
        process.wait()
    assert 200 << 20 < watch.peak_bytes < 300 << 20


def test_a_failing_peer_is_heard() -> None:
    with pytest.raises(RuntimeError, match=r"torchvision_loop failed with exit code 1: [\s\S]*KeyError: 'settings'"):
        peers.run_script(Path(sys.executable), "torchvision_loop", {})


def test_googlenets_three_forms_are_one_network(files: list[Path], prepare: Prepare) -> None:
    network = prepare("googlenet")
    preprocess = Manifest.read(ALL4).preprocess
    model = unfused_googlenet(ALL4, 4)
    weights = torch.load(network.weights, weights_only=True)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    _, logits = Reference(torch_answer(model), preprocess).logits([str(file) for file in files[:4]])
    np.testing.assert_allclose(expected(network, files[:4]), predictions(logits).probabilities, atol=1e-4)
    assert network.engine == ALL4


def test_networks_are_kept(prepare: Prepare) -> None:
    network = prepare("googlenet")
    written = network.onnx.stat().st_mtime_ns
    assert prepared("googlenet", network.onnx.parents[2]) == network
    assert network.onnx.stat().st_mtime_ns == written


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_answers_each_file_as_float32_does(name: str, files: list[Path], prepare: Prepare) -> None:
    peer = peers.PEERS[name]
    peer = replace(peer, settings={**peer.settings, "seconds": 1})
    if not peers.installed(peer) or "cpu" not in peer.devices:
        pytest.skip(f"{peer.name} is not installed, or is for GPUs alone")
    network = prepare(peer.network)
    sample = peers.take(peer, files[0].parent, files, network, "cpu")
    assert sample.elapsed_s > 0
    assert sample.images > 0
    assert sample.peak_memory_bytes > 2**26
    if peer.kind == "engine-only":
        assert not sample.answers
        return
    assert set(sample.answers) == {file.name for file in files}
    found, wanted = np.array([sample.answers[file.name] for file in files]), expected(network, files)
    np.testing.assert_allclose(found, wanted, atol=0.05)  # bfloat16; the others are closer than 0.001
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.95
