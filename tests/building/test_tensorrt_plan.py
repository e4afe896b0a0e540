"""`batchcls build FOLDER`: real plans by TensorRT for RTX, which makes them without a GPU, or one clear line."""

import hashlib
import io
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torchvision
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from batchcls.building.build import BuildOptions, build_engine
from batchcls.building.gpu_plans import build_plans_for
from batchcls.building.tensorrt_plan import PlanOptions, compile_plan, targets_without_gpu
from batchcls.cli import main
from batchcls.engine.manifest import Manifest, sha256
from batchcls.engine.plan_sidecar import Sidecar, Target
from tests.commandline import PATIENCE_S, after_answer
from tests.conftest import ALL4

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")

CARDS = ("sm86", "sm89", "sm120")
LABELS = ("Benign", "Early", "Pre", "Pro")
VERSION = version("tensorrt_rtx")


def build_result(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["build", *map(str, arguments)])


def build_process(*arguments: str | Path, code: str = "", **options: Any) -> "subprocess.CompletedProcess[str]":
    """`batchcls build` where no GPU is shown, with everything that it says; ``code`` runs first."""
    run = f"{code}\nfrom batchcls.cli import main; main(prog_name='batchcls')"
    return subprocess.run(
        [sys.executable, "-c", run, "build", *map(str, arguments)],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        **options,
    )


def file_contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def plan_files(*cards: str) -> set[str]:
    return {f"plans/{card}-any-tensorrt_rtx.{ending}" for card in cards for ending in ("json", "plan")}


def card_sidecar(folder: Path, card: str) -> Sidecar:
    return Sidecar.read(folder / "plans" / f"{card}-any-tensorrt_rtx.json")


def trained(architecture: str, folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = getattr(torchvision.models, architecture)(num_classes=4)
    torch.save(network.state_dict(), folder / "a.pth")
    quiet = Console(quiet=True)
    values = {"labels": LABELS, "architecture": architecture}
    build_engine(folder / "a.pth", folder / "e", BuildOptions(values=values), quiet)
    return folder / "e"


def googlenet(folder: Path) -> Path:
    return Path(shutil.copytree(ALL4, folder / "e", ignore=shutil.ignore_patterns("plans")))


ENGINE_FILES = ("engine.json", "model.onnx", "novelty.bin", "probe_features.bin")
"""Files of the engine that comes along, beside its README."""


@pytest.fixture
def tiny(tiny_engine: Path, tmp_path: Path) -> Path:
    """An engine folder without plans."""
    return Path(shutil.copytree(tiny_engine, tmp_path / "tiny"))


@pytest.fixture
def googlenet_engine(tmp_path: Path) -> Path:
    """A GoogLeNet's engine folder without plans."""
    return googlenet(tmp_path)


@pytest.mark.parametrize(
    "made", [googlenet, partial(trained, "resnet50"), partial(trained, "mobilenet_v2")], ids=["googlenet", "50", "v2"]
)
def test_a_network_gets_a_plan_for_each_card_that_is_named(made: Callable[[Path], Path], tmp_path: Path) -> None:
    engine = made(tmp_path)
    before, began = file_contents(engine), datetime.now(UTC).replace(microsecond=0)

    result = build_result(engine, "--target", "sm86, sm89,sm120")

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        *(
            f"plan for any card ({card}), tensorrt_rtx {VERSION}, fp16, batches of 64: never run: its GPU is not here"
            for card in CARDS
        ),
        f"next      batchcls run slides/ --engine {engine} --out preds.parquet",
    ]
    assert result.stderr == ""
    after = file_contents(engine)
    assert set(after) == set(before) | plan_files(*CARDS)
    assert {name: after[name] for name in before} == before
    assert len({after[name] for name in plan_files(*CARDS) if name.endswith(".plan")}) == len(CARDS)
    for card in CARDS:
        said = card_sidecar(engine, card)
        plan = after[f"plans/{card}-any-tensorrt_rtx.plan"]
        assert said.target == Target("tensorrt_rtx", VERSION, card, gpu=None, driver=None, cuda=None)
        assert (said.plan_sha256, said.plan_bytes) == (hashlib.sha256(plan).hexdigest(), len(plan))
        assert said.onnx_sha256 == Manifest.read(engine).onnx_sha256 == sha256(engine / "model.onnx")
        assert (said.batch_size, said.precision, said.optimization_level, said.check) == (64, "fp16", None, None)
        assert began <= datetime.fromisoformat(said.built) <= datetime.now(UTC)
        assert len(plan) > os.path.getsize(engine / "model.onnx") / 2


