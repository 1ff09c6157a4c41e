# SPDX-License-Identifier: Apache-2.0
"""Runtime v1 with no_shim = true: what differs because a container's parent is the daemon."""
import json
import os
import pathlib
import signal
import subprocess
import threading
import time

import pytest

from compat.test_ctr import IMAGE, forget_fifos, has_ended, status, wait_until
from compat.test_runtime_v1 import (KINDS, RUNTIME, WAYS, Events, bundle, configuration, create, forget, remove, run,
                                    serving, start)
from compat.test_runtime_v1 import pytestmark  # noqa: F401  (the same needs)
from harness.api import Api
from harness.memory import is_sanitized

TASKS = "containerd.services.tasks.v1.Tasks/"


@pytest.fixture
def n(balanced, archive):
    """wherryd without shims."""
    yield from serving("none", archive)


def serve(n, way):
    """Another configuration from the next start on."""
    n.extra_config = configuration(**WAYS[way])


def init_pid(d, name):
    return int((bundle(d, name) / "init.pid").read_text())


def stat_of(pid):
    """State and parent."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]


def children(pid, states):
    found = []
    for entry in os.scandir("/proc"):
        try:
            state, parent = stat_of(entry.name) if entry.name.isdigit() else ("", "")
        except OSError:
            continue
        if parent == str(pid) and state in states:
            found.append(entry.name)
    return found


def zombies(d):
    return children(d.pid, "Z")


def held(d):
    """Open files and threads of the daemon. The pool's threads leave when they are idle."""
    return len(os.listdir(f"/proc/{d.pid}/fd")), len(os.listdir(f"/proc/{d.pid}/task"))


def wrapper(path, script):
    """An OCI runtime that does something else before it is runc; $command: what it is called for."""
    path.write_text("#!/bin/sh\ncommand=; for word in \"$@\"; do case $word in create|start|delete|exec|kill|ps|checkpoint) "
                    f"command=$word; break;; esac; done\n{script}\nexec runc \"$@\"\n")
    path.chmod(0o755)
    return Api.message("containerd.linux.runc.RuncOptions", runtime=str(path))


def test_nothing_but_the_daemon(n):
    adjusted = pathlib.Path(f"/proc/{n.pid}/oom_score_adj").read_text()
    before = pathlib.Path(f"/proc/{n.pid}/cgroup").read_text()
    group = pathlib.Path("/sys/fs/cgroup/memory/w-shims")
    request = create(n, "c1", None, Api.message("containerd.linux.runc.CreateOptions", shim_cgroup="/w-shims"))
    n.api.call(TASKS + "Create", request)
    n.api.call(TASKS + "Start", {"container_id": "c1"})
    assert stat_of(init_pid(n, "c1"))[1] == str(n.pid)
    assert not subprocess.run(["pgrep", "-f", "containerd-shim"], capture_output=True).stdout
    assert not (bundle(n, "c1") / "shim.pid").exists() and not (bundle(n, "c1") / "address").exists()
    assert not os.listdir("/run/containerd/s")
    # What a shim is subject to does not befall the daemon.
    assert pathlib.Path(f"/proc/{n.pid}/oom_score_adj").read_text() == adjusted
    assert pathlib.Path(f"/proc/{n.pid}/cgroup").read_text() == before and not group.exists()
    assert os.readlink(f"/proc/{n.pid}/cwd") == os.getcwd()
    n.api.call(TASKS + "Kill", {"container_id": "c1", "signal": 9})
    n.api.call(TASKS + "Wait", {"container_id": "c1"})
    n.api.call(TASKS + "Delete", {"container_id": "c1"})
    assert n.process.poll() is None and not zombies(n)
    forget(n, "c1")


def test_nothing_is_kept(n):
    def life(i):
        start(n, f"c{i}")
        n.ctr("tasks", "exec", "--exec-id", "e1", f"c{i}", "true")
        n.ctr("tasks", "exec", "--exec-id", "e2", f"c{i}", "/no/such/program", check=False)
        remove(n, f"c{i}")
        run(n, f"f{i}", "/no/such/program", options=("--rm",), check=False)

    life(0)
    # The thread sanitizer has a thread of its own.
    wait_until(lambda: held(n)[1] <= 2 + is_sanitized(), seconds=30, what="only loops left")
    before = held(n)
    for i in range(1, 3):
        life(i)
    wait_until(lambda: held(n) == before, seconds=30, what=f"{before} files and threads")
    assert not zombies(n)


