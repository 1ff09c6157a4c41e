# SPDX-License-Identifier: Apache-2.0
"""memory: what an idle shim and an idle daemon keep."""
import os
import statistics
import subprocess
import time

from fault.rig import Rig
from harness import daemons

from . import usage
from .execs import SLEEP, options
from .pair import ratio, table

SUITES = daemons.SOURCE / "build" / "suites"


def newest_shim():
    """The shim of Debian sid's containerd, or why not."""
    result = subprocess.run([daemons.SOURCE / "tools" / "suite-packages", SUITES, "sid", "containerd"],
                            stdin=subprocess.DEVNULL, capture_output=True, text=True)
    path = SUITES / "sid" / "usr" / "bin" / "containerd-shim-runc-v2"
    if result.returncode or not path.exists():
        return None, (result.stderr.strip().splitlines() or ["no shim in it"])[-1]
    version = subprocess.run([path, "-v"], capture_output=True, text=True).stdout.split("Version:")[-1].split()
    return str(path), version[0] if version else "sid"


def look(pids):
    """Means of private memory, PSS and the kernel's part, in KiB."""
    os.sync()  # file pages count as private until they are written
    time.sleep(2)
    return [statistics.mean(kib(pid) for pid in pids) for kib in (usage.private_kib, usage.pss_kib, usage.kernel_kib)]


def with_shims(daemon, n, runtime, shim=None):
    """Of many idle containers with one kind of shim."""
    rig = Rig(daemon, **({"runtime": shim} if shim else {}))
    try:
        for number in range(n):
            rig.run(f"m{number}", SLEEP, options=options(runtime), io={"stdout": "/dev/null", "stderr": "/dev/null"})
        pids = [pid for pid in usage.shims(daemon.address) if rig.ns in usage.words_of(pid)]
        if len(pids) != n:
            raise SystemExit(f"bench: {len(pids)} shims of {n}")
        return look(pids)
    finally:
        rig.forget()
        usage.settle()


def show(pair):
    n = 20 if pair.quick else 100
    runtime = pair.runtimes[-1]
    theirs, ours = (with_shims(daemon, n, runtime) for daemon in pair.both)
    rows = [("", "private", "proportional (PSS)", "kernel, as far as told", "wherry's to its private", "to reach")]

    def row(name, kib, wanted=""):
        rows.append((name, *(f"{value:.0f} KiB" for value in kib), ratio(kib[0], ours[0]), wanted))

    notes = ["page tables and kernel stacks are charged to nobody's PSS"]
    row("containerd-shim-runc-v2, Debian's", theirs)
    newest, version = newest_shim()
    if newest:
        row(f"containerd-shim-runc-v2, {version}", with_shims(pair.ours, n, runtime, newest))
    else:
        notes.append(f"no newer shim of containerd: {version}")
    row("containerd-shim-wherry-v2", ours, "128 KiB")
    table(f"Memory of an idle shim, mean of {n}", rows, *notes)

    time.sleep(6)
    a, b = (usage.private_kib(daemon.pid) for daemon in pair.both)
    table("Private memory of the idle daemon", [("containerd", "wherry", "ratio", "to reach"),
                                               (f"{a} KiB", f"{b} KiB", f"{b / a:.3f}", "3072 KiB")])