def test_every_card_that_an_error_names_can_be_had(googlenet_engine: Path) -> None:
    cards = (
        build_result(googlenet_engine, "--target", "sm1")
        .stderr.partition("makes plans for ")[2]
        .partition(";")[0]
        .split(", ")
    )

    result = build_result(googlenet_engine, "--target", ",".join(cards), "--batch-size", "1")

    assert result.exit_code == 0, result.output
    assert set(CARDS) <= set(cards)
    assert set(file_contents(googlenet_engine)) == {"README.md", *ENGINE_FILES} | plan_files(*cards)


def test_where_one_of_several_cards_cannot_be_had_there_is_no_plan_for_any(tiny: Path) -> None:
    result = build_result(tiny, "--target", "sm86,sm75")  # cards of SM75 have no matrix product in float32

    assert result.exit_code == 1
    assert f"batchcls: tensorrt_rtx {VERSION} cannot make a plan of it for batches of 64: " in result.stderr
    assert "SM75" in result.stderr
    assert sorted(path.name for path in tiny.iterdir()) == ["engine.json", "model.onnx"]


def test_each_batch_size_has_a_plan_of_its_own(tiny: Path) -> None:
    plans = set()
    for size in (1, 7, 4096):
        result = build_result(tiny, "--target", "sm86", "--batch-size", str(size))
        assert result.exit_code == 0, result.output
        assert f"batches of {size}: " in result.stdout
        assert card_sidecar(tiny, "sm86").batch_size == size
        assert file_contents(tiny).keys() == {"engine.json", "model.onnx"} | plan_files("sm86")
        plans.add(card_sidecar(tiny, "sm86").plan_sha256)

    assert len(plans) == 3


@pytest.mark.parametrize("level", [None, 0, 5])
def test_an_optimization_level_reaches_tensorrt_and_is_recorded(
    tiny: Path, level: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "batchcls.tensorrt")

    result = build_result(
        tiny, "--target", "sm86", *(["--optimization-level", str(level)] if level is not None else [])
    )

    assert result.exit_code == 0, result.output
    assert card_sidecar(tiny, "sm86").optimization_level == level
    assert ("at optimization level 0" in caplog.text) == (level == 0)


def test_too_little_workspace_is_said_in_tensorrts_words_and_leaves_everything_as_it_was(
    googlenet_engine: Path,
) -> None:
    assert (
        build_result(googlenet_engine, "--target", "sm86,sm89", "--workspace", "1024", "--batch-size", "2").exit_code
        == 0
    )
    before = file_contents(googlenet_engine)

    result = build_result(googlenet_engine, "--target", "sm86,sm89", "--workspace", "1", "--batch-size", "4")

    assert result.exit_code == 1
    assert f"batchcls: tensorrt_rtx {VERSION} cannot make a plan of it for batches of 4: " in result.stderr
    assert "OutOfMemory (Requested size was " in result.stderr
    assert file_contents(googlenet_engine) == before


@pytest.mark.parametrize(
    "options",
    [
        ("--optimization-level", "6"),
        ("--optimization-level", "-1"),
        ("--batch-size", "0"),
        ("--workspace", "0"),
        ("--device", "gpu"),
    ],
)
def test_options_beyond_their_range_are_usage_errors(tiny: Path, options: tuple[str, ...]) -> None:
    result = build_result(tiny, "--target", "sm86", *options)

    assert result.exit_code == 2
    assert options[0] in result.stderr
    assert file_contents(tiny).keys() == {"engine.json", "model.onnx"}


