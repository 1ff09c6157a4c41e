# SPDX-License-Identifier: Apache-2.0
"""The daemon killed, ended, upgraded and starved: under load, while it recovers, and again.

WHERRY_FAULT_SCALE multiplies how often and how much (`make faults` sets it).
"""
import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import subprocess
import threading
import time

import grpc
import pytest

from fault import kill_matrix
from fault.rig import OBEDIENT, Bystander, has_ended, scaled, start_time, wait_until
from fault.test_shim_faults import children_of
from fault.test_wiped_state import wipe
from harness import daemons
from harness.api import message_class
from harness.memory import room

CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def tracer(tmp_path_factory):
    return kill_matrix.build(tmp_path_factory.mktemp("tracer"))


def converge(rig, name):
    """Gone, record and all, however often the daemon goes away meanwhile."""
    def gone():
        try:
            rig.remove(name)
            return True
        except (grpc.RpcError, ValueError):  # ValueError: a channel that was closed under the call
            return False

    wait_until(gone, 30, f"the removal of {name}")


def answers(rig):
    """True once calls arrive; a channel that workers made while nobody listened takes its time."""
    try:
        rig.process("bystander")
        return True
    except (grpc.RpcError, ValueError):
        return False


class Load:
    """Containers come and go until it is told to stop; each ends with a status of its own."""

    WORKERS = 3

    def __init__(self, rig):
        self.rig = rig
        self.stopping = False
        self.done = self.interrupted = 0
        self.failures = []
        self.threads = [threading.Thread(target=self.work, args=(n,)) for n in range(self.WORKERS)]
        for thread in self.threads:
            thread.start()

    def once(self, name, status):
        self.rig.run(name, ("sh", "-c", f"usleep 20000; exit {status}"))
        self.rig.execute(name, "e1", ("true",))
        assert self.rig.wait(name) == status
        assert self.rig.delete(name) == status
        self.rig.forget_record(name)

    def work(self, number):
        turn = 0
        while not self.stopping:
            turn += 1
            name, status = f"w{number}", 10 + turn % 100
            try:
                self.once(name, status)
                self.done += 1
            except (grpc.RpcError, ValueError):
                self.interrupted += 1
                try:
                    converge(self.rig, name)
                except Exception as error:  # noqa: BLE001
                    self.failures.append(repr(error))
                    return
            except AssertionError as error:
                self.failures.append(f"{name}: {error}")
                return

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "a worker hangs"
        assert not self.failures, self.failures
        for number in range(self.WORKERS):
            converge(self.rig, f"w{number}")

    def wait_for_more(self):
        """It goes on as before: each of the workers, sooner or later."""
        done = self.done
        wait_until(lambda: self.done > done or self.failures, 20, "a container of the load")


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_under_load(rig, how):
    """At random moments. In the end everything that was begun can be removed, and nothing is left."""
    bystander = Bystander(rig)
    moments = random.Random(7)
    load = Load(rig)
    for _ in range(scaled(6)):
        assert not load.failures, load.failures
        load.wait_for_more()
        time.sleep(moments.uniform(0, 0.2))
        if how == "killed":
            rig.d.kill()
        else:
            assert rig.d.stop() == 0
        rig.d.start()
        wait_until(lambda: answers(rig), 10, "an answer of the next daemon")
        bystander.check()
    load.wait_for_more()
    load.stop()
    bystander.end()
    assert rig.left_behind() == []


def test_ended_while_a_create_hangs(rig):
    """It does not wait for it for ever, and what the shim makes meanwhile is the next daemon's."""
    path = rig.d.base / "runtime"
    path.write_text(f"""#!/bin/sh
case " $* " in *" create "*) touch {rig.d.base}/begun; while [ ! -e {rig.d.base}/open ]; do sleep 0.05; done;; esac
exec {shutil.which("crun") or shutil.which("runc")} "$@"
""")
    path.chmod(0o755)
    rig.container("c1", options=message_class("containerd.runc.v1.Options")(binary_name=str(path)))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        create = pool.submit(rig.create, "c1")
        wait_until(lambda: (rig.d.base / "begun").exists(), what="the call of the runtime")
        assert rig.d.stop() == 0
        with pytest.raises((grpc.RpcError, ValueError)) as error:
            create.result()
        assert error.type is ValueError or error.value.code() in (CODE.UNAVAILABLE, CODE.CANCELLED)
    rig.d.start()
    with pytest.raises(grpc.RpcError) as error:  # it is still being made: who asks for it waits
        rig.task("Get", container_id="c1", timeout=0.3)
    assert error.value.code() == CODE.DEADLINE_EXCEEDED
    (rig.d.base / "open").touch()
    wait_until(lambda: rig.process("c1") is None or rig.state("c1") == "CREATED", 10, "a known state")
    rig.remove("c1")
    assert rig.left_behind() == [], rig.d.log_text()


