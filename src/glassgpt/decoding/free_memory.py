"""How much memory this process can still take."""

import math
from pathlib import Path


def free_memory(root: Path = Path("/")) -> float:
    """Bytes that nobody else would have to give up; infinite where the system does not say (no Linux).

    What Linux calls available, or what the process's control groups leave of their limits (cgroup v2), if
    that is less. What Linux only keeps of files, such as weights that are mapped, counts as free. `root` is
    where `proc` and `sys` lie.
    """
    try:
        free = _numbers(root / "proc/meminfo")["MemAvailable"] * 1024  # given in kB
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, KeyError):
        return math.inf
    groups = [line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    for name in groups:
        group = root / "sys/fs/cgroup" / name
        for folder in (group, *group.parents):  # each of them limits those within
            try:
                limit = (folder / "memory.max").read_text(encoding="utf-8").strip()
                used = int((folder / "memory.current").read_text(encoding="utf-8"))
                files = _numbers(folder / "memory.stat")
            except OSError:  # the outermost group has no limit, and so no such file
                continue
            if limit != "max":
                free = min(free, int(limit) - used + files["inactive_file"] + files["active_file"])
    return free


def _numbers(path: Path) -> dict[str, int]:
    """The lines of a file of names and numbers; a colon and a unit are left out."""
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1}