@pytest.mark.parametrize(
    "target", ["sm90", "sm1", "86", "SM86", "none", "current", "sm86 sm89", "sm86,sm90", "sm86,", ",", "", "sm\u00e4"]
)
def test_a_target_that_nobody_knows_is_named_beside_those_that_there_are(tiny: Path, target: str) -> None:
    result = build_result(tiny, "--target", target)

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    wrong = ", ".join(repr(name) for name in target.split(",") if name != "sm86")
    assert f"batchcls: target {wrong} was asked for, TensorRT for RTX {VERSION} makes plans for " in result.stderr
    assert "sm86, sm89, sm120" in result.stderr
    assert file_contents(tiny).keys() == {"engine.json", "model.onnx"}


def test_a_trained_file_becomes_a_folder_and_its_plans_at_once(tiny_onnx: Path, tmp_path: Path) -> None:
    result = build_result(tiny_onnx, "--out", tmp_path / "e", "--labels", "a,b,c", "--target", "sm86,sm120")

    assert result.exit_code == 0, result.output
    assert [line.partition(" ")[0] for line in result.stdout.splitlines()] == ["onnx", "never", "plan", "plan", "next"]
    assert file_contents(tmp_path / "e").keys() == {"engine.json", "model.onnx"} | plan_files("sm86", "sm120")
    assert card_sidecar(tmp_path / "e", "sm86").precision == "fp32"


def test_a_target_that_nobody_knows_is_refused_before_the_network_is_built(tiny_onnx: Path, tmp_path: Path) -> None:
    result = build_result(tiny_onnx, "--out", tmp_path / "e", "--labels", "a,b,c", "--target", "sm90")

    assert result.exit_code == 1
    assert "target 'sm90' was asked for" in result.stderr
    assert not (tmp_path / "e").exists()


def test_plans_for_other_cards_stay_when_one_is_made(tiny: Path) -> None:
    build_result(tiny, "--target", "sm86,sm89")
    before = file_contents(tiny)

    result = build_result(tiny, "--target", "sm120,sm89", "--batch-size", "8")

    assert result.exit_code == 0, result.output
    assert file_contents(tiny).keys() == {"engine.json", "model.onnx"} | plan_files(*CARDS)
    assert {name: file_contents(tiny)[name] for name in plan_files("sm86")} == {
        n: before[n] for n in plan_files("sm86")
    }
    assert [card_sidecar(tiny, card).batch_size for card in CARDS] == [64, 8, 8]


def test_a_rebuilt_folder_has_no_plans_of_the_old_network(tiny: Path, tiny_onnx: Path) -> None:
    build_result(tiny, "--target", "sm86")
    assert (tiny / "plans").is_dir()

    result = build_result(tiny_onnx, "--out", tiny, "--labels", "x,y,z", "--device", "cpu", "--overwrite")

    assert result.exit_code == 0, result.output
    assert file_contents(tiny).keys() == {"engine.json", "model.onnx"}


def test_a_terminal_shows_how_far_a_plan_is(tiny: Path) -> None:
    shown = io.StringIO()

    build_plans_for(tiny, ["sm86"], PlanOptions(), Console(force_terminal=True, file=shown, width=100))

    assert "Building engine" in shown.getvalue()


