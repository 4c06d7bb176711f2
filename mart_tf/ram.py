"""How much RAM there is: of the machine, or of what this process may have.

A container, a Pod and a Slurm job are control groups of Linux, which have
limits of their own.
"""

import math
import os
import pathlib

# By the controllers that a line of /proc/self/cgroup names: where the groups
# lie, the files of limit and use, and of the files that can be given up the
# number in memory.stat.
_FILES = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": (
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


def available():
    """Bytes of RAM that can still be had, as far as the system tells."""
    try:
        said = _numbers(pathlib.Path("/proc/meminfo"))
        free = 1024 * (said["MemAvailable"] + said["SwapFree"])
    except (OSError, ValueError, LookupError):
        free = math.inf
    groups = (max(0, limit - used) for limit, used in _groups())
    return min([free, machine(), *groups])


def machine():
    """Bytes of RAM of machine or container; infinity where neither tells."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        size = math.inf
    return min([size, *(limit for limit, _ in _groups())])


def _groups(system=pathlib.Path("/")):
    """Limit and use, in bytes, of each control group that this process is in.

    A container, a Pod and a Slurm job are such groups. What is used is without
    the pages of files that the system would give up.

    Args:
        system: Below it lie `proc` and `sys`.
    """
    try:
        lines = (system / "proc/self/cgroup").read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return []
    found = []
    for line in lines:
        # Such as "0::/job" of version 2 and "4:memory:/job" of version 1.
        _, controllers, path = line.split(":", 2)
        ours = _FILES.keys() & controllers.split(",")
        if not ours:
            continue
        root, limit, used, cached = _FILES[ours.pop()]
        folder = system / root / path.lstrip("/")
        # The limits of the groups that a group is in hold for it too. Of a path
        # that the container does not see, what it sees is at the root.
        for group in (folder, *folder.parents):
            found += _group(group, limit, used, cached)
            if group == system / root:
                break
    return found


def _group(folder, limit, used, cached):
    """The pair of one group; nothing of one that is not there or unlimited."""
    try:
        most = int((folder / limit).read_text("ascii"))
        taken = int((folder / used).read_text("ascii"))
        spare = _numbers(folder / "memory.stat").get(cached, 0)
    except (OSError, ValueError):
        # Without a limit it says "max".
        return []
    return [(most, taken - spare)]


def _numbers(path):
    """The first number of each line of a file, by the word before it."""
    words = (
        line.replace(":", " ").split()
        for line in path.read_text("ascii").splitlines()
    )
    return {name: int(number) for name, number, *_ in words}
