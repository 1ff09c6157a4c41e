# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the daemon, of shims and of clients, at bad moments. Nothing may be lost or left."""
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time

import grpc
import pytest

from compat.test_ctr import IMAGE, forget_fifos, has_ended, status, wait_until

TASKS = "containerd.services.tasks.v1.Tasks/"


@pytest.fixture
def d(daemon, archive):
    daemon.import_image(archive)
    return daemon


def shim_of(d, name):
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if os.path.basename(words[0]).startswith("containerd-shim-wherry") and d.address in words:
                if words[words.index("-id") + 1] == name:
                    return int(entry.name)
    return None


def start(d, name, *command):
    d.ctr("run", "-d", IMAGE, name, *(command or ("sleep", "1000")))
    wait_until(lambda: status(d, name) == "RUNNING", what=f"{name} running")


def pid_of(d, name):
    return d.api.call(TASKS + "Get", {"container_id": name}).process.pid


def remove(d, name):
    d.ctr("tasks", "kill", "-s", "SIGKILL", name, check=False)
    wait_until(lambda: status(d, name) in ("STOPPED", None), what=f"{name} stopped")
    d.ctr("tasks", "rm", name, check=False)
    d.ctr("containers", "rm", name)


def test_containers_outlive_the_daemon(d):
    start(d, "c1")
    pid = pid_of(d, "c1")
    for how in (d.kill, d.stop):
        how()
        assert not has_ended(pid)
        d.start()
        assert status(d, "c1") == "RUNNING" and pid_of(d, "c1") == pid
    assert d.ctr("tasks", "exec", "--exec-id", "e1", "c1", "echo", "hello").stdout == "hello\n"
    remove(d, "c1")


def test_exit_while_the_daemon_is_away(d):
    start(d, "c1", "sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; exit 42")
    pid = pid_of(d, "c1")
    go = pathlib.Path(f"/proc/{pid}/root/go")
    d.kill()
    go.touch()
    wait_until(lambda: has_ended(pid), what="container ended")
    d.start()
    reply = d.api.call(TASKS + "Wait", {"container_id": "c1"})
    assert reply.exit_status == 42
    assert d.api.call(TASKS + "Get", {"container_id": "c1"}).process.exit_status == 42
    assert d.api.call(TASKS + "Delete", {"container_id": "c1"}).exit_status == 42
    d.ctr("containers", "rm", "c1")
    forget_fifos()


def test_events_reach_the_next_daemon(d):
    """The exit that happened in between is published once, by the shim, when somebody is there again."""
    start(d, "c1", "sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; exit 3")
    go = pathlib.Path(f"/proc/{pid_of(d, 'c1')}/root/go")
    d.kill()
    go.touch()
    time.sleep(0.3)
    d.start()
    events = d.api.stream("containerd.services.events.v1.Events/Subscribe", {"filters": ['topic=="/tasks/exit"']}, timeout=15)
    first = next(iter(events))
    assert first.topic == "/tasks/exit" and first.namespace == "default"
    events.cancel()
    remove(d, "c1")


@pytest.mark.parametrize("state", ["running", "paused", "stopped"])
def test_death_of_a_shim(d, state):
    if state == "stopped":
        d.ctr("run", "-d", IMAGE, "c1", "sh", "-c", "sleep 0.5; exit 9")
    else:
        start(d, "c1")
    if state == "paused":
        d.ctr("tasks", "pause", "c1")
    pid = pid_of(d, "c1")
    if state == "stopped":
        wait_until(lambda: status(d, "c1") == "STOPPED", what="c1 stopped")
    answers = []
    waiter = threading.Thread(target=lambda: answers.append(d.api.call(TASKS + "Wait", {"container_id": "c1"})))
    waiter.start()
    events = d.api.stream("containerd.services.events.v1.Events/Subscribe", {"filters": ["topic~=|^/tasks/|"]}, timeout=15)
    time.sleep(0.3)
    os.kill(shim_of(d, "c1"), signal.SIGKILL)
    wait_until(lambda: status(d, "c1") is None, what="task gone")
    wait_until(lambda: has_ended(pid), what="container ended")
    topics = []
    for event in events:
        topics.append(event.topic)
        if event.topic == "/tasks/delete":
            break
    assert topics.count("/tasks/exit") == (0 if state == "stopped" else 1), topics
    waiter.join(10)
    assert [answer.exit_status for answer in answers] == [9 if state == "stopped" else 137]
    with pytest.raises(grpc.RpcError) as error:
        d.api.call(TASKS + "Get", {"container_id": "c1"})
    assert error.value.details() == "task c1 not found"
    d.ctr("containers", "rm", "c1")
    forget_fifos()