def odd_classifier(folder: Path, *steps: onnx.NodeProto, **constants: Any) -> Path:
    """An engine folder of a network that takes ``steps`` from ``flat`` to ``scores``."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            *steps,
        ],
        "odd",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "odd.onnx")
    values = {"labels": ("a", "b", "c")}
    build_engine(folder / "odd.onnx", folder / "e", BuildOptions(values=values), Console(quiet=True))
    return folder / "e"


def bitwise_not(folder: Path) -> Path:
    return odd_classifier(
        folder,
        helper.make_node("Cast", ["flat"], ["whole"], to=TensorProto.INT32),
        helper.make_node("BitwiseNot", ["whole"], ["other"]),
        helper.make_node("Cast", ["other"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["count", "flat"], ["scores"]),
    )


def bitwise_and(folder: Path) -> Path:
    return odd_classifier(
        folder,
        helper.make_node("Cast", ["flat"], ["whole"], to=TensorProto.INT32),
        helper.make_node("BitwiseAnd", ["whole", "whole"], ["other"]),
        helper.make_node("Cast", ["other"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["count", "flat"], ["scores"]),
    )


@pytest.mark.parametrize(("made", "operator"), [(bitwise_not, "BitwiseNot"), (bitwise_and, "BitwiseAnd")])
def test_an_operator_that_tensorrt_does_not_know_is_named(
    made: Callable[[Path], Path], operator: str, tmp_path: Path
) -> None:
    engine = made(tmp_path)
    before = file_contents(engine)

    result = build_result(engine, "--target", "sm86")

    assert result.exit_code == 1
    assert f"batchcls: tensorrt_rtx {VERSION} cannot read this network: " in result.stderr
    assert operator in result.stderr
    assert result.stderr.endswith("; without a plan run: batchcls run --backend onnxruntime, or with --device cpu\n")
    assert file_contents(engine) == before


def test_what_tensorrt_refuses_is_one_line_on_the_terminal(tmp_path: Path) -> None:
    engine = bitwise_not(tmp_path)

    process = build_process(engine, "--target", "sm86")

    assert process.returncode == 1
    assert len(process.stderr.splitlines()) == 1, process.stderr
    assert process.stdout == ""


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.onnx").unlink(), "holds no model.onnx; run: batchcls build CHECKPOINT --out"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"\x08\x01"), "its engine.json was written for "),
        (lambda folder: (folder / "engine.json").unlink(), "holds no engine.json, so it is no engine"),
        (lambda folder: (folder / "engine.json").write_text("{}"), "cannot be read: 'format'; build the engine again"),
    ],
)
def test_a_folder_that_is_no_whole_engine_gets_no_plan(tiny: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(tiny)
    before = file_contents(tiny)

    result = build_result(tiny, "--target", "sm86")

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr
    assert file_contents(tiny) == before
    assert not (tiny / "plans").exists()


@pytest.mark.parametrize("options", [(), ("--device", "cuda"), ("--device", "cuda:3")])
def test_without_a_gpu_a_plan_for_the_one_here_is_one_error(tiny: Path, options: tuple[str, ...]) -> None:
    before = file_contents(tiny)

    process = build_process(tiny, *options)

    assert process.returncode == 1
    assert process.stdout == ""
    assert len(process.stderr.splitlines()) == 1, process.stderr
    assert process.stderr.startswith(f"batchcls: device '{options[-1] if options else 'cuda'}' was asked for, ")
    assert "no NVIDIA driver is loaded" in process.stderr or "the NVIDIA driver shows no GPU" in process.stderr
    assert file_contents(tiny) == before
    assert sorted(path.name for path in tiny.iterdir()) == ["engine.json", "model.onnx"]


def test_a_plan_for_the_cpu_is_a_contradiction(tiny: Path) -> None:
    result = build_result(tiny, "--device", "cpu")

    assert result.exit_code == 2
    assert "--device cpu" in result.stderr


@pytest.mark.parametrize(
    "option",
    [
        ("--out", "x"),
        ("--recipe", __file__),
        ("--architecture", "googlenet"),
        ("--labels", "a,b,c"),
        ("--precision", "fp16"),
        ("--calibrate", "."),
        ("--verify", "."),
    ],
)
def test_how_to_build_a_network_has_no_effect_on_an_engine_folder(tiny: Path, option: tuple[str, str]) -> None:
    result = build_result(tiny, "--target", "sm86", *option)

    assert result.exit_code == 2
    assert f"is a folder, so {option[0]} has no effect" in result.stderr
    assert file_contents(tiny).keys() == {"engine.json", "model.onnx"}


def test_a_trained_file_needs_a_folder_to_become(tiny_onnx: Path) -> None:
    result = build_result(tiny_onnx, "--labels", "a,b,c")

    assert result.exit_code == 2
    assert "--out DIR" in result.stderr


def test_without_tensorrt_for_rtx_the_command_that_brings_it_is_named(tiny: Path) -> None:
    process = build_process(tiny, "--target", "sm86", code="import sys; sys.modules['tensorrt_rtx'] = None")

    assert process.returncode == 1
    assert len(process.stderr.splitlines()) == 1, process.stderr
    assert "pip install 'tensorrt-rtx" in process.stderr
    assert file_contents(tiny).keys() == {"engine.json", "model.onnx"}


def test_a_tensorrt_for_rtx_that_is_too_old_is_refused(tiny: Path) -> None:
    code = "import sys, types; sys.modules['tensorrt_rtx'] = types.SimpleNamespace(__version__='1.3.9.1')"

    process = build_process(tiny, "--target", "sm86", code=code)

    assert process.returncode == 1
    assert len(process.stderr.splitlines()) == 1, process.stderr
    assert process.stderr.startswith("batchcls: tensorrt_rtx 1.3.9.1 is too old; run: pip install ")
    assert file_contents(tiny).keys() == {"engine.json", "model.onnx"}


def test_a_disk_that_takes_no_more_is_one_error_and_the_old_plan_stays(googlenet_engine: Path) -> None:
    assert build_result(googlenet_engine, "--target", "sm86", "--batch-size", "1").exit_code == 0
    before = file_contents(googlenet_engine)

    process = build_process(
        googlenet_engine,
        "--target",
        "sm86",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )

    assert file_contents(googlenet_engine) == before
    assert {path.name for path in googlenet_engine.iterdir()} == {"README.md", *ENGINE_FILES, "plans"}
    assert process.returncode == 1
    assert len(process.stderr.splitlines()) == 1, process.stderr


INTERRUPTING = """
import logging, signal

