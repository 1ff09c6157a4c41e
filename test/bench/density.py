# SPDX-License-Identifier: Apache-2.0
"""density: many containers at once."""
import concurrent.futures
import time

from fault.rig import Rig

from . import usage
from .execs import SLEEP, options
from .pair import ratio, table

AT_A_TIME = 8
TASKS = "containerd.services.tasks.v1.Tasks/"


def at_a_time(work, names):
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as threads:
        for _ in threads.map(work, names):
            pass


def fill(rig, n, runtime):
    """So many running containers; their names."""
    names = [f"d{number}" for number in range(n)]

    def start(name):
        rig.container(name, SLEEP, options=options(runtime))
        rig.create(name, timeout=120, stdout="/dev/null", stderr="/dev/null")
        rig.start(name, timeout=120)

    at_a_time(start, names)
    return names


def timed(work, times=1):
    started = time.perf_counter()
    for _ in range(times):
        result = work()
    return (time.perf_counter() - started) / times, result


class Crowd:
    """So many containers, from their start to their end."""

    def __init__(self, daemon, n, runtime):
        self.daemon, self.rig = daemon, Rig(daemon)
        try:
            self.measure(n, runtime)
        finally:
            self.rig.forget()
            usage.settle(20)

    def measure(self, n, runtime):
        rig = self.rig
        cpu = usage.Cpu(self.daemon)
        self.start, names = timed(lambda: fill(rig, n, runtime))
        self.list, tasks = timed(lambda: rig.task("List", timeout=60).tasks, 5)
        self.running = sum(task.status == 2 for task in tasks)
        self.stats, metrics = timed(lambda: rig.task("Metrics", timeout=60).metrics, 5)
        self.measured = sum(bool(metric.data.value) for metric in metrics)
        self.daemon_kib = usage.private_kib(self.daemon.pid)
        self.remove, _ = timed(lambda: at_a_time(self.end, names))
        usage.settle(20)  # the end of shims is counted when they have ended
        self.cpu = cpu.seconds()

    def end(self, name):
        self.rig.kill(name)
        self.rig.wait(name, timeout=120)
        self.rig.delete(name, timeout=120)
        self.rig.forget_record(name)
        self.rig.names.discard(name)


def show(pair):
    n = 100 if pair.quick else 500
    runtime = pair.runtimes[-1]
    a, b = (Crowd(daemon, n, runtime) for daemon in pair.both)
    rows = [("", "containerd", "wherry", "ratio"),
            ("running", f"{a.running} of {n}", f"{b.running} of {n}", ""),
            ("with metrics", f"{a.measured} of {n}", f"{b.measured} of {n}", "")]
    for name, field, unit, factor in (("start all", "start", "s", 1), ("list", "list", "ms", 1000),
                                      ("stats", "stats", "ms", 1000), ("delete all", "remove", "s", 1),
                                      ("CPU of daemon, shims and OCI runtime for all of this", "cpu", "s", 1),
                                      ("private memory of the daemon", "daemon_kib", "MiB", 1 / 1024)):
        x, y = getattr(a, field) * factor, getattr(b, field) * factor
        rows.append((name, f"{x:.1f} {unit}", f"{y:.1f} {unit}", ratio(x, y)))
    table(f"{n} containers at once, {AT_A_TIME} calls at a time, {runtime} on both", rows)
