import math
import platform

import pytest

from glassgpt.decoding.free_memory import free_memory


def write(folder, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def root(tmp_path):
    """A Linux with 8 GB available, and a process in the group /a/b."""
    write(
        tmp_path,
        {
            "proc/meminfo": "MemTotal:  16000000 kB\nMemAvailable:  8000000 kB\nHugePages_Total:  0\n",
            "proc/self/cgroup": "12:cpu:/other\n0::/a/b\n",
        },
    )
    return tmp_path


def limit(root, group: str, most: str, used: int) -> None:
    stat = "anon 1\nfile 300\ninactive_file 100\nactive_file 20\n"
    files = {"memory.max": f"{most}\n", "memory.current": f"{used}\n", "memory.stat": stat}
    write(root / "sys/fs/cgroup" / group, files)


def test_what_linux_calls_available_is_free(root):
    assert free_memory(root) == 8_000_000 * 1024


@pytest.mark.parametrize(
    ("inner", "outer", "free"),
    [
        ("max", "max", 8_000_000 * 1024),
        ("1000000", "max", 1_000_000 - 5_000 + 120),
        ("max", "2000000", 2_000_000 - 7_000 + 120),
        ("3000000", "2000000", 2_000_000 - 7_000 + 120),
        ("9000000000", "max", 8_000_000 * 1024),
    ],
)
def test_a_group_leaves_what_it_and_those_around_it_allow(root, inner, outer, free):
    limit(root, "a/b", inner, 5_000)
    limit(root, "a", outer, 7_000)
    assert free_memory(root) == free


def test_what_a_group_may_have_before_it_becomes_slow_counts_as_well(root):
    limit(root, "a/b", "1000000", 5_000)
    write(root / "sys/fs/cgroup/a/b", {"memory.high": "900000\n"})
    assert free_memory(root) == 900_000 - 5_000 + 120
    write(root / "sys/fs/cgroup/a/b", {"memory.high": "max\n"})
    assert free_memory(root) == 1_000_000 - 5_000 + 120


def test_the_group_of_a_container_is_found_where_only_its_own_is_shown(root):
    limit(root, "", "1000000", 5_000)
    assert free_memory(root) == 1_000_000 - 5_000 + 120


@pytest.mark.parametrize("place", ["docker/c1", "docker", ""])
def test_groups_of_version_1_limit_it_too(root, place):
    write(root, {"proc/self/cgroup": "5:cpu:/other\n4:hugetlb,memory:/docker/c1\n0::/\n"})
    files = {
        "memory.limit_in_bytes": "1000000\n",
        "memory.usage_in_bytes": "5000\n",
        "memory.stat": "inactive_file 1\nactive_file 1\ntotal_inactive_file 100\ntotal_active_file 20\n",
    }
    write(root / "sys/fs/cgroup/memory" / place, files)
    assert free_memory(root) == 1_000_000 - 5_000 + 120


def test_a_system_that_does_not_say_has_no_limit(tmp_path):
    assert free_memory(tmp_path) == math.inf


@pytest.mark.skipif(platform.system() != "Linux", reason="needs Linux: no other system says it in /proc")
def test_this_machine_has_some():
    assert 1e6 < free_memory() < 1e15
