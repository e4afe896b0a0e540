"""The programs that read for others start often, and beside the whole run: they load no more than they need."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("server", ["group_server", "object_server"])
def test_a_reading_process_loads_neither_pyarrow_nor_the_sources(server: str) -> None:
    program = f"import sys, batchcls.images.servers.{server}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert {"numpy", "PIL"} <= set(loaded.stdout.split())
    assert {"pyarrow", "batchcls.images.sources", "click", "rich"} & set(loaded.stdout.split()) == set()
