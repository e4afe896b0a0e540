"""Which devices a run gets, on a machine without a GPU and on others, and what it says where there is none."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from batchcls import machine
from batchcls.cli import main
from batchcls.cli.info import missing_for_gpus
from batchcls.errors import EngineError
from tests.commandline import PATIENCE_S, invoked
from tests.conftest import ROOT, draw

NO_GPU = pytest.mark.skipif(bool(machine.gpus()), reason="this machine has a GPU")
NO_DRIVER = pytest.mark.skipif(machine.cuda_version() is not None, reason="this machine has an NVIDIA driver")
NONE_FOUND = r"(no NVIDIA driver is loaded|the NVIDIA driver shows no GPU)"


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for seed in range(3):
        draw(folder / f"{seed}.jpg", seed)
    return folder


def test_the_cpu_is_always_there() -> None:
    assert machine.resolve_devices("cpu") == ("cpu",)


@NO_GPU
def test_without_a_gpu_auto_is_the_cpu() -> None:
    assert machine.resolve_devices("auto") == ("cpu",)


@NO_GPU
@pytest.mark.parametrize("asked", ["cuda", "cuda:0", "cuda:3", "all"])
def test_without_a_gpu_none_can_be_asked_for(asked: str) -> None:
    told = rf"device '{asked}' was asked for, {NONE_FOUND}; run: batchcls info, or choose --device cpu"
    with pytest.raises(EngineError) as refusal:
        machine.resolve_devices(asked)
    assert re.fullmatch(told, str(refusal.value))


@NO_GPU
def test_a_gpu_that_is_not_there_cannot_be_told_of() -> None:
    with pytest.raises(EngineError, match=rf"^device 'cuda:0' was asked for, {NONE_FOUND}; run: batchcls info$"):
        machine.gpu("cuda:0")


@NO_DRIVER
def test_without_a_driver_it_is_the_first_thing_that_gpus_lack() -> None:
    assert re.match(r"no NVIDIA driver: install one for CUDA \d+ or later from \S+", missing_for_gpus()[0])


@NO_DRIVER
def test_info_says_that_the_driver_is_missing() -> None:
    told = json.loads(CliRunner().invoke(main, ["info", "--json"]).stdout)["machine"]
    shown = CliRunner().invoke(main, ["info"]).stdout

    assert (told["gpus"], told["driver"], told["cuda"]) == ([], None, None)
    assert told["missing_for_gpus"] == missing_for_gpus()
    assert all(line in shown for line in [*told["missing_for_gpus"], "gpus: none", "driver: none"])


@NO_GPU
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "all"])
def test_a_run_on_a_gpu_that_is_not_there_ends_in_one_line_and_leaves_nothing(
    slides: Path, tiny_engine: Path, tmp_path: Path, device: str
) -> None:
    result = invoked(slides, "--out", tmp_path / "o.parquet", "--engine", tiny_engine, "--device", device)

    assert result.exit_code == 1
    assert re.fullmatch(rf"batchcls: device '{device}' was asked for, .* --device cpu\n", result.stderr)
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["run", "build"])
@pytest.mark.parametrize("device", ["nonsense", "all ", "cpu:0", "cuda:1234", "ALL"])
def test_a_device_that_could_be_none_is_an_error_of_usage(
    slides: Path, tiny_engine: Path, tmp_path: Path, command: str, device: str
) -> None:
    out = ["--out", str(tmp_path / "o.parquet")] if command == "run" else []
    result = CliRunner().invoke(main, [command, str(tiny_engine), *out, "--device", device])

    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")
    assert f"{device!r} is not one of auto, cpu, cuda, cuda:N" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_engine_is_built_for_one_device_at_a_time(tiny_engine: Path) -> None:
    result = CliRunner().invoke(main, ["build", str(tiny_engine), "--device", "all"])

    assert result.exit_code == 2
    assert "'all' is not one of" in result.stderr


@NO_GPU
def test_a_run_says_why_it_is_not_on_a_gpu_unless_the_cpu_was_asked_for(
    slides: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    asked = invoked(slides, "--out", tmp_path / "asked.parquet", "--engine", tiny_engine, "--device", "cpu")
    found = invoked(slides, "--out", tmp_path / "found.parquet", "--engine", tiny_engine, "--device", "auto")

    assert (asked.exit_code, found.exit_code) == (0, 0)
    assert re.search(r"^engine .* on cpu$", asked.stdout, re.MULTILINE)
    assert re.search(r"^engine .* on cpu, because there is no GPU$", found.stdout, re.MULTILINE)
    assert "because" not in asked.stdout


DRIVER = r"""
#include <string.h>
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = CUDA * 1000 + 20; return 0; }
int cuDeviceGetCount(int *count) { *count = GPUS; return 0; }
int cuDeviceGet(int *device, int number) { *device = 40 + number; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, device == 41 ? "Second" : "First", length);
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)device << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 9 : device == 41;
    return 0;
}
"""
ASK = """if True:
    import json, sys
    from dataclasses import asdict
    from batchcls import machine
    from batchcls.cli.info import missing_for_gpus
    from batchcls.errors import EngineError

    def answer(device):
        try:
            return machine.resolve_devices(device)
        except EngineError as error:
            return str(error)

    gpus = [asdict(gpu) for gpu in machine.gpus()]
    missing = missing_for_gpus()
    print(json.dumps({"gpus": gpus, "missing": missing, **{device: answer(device) for device in sys.argv[1:]}}))
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")
class TestDrivers:
    """What drivers tell, by one that is made for it."""

    @staticmethod
    def told(folder: Path, *devices: str, gpus: int, cuda: int = 13) -> dict[str, Any]:
        """What this machine would say with such a driver."""
        (folder / "driver.c").write_text(DRIVER)
        defined = [f"-DGPUS={gpus}", f"-DCUDA={cuda}"]
        subprocess.run(["cc", "-shared", "-fPIC", *defined, "driver.c", "-o", "libcuda.so.1"], cwd=folder, check=True)
        done = subprocess.run(
            [sys.executable, "-c", ASK, *devices],
            cwd=ROOT,
            env=os.environ | {"LD_LIBRARY_PATH": str(folder)},
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        )
        return dict(json.loads(done.stdout))

    def test_of_two_gpus_each_can_be_had_and_auto_is_the_first(self, tmp_path: Path) -> None:
        told = self.told(tmp_path, "cpu", "auto", "cuda", "cuda:0", "cuda:1", "cuda:01", "all", gpus=2)

        assert [told[device] for device in ("cpu", "auto", "cuda", "cuda:0")] == [["cpu"], *[["cuda:0"]] * 3]
        assert told["cuda:1"] == told["cuda:01"] == ["cuda:1"]
        assert told["all"] == ["cuda:0", "cuda:1"]
        assert told["gpus"] == [
            {"number": 0, "name": "First", "sm": "sm90", "memory_bytes": 40 << 30},
            {"number": 1, "name": "Second", "sm": "sm91", "memory_bytes": 41 << 30},
        ]
        assert not any("driver" in line for line in told["missing"])

    def test_a_gpu_beyond_the_last_is_refused_with_how_many_there_are(self, tmp_path: Path) -> None:
        told = self.told(tmp_path, "cuda:2", "cuda:999", gpus=2)

        for device in ("cuda:2", "cuda:999"):
            found = f"device {device!r} was asked for, this machine shows 2 GPUs; "
            assert told[device] == found + "run: batchcls info, or choose --device cpu"

    @pytest.mark.parametrize("device", ["nonsense", "cuda:-1", "cuda:x", ""])
    def test_what_is_no_device_is_not_taken_for_the_first(self, tmp_path: Path, device: str) -> None:
        answer = self.told(tmp_path, device, gpus=2)[device]

        assert f"device {device!r} was asked for" in answer

    def test_a_driver_without_a_gpu_is_told_from_no_driver(self, tmp_path: Path) -> None:
        told = self.told(tmp_path, "auto", "cuda", "all", gpus=0)

        assert told["auto"] == ["cpu"]
        assert all("the NVIDIA driver shows no GPU; run: batchcls info" in told[device] for device in ("cuda", "all"))
        assert "the driver shows no GPU: run nvidia-smi" in told["missing"]

    @pytest.mark.parametrize("device", ["auto", "cuda", "all"])
    def test_a_driver_that_is_too_old_is_refused_before_anything_is_opened(self, tmp_path: Path, device: str) -> None:
        told = self.told(tmp_path, device, "cpu", gpus=1, cuda=12)

        assert re.fullmatch(
            rf"device '{device}' was asked for, its driver .* runs CUDA 12\.2, and DALI's wheel needs CUDA 13; "
            "update the driver, or choose --device cpu",
            told[device],
        )
        assert told["cpu"] == ["cpu"]
        assert told["missing"][0].startswith("the driver runs CUDA 12.2, DALI needs 13: update it from ")


