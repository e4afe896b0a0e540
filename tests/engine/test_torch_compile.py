"""A network is compiled where that can be done, and else it is said why not, and what to do."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from batchcls.engine.backends.torch_compile import compiled
from batchcls.networks.appearance import appearance
from batchcls.networks.architectures import PixelClassifier
from batchcls.networks.feature_modules import Appearance
from batchcls.networks.preprocess import Preprocess
from tests.c_libraries import COMPILER
from tests.commandline import PATIENCE_S

PIXELS = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).reshape(2, 4, 4, 3)


@pytest.fixture
def classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A network of one layer; what is compiled of it is kept below ``tmp_path``."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    layers = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    return PixelClassifier(layers, Preprocess(size_px=(4, 4)), torch.float32).eval()


@pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
def test_a_compiled_network_answers_as_it_did(classifier: nn.Module, tmp_path: Path) -> None:
    function, note = compiled(classifier, PIXELS)

    assert function is not None, note
    assert note == "" or "was compiled for this GPU in " in note
    with torch.inference_mode():
        torch.testing.assert_close(function(PIXELS), classifier(PIXELS))
    assert any((tmp_path / "cache").rglob("*.so")), "for the next start"


@pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
def test_features_are_compiled_as_well_and_stay_what_they_are(classifier: nn.Module) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), dtype=np.uint8)
    function, note = compiled(Appearance().eval(), torch.from_numpy(pixels))

    assert function is not None, note
    with torch.inference_mode():
        np.testing.assert_allclose(function(torch.from_numpy(pixels)).numpy(), appearance(pixels), rtol=1e-4)


WITHOUT_COMPILER = """
import torch
from batchcls.engine.backends.torch_compile import compiled

function, note = compiled(torch.nn.ReLU().eval(), torch.zeros(2, 4))
print(function, note, sep="\\n")
"""


def test_without_a_compiler_the_reason_and_the_command_are_named(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER],
        env=os.environ | {"CXX": "/nonexistent/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )

    function, note = process.stdout.splitlines()
    assert function == "None"
    assert note.startswith(
        "the network is not compiled, and so computed more slowly: InvalidCxxCompiler: No working C++"
    )
    assert note.endswith("run: apt-get install gcc python3-dev")


@pytest.mark.parametrize(("name", "value"), [("TORCHDYNAMO_DISABLE", "1"), ("TORCH_COMPILE_DISABLE", "1")])
def test_where_the_environment_forbids_it_nothing_is_compiled(
    name: str, value: str, classifier: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch._dynamo.config as dynamo

    monkeypatch.setenv(name, value)
    with dynamo.patch(disable=name == "TORCH_COMPILE_DISABLE"):  # PyTorch reads this one when it is imported
        function, note = compiled(classifier, PIXELS)

    assert function is None
    assert note.endswith("the environment says so; run: unset TORCHDYNAMO_DISABLE TORCH_COMPILE_DISABLE")
    assert not list(tmp_path.rglob("*.so"))
