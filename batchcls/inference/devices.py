"""The devices of a run, each as a process of its own sees it: GPUs, and the parts of a GPU that is divided by MIG."""

import ctypes
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from batchcls import machine

_TEXT_BYTES = 96
"""Bytes of NVML's longest names and identifiers, NVML_DEVICE_UUID_V2_BUFFER_SIZE."""
_DIVIDED = 1
"""NVML_DEVICE_MIG_ENABLE."""
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
"""Environment variable by which CUDA shows a process some devices only."""


@dataclass(frozen=True, slots=True)
class RunDevice:
    """A device that a run may use."""

    name: str
    """``cpu`` or ``cuda:N``, as the user names it."""
    pci_address: str | None = None
    """Address such as ``0000:3b:00.0``; None for the CPU, or if it is not known."""
    visible: str | None = None
    """Value of CUDA_VISIBLE_DEVICES with which a process of its own sees this device alone; None if this process sees
    it as it is named."""

    @property
    def opened_as(self) -> str:
        """Name by which the process that uses the device opens it."""
        return self.name if self.visible is None else "cuda:0"


class _PciInfo(ctypes.Structure):
    """NVML's nvmlPciInfo_t."""

    _fields_ = (
        ("legacy_text", ctypes.c_char * 16),
        *((name, ctypes.c_uint) for name in ("domain", "bus", "device", "device_id", "subsystem_id")),
        ("text", ctypes.c_char * 32),
    )


def run_devices(device: str) -> list[RunDevice]:
    """The devices that a name stands for, as `batchcls.machine.resolve_devices` takes it.

    Where a GPU is divided by MIG, CUDA shows a process one of the instances and no other GPU. Then every instance and
    every undivided GPU is a device, numbered in NVML's order.

    Raises:
        EngineError: If a named GPU is missing, or its driver is too old.
    """
    divided = [] if device == "cpu" else divided_gpus()
    names = machine.resolve_devices(device, gpu_count=len(divided) or None)
    if divided:
        return [divided[int(name.removeprefix("cuda:"))] for name in names]
    return [RunDevice(name, None if name == "cpu" else machine.pci_address(name)) for name in names]


def divided_gpus() -> list[RunDevice]:
    """Every MIG instance and undivided GPU; empty if no GPU is divided, or CUDA shows this process all that there is.

    Where the user has set CUDA_VISIBLE_DEVICES, only what it names by UUID; other names are CUDA's to understand.
    """
    nvml = machine.library(machine.NVML)
    if nvml is None or nvml.nvmlInit_v2():
        return []
    addresses = dict(_uuids(nvml))
    visible = os.environ.get(VISIBLE_DEVICES)
    uuids = list(addresses) if visible is None else _named(visible, list(addresses))
    if len(uuids) < 2 or not any(uuid.startswith("MIG-") for uuid in uuids):
        return []
    return [RunDevice(f"cuda:{number}", addresses[uuid], uuid) for number, uuid in enumerate(uuids)]


def _named(visible: str, uuids: Sequence[str]) -> list[str]:
    """The UUIDs that a value of CUDA_VISIBLE_DEVICES names; as in CUDA, none after the first that is not there.

    Source: CUDA Programming Guide, CUDA_VISIBLE_DEVICES: unique beginnings of UUIDs are names as well.
    """
    named: list[str] = []
    for name in visible.split(","):
        matches = [
            uuid for uuid in uuids if name.strip().startswith(("MIG-", "GPU-")) and uuid.startswith(name.strip())
        ]
        if len(matches) != 1:
            break
        named += matches
    return named


def _uuids(nvml: ctypes.CDLL) -> Iterator[tuple[str, str]]:
    """The UUID and the PCI address of every MIG instance, and of every GPU that is not divided.

    Source: NVML API, Multi Instance GPU Management; nothing is changed.
    """
    count = ctypes.c_uint()
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return
    for number in range(count.value):
        gpu, instance, places = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_uint()
        mode, next_mode = ctypes.c_uint(), ctypes.c_uint()
        if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(gpu)):
            continue
        address = _pci_address(nvml, gpu)
        unable = nvml.nvmlDeviceGetMigMode(gpu, ctypes.byref(mode), ctypes.byref(next_mode))
        if unable or mode.value != _DIVIDED:
            yield _uuid(nvml, gpu), address
            continue
        nvml.nvmlDeviceGetMaxMigDeviceCount(gpu, ctypes.byref(places))
        for place in range(places.value):
            if not nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, place, ctypes.byref(instance)):
                yield _uuid(nvml, instance), address


def _uuid(nvml: ctypes.CDLL, device: ctypes.c_void_p) -> str:
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    nvml.nvmlDeviceGetUUID(device, text, len(text))
    return text.value.decode(errors="replace")


def _pci_address(nvml: ctypes.CDLL, gpu: ctypes.c_void_p) -> str:
    info = _PciInfo()
    nvml.nvmlDeviceGetPciInfo_v3(gpu, ctypes.byref(info))
    return f"{info.domain:04x}:{info.bus:02x}:{info.device:02x}.0"
