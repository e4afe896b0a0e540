"""Which executor a run gets."""

import sys
from pathlib import Path
from typing import Any

import pytest

from batchcls.errors import EngineError
from batchcls.inference.options import RunOptions
from tests.commandline import invoked
from tests.conftest import draw


def test_a_cluster_without_ray_names_the_extra_that_installs_it(
    tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("batchcls.inference.ray_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ("--engine", tiny_engine, "--out", tmp_path / "o.parquet", "--cluster", "ray")

    result = invoked(draw(tmp_path / "0.png"), *arguments)

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "batchcls: --cluster needs ray, which is not installed; run: pip install 'batchcls[ray]'"
    )
    assert not (tmp_path / "o.parquet.partial").exists()


@pytest.mark.parametrize("cluster", ["ray", "10.0.0.1:6379", "ray://head:10001", "ray://[::1]:10001"])
def test_addresses_of_clusters_are_taken(cluster: str) -> None:
    assert RunOptions(cluster=cluster).cluster == cluster


@pytest.mark.parametrize("cluster", ["", "head", "ray://", "ray://user@head:1", "http://head:1", "head:123456", 7])
def test_other_addresses_are_refused(cluster: Any) -> None:
    with pytest.raises(EngineError, match=r"^cluster is .*; use ray, HOST:PORT, or ray://HOST:PORT for Ray Client$"):
        RunOptions(cluster=cluster)
