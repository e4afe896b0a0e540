"""Which plan is taken from an engine folder: one made for this very machine and network, whole; else it is said why."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from batchcls.cli import main
from batchcls.engine.check_result import ProbeCheck
from batchcls.engine.plan_sidecar import Sidecar, Target, plan_notes, read_fitting_plan, sidecar_paths
from batchcls.errors import EngineError
from tests.conftest import draw

HERE = Target("tensorrt", "11.4.0.106", "sm86", "NVIDIA GeForce RTX 3060", "580.95", "13.0")
RTX_HERE = replace(HERE, module="tensorrt_rtx", version="1.7.1.116")
MACHINE = {"tensorrt": HERE, "tensorrt_rtx": RTX_HERE}
NETWORK = hashlib.sha256(b"a network").hexdigest()
PLAN = bytes(range(256)) * 40


def write_plan(
    folder: Path, target: Target = HERE, content: bytes = PLAN, stem: str | None = None, **changed: Any
) -> Sidecar:
    """Put a plan into an engine folder, as a build does."""
    sidecar = Sidecar(
        plan_sha256=hashlib.sha256(content).hexdigest(),
        plan_bytes=len(content),
        onnx_sha256=NETWORK,
        target=target,
        batch_size=64,
        precision="fp16",
        optimization_level=None,
        built="2026-11-21T09:30:00+00:00",
        check=ProbeCheck(16, 1.0, 0.003),
    )
    sidecar = replace(sidecar, **changed)
    (folder / "plans").mkdir(exist_ok=True)
    (folder / "plans" / f"{stem or target.stem}.plan").write_bytes(content)
    sidecar.write(folder / "plans" / f"{stem or target.stem}.json")
    return sidecar


def only_file(folder: Path, ending: str) -> Path:
    (path,) = (folder / "plans").glob(f"*.{ending}")
    return path


def refusal(folder: Path, machine: dict[str, Target] = MACHINE) -> str:
    """Why there is no plan; it always ends with the command that makes one."""
    with pytest.raises(EngineError) as refused:
        read_fitting_plan(folder, NETWORK, machine, "cuda:0")
    message = str(refused.value)
    assert f"batchcls build {folder} --device cuda" in message
    assert "\n" not in message
    return message


def test_a_plan_made_here_is_taken_as_it_was_written(tmp_path: Path) -> None:
    sidecar = write_plan(tmp_path)

    assert read_fitting_plan(tmp_path, NETWORK, MACHINE, "cuda:0") == (sidecar, PLAN)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (replace(HERE, sm="sm89"), "sm sm89 here sm86"),
        (replace(HERE, version="10.12.0.36"), "version 10.12.0.36 here 11.4.0.106"),
        (replace(HERE, cuda="13.1"), "cuda 13.1 here 13.0"),
        (replace(HERE, cuda="13.10"), "cuda 13.10 here 13.0"),
        (replace(HERE, cuda="20.0"), "cuda 20.0 here 13.0"),
        (replace(HERE, cuda="none"), "cuda none here 13.0"),
        (
            replace(HERE, gpu="NVIDIA GeForce RTX 3060 Ti"),
            "gpu NVIDIA GeForce RTX 3060 Ti here NVIDIA GeForce RTX 3060",
        ),
        (replace(RTX_HERE, version="1.4.0.1", gpu=None), "version 1.4.0.1 here 1.7.1.116"),
        (Target("tensorrt_rtx", "1.7.1.116", "sm89"), "sm sm89 here sm86"),
        (replace(HERE, module="tensorrt_lean"), "tensorrt_lean is not installed"),
    ],
)
def test_a_plan_for_another_machine_is_refused_with_what_differs(made: Target, reason: str, tmp_path: Path) -> None:
    write_plan(tmp_path, made)

    message = refusal(tmp_path)

    assert f"engine {str(tmp_path)!r} has no plan for this NVIDIA GeForce RTX 3060 (sm86)" in message
    assert f"{made.stem} ({reason})" in message


def test_everything_that_differs_is_said_of_every_plan(tmp_path: Path) -> None:
    write_plan(tmp_path, replace(HERE, sm="sm90", cuda="13.2"), onnx_sha256="0" * 64)
    write_plan(tmp_path, RTX_HERE)

    message = refusal(tmp_path, {"tensorrt": HERE})

    assert "(sm sm90 here sm86; cuda 13.2 here 13.0; made from another model.onnx)" in message
    assert "(tensorrt_rtx is not installed)" in message


def test_a_plan_of_another_network_is_refused(tmp_path: Path) -> None:
    write_plan(tmp_path, onnx_sha256=hashlib.sha256(b"another").hexdigest())

    assert "(made from another model.onnx)" in refusal(tmp_path)


@pytest.mark.parametrize("make", [lambda plans: None, Path.mkdir, Path.touch])
def test_a_folder_without_plans_says_so(make: Callable[[Path], Any], tmp_path: Path) -> None:
    make(tmp_path / "plans")

    assert "has no plan for this NVIDIA GeForce RTX 3060 (sm86); run: " in refusal(tmp_path)


@pytest.mark.parametrize("card", ["NVIDIA GeForce RTX 3060", "NVIDIA RTX A2000", "NVIDIA A10"])
def test_a_plan_that_was_made_without_a_gpu_fits_every_card_of_its_kind(card: str, tmp_path: Path) -> None:
    sidecar = write_plan(tmp_path, Target("tensorrt_rtx", "1.7.1.116", "sm86"))

    machine = {"tensorrt_rtx": replace(RTX_HERE, gpu=card, driver="590.1", cuda="13.2")}

    assert read_fitting_plan(tmp_path, NETWORK, machine, "cuda:0")[0] == sidecar


@pytest.mark.parametrize(
    ("made", "machine"),
    [
        ({"driver": "575.10"}, {}),
        ({"driver": "590.10"}, {}),
        ({"cuda": "12.9", "driver": "575.10"}, {}),
        ({"cuda": "9.2"}, {"cuda": "10.1"}),
        ({"cuda": "13.9"}, {"cuda": "13.10"}),
    ],
)
def test_a_plan_from_another_driver_or_an_older_cuda_is_taken(
    made: dict[str, str], machine: dict[str, str], tmp_path: Path
) -> None:
    sidecar = write_plan(tmp_path, replace(HERE, **made))

    here = {"tensorrt": replace(HERE, **machine)}

    assert read_fitting_plan(tmp_path, NETWORK, here, "cuda:0") == (sidecar, PLAN)


def test_where_the_driver_is_unknown_a_plan_that_names_a_cuda_is_refused(tmp_path: Path) -> None:
    write_plan(tmp_path)

    assert "(cuda 13.0 here None)" in refusal(tmp_path, {"tensorrt": replace(HERE, driver=None, cuda=None)})


def test_another_driver_is_a_note_that_ends_with_the_command_for_a_new_plan(tmp_path: Path) -> None:
    sidecar = write_plan(tmp_path, replace(HERE, driver="575.10"))

    assert plan_notes(sidecar, tmp_path, HERE, "cuda:1") == [
        "the plan was made under driver 575.10, here is 580.95; a new one may be faster; "
        f"run: batchcls build {tmp_path} --device cuda:1"
    ]


@pytest.mark.parametrize("made", [HERE, replace(HERE, gpu=None, driver=None, cuda=None)])
def test_a_plan_of_this_driver_or_of_none_needs_no_note(made: Target, tmp_path: Path) -> None:
    assert plan_notes(write_plan(tmp_path, made), tmp_path, HERE, "cuda:0") == []


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")])
def test_the_newest_plan_of_those_that_fit_is_taken(order: tuple[str, ...], tmp_path: Path) -> None:
    days = ("2026-11-19T23:59:59+00:00", "2026-11-20T00:00:00+00:00", "2026-11-21T08:00:00+00:00")
    for stem, day in zip(order, days, strict=True):
        write_plan(tmp_path, content=stem.encode(), stem=stem, built=day)
    write_plan(tmp_path, replace(HERE, gpu="another"), stem="z", built="2026-11-22T00:00:00+00:00")

    sidecar, plan = read_fitting_plan(tmp_path, NETWORK, MACHINE, "cuda:0")

    assert (sidecar.built, plan) == (days[-1], order[-1].encode())


def test_plans_for_other_machines_beside_it_do_not_disturb(tmp_path: Path) -> None:
    write_plan(tmp_path, replace(HERE, gpu="NVIDIA A10"), b"for an A10")
    sidecar = write_plan(tmp_path)
    write_plan(tmp_path, Target("tensorrt_rtx", "1.7.1.116", "sm120"), b"for any")
    only_plans = [path.with_suffix(".plan") for path in sidecar_paths(tmp_path) if path.stem != HERE.stem]
    for path in only_plans:
        path.unlink()  # nobody looks at them

    assert len(only_plans) == 2
    assert read_fitting_plan(tmp_path, NETWORK, MACHINE, "cuda:0") == (sidecar, PLAN)


def test_two_cards_and_two_modules_have_files_of_their_own() -> None:
    targets = [
        HERE,
        RTX_HERE,
        replace(HERE, gpu=None),
        replace(HERE, sm="sm90"),
        replace(HERE, gpu="NVIDIA H100 80GB HBM3"),
    ]

    assert len({target.stem for target in targets}) == len(targets)
    assert all(not set(target.stem) & set("/\\ .:") for target in targets)


def flipped(path: Path) -> None:
    path.write_bytes(PLAN[:5000] + bytes([PLAN[5000] ^ 1]) + PLAN[5001:])


def sparse(path: Path) -> None:
    os.truncate(path, 1 << 40)  # nobody has memory for that


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (flipped, "its sidecar was written for "),
        (lambda path: os.truncate(path, len(PLAN) - 1), "has 10,239 bytes, its sidecar says 10,240"),
        (lambda path: os.truncate(path, 0), "has 0 bytes, its sidecar says 10,240"),
        (sparse, "has 1,099,511,627,776 bytes, its sidecar says 10,240"),
        (lambda path: draw(path, format="JPEG"), " bytes, its sidecar says 10,240"),
        (Path.unlink, "cannot be read: No such file or directory"),
        (lambda path: (path.unlink(), path.mkdir()), "its sidecar says 10,240"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "has 0 bytes, its sidecar says 10,240"),
    ],
    ids=["flipped", "truncated", "empty", "vast", "jpeg", "missing", "folder", "pipe"],
)
def test_a_plan_that_is_not_the_one_that_was_made_is_refused(
    spoil: Callable[[Path], Any], reason: str, tmp_path: Path
) -> None:
    write_plan(tmp_path)
    spoil(only_file(tmp_path, "plan"))

    message = refusal(tmp_path)

    assert reason in message
    assert repr(str(only_file(tmp_path, "json").with_suffix(".plan"))) in message


def test_a_photograph_of_the_right_length_is_no_plan(tmp_path: Path) -> None:
    photograph = draw(tmp_path / "a.jpg").read_bytes()
    write_plan(tmp_path, content=photograph, plan_sha256=hashlib.sha256(PLAN).hexdigest())

    assert "has SHA-256 " in refusal(tmp_path)


def changed_sidecar(**fields: Any) -> Callable[[Path], Any]:
    """Writes a sidecar with other fields; one that is ``...`` is left out."""

    def write(path: Path) -> None:
        values = json.loads(path.read_text()) | fields
        path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))

    return write


GARBAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "bytes": lambda path: path.write_bytes(bytes(range(256))),
    "jpeg": lambda path: draw(path, format="JPEG"),
    "huge": lambda path: path.write_bytes(path.read_bytes() + b" " * (2 << 20)),
    "deep": lambda path: path.write_text("[" * 100_000),
    "number": lambda path: path.write_text("9" * 5000),
    "null": lambda path: path.write_text("null"),
    "list": lambda path: path.write_text('["format", 1]'),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "dangling": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "other format": changed_sidecar(format=2),
    "no format": changed_sidecar(format=...),
    "no target": changed_sidecar(target=...),
    "target text": changed_sidecar(target="sm86"),
    "target number": changed_sidecar(target={"module": "tensorrt", "version": 11, "sm": "sm86"}),
    "target list": changed_sidecar(target={"module": "tensorrt", "version": "11", "sm": ["sm86"]}),
    "target unknown": changed_sidecar(target={"module": "tensorrt", "version": "11", "sm": "sm86", "moon": "full"}),
    "module null": changed_sidecar(target={"module": None, "version": "11", "sm": "sm86"}),
    "sm null": changed_sidecar(target={"module": "tensorrt", "version": "11.4.0.106", "sm": None}),
    "unknown field": changed_sidecar(moon="full"),
    "missing field": changed_sidecar(plan_sha256=...),
    "bytes text": changed_sidecar(plan_bytes="10240"),
    "bytes float": changed_sidecar(plan_bytes=10240.0),
    "bytes true": changed_sidecar(plan_bytes=True),
    "batch 0": changed_sidecar(batch_size=0),
    "batch negative": changed_sidecar(batch_size=-64),
    "batch null": changed_sidecar(batch_size=None),
    "check text": changed_sidecar(check="fine"),
    "check more": changed_sidecar(
        check={"probes": 16, "top1_agreement": 1.0, "largest_difference": 0.0, "moon": "full"}
    ),
    "sha number": changed_sidecar(plan_sha256=5),
    "sha null": changed_sidecar(plan_sha256=None),
    "built number": changed_sidecar(built=5),
    "precision list": changed_sidecar(precision=["fp16"]),
    "level text": changed_sidecar(optimization_level="high"),
}


@pytest.mark.parametrize("spoil", GARBAGE.values(), ids=GARBAGE.keys())
def test_a_sidecar_that_no_build_has_written_is_refused(spoil: Callable[[Path], Any], tmp_path: Path) -> None:
    write_plan(tmp_path)
    path = only_file(tmp_path, "json")
    spoil(path)

    message = refusal(tmp_path)

    assert path.stem in message
    with pytest.raises(EngineError, match="cannot be read as a plan's sidecar"):
        Sidecar.read(path)


@pytest.mark.parametrize(
    ("stem", "kind"), [("0", "empty"), ("zzz", "empty"), ("0", "bytes"), ("0", "deep"), ("zzz", "other format")]
)
def test_a_broken_sidecar_does_not_keep_a_good_plan_from_its_work(stem: str, kind: str, tmp_path: Path) -> None:
    """No build for this GPU would ever mend it: that replaces the files of its own name only."""
    sidecar = write_plan(tmp_path)
    write_plan(tmp_path, stem=stem)
    GARBAGE[kind](tmp_path / "plans" / f"{stem}.json")

    assert read_fitting_plan(tmp_path, NETWORK, MACHINE, "cuda:0") == (sidecar, PLAN)


def test_info_names_a_broken_sidecar_and_goes_on(tiny_engine: Path, tmp_path: Path) -> None:
    engine = Path(shutil.copytree(tiny_engine, tmp_path / "e"))
    write_plan(engine, stem="broken")
    write_plan(engine, stem="whole")
    (engine / "plans" / "broken.json").write_text("{")

    result = CliRunner().invoke(main, ["info", str(engine)])

    assert result.exit_code == 0, result.output
    assert "broken" in result.output
    assert "whole" in result.output


names = st.text(min_size=1, max_size=20)
targets = st.builds(Target, *[names] * 3, *[st.none() | names] * 3)
shares = st.floats(0, 1)
written = st.builds(
    Sidecar,
    plan_sha256=names,
    plan_bytes=st.integers(1, 1 << 40),
    onnx_sha256=names,
    target=targets,
    batch_size=st.integers(1, 4096),
    precision=st.sampled_from(["fp16", "bf16", "fp32", "int8"]),
    optimization_level=st.none() | st.integers(0, 5),
    built=names,
    check=st.none() | st.builds(ProbeCheck, st.integers(1, 99), shares, shares),
)


@given(written)
def test_what_is_written_is_read_again(sidecar: Sidecar) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        sidecar.write(path)

        assert Sidecar.read(path) == sidecar


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
)
FIELDS = [
    "format",
    "plan_sha256",
    "plan_bytes",
    "onnx_sha256",
    "target",
    "batch_size",
    "precision",
    "optimization_level",
    "built",
    "check",
]


@given(values | st.dictionaries(st.sampled_from(FIELDS), values))
def test_no_json_is_more_than_an_engine_error(content: Any) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(content))

        with pytest.raises(EngineError):
            Sidecar.read(path)


@given(st.dictionaries(st.sampled_from(FIELDS), values, min_size=1, max_size=2))
def test_no_change_of_a_sidecar_is_more_than_an_engine_error(fields: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        write_plan(Path(folder), stem="a")
        write_plan(Path(folder), stem="b")
        changed_sidecar(**fields)(Path(folder) / "plans" / "b.json")

        try:
            sidecar, content = read_fitting_plan(Path(folder), NETWORK, MACHINE, "cuda:0")
        except EngineError:
            return
        assert content == PLAN
        assert isinstance(sidecar.precision, str)


@given(st.binary(max_size=300))
def test_no_bytes_at_all_are_more_than_an_engine_error(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_bytes(content)

        with pytest.raises(EngineError):
            Sidecar.read(path)
