# SPDX-License-Identifier: Apache-2.0
"""Kills for want of memory: told once, before the end of whatever was killed, however early it comes."""
import os

import pytest

from fault.rig import OBEDIENT, Rig, wait_until
from fault.test_runtime_calls import runtime
from fault.test_runtime_faults import RUNTIMES

LIMIT = {"limit": 16 << 20, "swap": 16 << 20}
# Grows until it is stopped.
GREEDY = ("tail", "/dev/zero")


@pytest.fixture(params=RUNTIMES, ids=os.path.basename)
def rig(daemon, request):
    rig = Rig(daemon)
    rig.real = request.param
    yield rig
    rig.forget()


def small(rig, name, args):
    spec = rig.spec(name, args)
    spec["linux"]["resources"]["memory"] = LIMIT
    return {"spec": spec, "options": runtime(rig, "", rig.real)}


def topics(events, name, count):
    wait_until(lambda: len(events.exits(name)) >= count, what="the exit")
    return [t for t in events.topics(name) if t in ("/tasks/start", "/tasks/oom", "/tasks/exit")]


def test_first_thing_it_does(rig):
    events = rig.events()
    for number in range(3):
        name = f"c{number}"
        rig.run(name, **small(rig, name, GREEDY))
        assert rig.wait(name) == 137
        assert topics(events, name, 1) == ["/tasks/start", "/tasks/oom", "/tasks/exit"]
        rig.delete(name)
        rig.remove(name)
    events.stop()
    assert rig.left_behind() == []


def test_a_child_of_its(rig):
    """The container goes on, and each kill is told."""
    events = rig.events()
    rig.run("c1", **small(rig, "c1", ("sh", "-c", "tail /dev/zero; tail /dev/zero; exit 5")))
    assert rig.wait("c1") == 5
    assert topics(events, "c1", 1) == ["/tasks/start", "/tasks/oom", "/tasks/oom", "/tasks/exit"]
    rig.remove("c1")
    events.stop()
    assert rig.left_behind() == []


def test_exec(rig):
    events = rig.events()
    rig.run("c1", **small(rig, "c1", OBEDIENT))
    for number in range(3):
        rig.execute("c1", f"e{number}", GREEDY)
        assert rig.wait("c1", f"e{number}") == 137
        rig.delete_exec("c1", f"e{number}")
        wait_until(lambda: events.exits("c1", f"e{number}"), what="its exit")
    seen = [t for t in events.topics("c1") if t in ("/tasks/oom", "/tasks/exit")]
    assert seen == ["/tasks/oom", "/tasks/exit"] * 3
    assert rig.end("c1") == 7
    rig.remove("c1")
    events.stop()
    assert rig.left_behind() == []


def test_nothing_of_the_kind(rig):
    """SIGKILL of somebody else's, with memory limited: no word of memory."""
    events = rig.events()
    rig.run("c1", **small(rig, "c1", ("sleep", "1000")))
    rig.kill("c1")
    assert rig.wait("c1") == 137
    assert topics(events, "c1", 1) == ["/tasks/start", "/tasks/exit"]
    rig.remove("c1")
    events.stop()
    assert rig.left_behind() == []
