# SPDX-License-Identifier: Apache-2.0
"""The ledger: what must not be left behind.

A snapshot counts everything that the daemon, shims, workers and OCI runtimes may make on a machine. The
difference of two snapshots is what a test left behind. What ends by itself (a shim that has just answered
its Shutdown) is given a moment: the ledger waits for the difference to vanish, up to a bound, and reports
what stays.

    python3 -m harness.ledger            prints a snapshot
"""
import os
import pathlib
import re
import stat
import sys
import time

SETTLE_SECONDS = 8
PROGRAMS = ("wherryd", "wherry-worker", "containerd-shim", "runc", "crun", "wherry", "criu")
# Where sockets, fifos, runtime state and bundles are made.
PLACES = ("/run/containerd/s", "/run/containerd/runc", "/run/containerd/fifo", "/run/wherry")
CGROUP_ROOT = "/sys/fs/cgroup"


def processes():
    """Programs of ours and of the runtimes, and everything that was left to a subreaper of ours."""
    found = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            command = pathlib.Path(entry.path, "cmdline").read_bytes().split(b"\0")
            state = pathlib.Path(entry.path, "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        program = os.path.basename(command[0].decode(errors="replace"))
        if state != "Z" and program.startswith(PROGRAMS):
            found.add(f"process {entry.name} {b' '.join(command).decode(errors='replace').strip()}")
    return found


# crun that was started by its path, as wrappers in tests do, binds its own file there for a moment, and leaves it
# when it is killed then. Our shim starts it where it need not.
CRUN_ITSELF = re.compile(r"mount \S*/crun /tmp/crun\.\w+$")


def mounts():
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        found = {"mount " + " ".join(line.split()[3:5]) for line in file}
    return {mount for mount in found if not CRUN_ITSELF.match(mount)}


def neighbours():
    """Where the cgroups lie that stand beside our own: whoever made ours makes and removes those, meanwhile."""
    found = set()
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        parent = os.path.dirname(path)
        if parent != "/":
            found.add(f"{CGROUP_ROOT}/{controllers.removeprefix('name=') or 'unified'}{parent}")
    return found


def cgroups():
    found, not_ours = set(), neighbours()
    for base, dirs, _ in os.walk(CGROUP_ROOT):
        if base in not_ours:
            dirs.clear()
        found.update("cgroup " + os.path.join(base, d) for d in dirs)
    return found


def files():
    found = set()
    for place in PLACES:
        for base, dirs, names in os.walk(place):
            for name in dirs + names:
                path = os.path.join(base, name)
                try:
                    kind = stat.S_IFMT(os.lstat(path).st_mode)
                except OSError:
                    continue
                found.add({stat.S_IFSOCK: "socket ", stat.S_IFIFO: "fifo "}.get(kind, "file ") + path)
    return found


def temporary():
    """What programs of ours name after themselves in /tmp."""
    return {"temporary /tmp/" + n for n in os.listdir("/tmp") if n.startswith(("pty", "wherry-", "runc-process"))}


# Directories of a namespace or a runtime root stay when the first container made them.
KEPT = {"file /run/containerd/runc", "file /run/containerd/fifo", "file /run/containerd/s"}


def snapshot():
    return processes() | mounts() | cgroups() | files() | temporary()


def left_behind(before, ignore=()):
    """What is there now and was not before, after it had time to go."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        left = {item for item in snapshot() - before - KEPT
                if not any(part in item for part in ignore) and not is_kept_directory(item)}
        if not left or time.monotonic() > deadline:
            return sorted(left)
        time.sleep(0.05)


def is_kept_directory(item):
    """What stays when the last container of a namespace has gone, as with containerd: the namespace's empty
    directory below the runtime root, and its empty parent cgroup."""
    kind, _, path = item.partition(" ")
    parent, name = os.path.split(path)
    try:
        if kind == "file" and parent == "/run/containerd/runc":
            return not os.listdir(path)
        if kind == "cgroup" and (name == "default" or name.startswith("ns-")):
            return not any(entry.is_dir() for entry in os.scandir(path))
    except OSError:
        pass
    return False


def open_fds(pid):
    """Number of fds, for comparing before and after."""
    return len(os.listdir(f"/proc/{pid}/fd"))


if __name__ == "__main__":
    sys.stdout.write("\n".join(sorted(snapshot())) + "\n")
