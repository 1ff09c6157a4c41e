# SPDX-License-Identifier: Apache-2.0
"""The daemon away, stopped, flooded with signals, after a reboot, and twice."""
import concurrent.futures
import os
import pathlib
import shutil
import signal
import subprocess
import time

import grpc
import pytest

from fault.rig import Bystander, has_ended, scaled, start_time, wait_until
from harness import daemons
from harness.memory import written_kb

CODE = grpc.StatusCode
PAUSED = (4, 5)  # and being paused
VERSION = "containerd.services.version.v1.Version/Version"


def gated(gate, number):
    """A command that ends with this status as soon as the gate is open, and sleeps until then."""
    return ("sh", "-c", f": </gates/{gate}; exit {number}")


class Gates:
    """Fifos in a directory that all containers see: who opens one waits until somebody holds it for writing."""

    def __init__(self, rig):
        self.path = rig.d.base / "gates"
        self.path.mkdir()
        for gate in ("execs", "init"):
            os.mkfifo(self.path / gate)
        self.mount = {"destination": "/gates", "type": "bind", "source": str(self.path), "options": ["rbind", "ro"]}
        self.pids = {}  # by (container, exec)

    def open(self, seconds=10):
        """Until all have ended: execs first, or the end of init would take them along."""
        for gate in ("execs", "init"):
            pids = [pid for (_, exec_id), pid in self.pids.items() if bool(exec_id) == (gate == "execs")]
            fd = os.open(self.path / gate, os.O_RDWR)
            try:
                wait_until(lambda pids=pids: all(has_ended(pid) for pid in pids), seconds, f"the end of all {gate}")
            finally:
                os.close(fd)


def run_gated(rig, containers, execs_each):
    """The statuses of processes, by (container, exec), and their gates."""
    gates = Gates(rig)
    expected = {}

    def run(number):
        name = f"c{number}"
        rig.run(name, gated("init", 10 + number % 90), extra_mounts=(gates.mount,))
        expected[name, ""] = 10 + number % 90
        for e in range(execs_each):
            status = 100 + (number * execs_each + e) % 100
            rig.execute(name, f"e{e}", gated("execs", status))
            expected[name, f"e{e}"] = status

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(containers)))
    gates.pids = {key: rig.process(*key).pid for key in expected}
    return expected, gates


def check_ends(rig, expected):
    for (name, exec_id), status in expected.items():
        assert rig.wait(name, exec_id) == status, (name, exec_id)
        process = rig.process(name, exec_id)
        assert process.exit_status == status and process.exited_at.seconds > 1_600_000_000


def test_ends_while_the_daemon_is_away(rig):
    """20 containers and 60 execs end while nobody listens: each status is right, each end is told once."""
    expected, gates = run_gated(rig, scaled(20), 3)
    rig.d.kill()
    gates.open(scaled(15))
    rig.d.start()
    events = rig.events()
    check_ends(rig, expected)

    def told():
        return [(m.container_id, m.id) for topic, m in list(events.seen) if topic == "/tasks/exit"]

    # The first ones may have been told before this subscriber was there.
    time.sleep(1)
    assert len(told()) == len(set(told())), "an end was told twice"
    for name in {name for name, _ in expected}:
        assert rig.delete(name) == expected[name, ""]
        rig.forget_record(name)
    events.stop()
    assert rig.left_behind() == []


def test_events_wait_for_the_next_daemon(rig):
    """What ended while the daemon was away is told to a subscriber of the next one, once, execs before init."""
    expected, gates = run_gated(rig, 1, 12)
    rig.d.kill()
    gates.open()
    shim = rig.shim("c0")
    os.kill(shim, signal.SIGSTOP)  # until there is a subscriber
    rig.d.start()
    events = rig.events()
    os.kill(shim, signal.SIGCONT)
    wait_until(lambda: len(events.exits("c0")) == 1, 10, "the event of the end of init")
    ids = [m.id for topic, m in events.seen if topic == "/tasks/exit"]
    assert sorted(ids) == sorted(["c0"] + [f"e{n}" for n in range(12)]) and ids[-1] == "c0"
    events.stop()
    check_ends(rig, expected)
    rig.remove("c0")
    assert rig.left_behind() == []