def test_death_of_shim_and_daemon(d):
    start(d, "c1")
    pid, shim = pid_of(d, "c1"), shim_of(d, "c1")
    d.kill()
    os.kill(shim, signal.SIGKILL)
    d.start()
    wait_until(lambda: status(d, "c1") is None, what="task gone")
    assert has_ended(pid)
    d.ctr("containers", "rm", "c1")
    forget_fifos()


def test_stopped_shim_holds_up_nobody_else(d):
    start(d, "c1")
    start(d, "c2")
    shim = shim_of(d, "c1")
    os.kill(shim, signal.SIGSTOP)
    try:
        started = time.monotonic()
        assert d.api.call(TASKS + "Get", {"container_id": "c2"}).process.status == 2
        assert time.monotonic() - started < 1.5
        # State gives up after its two seconds and says that it does not know.
        assert d.api.call(TASKS + "Get", {"container_id": "c1"}).process.status == 0
        with pytest.raises(grpc.RpcError) as error:
            d.api.call(TASKS + "Kill", {"container_id": "c1", "signal": 9}, timeout=1)
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        os.kill(shim, signal.SIGCONT)
    remove(d, "c1")
    remove(d, "c2")


@pytest.mark.parametrize("verb", ["create", "start", "delete"])
def test_daemon_killed_in_the_middle(d, verb):
    """Kills at moments spread over the call; whatever happened, the same id can be used again afterwards and
    nothing is left in the end."""
    for step in range(8):
        name = f"k{step}"
        command = None
        if verb == "create":
            command = ["run", "-d", IMAGE, name, "sleep", "1000"]
        else:
            d.ctr("containers", "create", IMAGE, name, "sleep", "1000")
            if verb == "delete":
                d.ctr("tasks", "start", "-d", name)
                d.ctr("tasks", "kill", "-s", "SIGKILL", name)
                wait_until(lambda: status(d, name) == "STOPPED", what=f"{name} stopped")
            command = ["tasks", "start", "-d", name] if verb == "start" else ["tasks", "rm", name]
        client = d.popen("ctr", "--address", d.address, *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.008 * step + (0.02 if verb != "create" else 0.03))
        d.kill()
        client.wait(30)
        d.start()
        listed = d.ctr("containers", "ls", "-q").stdout.split()
        wait_until(lambda: status(d, name) != "UNKNOWN", what=f"{name} recovered")
        if status(d, name) is not None:
            d.ctr("tasks", "kill", "-s", "SIGKILL", name, check=False)
            wait_until(lambda: status(d, name) in ("STOPPED", "CREATED", None), what=f"{name} stopped")
            d.ctr("tasks", "rm", "-f", name, check=False)
            wait_until(lambda: status(d, name) is None, what=f"{name} removed")
        if name in listed:
            d.ctr("containers", "rm", name)
        # ctr was not there to give up the lease that it took.
        for lease in d.ctr("leases", "ls", "-q").stdout.split():
            d.ctr("leases", "rm", "--sync", lease)
        assert d.ctr("run", "--rm", IMAGE, name, "echo", "again").stdout == "again\n"
    forget_fifos()


def test_client_killed_while_waiting(d):
    start(d, "c1")
    fds = len(os.listdir(f"/proc/{d.pid}/fd"))
    for _ in range(20):
        client = d.popen("ctr", "--address", d.address, "tasks", "attach", "c1", stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.05)
        client.kill()
        client.wait()
    wait_until(lambda: len(os.listdir(f"/proc/{d.pid}/fd")) <= fds, what="fds of the daemon back")
    assert status(d, "c1") == "RUNNING"
    remove(d, "c1")


def test_fds_and_threads_come_back(d):
    for n in range(3):
        d.ctr("run", "--rm", IMAGE, "c1", "true")
    fds = len(os.listdir(f"/proc/{d.pid}/fd"))
    for n in range(20):
        d.ctr("run", "--rm", IMAGE, "c1", "true")
    wait_until(lambda: len(os.listdir(f"/proc/{d.pid}/fd")) <= fds, what="fds of the daemon back")
