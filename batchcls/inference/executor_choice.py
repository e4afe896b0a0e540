"""Choose the executor of a run: this process, several, or a cluster."""

from collections.abc import Callable, Sequence
from pathlib import Path

from batchcls.engine.manifest import Manifest
from batchcls.errors import EngineError
from batchcls.images.sources.places import Place
from batchcls.inference.device_configs import device_configs
from batchcls.inference.executor import Executor
from batchcls.inference.local_executor import LocalExecutor
from batchcls.inference.options import RunOptions
from batchcls.inference.process_executor import ProcessExecutor

OpenExecutor = Callable[[Sequence[Place], Sequence[str]], Executor]
"""Opens the executor for places of slides and the roots that their slides have."""


def choose_executor(engine: Path, options: RunOptions) -> tuple[Manifest, OpenExecutor]:
    """The engine's manifest, and what opens the executor that ``options`` ask for.

    Raises:
        EngineError: If a device or its backend is missing or does not take the options, or ``engine`` is no engine.
    """
    if options.cluster is not None:
        return Manifest.read(engine), lambda places, roots: _open_cluster(engine, options, places, roots)
    configs, why = device_configs(engine, options)
    if len(configs) == 1 and not configs[0].needs_own_process:
        return configs[0].manifest, lambda places, roots: LocalExecutor(configs[0], why)
    return configs[0].manifest, lambda places, roots: ProcessExecutor(configs, why)


def _open_cluster(engine: Path, options: RunOptions, places: Sequence[Place], roots: Sequence[str]) -> Executor:
    try:
        from batchcls.inference.ray_executor import RayExecutor  # only a cluster needs Ray
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("batchcls"):
            raise  # a bug
        raise EngineError(
            f"--cluster needs {error.name}, which is not installed; run: pip install 'batchcls[ray]'"
        ) from error
    return RayExecutor(engine, options, places, roots)
