# SPDX-License-Identifier: Apache-2.0
"""growth: a shim's memory after many execs and much output."""
from . import usage
from .execs import Target
from .pair import table
from .stdio import pump


def shim_of(target):
    return next(pid for pid in usage.shims(target.daemon.address) if target.rig.ns in usage.words_of(pid))


def show(pair):
    execs, mib = (200, 256) if pair.quick else (pair.execs, pair.output_mib)
    runtime = pair.runtimes[-1]
    rows = [("", "at first", f"after {execs} execs", f"and {mib} MiB of output", "to reach")]
    for daemon, name, wanted in ((pair.theirs, "containerd-shim-runc-v2", ""),
                                 (pair.ours, "containerd-shim-wherry-v2", "no growth")):
        with Target(pair, daemon, runtime) as target:
            pid = shim_of(target)
            target.api()
            kib = [usage.dirty_kib(pid)]
            for _ in range(execs):
                target.api()
            kib.append(usage.dirty_kib(pid))
            pump(target.rig, target.name, mib)
            kib.append(usage.dirty_kib(pid))
            rows.append((name, *(f"{n} KiB" for n in kib), wanted))
    table(f"Private memory of one shim that was written to, {runtime} on both", rows)