def test_fifty_at_once(n):
    """All within one daemon: every one its own exit, reported once and in order."""
    events = Events(n)
    names = [f"c{i}" for i in range(50)]
    runs = [n.popen("ctr", "--address", n.address, "run", "--rm", "--null-io", "--runtime", RUNTIME, IMAGE, name, "sh",
                    "-c", f"sleep 0.{i % 10}; exit {i + 1}", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            for i, name in enumerate(names)]
    assert [p.wait(60) for p in runs] == [i + 1 for i in range(50)]
    found = events.stop(1)
    for i, name in enumerate(names):
        mine = [(topic, e.get("exit_status")) for topic, e in found if e["container_id"] == name]
        assert mine == [("/tasks/create", None), ("/tasks/start", None), ("/tasks/exit", i + 1),
                        ("/tasks/delete", i + 1)]
    assert not zombies(n)


def test_many_execs_end_with_their_container(n):
    start(n, "c1")
    events = Events(n)
    for i in range(10):
        n.ctr("tasks", "exec", "-d", "--fifo-dir", "/run/containerd/fifo/x", "--exec-id", f"e{i}", "c1",
              "sleep", "1000")
    n.ctr("tasks", "kill", "-s", "SIGKILL", "c1")
    wait_until(lambda: status(n, "c1") == "STOPPED", what="c1 stopped")
    exits = [e["id"] for topic, e in events.stop() if topic == "/tasks/exit"]
    assert sorted(exits) == sorted([f"e{i}" for i in range(10)] + ["c1"]) and exits[-1] == "c1"
    remove(n, "c1")
    forget_fifos()


def test_orphans_of_containers(n):
    """Those that share our process ids leave theirs to the daemon, which also has children of its own to wait for."""
    options = ("--with-ns", "pid:/proc/1/ns/pid")
    script = "for i in 1 2 3 4 5; do (sleep 0.3 & sh -c 'sleep 1000 &' &); done; sleep 0.6; exit 3"
    runs = [n.popen("ctr", "--address", n.address, "run", "--rm", "--null-io", "--runtime", RUNTIME, *options, IMAGE, f"c{i}",
                    "sh", "-c", script, stdin=subprocess.DEVNULL) for i in range(4)]
    # Shims and workers are children of other threads, whose exit statuses are theirs.
    for i in range(4):
        assert n.ctr("run", "--rm", IMAGE, f"v{i}", "sh", "-c", "exit 4", check=False).returncode == 4
        n.ctr("images", "import", n.archive)
    assert [p.wait(30) for p in runs] == [3] * 4
    wait_until(lambda: not zombies(n), what="no zombie left")
    assert not subprocess.run(["pgrep", "-f", "sleep 1000"], capture_output=True).stdout


@pytest.mark.parametrize("command", ["create", "start"])
def test_runtime_that_hangs(n, tmp_path, command):
    """It holds up its own callers alone, and not the daemon's end; nothing is left of what it was at."""
    options = wrapper(tmp_path / "my-runc", f'[ "$command" = {command} ] && exec sleep 1000')
    request = create(n, "c1", options)

    def attempt():
        try:
            n.api.call(TASKS + "Create", request)
            n.api.call(TASKS + "Start", {"container_id": "c1"})
        except Exception as e:  # noqa: BLE001
            failures.append(e)

    failures = []
    caller = threading.Thread(target=attempt)
    caller.start()
    wait_until(lambda: children(n.pid, "S") and subprocess.run(["pgrep", "-f", "sleep 1000"], capture_output=True).stdout,
               what="runtime hanging")
    result = run(n, "c2", "sh", "-c", "echo out; exit 6", options=("--rm",), check=False)
    assert (result.returncode, result.stdout) == (6, "out\n")
    assert n.stop() == 0
    caller.join(20)
    assert failures
    assert not subprocess.run(["pgrep", "-f", "sleep 1000"], capture_output=True).stdout
    n.start()
    wait_until(lambda: not bundle(n, "c1").exists() and status(n, "c1") is None, what="c1 gone")
    forget(n, "c1")


@pytest.fixture(params=KINDS)
def o(request, balanced, archive):
    """Either daemon without shims."""
    yield from serving("none", archive, KINDS[request.param])


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_end_of_the_daemon(o, how):
    """A container loses its parent and cannot be reached by the next daemon, which ends it."""
    start(o, "c1")
    init = init_pid(o, "c1")
    assert not (bundle(o, "c1") / "address").exists() and not os.listdir("/run/containerd/s")
    o.kill() if how == "kill" else o.stop()
    assert not has_ended(init)
    o.start()
    wait_until(lambda: status(o, "c1") is None, what="c1 gone")
    work = o.root / RUNTIME / "default" / "c1"
    wait_until(lambda: has_ended(init) and not bundle(o, "c1").exists() and not work.exists(), what="container ended")
    o.ctr("containers", "rm", "c1")
    forget_fifos()


@pytest.mark.parametrize("way", ["own", "none"])
@pytest.mark.parametrize("how", ["restart", "kill"])
def test_end_is_told_once(n, tmp_path, how, way):
    """Also by a daemon that is configured to have shims."""
    gate = tmp_path / "gate"
    options = wrapper(tmp_path / "my-runc", f'while [ "$command" = delete -a ! -e {gate} ]; do sleep 0.02; done')
    request = create(n, "c1", options)
    n.api.call(TASKS + "Create", request)
    pid = n.api.call(TASKS + "Start", {"container_id": "c1"}).pid
    n.kill() if how == "kill" else n.stop()
    serve(n, way)
    n.start()
    events = Events(n)
    gate.touch()
    wait_until(lambda: status(n, "c1") is None, what="c1 gone")
    assert [(topic, e["exit_status"], e["pid"]) for topic, e in events.stop()] == [
        ("/tasks/exit", 137, pid), ("/tasks/delete", 137, pid)]
    assert has_ended(pid) and not bundle(n, "c1").exists()
    forget(n, "c1")


@pytest.mark.parametrize("shim", ["debian", "own"])
def test_shims_of_a_former_configuration(balanced, archive, shim):
    for w in serving(shim, archive):
        start(w, "c1", "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done")
        w.stop()
        serve(w, "none")
        w.start()
        assert status(w, "c1") == "RUNNING"
        assert w.ctr("tasks", "exec", "--exec-id", "e1", "c1", "echo", "still here").stdout == "still here\n"
        start(w, "c2")
        assert stat_of(init_pid(w, "c2"))[1] == str(w.pid) and stat_of(init_pid(w, "c1"))[1] != str(w.pid)
        w.ctr("tasks", "kill", "-s", "SIGTERM", "c1")
        wait_until(lambda: status(w, "c1") == "STOPPED", what="c1 stopped")
        assert w.ctr("tasks", "rm", "c1", check=False).returncode in (0, 9)
        w.ctr("containers", "rm", "c1")
        remove(w, "c2")
        forget_fifos()


def test_environment_of_the_runtime(n, tmp_path, monkeypatch):
    """What systemd tells the daemon is not for containers: runc would wait for their word to systemd."""
    n.stop()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    n.start()
    request = create(n, "c1", wrapper(tmp_path / "my-runc", f"env >>{tmp_path}/env"))
    n.api.call(TASKS + "Create", request)
    n.api.call(TASKS + "Delete", {"container_id": "c1"})
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert "SOMETHING_ELSE" in names and "PATH" in names and not names & {"NOTIFY_SOCKET", "WATCHDOG_USEC"}
    forget(n, "c1")


def test_files_beside_the_bundle(n):
    """Nothing depends on where the daemon was started: what has no '/' in front is in the bundle, as for a shim."""
    request = create(n, "c1")
    request.stdout = request.stderr = "out"
    path = bundle(n, "c1") / "out"
    with pytest.raises(Exception) as info:
        n.api.call(TASKS + "Create", request)
    assert str(path) in info.value.details() and not path.parent.exists()
    forget(n, "c1")


def test_deeply_nested_request(n):
    """Read recursively, on a thread's stack."""
    start(n, "c1")
    nested = {"args": ["true"], "cwd": "/", "x": 0}
    text = json.dumps(nested).replace('"x": 0', '"x": ' + "[" * 2000 + "]" * 2000)
    request = Api.message("containerd.services.tasks.v1.ExecProcessRequest", container_id="c1", exec_id="e1")
    request.spec.type_url, request.spec.value = "types.containerd.io/opencontainers/runtime-spec/1/Process", text.encode()
    try:
        n.api.call(TASKS + "Exec", request)
    except Exception:  # noqa: BLE001  (either answer is fine)
        pass
    assert n.process.poll() is None and status(n, "c1") == "RUNNING"
    remove(n, "c1")
    forget_fifos()


def test_same_name_again(n, tmp_path):
    """Nothing that is still being done for a former container may touch the next one of its name."""
    hang = tmp_path / "hang"
    hang.touch()
    options = wrapper(tmp_path / "my-runc", f'[ "$command" = ps -a -e {hang} ] && exec sleep 1000')
    request = create(n, "c1", options)
    for _ in range(3):
        n.api.call(TASKS + "Create", request)
        pid = n.api.call(TASKS + "Start", {"container_id": "c1"}).pid
        caller = threading.Thread(target=lambda: pytest.raises(
            Exception, n.api.call, TASKS + "ListPids", {"container_id": "c1"}))
        caller.start()
        wait_until(lambda: subprocess.run(["pgrep", "-f", "sleep 1000"], capture_output=True).stdout.count(b"\n") == 2,
                   what="runtime hanging")
        os.kill(pid, signal.SIGKILL)
        n.api.call(TASKS + "Wait", {"container_id": "c1"})
        n.api.call(TASKS + "Delete", {"container_id": "c1"})
        assert not subprocess.run(["pgrep", "-f", "sleep 1000"], capture_output=True).stdout
        caller.join(5)
        assert not caller.is_alive()
    hang.unlink()
    n.api.call(TASKS + "Create", request)
    n.api.call(TASKS + "Start", {"container_id": "c1"})
    assert len(n.api.call(TASKS + "ListPids", {"container_id": "c1"}).processes) == 1
    remove(n, "c1")


def test_signals_for_the_daemon(n):
    """Its own children's ends are no news to it, and no other signal ends what it does."""
    start(n, "c1")
    for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE):
        os.kill(n.pid, number)
    assert status(n, "c1") == "RUNNING"
    remove(n, "c1")
