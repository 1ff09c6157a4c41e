# SPDX-License-Identifier: Apache-2.0
"""Shims in want: of a daemon that takes their events, of memory, of an OCI runtime that keeps its time."""
import concurrent.futures
import contextlib
import os
import pathlib
import random
import shutil
import signal
import socket
import threading
import time

import grpc
import pytest

from fault.rig import PROCESS_URL, any_json, scaled, wait_until
from harness.api import message_class
from harness.memory import private_kb, room
from integration import ttrpc_rude

MEMORY = pathlib.Path("/sys/fs/cgroup/memory")


class Direct:
    """Talks to a shim itself, as a daemon does."""

    def __init__(self, rig, name):
        self.rig, self.name = rig, name
        self.connection = ttrpc_rude.connect(str(rig.socket(name)))

    def call(self, method, kind, **fields):
        request = message_class(f"containerd.task.v2.{kind}")(id=self.name, **fields)
        answer = self.connection.call("containerd.task.v2.Task", method, request.SerializeToString(),
                                      namespace=self.rig.ns)
        assert answer.code == 0, answer
        return answer.payload

    def add(self, exec_id, args=("true",)):
        spec = any_json(PROCESS_URL, {"args": list(args), "cwd": "/", "env": ["PATH=/bin"],
                                      "user": {"uid": 0, "gid": 0}})
        self.call("Exec", "ExecProcessRequest", exec_id=exec_id, spec=spec)

    def run(self, exec_id, args):
        self.add(exec_id, args)
        self.call("Start", "StartRequest", exec_id=exec_id)
        self.call("Wait", "WaitRequest", exec_id=exec_id)

    def delete(self, exec_id):
        self.call("Delete", "DeleteRequest", exec_id=exec_id)


class FalseDaemon:
    """Listens where events go. It never answers, or each time only after a while."""

    def __init__(self, path, pause):
        pathlib.Path(path).unlink(missing_ok=True)
        self.pause = pause
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.connections = []
        self.n = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections.append(connection)
                threading.Thread(target=self.serve, args=(ttrpc_rude.Connection(connection),), daemon=True).start()

    def serve(self, connection):
        with contextlib.suppress(Exception):
            while self.pause is not None:
                frame = connection.recv_frame(60)
                if frame is None:
                    return
                self.n += 1
                time.sleep(self.pause)
                connection.send_frame(frame.stream_id, ttrpc_rude.RESPONSE, b"")

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)  # or accept() would keep it open
        self.listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


@pytest.mark.parametrize("how", ["refused", "silent", "slow"])
def test_nobody_takes_events(rig, how):
    """Thousands of them: what the shim keeps is bounded, no exit is lost, and in the end each is told, in order."""
    rig.run("c1")
    time.sleep(0.3)  # its start has been told
    shim = rig.shim("c1")
    rig.d.kill()
    false = None if how == "refused" else FalseDaemon(rig.d.address + ".ttrpc", {"silent": None, "slow": 0.05}[how])
    direct = Direct(rig, "c1")
    before = private_kb(shim)
    for number in range(12):
        direct.run(f"e{number}", ("sh", "-c", f"exit {number}"))
    # Additions are told as well, and have no end of their own to be told.
    for number in range(scaled(5000)):
        direct.add(f"a{number}")
        direct.delete(f"a{number}")
    direct.connection.close()
    assert private_kb(shim) - before < 3000
    told = false.n if false else 0
    if false:
        false.close()
    os.kill(shim, signal.SIGSTOP)  # until there is a subscriber
    rig.d.start()
    events = rig.events()
    os.kill(shim, signal.SIGCONT)
    if how != "slow":
        assert told == 0
        wait_until(lambda: events.exits("c1", "e11"), 20, "the last exit")
        exits = [(m.id, m.exit_status) for topic, m in list(events.seen) if topic == "/tasks/exit"]
        assert exits == [(f"e{n}", n) for n in range(12)]
    for number in range(12):
        assert rig.delete_exec("c1", f"e{number}") == number
    assert rig.end("c1") == 7
    wait_until(lambda: events.exits("c1"), 20, "the event of the end of init")
    events.stop()
    rig.remove("c1")
    assert rig.left_behind() == []


@pytest.mark.skipif(not (MEMORY / "memory.limit_in_bytes").exists(), reason="no memory hierarchy of cgroups v1")
def test_little_memory(rig):
    """A shim that has 8 MiB for itself and for the OCI runtimes that it calls goes on, and grows by nothing."""
    rig.run("c1")
    shim = rig.shim("c1")
    group = MEMORY / f"w-shim-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(room(8 << 20)))
        (group / "cgroup.procs").write_text(str(shim))

        def some(n):
            for number in range(n):
                rig.execute("c1", "e1", ("sh", "-c", f"exit {number % 100}"))
                assert rig.wait("c1", "e1") == number % 100
                assert rig.delete_exec("c1", "e1") == number % 100

        some(20)
        before = private_kb(shim)
        some(scaled(60))
        assert private_kb(shim) <= before + 32
        assert "oom_kill 0" in (group / "memory.oom_control").read_text()
        assert rig.end("c1") == 7
        rig.remove("c1")
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), 10, "an empty group")
        group.rmdir()
    assert rig.left_behind() == []


def test_any_order(rig):
    """Starts of execs and the end of init race each other through an OCI runtime that takes its time, before and
    after: no exit before its start, none twice, init's last."""
    chance = random.Random(5)
    path = rig.d.base / "runtime"
    path.write_text(f"""#!/bin/sh
pause() {{ usleep $(($(od -An -N2 -tu2 /dev/urandom) % 30000)); }}
pause
{shutil.which("crun") or shutil.which("runc")} "$@"
status=$?
pause
exit $status
""".replace("usleep", "busybox usleep"))
    path.chmod(0o755)
    options = message_class("containerd.runc.v1.Options")(binary_name=str(path))
    for turn in range(scaled(8)):
        name = f"c{turn}"
        events = rig.events()
        pid = rig.run(name, options=options, host_pid=turn % 2 == 1)

        def execute(number, name=name):
            try:
                rig.execute(name, f"e{number}", ("sleep", "1000") if number % 2 else ("true",))
            except grpc.RpcError as error:
                assert error.code() != grpc.StatusCode.DEADLINE_EXCEEDED, error.details()

        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            jobs = [pool.submit(execute, number) for number in range(5)]
            time.sleep(chance.uniform(0, 0.12))
            os.kill(pid, signal.SIGKILL)
            for job in jobs:
                job.result()
        assert rig.wait(name, timeout=8) == 137
        wait_until(lambda events=events, name=name: events.exits(name), 5, "the event of the end of init")
        told = [(topic, getattr(m, "exec_id", None) or getattr(m, "id", None) or name)
                for topic, m in list(events.seen) if topic in ("/tasks/start", "/tasks/exec-started", "/tasks/exit")]
        exits = [who for topic, who in told if topic == "/tasks/exit"]
        starts = [who for topic, who in told if topic != "/tasks/exit"]
        assert len(set(exits)) == len(exits) and exits[-1] == name, told
        assert sorted(exits) == sorted(starts), told
        for who in exits:
            start = next(at for at, (topic, w) in enumerate(told) if w == who and topic != "/tasks/exit")
            assert start < told.index(("/tasks/exit", who)), told
        events.stop()
        rig.remove(name)
        assert not rig.processes_of(name)
    assert rig.left_behind() == []
