"""Cases that measure the Python API."""

from time import perf_counter, process_time

import numpy as np

from batchcls import Engine
from batchcls.machine import peak_memory_bytes
from benchmarks.sample import Sample, Task

_DIFFERENT = 64
"""Number of different images, which are repeated."""


def measure_arrays(task: Task) -> Sample:
    """Classify pixels in memory that have the engine's size, by `batchcls.Engine.predict`."""
    with Engine.load(task.engine, device=task.device, **task.settings) as engine:
        size_px = engine.info.preprocess.size_px
        images = list(np.random.default_rng(0).integers(0, 256, (_DIFFERENT, *size_px, 3), np.uint8))
        engine.predict(images)
        since, cpu_since = perf_counter(), process_time()
        rows = len(engine.predict((images * -(-task.images // _DIFFERENT))[: task.images]))
        elapsed_s, cpu_s = perf_counter() - since, process_time() - cpu_since
    return Sample(elapsed_s, rows, peak_memory_bytes=peak_memory_bytes(), details={"cpu_s": cpu_s})
