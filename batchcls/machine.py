"""The CPU, the GPUs and the installed runtimes of this machine."""

import ctypes
import os
import platform
import re
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from batchcls.errors import EngineError

_RUNTIMES = {
    "batchcls": "batchcls",
    "dali": "nvidia-dali-cuda130",
    "openvino": "openvino",
    "onnxruntime": "onnxruntime",
    "onnxruntime_gpu": "onnxruntime-gpu",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "cuda_bindings": "cuda-bindings",
    "torch": "torch",
    "torchvision": "torchvision",
    "triton": "triton",
    "pyarrow": "pyarrow",
    "pillow": "pillow",
}
_CPU_FEATURES = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_BFLOAT16 = ("avx512_bf16", "amx_bf16")
_INT8 = ("avx_vnni", "avx512_vnni", "amx_int8")
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76
DALI_CUDA = 13
"""CUDA version that DALI's wheel needs; a driver may run a newer one, not an older one."""
_NVJPEG = f"libnvjpeg.so.{DALI_CUDA}"
_CUDA, NVML = "libcuda.so.1", "libnvidia-ml.so.1"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, as the driver describes it."""

    number: int
    """Position among the GPUs of this process."""
    name: str
    sm: str
    """Compute capability, such as ``sm90``."""
    memory_bytes: int


def gpus() -> list[Gpu]:
    """Every GPU that the CUDA driver shows this process; an empty list without a driver.

    Source: CUDA Driver API, cuInit to cuDeviceTotalMem.
    """
    cuda = library(_CUDA)
    count = ctypes.c_int()
    if cuda is None or cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    return [_gpu(cuda, number) for number in range(count.value)]


def cuda_version() -> str | None:
    """The newest CUDA version that the driver runs, such as ``13.0``; None without a driver."""
    cuda = library(_CUDA)
    version = ctypes.c_int()
    if cuda is None or cuda.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def library(name: str) -> ctypes.CDLL | None:
    """A shared library; None if it cannot be loaded."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def pci_address(device: str) -> str | None:
    """The PCI address of the GPU named ``cuda:N``, such as ``0000:3b:00.0``; None if the driver does not tell it.

    Source: CUDA Driver API, cuDeviceGetPCIBusId; the kernel's names are in lower case.
    """
    cuda, handle, text = library(_CUDA), ctypes.c_int(), ctypes.create_string_buffer(32)
    if cuda is None or cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(handle), int(device.removeprefix("cuda:"))):
        return None
    return None if cuda.cuDeviceGetPCIBusId(text, len(text), handle) else text.value.decode().lower()


def _gpu(cuda: ctypes.CDLL, number: int) -> Gpu:
    name = ctypes.create_string_buffer(256)
    device, memory, major, minor = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), number)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, device)
    return Gpu(number, name.value.decode(errors="replace"), f"sm{major.value}{minor.value}", memory.value)


def resolve_devices(
    device: str, alternative: str = "choose --device cpu", *, gpu_count: int | None = None
) -> tuple[str, ...]:
    """The devices that a name stands for: ``cpu`` alone, or one or more ``cuda:N``.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:N``, ``all`` for every GPU, or ``auto`` for the first GPU or else the CPU.
        alternative: What the user can do instead, for the error.
        gpu_count: Number of GPUs; None for those that the driver shows this process.

    Raises:
        EngineError: If a named GPU is missing, or its driver is too old.
    """
    if device == "cpu":
        return (device,)
    count = len(gpus()) if gpu_count is None else gpu_count
    if device == "auto" and not count:
        return ("cpu",)
    match = re.fullmatch(r"cuda(?::(\d{1,3}))?", "cuda:0" if device == "auto" else device)
    numbers = [int(match[1] or 0)] if match else list(range(count)) if device == "all" else []
    if not numbers or numbers[-1] >= count:
        raise EngineError(f"device {device!r} was asked for, {_gpu_count(count)}; run: batchcls info, or {alternative}")
    if (newest := cuda_version()) and int(newest.partition(".")[0]) < DALI_CUDA:
        raise EngineError(
            f"device {device!r} was asked for, its driver {driver()} runs CUDA {newest}, and DALI's wheel needs "
            f"CUDA {DALI_CUDA}; update the driver, or {alternative}"
        )
    return tuple(f"cuda:{number}" for number in numbers)


