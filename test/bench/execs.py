# SPDX-License-Identifier: Apache-2.0
"""exec: a process more in a running container."""
import itertools
import time

from fault.rig import Rig
from harness.api import message_class

from . import usage
from .pair import ratio, table, timed

SLEEP = ("sleep", "1000000")
numbers = itertools.count()


def options(runtime):
    return message_class("containerd.runc.v1.Options")(binary_name=runtime)


class Target:
    """A running container of a daemon, to exec in."""

    def __init__(self, pair, daemon, runtime):
        self.pair, self.daemon, self.runtime = pair, daemon, runtime
        self.rig = Rig(daemon)
        self.name = f"e-{runtime}"

    def __enter__(self):
        self.rig.run(self.name, SLEEP, options=options(self.runtime), io={"stdout": "/dev/null", "stderr": "/dev/null"})
        return self

    def __exit__(self, *_):
        self.rig.forget()

    def ctr(self, _=None):
        return timed(self.pair.ctr(self.daemon, "--namespace", self.rig.ns, "tasks", "exec", "--exec-id",
                                   f"x{next(numbers)}", self.name, "true"), self.daemon.environment())

    def api(self, _=None):
        """The same four calls as ctr's, without ctr."""
        exec_id = f"x{next(numbers)}"
        started = time.perf_counter()
        self.rig.execute(self.name, exec_id, ("true",))
        self.rig.wait(self.name, exec_id)
        self.rig.delete_exec(self.name, exec_id)
        return (time.perf_counter() - started) * 1000

    def runtime_alone(self, _=None):
        return timed([self.runtime, "--root", f"/run/containerd/runc/{self.rig.ns}", "exec", self.name, "true"],
                     self.daemon.environment())

    def cost(self, call, n):
        cpu = usage.Cpu(self.daemon)
        for _ in range(n):
            call()
        return cpu.seconds() * 1000 / n


def row(name, how, a, b, wanted="", unit="ms"):
    return (name, how, f"{a:.1f} {unit}", f"{b:.1f} {unit}", ratio(a, b), wanted)


def compare(pair, runtime):
    with Target(pair, pair.theirs, runtime) as theirs, Target(pair, pair.ours, runtime) as ours:
        name = f"ctr tasks exec, {runtime} on both"
        yield row(name, "back to back", *pair.alternate((theirs.ctr, ours.ctr)), "0.50")
        yield row(name, "150 ms idle", *pair.alternate((theirs.ctr, ours.ctr), idle=0.15), "0.50")
        yield row(name, "CPU each", theirs.cost(theirs.ctr, pair.runs), ours.cost(ours.ctr, pair.runs))
        name = f"the same calls without ctr, {runtime} on both"
        yield row(name, "back to back", *pair.alternate((theirs.api, ours.api)))
        yield row(name, "150 ms idle", *pair.alternate((theirs.api, ours.api), idle=0.15))
        alone = pair.alternate((ours.runtime_alone,))[0]
        yield (f"of these {runtime} exec, by hand", "back to back", f"{alone:.1f} ms", "", "", "")


def show(pair):
    rows = [("", "", "containerd", "wherry", "ratio", "to reach")]
    for runtime in pair.runtimes:
        rows += compare(pair, runtime)
    env = pair.ours.environment()
    client = pair.alternate([lambda _, d=d: timed(pair.ctr(d, "version"), env) for d in pair.both])
    rows.append(row("of these ctr itself (ctr version)", "back to back", *client))
    table(f"Executing true in a running container: median of {pair.runs}", rows)
