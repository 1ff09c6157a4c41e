# SPDX-License-Identifier: Apache-2.0
"""What processes use: CPU from /proc and of children, memory from smaps."""
import ctypes
import os
import pathlib
import resource
import time

PR_SET_CHILD_SUBREAPER = 36
SHIM = "containerd-shim"
TICK = os.sysconf("SC_CLK_TCK")
KERNEL_STACK_KIB = 16  # of a thread, on x86-64 and arm64


def adopt_orphans():
    """Shims whose parent ends become our children, so that their CPU is counted here when they end."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def stat(pid):
    """The fields of /proc/PID/stat from the third on, or None."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def words_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def name_of(pid):
    """Of a zombie too; at most 15 bytes."""
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def pids():
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def shims(address):
    """Pids of the shims of a daemon."""
    found = []
    for pid in pids():
        words = words_of(pid)
        if words and os.path.basename(words[0]).startswith(SHIM) and address in words:
            found.append(pid)
    return found


def cpu_of(pid):
    """Seconds of a process and of its children that it has waited for."""
    fields = stat(pid)
    return sum(int(n) for n in fields[11:15]) / TICK if fields else 0.0


def own_cpu_of(pid):
    fields = stat(pid)
    return sum(int(n) for n in fields[11:13]) / TICK if fields else 0.0


def reap(name):
    """Waits for orphans of that name that became ours and have ended; returns how many of them have not."""
    left = 0
    for pid in pids():
        fields = stat(pid)
        if not fields or int(fields[1]) != os.getpid() or not name_of(pid).startswith(name):
            continue
        if fields[0] == "Z":
            os.waitpid(pid, os.WNOHANG)
        else:
            left += 1
    return left


def settle(seconds=5):
    """Until every shim that became ours has ended."""
    deadline = time.monotonic() + seconds
    while reap(SHIM) and time.monotonic() < deadline:
        time.sleep(0.02)


class Cpu:
    """Seconds that a daemon, its shims, what they started and the clients that we started have used since."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.before = self.now()

    def now(self):
        reap(SHIM)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (children.ru_utime + children.ru_stime + cpu_of(self.daemon.pid) +
                sum(cpu_of(pid) for pid in shims(self.daemon.address)))

    def seconds(self):
        return self.now() - self.before


def rollup(pid, *keys):
    """Sum of these lines of smaps_rollup, in KiB."""
    total = 0
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith(keys):
                total += int(line.split()[1])
    return total


def private_kib(pid):
    """Memory that nobody shares: what would come back if the process ended."""
    return rollup(pid, "Private_Clean:", "Private_Dirty:")


def dirty_kib(pid):
    """Without the pages of a program that nobody else happens to run."""
    return rollup(pid, "Private_Dirty:")


def pss_kib(pid):
    return rollup(pid, "Pss:")


def kernel_kib(pid):
    """What the kernel keeps for it, as far as it is told: page tables and a stack for each thread."""
    values = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(values["VmPTE"].split()[0]) + int(values["Threads"]) * KERNEL_STACK_KIB
