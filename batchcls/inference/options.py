"""The options of a run, and the configuration of each device that follows from them."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from batchcls import machine, memory
from batchcls.engine.backends import BackendName, tensorrt_api
from batchcls.engine.manifest import Manifest
from batchcls.errors import EngineError
from batchcls.images.decoders import DEFAULT, DecoderName
from batchcls.inference.executor import DeviceConfig
from batchcls.storage.timeouts import READ_TIMEOUT_S

_OPENVINO_NAMES = {"fp32": "f32", "bf16": "bf16"}
"""OpenVINO's names of precisions."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of a run; none of them changes which files get a row."""

    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:N``, or ``all`` for every GPU."""
    backend: BackendName | None = None
    """Runtime of the engine; None for the fastest one that is installed for the device."""
    precision: str | None = None
    """``fp32`` or ``bf16`` on a CPU; None for the fastest precision that the CPU has in hardware."""
    decoder: DecoderName | None = None
    """Image decoder; None for the fastest one on the device."""
    batch_size: int | None = None
    """Images in a batch; None for the size that the engine is fastest with."""
    threads: int | None = None
    """CPU threads that decode, and as many that infer; None for one a core that this process may use."""
    max_pixels: int = 200_000_000
    """Pixels of the largest image that is decoded."""
    read_timeout_s: float = READ_TIMEOUT_S
    """Seconds that the file system may take for one answer."""
    memory: int | None = None
    """Bytes that all processes of the run may take together; None for the memory that is resident when the run begins,
    and half of what is available then."""
    overwrite: bool = False
    """Whether an existing predictions file is replaced."""


def device_configs(engine: Path, options: RunOptions) -> tuple[list[DeviceConfig], str]:
    """The configuration of each device, and the reason for devices or a backend that the user did not choose.

    Raises:
        EngineError: If a device or its backend is missing or does not take the options, or ``engine`` is no engine.
    """
    devices = machine.resolve_devices(options.device)
    if options.precision and devices != ("cpu",):
        raise EngineError(
            f"--precision {options.precision} was asked for; on {devices[0]} the engine's plan decides: build another "
            "with batchcls build, or choose --device cpu"
        )
    on_cpu = devices == ("cpu",)
    backend, why = (options.backend, "") if options.backend else backend_for(devices[0])
    if on_cpu and options.device == "auto":
        why = "there is no GPU"
    threads = options.threads or machine.cores()
    manifest = Manifest.read(engine)
    configs = [
        DeviceConfig(
            engine=engine,
            manifest=manifest,
            backend=backend,
            device=device,
            precision=_OPENVINO_NAMES.get(options.precision or ""),
            decoder=options.decoder or (DEFAULT if on_cpu else "dali"),
            batch_size=options.batch_size,
            threads=max(1, threads // len(devices)),
            max_pixels=options.max_pixels,
            memory_bytes=options.memory or memory.default_budget_bytes(),
            read_timeout_s=options.read_timeout_s,
        )
        for device in devices
    ]
    return configs, why


def backend_for(device: str) -> tuple[BackendName, str]:
    """The fastest backend that is installed for a device, and the reason against a faster one; empty if none is faster.

    Raises:
        EngineError: If no backend is installed for the device.
    """
    if device == "cpu":
        return "openvino", ""
    try:
        tensorrt_api.module_for(machine.gpu(device).sm)
    except EngineError as error:
        if not find_spec("torch"):
            raise
        return "torch", str(error)
    return "tensorrt", ""
