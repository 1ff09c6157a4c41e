# SPDX-License-Identifier: Apache-2.0
"""Containers that are frozen when they are to end. In a v1 freezer not even SIGKILL ends what is frozen, so whoever
ends a container must thaw it: the group itself, those that it has made below its own, and, without touching that one,
below a group that somebody else has frozen.
"""
import os
import pathlib
import shutil
import signal

import grpc
import pytest

from fault.rig import OBEDIENT, V1, Rig, has_ended, wait_until
from harness.api import message_class

RUNTIMES = [r for r in map(shutil.which, ("crun", "runc")) if r]
FREEZER = pathlib.Path("/sys/fs/cgroup/freezer")
IS_V1 = FREEZER.is_dir()
BASE = FREEZER if IS_V1 else pathlib.Path("/sys/fs/cgroup")

pytestmark = pytest.mark.skipif(not IS_V1 and not (BASE / "cgroup.controllers").exists(),
                                reason="neither a v1 freezer nor cgroup v2 alone is mounted")


class FreezingRig(Rig):
    def options(self, real):
        if self.runtime == V1:
            return message_class("containerd.linux.runc.RuncOptions")(runtime=real)
        return message_class("containerd.runc.v1.Options")(binary_name=real)

    def group(self, *below):
        return BASE.joinpath(self.ns, *below)


@pytest.fixture(params=["v2", "v1"])
def rig(request, daemon):
    if request.param == "v1" and not pathlib.Path("/sys/fs/cgroup/memory").is_dir():
        pytest.skip("runtime v1 is for cgroup v1")
    rig = FreezingRig(daemon, *([V1] if request.param == "v1" else []))
    yield rig
    if rig.group().exists():
        thaw(rig.group())
    rig.forget()


def freeze(group):
    if IS_V1:
        (group / "freezer.state").write_text("FROZEN")
        wait_until(lambda: (group / "freezer.state").read_text() == "FROZEN\n", what="that it is frozen")
    else:
        (group / "cgroup.freeze").write_text("1")
        wait_until(lambda: "frozen 1" in (group / "cgroup.events").read_text(), what="that it is frozen")


def thaw(group):
    (group / ("freezer.state" if IS_V1 else "cgroup.freeze")).write_text("THAWED" if IS_V1 else "0")


def paused(rig):
    rig.task("Pause", container_id="c1")


def frozen_behind_its_back(rig):
    freeze(rig.group("c1"))


def frozen_below(rig):
    """As a container does that runs containers, and has paused one."""
    inner = rig.group("c1", "inner", "most")
    inner.mkdir(parents=True)
    (inner / "cgroup.procs").write_text(str(rig.execute("c1", "e1", ("sleep", "1000"))))
    freeze(inner)


def frozen_above(rig):
    freeze(rig.group())


HOW = [paused, frozen_behind_its_back, frozen_below, frozen_above]


def by_death_of_the_shim(rig):
    os.kill(rig.shim("c1"), signal.SIGKILL)
    wait_until(lambda: rig.process("c1") is None, 10, "the end of the task")


def while_the_daemon_is_away(rig):
    shim = rig.shim("c1")
    rig.d.kill()
    os.kill(shim, signal.SIGKILL)
    rig.d.start()
    wait_until(lambda: rig.process("c1") is None, 10, "the end of the task")


def by_kill(rig):
    rig.kill("c1")
    assert rig.wait("c1") == 137
    assert rig.delete("c1") == 137


ENDS = [by_death_of_the_shim, while_the_daemon_is_away, by_kill]


@pytest.mark.parametrize("real", RUNTIMES, ids=os.path.basename)
@pytest.mark.parametrize("how", HOW, ids=lambda f: f.__name__)
@pytest.mark.parametrize("end", ENDS, ids=lambda f: f.__name__)
def test_ends(rig, real, how, end):
    rig.container("c1", OBEDIENT, options=rig.options(real))
    pids = [rig.create("c1")]
    rig.start("c1")
    how(rig)
    pids += rig.processes_of("c1")
    end(rig)
    wait_until(lambda: all(map(has_ended, pids)), 5, "the end of its processes")
    if how is frozen_above:
        name = "freezer.state" if IS_V1 else "cgroup.freeze"
        assert (rig.group() / name).read_text() in ("FROZEN\n", "1\n"), "somebody else's group was thawed"
        thaw(rig.group())
    rig.forget_record("c1")
    assert rig.left_behind() == []


def test_checkpoint_that_dies_over_it(rig):
    """CRIU freezes what it dumps; a runtime that dies meanwhile leaves a container that runs."""
    state = rig.group("c1") / ("freezer.state" if IS_V1 else "cgroup.freeze")
    stand_in = rig.d.base / "runtime"
    stand_in.write_text(f"""#!/bin/sh
for a in "$@"; do
    [ "$a" = checkpoint ] && {{ echo {"FROZEN" if IS_V1 else 1} >{state}; kill -9 $$; }}
done
exec {RUNTIMES[0]} "$@"
""")
    stand_in.chmod(0o755)
    rig.container("c1", options=rig.options(str(stand_in)))
    rig.create("c1")
    rig.start("c1")
    with pytest.raises(grpc.RpcError):
        rig.task("Checkpoint", container_id="c1")
    assert state.read_text() in ("THAWED\n", "0\n")
    assert rig.end("c1") == 7
    rig.remove("c1")
    assert rig.left_behind() == []
