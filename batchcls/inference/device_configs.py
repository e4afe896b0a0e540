"""The configuration of each device of a run, which follows from the run's options and the engine."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from batchcls import machine
from batchcls.engine.backends import BackendName, has_cuda_onnxruntime, has_torch_network, tensorrt_api
from batchcls.engine.manifest import Manifest
from batchcls.errors import EngineError
from batchcls.images.decoders import DEFAULT
from batchcls.inference.answer_options import AnswerOptions
from batchcls.inference.cores import near_cores, shared_threads
from batchcls.inference.devices import RunDevice, run_devices
from batchcls.inference.executor import DeviceConfig
from batchcls.inference.options import RunOptions
from batchcls.storage import memory

_OPENVINO_NAMES = {"fp32": "f32", "bf16": "bf16"}
"""OpenVINO's names of precisions."""
_PROCESSES = 1
"""Processes for each device, unless the user says otherwise. One H200 classified 19,800 small JPEGs a second in one
process, 13,800 in two and 11,400 in four, whose work takes turns on the GPU."""


def device_configs(engine: Path, options: RunOptions) -> tuple[list[DeviceConfig], str]:
    """The configuration of each process, and the reason for devices or a backend that the user did not choose.

    Raises:
        EngineError: If a device or its backend is missing or does not take the options, or ``engine`` is no engine.
    """
    devices = run_devices(options.device)
    on_cpu = devices[0].name == "cpu"
    if options.precision and not on_cpu:
        raise EngineError(
            f"--precision {options.precision} was asked for; on {devices[0].name} the engine's plan decides: build "
            "another with batchcls build, or choose --device cpu"
        )
    manifest = Manifest.read(engine)
    backend, why = (options.backend, "") if options.backend else backend_for(devices[0].opened_as, engine, manifest)
    if on_cpu and options.device == "auto":
        why = "there is no GPU"
    memory_bytes = options.memory or memory.default_budget_bytes()
    configs = [
        DeviceConfig(
            engine=engine,
            manifest=manifest,
            backend=backend,
            device=device.name,
            precision=_OPENVINO_NAMES.get(options.precision or ""),
            decoder=options.decoder or (DEFAULT if on_cpu else "dali"),
            batch_size=options.batch_size,
            threads=threads,
            max_pixels=options.max_pixels,
            memory_bytes=memory_bytes,
            read_timeout_s=options.read_timeout_s,
            digests=options.by_content,
            answers=AnswerOptions.of(manifest, options),
            cores=cores,
            visible=device.visible,
        )
        for device, cores, threads in _processes(devices, options)
    ]
    return configs, why


def backend_for(device: str, engine: Path, manifest: Manifest) -> tuple[BackendName, str]:
    """The fastest backend that is installed for a device, and the reason against a faster one; empty if none is faster.

    Args:
        device: ``cpu`` or ``cuda:N``.
        engine: Engine folder; PyTorch runs only networks that it can make again by their architecture's name.
        manifest: The folder's manifest.

    Raises:
        EngineError: If no backend is installed for the device.
    """
    if device == "cpu":
        return "openvino", ""
    try:
        tensorrt_api.module_for(machine.gpu(device).sm)
    except EngineError as error:
        if has_cuda_onnxruntime() and not has_torch_network(engine, manifest):
            return "onnxruntime", str(error)
        if not find_spec("torch"):
            raise
        return "torch", str(error)  # which says what to install, if it cannot run the engine
    return "tensorrt", ""


def _processes(devices: Sequence[RunDevice], options: RunOptions) -> list[tuple[RunDevice, frozenset[int] | None, int]]:
    """The device, the cores and the number of threads of each process; None for the cores if all may be used.

    Raises:
        EngineError: If fewer threads than processes are asked for.
    """
    allowed = frozenset(os.sched_getaffinity(0))
    cores = {device: near_cores(device.pci_address, allowed) for device in devices}

    def threads_of(processes: Sequence[RunDevice]) -> list[int]:
        if options.threads:
            return [max(1, options.threads // len(processes))] * len(processes)
        return shared_threads([cores[device] for device in processes])

    processes = [device for device in devices for _ in range(options.processes or _PROCESSES)]
    if options.processes and options.threads and options.threads < len(processes):
        raise EngineError(
            f"--processes {options.processes} was asked for, and --threads {options.threads} for all of them together: "
            f"{len(processes)} processes need a thread each; run with --threads {len(processes)}, or fewer --processes"
        )
    return [
        (device, None if cores[device] == allowed else cores[device], threads)
        for device, threads in zip(processes, threads_of(processes), strict=True)
    ]
