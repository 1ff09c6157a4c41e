# SPDX-License-Identifier: Apache-2.0
"""Hierarchies of cgroup v1 that are mounted for the time of a run."""
import os
import pathlib
import subprocess
import time

ROOT = pathlib.Path("/sys/fs/cgroup")


def for_crun():
    """It refuses hosts whose unified hierarchy keeps a controller beside v1 ones. And what is in use without being
    mounted, since a run before this one was killed, it takes for plain directories."""
    unified = ROOT / "unified" / "cgroup.controllers"
    if not unified.exists():
        return []
    lines = pathlib.Path("/proc/self/cgroup").read_text().splitlines()
    in_use = [line.split(":")[1] for line in lines]
    return unified.read_text().split() + [c for c in in_use if c and not c.startswith("name=")]


def mount(controllers):
    """Where it was mounted; None: it is already, or cannot be."""
    directory = ROOT / controllers
    try:
        directory.mkdir(exist_ok=True)
    except OSError:
        return None
    return directory if not os.path.ismount(directory) and attach(directory) else None


def attach(directory):
    command = ["mount", "-t", "cgroup", "-o", directory.name, "cgroup", directory]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def is_let_go(directory):
    """Of a hierarchy that is mounted nowhere: whether it is no more in use, for which the kernel takes a moment."""
    for _ in range(20):
        lines = pathlib.Path("/proc/self/cgroup").read_text().splitlines()
        if all(line.split(":")[1] != directory.name for line in lines):
            return True
        time.sleep(0.05)
    return False


def unmount(directory):
    """With the empty groups in it: one that is left keeps the hierarchy in use although it is mounted nowhere, and what
    was its place then is a plain directory that crun takes for it. The kernel keeps a group that was removed for a
    moment, and looks for groups only when the last mount goes."""
    for base, names, _ in os.walk(directory, topdown=False):
        for name in names:
            try:
                os.rmdir(os.path.join(base, name))
            except OSError:
                pass  # somebody is in it
    for _ in range(3):
        subprocess.run(["umount", directory], check=False)
        if is_let_go(directory) or not attach(directory):
            break
    else:
        subprocess.run(["umount", directory], check=False)
    try:
        directory.rmdir()
    except OSError:
        pass  # still mounted
