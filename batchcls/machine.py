"""What this machine has: CPU features, GPUs, and the runtimes that are installed."""

import ctypes
import os
import platform
import re
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from batchcls.errors import EngineError

_RUNTIMES = {
    "batchcls": "batchcls",
    "dali": "nvidia-dali-cuda130",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "torch": "torch",
    "torchvision": "torchvision",
    "pyarrow": "pyarrow",
    "pillow": "pillow",
}
_CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, as the driver tells of it."""

    number: int
    name: str
    sm: str
    memory_bytes: int


def gpus() -> list[Gpu]:
    """Every GPU that the CUDA driver shows this process; none where there is no driver.

    Source: CUDA Driver API, cuInit to cuDeviceTotalMem.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    return [_gpu(cuda, number) for number in range(count.value)]


def _gpu(cuda: ctypes.CDLL, number: int) -> Gpu:
    name = ctypes.create_string_buffer(256)
    memory, major, minor = ctypes.c_size_t(), ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGetName(name, len(name), number)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), number)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, number)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, number)
    return Gpu(number, name.value.decode(errors="replace"), f"sm{major.value}{minor.value}", memory.value)


def chosen_device(asked: str) -> str:
    """``cpu`` or ``cuda:N``; ``auto`` is the first GPU where there is one.

    Raises:
        EngineError: If a GPU is asked for that is not there.
    """
    if asked == "cpu":
        return asked
    found = gpus()
    if asked == "auto":
        return "cuda:0" if found else "cpu"
    named = re.fullmatch(r"cuda(?::(\d{1,3}))?", asked)
    number = int(named[1] or 0) if named else len(found)
    if number >= len(found):
        raise EngineError(
            f"device {asked!r} was asked for, this machine shows {len(found)} GPUs; run: batchcls info, "
            "or choose --device cpu"
        )
    return f"cuda:{number}"


def driver() -> str | None:
    """The NVIDIA driver's version, if one is loaded."""
    path = Path("/sys/module/nvidia/version")
    return path.read_text().strip() if path.exists() else None


def cpu_model() -> str:
    """The CPU's name, as the kernel tells it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def versions() -> dict[str, str]:
    """Version by name of every runtime that is installed; nothing is imported for it."""
    found = {"python": platform.python_version()}
    for name, package in _RUNTIMES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            continue
    return found


def description() -> dict[str, Any]:
    """All of the above, as JSON values."""
    flags = set(_cpuinfo("flags").split())
    return {
        "cpu": cpu_model(),
        "cpu_features": [feature for feature in _CPU_FEATURES if feature in flags],
        "cores": cores(),
        "gpus": [asdict(gpu) for gpu in gpus()],
        "driver": driver(),
        "versions": versions(),
        "not_installed": [name for name in _RUNTIMES if name not in versions()],
    }


def peak_memory_bytes() -> int:
    """The most that this process has had resident; unlike ru_maxrss, nothing of the process that started it."""
    return int(_value("/proc/self/status", "VmHWM").removesuffix("kB")) * 1024


def _cpuinfo(key: str) -> str:
    return _value("/proc/cpuinfo", key)


def _value(path: str, key: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.partition(":")[0].strip() == key:
            return line.partition(":")[2].strip()
    return ""
