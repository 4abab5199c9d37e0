"""How much memory this process can still take."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path


def free_memory(root: Path = Path("/")) -> float:
    """Bytes that can be taken before the system runs out of them; infinite where it does not say (no Linux).

    What Linux calls available, or what the process's control groups (of version 1 or 2) leave of their
    limits, if that is less. What is only kept of files, such as weights that are mapped, counts as free.
    `root` is where `proc` and `sys` lie.
    """
    free = math.inf
    with contextlib.suppress(OSError, KeyError, ValueError):  # no Linux, or one that does not say
        free = _numbers(root / "proc/meminfo")["MemAvailable"] * 1024  # given in kB
    return min([free, *map(_left_by, _control_groups(root))])


def _control_groups(root: Path) -> Iterator[Path]:
    """The folders of the groups that may limit the process's memory: its own, and those that these lie in."""
    with contextlib.suppress(OSError, ValueError):  # no Linux, or one that says it in another way
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            mount = root / "sys/fs/cgroup"
            if controllers:
                if "memory" not in controllers.split(","):
                    continue
                mount /= "memory"  # version 1 has a folder for each
            group = mount / name.strip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))


def _left_by(group: Path) -> float:
    """Bytes between what a group has and what it may have at most, both of which files in its folder say."""
    left = math.inf
    for limit, used, prefix in (
        ("memory.max", "memory.current", ""),
        ("memory.high", "memory.current", ""),  # beyond this all of it becomes slow
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),  # of version 1
    ):
        with contextlib.suppress(OSError, KeyError, ValueError):  # of the other version; "max" is no limit
            most = int((group / limit).read_text(encoding="utf-8"))
            files = _numbers(group / "memory.stat")
            of_files = files[f"{prefix}inactive_file"] + files[f"{prefix}active_file"]
            left = min(left, most - int((group / used).read_text(encoding="utf-8")) + of_files)
    return left


def _numbers(path: Path) -> dict[str, int]:
    """The lines of a file of names and numbers; a colon and a unit are left out."""
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1}
