"""The operating system's account of processor time and memory: whole process trees, not what a program says of itself."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    cpu_ticks: int
    """User and system time, its own and that of children it has waited for."""
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a set of process trees has used so far."""

    at: float
    """time.perf_counter() of the reading."""
    cpu_seconds: Mapping[str, float]
    resident_mib: Mapping[str, float]


def usage(roots: Mapping[str, int]) -> Usage:
    """Read the account of some process trees.

    Args:
        roots: Name and process id of each tree's root.
    """
    processes = _processes()
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    cpu, memory = {}, {}
    for name, root in roots.items():
        tree = _tree(root, children)
        cpu[name] = sum(processes[pid].cpu_ticks for pid in tree if pid in processes) / _TICKS_PER_SECOND
        memory[name] = sum(processes[pid].resident_bytes for pid in tree if pid in processes) / 2**20
    return Usage(time.perf_counter(), cpu, memory)


def cpu_microseconds(before: Usage, after: Usage, *, per: float) -> dict[str, float]:
    """Processor time between two readings for each message.

    Args:
        before: The first reading.
        after: The second; trees that are only in one of them are left out.
        per: Messages in between.
    """
    return {
        name: (seconds - before.cpu_seconds[name]) / per * 1e6
        for name, seconds in after.cpu_seconds.items()
        if name in before.cpu_seconds
    }


@dataclass(frozen=True, slots=True)
class Machine:
    """Processor time of the whole machine so far, and how much of it was this process's and its ended children's."""

    at: float
    busy_seconds: float
    own_seconds: float

    @classmethod
    def now(cls) -> "Machine":
        """Read the account; children count once they have been waited for."""
        # proc(5): user, nice, system, idle, iowait, irq, softirq, steal
        fields = list(map(int, Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]))
        busy = sum(fields) - fields[3] - fields[4]
        return cls(time.perf_counter(), busy / _TICKS_PER_SECOND, sum(os.times()[:4]))

    def taken_by_others(self, earlier: "Machine") -> float:
        """The share of the machine, 0 to 1, that had nothing to do with us since an earlier reading.

        Args:
            earlier: From before the first child was started; by now all have ended.
        """
        others = (self.busy_seconds - earlier.busy_seconds) - (self.own_seconds - earlier.own_seconds)
        return max(0.0, others / ((self.at - earlier.at) * (os.cpu_count() or 1)))


def _tree(root: int, children: Mapping[int, list[int]]) -> list[int]:
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _processes() -> dict[int, _Process]:
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text(encoding="ascii", errors="replace")
        except OSError:  # it has ended since
            continue
        # proc(5): the name, in brackets, may hold anything; what follows starts at field 3
        fields = stat[stat.rindex(")") + 2 :].split()
        found[int(folder.name)] = _Process(
            parent=int(fields[1]),
            cpu_ticks=sum(map(int, fields[11:15])),
            resident_bytes=int(fields[21]) * _PAGE_BYTES,
        )
    return found