def test_restart_with_broken_shims_among_good_ones(rig):
    """14 containers: two shims are stopped, two have lost their sockets, two their bundles, two have empty files.
    The others do not notice, the stopped ones are taken back, and only what cannot be reached is ended."""
    names = [f"c{n}" for n in range(14)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        pids = dict(zip(names, pool.map(rig.run, names)))
    born = {name: start_time(pid) for name, pid in pids.items()}
    shims = {name: rig.shim(name) for name in names}
    stopped, socketless, bundleless, emptied, good = names[:2], names[2:4], names[4:6], names[6:8], names[8:]
    rig.d.kill()
    for name in stopped:
        os.kill(shims[name], signal.SIGSTOP)
    for name in socketless:
        rig.socket(name).unlink()
    for name in bundleless:
        for entry in rig.bundle(name).iterdir():
            if entry.name == "rootfs":
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    for name in emptied:
        for file in ("bootstrap.json", "address", "config.json"):
            (rig.bundle(name) / file).write_text("")
    begun = time.monotonic()
    rig.d.start()
    for name in good:
        process = rig.process(name)
        assert process.status == 2 and process.pid == pids[name] and start_time(process.pid) == born[name]
    assert time.monotonic() - begun < 3
    for name in emptied + bundleless:
        assert rig.state(name) == "RUNNING" and rig.process(name).pid == pids[name]
    for name in socketless:
        wait_until(lambda name=name: rig.process(name) is None, 8, f"the end of {name}")
        wait_until(lambda name=name: has_ended(pids[name]) and has_ended(shims[name]), 5, f"its processes ended")
    for name in stopped:
        assert not has_ended(pids[name])
        os.kill(shims[name], signal.SIGCONT)
        wait_until(lambda name=name: rig.state(name) == "RUNNING", what=f"{name} is back")
        assert rig.process(name).pid == pids[name]
    for name in names:
        rig.remove(name)
    assert rig.left_behind() == []


def test_reboot(rig):
    """Everything that a reboot ends has ended, and what it forgets is gone: containers are as they were, and none
    has a task."""
    names = ["c1", "c2"]
    for name in names:
        rig.run(name)
    shims = [rig.shim(name) for name in names]
    pids = [rig.process(name).pid for name in names]
    records = rig.call("containerd.services.containers.v1.Containers/List", {})
    rig.d.kill()
    for pid in shims + pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(has_ended(pid) for pid in shims + pids), what="the end of all")
    for name in names:
        subprocess.run(["umount", rig.bundle(name) / "rootfs"], check=True)
        rig.socket(name).unlink()
    shutil.rmtree(rig.d.state)
    shutil.rmtree(f"/run/containerd/runc/{rig.ns}")
    for base in pathlib.Path("/sys/fs/cgroup").glob("*"):
        for name in names:
            wait_until(lambda base=base, name=name: not (base / rig.ns / name / "cgroup.procs").exists()
                       or not (base / rig.ns / name / "cgroup.procs").read_text(), what="an empty cgroup")
            if (base / rig.ns / name).exists():
                os.rmdir(base / rig.ns / name)
    rig.d.start()
    assert rig.call("containerd.services.containers.v1.Containers/List", {}) == records
    for name in names:
        assert rig.process(name) is None
        rig.create(name)
        rig.start(name)
        assert rig.end(name) == 7
        rig.remove(name)
    assert rig.left_behind() == []


@pytest.mark.parametrize("shared", ["root", "state", "socket"])
def test_two_daemons(rig, shared):
    """The second one leaves at once and says who is there; the first one does not notice."""
    bystander = Bystander(rig)
    other = rig.d.base / "other"
    paths = {"root": other / "root", "state": other / "state", "socket": other / "d.sock"}
    paths[shared] = {"root": rig.d.root, "state": rig.d.state, "socket": rig.d.address}[shared]
    other.mkdir()
    second = rig.d.run(daemons.BIN / "wherryd", "--root", paths["root"], "--state", paths["state"], "--address",
                       paths["socket"], "--config", rig.d.base / "config.toml", check=False, timeout=5)
    assert second.returncode not in (0, None)
    assert str(rig.d.pid) in second.stderr or shared != "root", second.stderr
    assert rig.d.process.poll() is None
    bystander.check()
    rig.run("c1")
    assert rig.end("c1") == 7
    rig.remove("c1")
    bystander.end()
    assert rig.left_behind() == []


