# SPDX-License-Identifier: Apache-2.0
"""A machine whose only control groups are the unified ones, played by a mount namespace: figures with pressure,
pause by cgroup.freeze, and an end for everything by cgroup.kill. Controllers that this machine has given to the old
hierarchies are missing there."""
import os
import pathlib

import pytest

from conftest import running
from fault.rig import OBEDIENT, Rig, has_ended, wait_until
from fault.test_runtime_calls import runtime
from fault.test_runtime_faults import RUNTIMES
from harness import daemons
from harness.api import message_class

UNIFIED = next((p for p in (pathlib.Path("/sys/fs/cgroup/unified"), pathlib.Path("/sys/fs/cgroup"))
                if (p / "cgroup.controllers").exists()), None)
WRAPPER = ["unshare", "--mount", "sh", "-c",
           'umount -l /sys/fs/cgroup 2>/dev/null; mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"', "sh"]


@pytest.fixture(params=RUNTIMES, ids=os.path.basename)
def rig(request, balanced):
    if not UNIFIED:
        pytest.skip("the kernel has no unified hierarchy")
    for daemon in running(daemons.Daemon(wrapper=WRAPPER)):
        rig = Rig(daemon)
        rig.real = request.param
        yield rig
        rig.forget()


def run(rig, name, **how):
    spec = rig.spec(name, OBEDIENT, **how)
    return rig.run(name, spec=spec, options=runtime(rig, "", rig.real))


def test_figures(rig):
    run(rig, "c1")
    data = rig.call("containerd.services.tasks.v1.Tasks/Metrics", {"filters": ["id==c1"]}).metrics[0].data
    assert data.type_url == "io.containerd.cgroups.v2.Metrics"
    figures = message_class(data.type_url)()
    figures.ParseFromString(data.value)
    group = UNIFIED / rig.ns / "c1"
    cpu = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    assert 0 < figures.cpu.usage_usec <= int(cpu["usage_usec"])
    for kind, psi in (("cpu", figures.cpu), ("memory", figures.memory), ("io", figures.io)):
        there = (group / f"{kind}.pressure").exists()
        assert psi.HasField("psi") == there, kind
        if there:
            text = (group / f"{kind}.pressure").read_text()
            assert psi.psi.HasField("some") == ("some " in text) and psi.psi.HasField("full") == ("full " in text)
    assert rig.end("c1") == 7
    rig.remove("c1")
    assert rig.left_behind() == []


def test_pause_and_end(rig):
    pid = run(rig, "c1", host_pid=True)
    rig.task("Pause", container_id="c1")
    assert (UNIFIED / rig.ns / "c1" / "cgroup.freeze").read_text() == "1\n" and rig.state("c1") == "PAUSED"
    rig.task("Resume", container_id="c1")
    rig.execute("c1", "e1", ("sh", "-c", "sleep 1000 & sleep 1000 & wait"))
    wait_until(lambda: len(rig.processes_of("c1")) >= 5, what="its processes")
    left = rig.processes_of("c1")
    os.kill(pid, 9)
    assert rig.wait("c1") == 137 and rig.wait("c1", "e1") == 137
    wait_until(lambda: all(has_ended(p) for p in left), what="everybody's end")
    rig.delete_exec("c1", "e1")
    rig.remove("c1")
    assert rig.left_behind() == []
