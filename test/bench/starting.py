# SPDX-License-Identifier: Apache-2.0
"""run: one container from nothing to nothing."""
from harness import daemons

from .pair import IMAGE, table


def command(pair, daemon, runtime):
    return pair.ctr(daemon, "run", "--rm", "--runc-binary", runtime, IMAGE, "{}", "true")


def wherry_command(pair):
    return [str(daemons.BIN / "wherry"), "--address", pair.ours.address, "run", "--rm", "--runtime", "crun", "--name", "{}",
            IMAGE, "true"]


def show(pair):
    rows = [("", "", "containerd", "wherry", "ratio", "to reach")]
    for runtime in pair.runtimes:
        rows += pair.compare(f"ctr run --rm, {runtime} on both", command(pair, pair.theirs, runtime),
                             command(pair, pair.ours, runtime), "0.60")
    if "crun" in pair.runtimes:
        rows += pair.compare("wherry run --rm beside ctr, crun on both", command(pair, pair.theirs, "crun"),
                             wherry_command(pair), "0.35")
    table(f"Starting a container: median of {pair.runs}", rows)