def gpu(device: str) -> Gpu:
    """The GPU named ``cuda:N``.

    Raises:
        EngineError: If there is no such GPU.
    """
    number = int(device.removeprefix("cuda:"))
    known = gpus()
    if number >= len(known):
        raise EngineError(f"device {device!r} was asked for, {_gpu_count(len(known))}; run: batchcls info")
    return known[number]


def _gpu_count(count: int) -> str:
    """The number of GPUs, or the reason why there is none, for an error."""
    if count:
        return f"this machine shows {count} GPU{'s'[: count > 1]}"
    return "no NVIDIA driver is loaded" if library(_CUDA) is None else "the NVIDIA driver shows no GPU"


def driver() -> str | None:
    """The version of the NVIDIA driver; None without a driver.

    Source: NVML, nvmlSystemGetDriverVersion. A container may have no /sys/module/nvidia.
    """
    nvml, text = library(NVML), ctypes.create_string_buffer(80)
    if nvml is None or nvml.nvmlInit_v2() or nvml.nvmlSystemGetDriverVersion(text, len(text)):
        return None
    return text.value.decode(errors="replace")


def has_nvjpeg() -> bool:
    """Whether DALI finds nvJPEG for its CUDA version; without nvJPEG, DALI would silently decode JPEGs on the CPU."""
    try:
        return int(version("nvidia-nvjpeg").partition(".")[0]) >= DALI_CUDA
    except PackageNotFoundError:
        return any(map(library, (_NVJPEG, f"/usr/local/cuda/lib64/{_NVJPEG}")))


def cpu_model() -> str:
    """The CPU's name, as the kernel reports it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """The CPU's instruction sets that change how a network is computed."""
    flags = set(_cpuinfo("flags").split())
    return [feature for feature in _CPU_FEATURES if feature in flags]


def has_bfloat16() -> bool:
    """Whether the CPU computes bfloat16 in hardware; emulated bfloat16 is slower than float32."""
    return not set(_BFLOAT16).isdisjoint(cpu_features())


def hardware_precisions() -> dict[str, str]:
    """The instruction sets that compute each precision on this CPU, and how much faster int8 is, by the benchmarks."""
    features = cpu_features()
    bfloat16 = [feature for feature in features if feature in _BFLOAT16]
    int8 = [feature for feature in features if feature in _INT8]
    gains = {(True, True): "1.6 to 1.8 times bfloat16's speed", (False, False): "2 times float32's speed"}
    return {
        "float32": "avx512f" if "avx512f" in features else "avx2",
        "bfloat16": ", ".join(bfloat16) or "not in hardware, so float32 is computed instead",
        "int8": ", ".join(int8) or "sums of 16 bits, which engines built by this version do not overflow",
        "int8_gains": gains.get((bool(bfloat16), bool(int8)), "not measured on such a CPU"),
    }


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def versions() -> dict[str, str]:
    """The version of every installed runtime by name, without importing it."""
    installed = {"python": platform.python_version()}
    for name, package in _RUNTIMES.items():
        try:
            installed[name] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def description() -> dict[str, Any]:
    """The machine as JSON values, for `batchcls info` and for benchmarks."""
    return {
        "cpu": cpu_model(),
        "cpu_features": cpu_features(),
        "cpu_precisions": hardware_precisions(),
        "cores": cores(),
        "gpus": [asdict(gpu) for gpu in gpus()],
        "driver": driver(),
        "cuda": cuda_version(),
        "versions": versions(),
        "not_installed": [name for name in _RUNTIMES if name not in versions()],
    }


def peak_memory_bytes(process: int | Literal["self"] = "self") -> int:
    """Most resident memory of a process so far; 0 once it has ended. Unlike ru_maxrss, it excludes the parent's."""
    try:
        return int(_value(f"/proc/{process}/status", "VmHWM").removesuffix("kB") or 0) * 1024
    except OSError:
        return 0


def _cpuinfo(key: str) -> str:
    return _value("/proc/cpuinfo", key)


def _value(path: str, key: str) -> str:
    """The text behind the colon of the first line with this key; empty if there is none."""
    for line in Path(path).read_text().splitlines():
        if line.partition(":")[0].strip() == key:
            return line.partition(":")[2].strip()
    return ""
