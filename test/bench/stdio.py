# SPDX-License-Identifier: Apache-2.0
"""stdio: output through a fifo, one container."""
import itertools
import os
import statistics
import threading
import time

from . import usage
from .execs import Target
from .pair import ratio, table

CHUNK = 1 << 16
numbers = itertools.count()


class Drain(threading.Thread):
    """Reads a fifo to its end and keeps nothing."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(self.fd, True)
        self.keep_open = os.open(path, os.O_WRONLY)  # until the shim has it
        self.buffer = bytearray(CHUNK)
        self.n = 0

    def run(self):
        while True:
            got = os.readv(self.fd, [self.buffer])
            if got == 0:
                break
            if self.keep_open >= 0:
                os.close(self.keep_open)
                self.keep_open = -1
            self.n += got
        os.close(self.fd)


def pump(rig, name, mib):
    """Seconds that an exec takes to bring so much through a fifo to a reader."""
    exec_id = f"o{next(numbers)}"
    path = rig.fifo(exec_id)
    drain = Drain(path)
    drain.start()
    started = time.perf_counter()
    rig.execute(name, exec_id, ("dd", "if=/dev/zero", f"bs={CHUNK}", f"count={mib << 20 >> 16}"), stdout=str(path),
                stderr="/dev/null")
    rig.wait(name, exec_id, timeout=600)
    rig.delete_exec(name, exec_id)
    drain.join(60)
    elapsed = time.perf_counter() - started
    if drain.n != mib << 20:
        raise SystemExit(f"bench: {drain.n} bytes of {mib} MiB came")
    path.unlink()
    return elapsed


def show(pair):
    mib, runs = (256, 3) if pair.quick else (1024, 5)
    runtime = pair.runtimes[-1]
    speeds, costs = {}, {}
    with Target(pair, pair.theirs, runtime) as theirs, Target(pair, pair.ours, runtime) as ours:
        sides = (theirs, ours)
        pids = {side: next(pid for pid in usage.shims(side.daemon.address) if side.rig.ns in usage.words_of(pid))
                for side in sides}
        for number in range(runs + 1):
            for side in sides:
                before = usage.own_cpu_of(pids[side])
                seconds = pump(side.rig, side.name, mib)
                if number:
                    speeds.setdefault(side, []).append(mib / seconds)
                    costs.setdefault(side, []).append((usage.own_cpu_of(pids[side]) - before) * 1024 / mib)
        a, b = (statistics.median(speeds[side]) for side in sides)
        cpu_a, cpu_b = (statistics.median(costs[side]) for side in sides)
    table(f"Output of one process through a fifo: median of {runs} times {mib} MiB",
          [("", "containerd", "wherry", "ratio", "to reach"),
           ("throughput", f"{a:.0f} MiB/s", f"{b:.0f} MiB/s", ratio(a, b), "1.50"),
           ("CPU of the shim for a GiB", f"{cpu_a * 1000:.0f} ms", f"{cpu_b * 1000:.0f} ms", ratio(cpu_a, cpu_b), "less")],
          "dd from /dev/zero in blocks of 64 KiB at one end, read(2) of 64 KiB at the other")
