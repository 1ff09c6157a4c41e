# SPDX-License-Identifier: Apache-2.0
"""rate: containers a second, eight at a time, each from nothing to nothing."""
import concurrent.futures
import itertools
import os
import statistics
import time

from . import starting, usage
from .pair import ratio, table, timed

AT_A_TIME = 8
numbers = itertools.count()


class Rate:
    """Batches of one command; how many of it a second, and what one costs."""

    def __init__(self, pair, daemon, command):
        self.pair, self.daemon, self.command = pair, daemon, command
        self.rates, self.costs = [], []

    def one(self, _):
        timed([word.replace("{}", f"r{next(numbers)}") for word in self.command], self.pair.ours.environment())

    def batch(self, n):
        cpu = usage.Cpu(self.daemon)
        started = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as threads:
            for _ in threads.map(self.one, range(n)):
                pass
        elapsed = time.perf_counter() - started
        usage.settle()
        self.rates.append(n / elapsed)
        self.costs.append(cpu.seconds() * 1000 / n)

    def result(self):
        return statistics.median(self.rates), statistics.median(self.costs)


def show(pair):
    n, batches = (24, 2) if pair.quick else (48, 3)
    pairs = []
    if "crun" in pair.runtimes:
        pairs.append(("wherry run --rm with crun beside ctr run --rm with runc", starting.command(pair, pair.theirs, "runc"),
                      starting.wherry_command(pair), "5.00"))
        pairs.append(("wherry run --rm beside ctr run --rm, crun on both", starting.command(pair, pair.theirs, "crun"),
                      starting.wherry_command(pair), ""))
    for runtime in pair.runtimes:
        pairs.append((f"ctr run --rm on both, {runtime} on both", starting.command(pair, pair.theirs, runtime),
                      starting.command(pair, pair.ours, runtime), ""))
    rows = [("", "containerd", "wherry", "ratio", "to reach", "CPU each", "", "ratio")]
    for name, theirs, ours, wanted in pairs:
        sides = Rate(pair, pair.theirs, theirs), Rate(pair, pair.ours, ours)
        for _ in range(batches):
            for side in sides:
                side.batch(n)
        (a, cpu_a), (b, cpu_b) = (side.result() for side in sides)
        rows.append((name, f"{a:.1f}/s", f"{b:.1f}/s", ratio(a, b), wanted, f"{cpu_a:.0f} ms", f"{cpu_b:.0f} ms",
                     ratio(cpu_a, cpu_b)))
    table(f"Containers a second, {AT_A_TIME} at a time on {os.cpu_count()} processors: median of {batches} times {n}", rows,
          "CPU of daemon, shims, OCI runtime and client together")