class TracedStart:
    """A daemon that is killed before its N-th call that changes something, from its first instruction on."""

    def __init__(self, rig, tracer, point):
        self.d = rig.d
        gate = ["sh", "-c", 'read _; "$@" & wait', "sh", *self.d.command()]
        with open(self.d.log, "ab") as log:
            self.shell = subprocess.Popen(gate, stdin=subprocess.PIPE, stdout=log, stderr=log,
                                          env=self.d.environment(), start_new_session=True)
        self.killer = kill_matrix.Killer(tracer, self.shell.pid, point, "wherryd")
        self.shell.stdin.write(b"\n")
        self.shell.stdin.flush()

    def finish(self, settled):
        """Until it was killed, or has nothing more to do and is killed then. The calls that it made."""
        wait_until(lambda: self.killer.has_killed or settled(), 20, "the end of the recovery")
        for child in pathlib.Path(f"/proc/{self.shell.pid}/task/{self.shell.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        self.shell.communicate(timeout=10)
        return self.killer.stop()


def bring_everything(rig):
    """Tasks in every state that a daemon may find; what must live on, and what must go."""
    alive = {}
    for name in ("running", "paused"):
        alive[name] = rig.run(name)
    rig.task("Pause", container_id="paused")
    rig.container("created")
    alive["created"] = rig.create("created")
    rig.run("stopped", ("sh", "-c", "exit 9"))
    assert rig.wait("stopped") == 9
    rig.run("lost")
    wiped = [rig.run("wiped"), rig.shim("wiped")]
    os.kill(rig.shim("lost"), signal.SIGSTOP)
    os.kill(rig.shim("lost"), signal.SIGKILL)
    rig.d.kill()
    wipe(rig, ["wiped"])
    return alive, wiped


def test_subscriber_that_comes_late(rig):
    """A client notices the new daemon a second after the shims have: it hears all the same what ended meanwhile,
    each end once, and nothing of what it deletes and makes anew."""
    pids = {name: rig.run(name, ("sh", "-c", "while [ ! -e /go ]; do usleep 20000; done; exit 6"))
            for name in ("ended", "lost", "other")}
    shim = rig.shim("lost")
    rig.d.kill()
    pathlib.Path(f"/proc/{pids['ended']}/root/go").touch()
    os.kill(shim, signal.SIGKILL)
    rig.d.start()
    assert rig.wait("ended") == 6
    wait_until(lambda: rig.process("lost") is None, what="the end of what has lost its shim")
    rig.run("new", ("true",))
    assert rig.wait("new") == 0
    events = rig.events()
    wait_until(lambda: events.exits("lost") and events.exits("ended"), 5, "ends that were told before")
    assert [e.exit_status for e in events.exits("ended") + events.exits("lost")] == [6, 137]
    assert events.exits("new") == [] and events.exits("other") == []
    events.stop()
    assert rig.delete("ended") == 6
    rig.create("ended")
    again = rig.events()
    wait_until(lambda: again.exits("lost"), 5, "an end that was told before")
    assert again.exits("ended") == []
    again.stop()
    for name in ("ended", "lost", "other", "new"):
        rig.remove(name)
    assert rig.left_behind() == []


def is_settled(rig, wiped):
    try:
        return (rig.d.answers() and all(rig.state(n) not in (None, "UNKNOWN") for n in ("running", "stopped", "paused"))
                and rig.process("lost") is None and rig.process("wiped") is None
                and all(has_ended(pid) for pid in wiped))
    except (grpc.RpcError, ValueError):
        return False


def recover_nested(rig, tracer, points):
    """One recovery killed at each of the points, one after the other; then one that is left alone."""
    alive, wiped = bring_everything(rig)
    born = {name: start_time(pid) for name, pid in alive.items()}
    calls = []
    for point in points:
        calls = TracedStart(rig, tracer, point).finish(lambda: is_settled(rig, wiped))
        rig.d._close_api()
    rig.d.start()
    wait_until(lambda: is_settled(rig, wiped), 10, "the end of the recovery")
    for name, pid in alive.items():
        assert rig.process(name).pid == pid and start_time(pid) == born[name], name
    assert rig.process("stopped").exit_status == 9
    for name in (*alive, "stopped", "lost", "wiped"):
        rig.remove(name)
    assert rig.left_behind() == [], points
    return calls


def test_killed_while_it_recovers(rig, tracer):
    """At points spread over the whole recovery, five times one within the other."""
    n = len(recover_nested(rig, tracer, [0]))
    assert n > 20, f"only {n} calls"
    nests = scaled(3)
    step = max(n // (nests * 5), 1)
    for nest in range(nests):
        recover_nested(rig, tracer, [1 + (nest + turn * nests) * step for turn in range(5)])


def test_restart_with_many(rig):
    """Every shim is found again, with its container and all."""
    names = [f"c{n}" for n in range(scaled(24))]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        pids = dict(zip(names, pool.map(rig.run, names)))
    for _ in range(3):
        rig.d.kill()
        rig.d.start()
        assert {name: rig.process(name).pid for name in names} == pids
        assert all(rig.state(name) == "RUNNING" for name in names)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(rig.remove, names))
    assert rig.left_behind() == []


def digests(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def test_newer_database(rig):
    """It is refused with a sentence that says what to do, and not changed; containers run on."""
    pid = rig.run("c1")
    assert rig.d.stop() == 0
    directory = rig.d.root / "io.containerd.metadata.v1.bolt"

    def set_version(version):
        with contextlib.closing(sqlite3.connect(directory / "meta.sqlite")) as db:
            old = db.execute("PRAGMA user_version").fetchone()[0]
            db.execute(f"PRAGMA user_version = {version}")
            return old

    version = set_version(99)
    before = digests(directory)
    refused = rig.d.run(*rig.d.command(), check=False, timeout=10)
    assert refused.returncode == 1
    assert "schema version 99" in refused.stderr and "start the newer" in refused.stderr
    assert digests(directory) == before
    assert not has_ended(pid)
    set_version(version)
    rig.d.start()
    assert rig.process("c1").pid == pid
    rig.remove("c1")
    assert rig.left_behind() == []


def test_programs_in_another_place(rig, monkeypatch):
    """An upgrade: the next daemon and its shim lie elsewhere, and the old ones are gone. What runs goes on, can be
    ended, and is cleaned up when its shim dies."""
    real = daemons.BIN
    places = [rig.d.base / "old", rig.d.base / "new"]
    for place in places:
        shutil.copytree(real, place)
    monkeypatch.setattr(daemons, "BIN", places[0])
    rig.d.restart()
    pids = {name: rig.run(name) for name in ("c1", "c2", "c3")}
    assert rig.execute("c1", "e1", ("sleep", "1000")) > 0
    rig.d.kill()
    monkeypatch.setattr(daemons, "BIN", places[1])
    shutil.rmtree(places[0])
    rig.d.start()
    assert {name: rig.process(name).pid for name in pids} == pids
    assert rig.state("c1", "e1") == "RUNNING"
    os.kill(rig.shim("c2"), signal.SIGKILL)
    wait_until(lambda: rig.process("c2") is None, 5, "the end of the lost task")
    wait_until(lambda: has_ended(pids["c2"]), 5, "the end of its container")
    shim = rig.shim("c3")
    rig.d.kill()
    os.kill(shim, signal.SIGKILL)
    rig.d.start()
    wait_until(lambda: rig.process("c3") is None and has_ended(pids["c3"]), 5, "the end of the other one")
    for name in pids:
        rig.remove(name)
    assert rig.left_behind() == []


MEMORY = pathlib.Path("/sys/fs/cgroup/memory")


@pytest.fixture
def small_group():
    """Where a process may have so many bytes of memory and no more."""
    group = MEMORY / f"w-small-{os.getpid()}"
    group.mkdir()
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text(), 10, "an empty group")
    group.rmdir()


def limit(group, pid, size):
    (group / "memory.limit_in_bytes").write_text(str(size))
    (group / "cgroup.procs").write_text(str(pid))


def big_archive(archive, path, megabytes):
    """That image again, with a layer of so many megabytes beside its own."""
    subprocess.run([daemons.SOURCE / "test" / "fault" / "grow_image.py", archive, path, str(megabytes)], check=True)
    return path


@pytest.mark.skipif(not (MEMORY / "memory.limit_in_bytes").exists(), reason="no memory hierarchy of cgroups v1")
def test_import_in_little_memory(rig, archive, small_group, tmp_path):
    """An image of several times the memory that the daemon has: it is imported; with next to no memory the daemon
    is killed for it, and the next one is well and can do it."""
    image = big_archive(archive, tmp_path / "big.tar", 96 * scaled(1))
    limit(small_group, rig.d.pid, room(48 << 20))
    rig.d.import_image(image, namespace=rig.ns)
    assert rig.d.process.poll() is None
    rig.d.ctr("images", "rm", "--sync", *rig.d.ctr("images", "ls", "-q", namespace=rig.ns).stdout.split(),
              namespace=rig.ns)
    pid = rig.run("c1")
    (small_group / "memory.limit_in_bytes").write_text(str(2 << 20))
    rig.d.ctr("images", "import", image, namespace=rig.ns, check=False, timeout=30)
    if rig.d.process.poll() is None:
        os.kill(rig.d.pid, signal.SIGKILL)
    assert rig.d.process.wait(10) == -signal.SIGKILL
    (small_group / "memory.limit_in_bytes").write_text(str(1 << 30))
    rig.d.kill()
    rig.d.start()
    assert rig.process("c1").pid == pid
    rig.d.import_image(image, namespace=rig.ns)
    rig.d.ctr("images", "rm", "--sync", *rig.d.ctr("images", "ls", "-q", namespace=rig.ns).stdout.split(),
              namespace=rig.ns)
    rig.remove("c1")
    assert rig.left_behind() == []


@pytest.mark.parametrize("who", ["daemon", "shim"])
def test_aborts(rig, who):
    """As after a failed assertion: it ends at once by that signal, and what follows is as after any other death."""
    bystander = Bystander(rig)
    pid = rig.run("c1")
    shim = rig.shim("c1")
    os.kill(rig.d.pid if who == "daemon" else shim, signal.SIGABRT)
    if who == "daemon":
        assert rig.d.process.wait(10) == -signal.SIGABRT
        rig.d.kill()
        rig.d.start()
        assert rig.process("c1").pid == pid and rig.state("c1") == "RUNNING"
        assert rig.end("c1") == 7
    else:
        wait_until(lambda: has_ended(shim), 5, "its end")
        wait_until(lambda: rig.process("c1") is None, 5, "the end of the task")
        wait_until(lambda: has_ended(pid), 5, "the end of its container")
    rig.remove("c1")
    bystander.end()
    assert rig.left_behind() == []


def test_builds_can_be_told():
    """By what a core or a report of a crash has to say: each program has an id of its build."""
    ids = set()
    for program in ("wherryd", "wherry", "wherry-worker", "containerd-shim-wherry-v2"):
        notes = subprocess.run(["readelf", "--notes", daemons.BIN / program], capture_output=True, text=True, check=True)
        ids.add(notes.stdout.partition("Build ID: ")[2].split()[0])
    assert len(ids) == 4 and all(len(i) == 40 for i in ids), ids


def test_killed_while_it_starts_a_shim(rig):
    """Between fork and exec the child has all that the daemon has, its locks too: the next daemon waits for them."""
    bystander = Bystander(rig)
    rig.container("c1")
    tracer = subprocess.Popen(
        ["strace", "-qq", "-f", "-p", str(rig.d.pid), "-o", rig.d.base / "trace", "-e", "trace=execve,execveat",
         "-e", "inject=execve,execveat:delay_enter=700000"], stderr=subprocess.DEVNULL)
    wait_until(lambda: "TracerPid:\t0\n" not in pathlib.Path(f"/proc/{rig.d.pid}/status").read_text(), 5, "the tracer")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        create = pool.submit(rig.create, "c1")
        wait_until(lambda: children_of(rig.d.pid), 5, "a child of the daemon")
        rig.d.kill()
        assert create.exception()
    rig.d.start()
    tracer.wait(10)
    wait_until(lambda: rig.process("c1") is None or rig.state("c1") == "CREATED", 10, "a known state")
    bystander.check()
    rig.remove("c1")
    bystander.end()
    assert rig.left_behind() == []