def test_idle_daemon_keeps_little(rig):
    """What work needs goes back when the last thread of the pool has left: the cache of the database, and the heap."""
    def memory_when_idle():
        wait_until(lambda: len(os.listdir(f"/proc/{rig.d.pid}/task")) == 1, 30, "the end of the pool's threads")
        return written_kb(rig.d.pid)

    rig.run("c0")
    rig.remove("c0")
    before = memory_when_idle()
    names = [f"c{n}" for n in range(scaled(200))]
    for name in names:
        rig.container(name)
    assert memory_when_idle() <= before + 192
    for name in names:
        rig.forget_record(name)
    assert memory_when_idle() <= before + 192


def test_storm_of_signals(rig):
    """Neither the daemon nor a shim ends or stops to answer for signals that mean nothing to them."""
    bystander = Bystander(rig)
    rig.run("c1")
    shim = rig.shim("c1")
    for number in ("HUP", "USR1", "USR2", "PIPE", "CHLD", "WINCH", "ALRM", "URG", "CONT"):
        value = getattr(signal, "SIG" + number)
        for _ in range(3000):
            os.kill(rig.d.pid, value)
            os.kill(shim, value)
        assert rig.d.process.poll() is None, number
        assert not has_ended(shim), number
        assert rig.state("c1") == "RUNNING", number
    assert rig.execute("c1", "e1", ("sh", "-c", "exit 3")) and rig.wait("c1", "e1") == 3
    rig.remove("c1")
    bystander.end()
    assert rig.left_behind() == []


def test_what_waits_for_a_recovery(rig):
    """What the shim says to the new daemon answers those who asked for that, but not who asked behind a Pause."""
    pids = {name: rig.run(name) for name in ("c0", "c1")}
    shims = [rig.shim(name) for name in pids]
    rig.d.kill()
    for shim in shims:
        os.kill(shim, signal.SIGSTOP)
    try:
        rig.d.start()
        tasks = "containerd.services.tasks.v1.Tasks/"
        # Calls that wait for the connection are sent in any order.
        rig.d.api.call(VERSION)
        calls = [rig.d.api.begin(tasks + method, request, namespace=rig.ns)
                 for method, request in (("Pause", {"container_id": "c0"}), ("Get", {"container_id": "c0"}), ("List", {}))]
        rig.d.api.call(VERSION)  # behind them on their connection
        assert not any(call.done() for call in calls)
    finally:
        for shim in shims:
            os.kill(shim, signal.SIGCONT)
    _, process, listed = [call.result() for call in calls]
    assert process.process.status in PAUSED and process.process.pid == pids["c0"]
    listed = {task.id: task for task in listed.tasks}
    assert listed["c0"].status in PAUSED and listed["c1"].status == 2
    assert {name: listed[name].pid for name in listed} == pids
    rig.task("Resume", container_id="c0")
    for name in pids:
        rig.remove(name)
    assert rig.left_behind() == []


def test_stopped_daemon(rig):
    """SIGSTOP, 40 ends meanwhile, SIGCONT: callers are told that their time is over, and nothing is lost."""
    expected, gates = run_gated(rig, 4, 9)
    events = rig.events()
    os.kill(rig.d.pid, signal.SIGSTOP)
    try:
        gates.open()
        with pytest.raises(grpc.RpcError) as error:
            rig.task("Get", container_id="c0", timeout=0.5)
        assert error.value.code() == CODE.DEADLINE_EXCEEDED
    finally:
        os.kill(rig.d.pid, signal.SIGCONT)
    wait_until(lambda: len([t for t, _ in events.seen if t == "/tasks/exit"]) == len(expected), 10, "40 exits")
    check_ends(rig, expected)
    told = [(m.container_id, m.id) for topic, m in events.seen if topic == "/tasks/exit"]
    assert len(set(told)) == len(told) == len(expected)
    for name in {name for name, _ in expected}:
        rig.remove(name)
    events.stop()
    assert rig.left_behind() == []
