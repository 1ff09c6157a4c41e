# SPDX-License-Identifier: Apache-2.0
"""restart: the daemon goes and comes while containers run."""
import statistics
import time

from fault.rig import Rig

from . import usage
from .density import fill
from .pair import ratio, table

RUNNING = 2
TASKS = "containerd.services.tasks.v1.Tasks/"


def answered(daemon, namespace, n):
    """Seconds from the start of the daemon until every task is told as running."""
    daemon.poll_seconds = 0.0005
    started = time.perf_counter()
    daemon.start()
    up = time.perf_counter() - started
    while True:
        tasks = daemon.api.call(TASKS + "List", {}, namespace=namespace, timeout=60).tasks
        if sum(task.status == RUNNING for task in tasks) == n:
            return up, time.perf_counter() - started
        if time.perf_counter() - started > 120:
            raise SystemExit(f"bench: {len(tasks)} tasks of {n} two minutes after the restart of {daemon.name}")


def show(pair):
    n, runs = (100, 3) if pair.quick else (300, 5)
    runtime = pair.runtimes[-1]
    rigs = {daemon: Rig(daemon) for daemon in pair.both}
    try:
        for rig in rigs.values():
            fill(rig, n, runtime)
        rows = [("", "", "containerd", "wherry", "ratio", "to reach")]
        for how in ("kill", "stop"):
            ups = {daemon: [] for daemon in pair.both}

            def sample(daemon):
                def one(_):
                    getattr(daemon, how)()
                    up, end = answered(daemon, rigs[daemon].ns, n)
                    ups[daemon].append(up * 1000)
                    return end * 1000
                return one

            a, b = pair.alternate([sample(daemon) for daemon in pair.both], runs)
            up_a, up_b = (statistics.median(ups[daemon]) for daemon in pair.both)
            name = "after SIGKILL" if how == "kill" else "after SIGTERM"
            rows.append((name, "to its socket", f"{up_a:.0f} ms", f"{up_b:.0f} ms", ratio(up_a, up_b), ""))
            rows.append((name, "to all tasks answered", f"{a:.0f} ms", f"{b:.0f} ms", ratio(a, b), "0.10"))
        table(f"Restart of the daemon with {n} running containers: median of {runs}", rows,
              "from the start of the program until one Tasks.List tells every task as running")
    finally:
        for rig in rigs.values():
            rig.forget()
        usage.settle()
