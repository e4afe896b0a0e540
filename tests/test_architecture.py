"""The house: what a command loads, what is installed, and what every module says of itself."""

import ast
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from batchcls.cli import _COMMANDS
from tests.commandline import PATIENCE_S
from tests.conftest import ROOT, draw

HEAVY = {
    *("captum", "jinja2", "lightning", "matplotlib", "numpy", "nvidia", "onnx", "openvino", "pandas", "PIL", "pyarrow"),
    *("boto3", "h5py", "keras", "obstore", "ray", "timm", "transformers"),
    *("scipy", "sklearn", "tensorrt", "torch", "torchmetrics", "torchvision"),
}
LOADED_BY = """
import sys
from batchcls.cli import main
try:
    main(sys.argv[1:], "batchcls")
except SystemExit as end:
    sys.stdout = sys.__stdout__
    print("LOADED", *{name.partition(".")[0] for name in sys.modules})
    raise end
"""


def loaded_by(*arguments: str | Path) -> set[str]:
    """The top-level modules that a process holds when its command has ended well."""
    process = subprocess.run(
        [sys.executable, "-c", LOADED_BY, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    return set(process.stdout.partition("LOADED")[2].split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        *((command, "--help") for command in sorted(_COMMANDS)),
    ],
)
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    loaded = loaded_by(*arguments)

    assert {"batchcls", "click"} <= loaded
    assert loaded & HEAVY == set()


def test_a_run_loads_neither_torch_nor_onnx(tmp_path: Path, tiny_engine: Path) -> None:
    slide = draw(tmp_path / "0.jpg")

    loaded = loaded_by("run", slide, "--out", tmp_path / "o.parquet", "--engine", tiny_engine, "--device", "cpu")

    assert {"numpy", "openvino", "PIL", "pyarrow"} <= loaded
    assert loaded & {"nvidia", "torch", "torchvision", "onnx", "tensorrt"} == set()


def test_the_wheel_holds_one_import_name(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
        timeout=PATIENCE_S,
    )

    (wheel,) = tmp_path.iterdir()
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"batchcls"}
    assert {"batchcls/py.typed", "batchcls/cli/run.py"} <= set(names)


MODULES = sorted(path for folder in ("batchcls", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
MOST_ROOMS, MOST_LOOSE_MODULES = 11, 7
MOST_MODULE_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 250, 40, 6
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(module: Path) -> list[Function]:
    return [node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, Function)]


def lines_without_docstring(function: Function) -> int:
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    return lines if ast.get_docstring(function) is None else lines - ((first.end_lineno or 0) - first.lineno + 1)


def parameters(function: Function) -> int:
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return len(names) + len(function.args.kwonlyargs) - (names[:1] in (["self"], ["cls"]))


def test_the_package_has_few_rooms_and_few_modules_outside_of_them() -> None:
    rooms = {path.parent.name for path in (ROOT / "batchcls").glob("*/__init__.py")}
    loose = {path.stem for path in (ROOT / "batchcls").glob("*.py")} - {"__init__", "__main__"}

    assert len(rooms) <= MOST_ROOMS, rooms
    assert len(loose) <= MOST_LOOSE_MODULES, loose


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short_and_says_what_it_is_for(module: Path) -> None:
    text = module.read_text()

    assert ast.get_docstring(ast.parse(text)) or not text
    assert text.count("\n") <= MOST_MODULE_LINES
    assert [it.name for it in functions(module) if lines_without_docstring(it) > MOST_FUNCTION_LINES] == []
    assert [it.name for it in functions(module) if parameters(it) > MOST_PARAMETERS] == []


def test_no_library_leaves_or_sends_word_of_its_use(tiny_onnx: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(
        [sys.executable, "-m", "batchcls", "build", tiny_onnx, "--labels", "a,b,c", "--out", tmp_path / "engine"],
        env={**os.environ, "HOME": str(home)},
        check=True,
    )
    assert [path for path in home.rglob("*") if path.is_file()] == []