def test_info_tells_what_this_cpu_computes_in_hardware_and_what_an_engine_was_verified_on(
    tiny_engine: Path, tmp_path: Path
) -> None:
    shown = CliRunner().invoke(main, ["info", str(tiny_engine), "--json"])
    elsewhere = Path(shutil.copytree(tiny_engine, tmp_path / "elsewhere"))
    values = json.loads((elsewhere / "engine.json").read_text())
    values["checked_on"]["instructions"] = ["avx2", "of_another_cpu"]
    (elsewhere / "engine.json").write_text(json.dumps(values))
    other = CliRunner().invoke(main, ["info", str(elsewhere), "--json"])

    told, told_of_other = (json.loads(result.stdout) for result in (shown, other))
    precisions, features = told["machine"]["cpu_precisions"], told["machine"]["cpu_features"]
    assert ("bf16" in precisions["bfloat16"]) == any("bf16" in feature for feature in features)
    assert ("vnni" in precisions["int8"]) == any("vnni" in feature for feature in features)
    assert "speed" in precisions["int8_gains"] or "not measured" in precisions["int8_gains"]
    assert told["engine"]["checked_on"].endswith("; this CPU has the same instruction sets")
    assert told_of_other["engine"]["checked_on"].endswith(
        "this CPU differs, so each run checks the probes' answers on it"
    )
    assert told["engine"]["check"]["probes"] == 16


COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
@pytest.mark.skipif(bool(list(Path("/usr/local/cuda/lib64").glob("libnvjpeg*"))), reason="this machine has CUDA's own")
@pytest.mark.parametrize(("library", "enough"), [("libnvjpeg.so.12", False), ("libnvjpeg.so.13", True)])
def test_the_nvjpeg_of_another_cuda_is_none(library: str, enough: bool, tmp_path: Path) -> None:
    source = tmp_path / "empty.c"
    source.write_text("int nothing;\n")
    command = [str(COMPILER), "-shared", "-fPIC", "-o", str(tmp_path / library), str(source), f"-Wl,-soname,{library}"]
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    (tmp_path / "libnvjpeg.so").symlink_to(library)
    # Without the packages that are installed here, of which nvidia-nvjpeg may be one.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from batchcls import machine; print(machine.has_nvjpeg())"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert done.stdout.split() == [str(enough)]
