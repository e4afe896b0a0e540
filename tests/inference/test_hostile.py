"""Broken, malicious and odd images of other projects' test suites: none may cost a row, much time, or much memory."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.commandline import PATIENCE_S
from tests.conftest import DATA

HOSTILE = DATA / "hostile"
ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".gif", ".j2k", ".jp2", ".webp"}
RUN = """if True:
    import json, sys
    from pathlib import Path
    from rich.console import Console
    from batchcls.inference.run import classify
    from batchcls.inference.options import RunOptions

    slides, engine, out, decoder = sys.argv[1:]
    tally = classify([Path(slides)], Path(engine), Path(out), RunOptions(decoder=decoder), Console(quiet=True))
    peak_gib = tally.peak_memory_bytes / 2**30
    print(json.dumps({"rows": tally.rows, "unreadable": tally.unreadable, "peak_gib": peak_gib}))
"""


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="the hostile images of shared/data are not here")
@pytest.mark.parametrize("decoder", ["turbo", "dali", "pillow"])
def test_every_hostile_file_gets_its_row_in_bounded_time_and_memory(
    tiny_engine: Path, tmp_path: Path, decoder: str
) -> None:
    out = tmp_path / "rows.parquet"
    since = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(HOSTILE), str(tiny_engine), str(out), decoder], capture_output=True, text=True
    )
    elapsed_s = time.monotonic() - since

    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    rows = pq.read_table(out).to_pylist()
    images = {str(path.relative_to(HOSTILE)) for path in HOSTILE.rglob("*") if path.suffix.lower() in ENDINGS}
    assert sorted(row["path"] for row in rows) == sorted(images)
    assert all((row["label"] is None) == (row["error"] is not None) for row in rows)
    assert all((row["probabilities"] is None) == (row["error"] is not None) for row in rows)
    assert told["rows"] == len(images)
    assert told["unreadable"] == sum(row["error"] is not None for row in rows)
    assert 0 < told["unreadable"] < len(images)
    assert elapsed_s < PATIENCE_S
    assert told["peak_gib"] < 3