class Interrupting(logging.Handler):
    interrupted = False

    def emit(self, record):
        if not self.interrupted and "used during engine build" in record.getMessage():
            self.interrupted = True
            signal.raise_signal(signal.SIGINT)
        if "canceled by user" in record.getMessage():
            print(record.getMessage())

log = logging.getLogger("batchcls.tensorrt")
log.addHandler(Interrupting())
log.setLevel(logging.DEBUG)
log.propagate = False
"""


def test_an_interrupt_within_tensorrt_stops_it_and_leaves_nothing_behind(googlenet_engine: Path) -> None:
    before = file_contents(googlenet_engine)

    # In a process of its own: on a loaded machine TensorRT for RTX 1.7 was once seen to crash while it was stopped.
    process = build_process(googlenet_engine, "--target", "sm86,sm89", code=INTERRUPTING)

    assert "Build canceled by user" in process.stdout
    assert process.returncode == 130
    assert after_answer(process.stderr) == "batchcls: interrupted\n"
    assert file_contents(googlenet_engine) == before
    assert sorted(path.name for path in googlenet_engine.iterdir()) == ["README.md", *ENGINE_FILES]


@pytest.mark.parametrize("delay_s", [0.0, 0.3, 0.8])
def test_control_c_ends_with_130_and_one_line(googlenet_engine: Path, delay_s: float) -> None:
    before = file_contents(googlenet_engine)
    targets = ",".join(["sm75", "sm80", *CARDS] * 3)
    process = subprocess.Popen(
        [sys.executable, "-m", "batchcls", "build", googlenet_engine, "--target", targets],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + PATIENCE_S
    while not list(googlenet_engine.glob(".batchcls-*/plans")):  # made, and known to whoever clears up
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(delay_s)

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)

    assert (process.returncode, out, after_answer(err)) == (130, "", "batchcls: interrupted\n")
    assert file_contents(googlenet_engine) == before
    assert sorted(path.name for path in googlenet_engine.iterdir()) == ["README.md", *ENGINE_FILES]


def test_what_stands_beside_a_plan_says_which_network_it_was_made_of(tiny: Path) -> None:
    network = (tiny / "model.onnx").read_bytes()
    (target,) = targets_without_gpu(["sm89"])

    plan, said = compile_plan(network, "fp32", target, PlanOptions(3), tiny / "none.cache", Console(quiet=True))

    assert said.onnx_sha256 == hashlib.sha256(network).hexdigest()
    assert (said.plan_sha256, said.plan_bytes) == (hashlib.sha256(plan).hexdigest(), len(plan))
    assert not (tiny / "none.cache").exists()
