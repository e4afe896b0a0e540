"""Which cores are near a GPU, by what the kernel tells of a machine; here a folder of our own tells it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.inference.cores import listed_cores, near_cores, shared_threads

ADDRESS = "0000:3b:00.0"
ALL = frozenset(range(16))


def machine_of(folder: Path, cores: str | None, nodes: int = 2) -> Path:
    """A machine of so many NUMA nodes with one GPU, whose cores are listed, unless it does not tell them."""
    for node in range(nodes):
        (folder / f"devices/system/node/node{node}").mkdir(parents=True)
    if nodes:
        (folder / "devices/system/node/online").touch()
    device = folder / "bus/pci/devices" / ADDRESS
    device.mkdir(parents=True)
    if cores is not None:
        (device / "local_cpulist").write_text(cores)
    return folder


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40)), min_size=1, max_size=20))
def test_a_list_of_cores_is_read_as_the_kernel_writes_it(ranges: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}-{first + more}" if more else str(first) for first, more in ranges) + "\n"

    assert listed_cores(text) == {core for first, more in ranges for core in range(first, first + more + 1)}


@given(st.text("0123456789-,x \n٣", max_size=12))
def test_any_other_text_lists_no_core_or_only_those_that_stand_in_it(text: str) -> None:
    items = text.strip().split(",")
    sound = all(1 <= len(item.split("-")) <= 2 and item.replace("-", "0").isascii() for item in items)
    sound = sound and all(part.isdigit() for item in items for part in item.split("-"))

    assert sound or listed_cores(text) == frozenset()


def test_cores_on_the_gpus_node_are_near(tmp_path: Path) -> None:
    folder = machine_of(tmp_path, "0-3,8,10-11\n")

    assert near_cores(ADDRESS, ALL, folder) == {0, 1, 2, 3, 8, 10, 11}
    assert near_cores(ADDRESS, frozenset({2, 5, 11}), folder) == {2, 11}, "a core that the run may not use"


@pytest.mark.parametrize(
    ("cores", "nodes"), [(None, 2), ("\n", 2), ("16-31\n", 2), ("f,0f", 2), ("0-3\n", 1), ("0-3\n", 0)]
)
def test_where_the_machine_tells_no_cores_of_the_run_all_may_be_used(
    tmp_path: Path, cores: str | None, nodes: int
) -> None:
    assert near_cores(ADDRESS, ALL, machine_of(tmp_path, cores, nodes)) == ALL


def test_a_device_without_an_address_may_use_all_cores(tmp_path: Path) -> None:
    assert near_cores(None, ALL, machine_of(tmp_path, "0-3\n")) == ALL


@pytest.mark.parametrize(
    ("processes", "threads"),
    [
        ([range(16)], [16]),
        ([range(16)] * 3, [5, 5, 5]),
        ([range(12), range(12), range(12, 16)], [6, 6, 4]),
        ([range(2)] * 3, [1, 1, 1]),
        ([range(16), range(8)], [12, 4]),
    ],
)
def test_threads_are_shared_out_by_cores(processes: list[range], threads: list[int]) -> None:
    assert shared_threads([frozenset(cores) for cores in processes]) == threads
