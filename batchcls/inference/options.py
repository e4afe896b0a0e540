"""How a run is done, and what each of its devices has to open for that."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from batchcls import machine, memory
from batchcls.engine.backends import BackendName, tensorrt_api
from batchcls.errors import EngineError
from batchcls.images.decoders import DEFAULT, DecoderName
from batchcls.inference.local import DeviceConfig
from batchcls.storage.file_client import READ_TIMEOUT_S

_WORDS = {"fp32": "f32", "bf16": "bf16"}
"""What OpenVINO calls precisions."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is done; none of it changes which files get a row."""

    device: str = "auto"
    backend: BackendName | None = None
    """None: the one that is made for the device."""
    precision: str | None = None
    """fp32 or bf16, which a CPU computes in; None: the fastest that it has in hardware."""
    decoder: DecoderName | None = None
    """None: the one that is fastest on the device."""
    batch_size: int | None = None
    """None: the one that the engine is fastest with."""
    threads: int | None = None
    """CPU threads that decode, and as many that infer; None: one a core that this process may use."""
    max_pixels: int = 200_000_000
    read_timeout_s: float = READ_TIMEOUT_S
    """How long the file system may take for one answer."""
    memory: int | None = None
    """Bytes that the run may take, with all its processes; None: what it has when it begins, and half of what is
    available then."""
    overwrite: bool = False


def device_configs(engine: Path, options: RunOptions) -> tuple[list[DeviceConfig], str]:
    """What each device has to open, and why the run takes these devices or this backend, where nobody chose them.

    Raises:
        EngineError: If a device or its backend is not there, or does not take the options.
    """
    devices = machine.chosen_devices(options.device)
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
    shares = [
        DeviceConfig(
            engine=engine,
            backend=backend,
            device=device,
            precision=_WORDS.get(options.precision or ""),
            decoder=options.decoder or (DEFAULT if on_cpu else "dali"),
            batch_size=options.batch_size,
            threads=max(1, threads // len(devices)),
            max_pixels=options.max_pixels,
            memory_bytes=options.memory or memory.default_bytes(),
            read_timeout_s=options.read_timeout_s,
        )
        for device in devices
    ]
    return shares, why


def backend_for(device: str) -> tuple[BackendName, str]:
    """The fastest backend that is installed for a device, and why it is not a faster one.

    Raises:
        EngineError: If there is none.
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
