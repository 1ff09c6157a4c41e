# SPDX-License-Identifier: Apache-2.0
"""Shims that die, hang, lie, and lose what they live from."""
import concurrent.futures
import ctypes
import itertools
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import pytest

from conftest import running
from fault.rig import OBEDIENT, Rig, has_ended, wait_until
from harness import daemons
from harness.api import message_class

CODE = grpc.StatusCode


@pytest.fixture
def quick(balanced):
    """A daemon that waits for new shims only briefly."""
    for daemon in running(daemons.Daemon(extra_config='[timeouts]\n"io.containerd.timeout.shim.load" = "1500ms"\n')):
        rig = Rig(daemon)
        yield rig
        rig.forget()


def is_clean(rig, name):
    """Nothing of the container is left, and its id can be used."""
    rig.forget_record(name)
    assert rig.left_behind() == [], rig.d.log_text()
    assert not rig.processes_of(name)
    rig.run(name)
    assert rig.end(name) == 7
    rig.remove(name)
    assert rig.left_behind() == [], rig.d.log_text()


def bring(rig, name, state, **options):
    """The container in that state; pids of its processes."""
    args = ("sh", "-c", "exit 9") if state == "stopped" else OBEDIENT
    rig.container(name, args, **options)
    pids = [rig.create(name)]
    if state != "created":
        rig.start(name)
    if state == "stopped":
        assert rig.wait(name) == 9
    if state == "paused":
        rig.task("Pause", container_id=name)
    if state == "exec":
        pids.append(rig.execute(name, "e1", ("sleep", "1000")))
    return pids


@pytest.mark.parametrize("host_pid", [False, True], ids=["private", "host"])
@pytest.mark.parametrize("state", ["created", "running", "paused", "exec", "stopped"])
def test_killed(rig, state, host_pid):
    events = rig.events()
    pids = bring(rig, "c1", state, host_pid=host_pid)
    if state == "stopped":
        wait_until(lambda: events.exits("c1"), what="the event of its end")
    os.kill(rig.shim("c1"), signal.SIGKILL)
    wait_until(lambda: rig.process("c1") is None, 5, "the end of the task")
    wait_until(lambda: all(has_ended(pid) for pid in pids), 5, "the end of its processes")
    wait_until(lambda: "/tasks/delete" in events.topics("c1"), 5, "the event of its removal")
    told = [m.exit_status for m in events.exits("c1")]
    assert told == {"created": [], "stopped": [9]}.get(state, [137])
    is_clean(rig, "c1")
    events.stop()


@pytest.mark.parametrize("state", ["created", "running", "paused", "exec", "stopped"])
def test_killed_while_the_daemon_is_away(rig, state):
    pids = bring(rig, "c1", state, host_pid=state == "exec")
    shim = rig.shim("c1")
    rig.d.kill()
    os.kill(shim, signal.SIGKILL)
    rig.d.start()
    wait_until(lambda: rig.process("c1") is None, 5, "the end of the task")
    wait_until(lambda: all(has_ended(pid) for pid in pids), 5, "the end of its processes")
    is_clean(rig, "c1")


FAKES = {
    "silent": "exit 0",
    "half an answer": """printf '{"version":2,"addr'""",
    "11 MiB": "head -c 11534336 /dev/zero | tr '\\0' x",
    "garbage": "head -c 300 /dev/urandom",
    "dead address": "echo unix:///run/containerd/s/f00d",
    "no address": """echo '{"version":2,"protocol":"ttrpc"}'""",
    "version 99": """echo '{"version":99,"address":"unix:///run/containerd/s/f00d","protocol":"ttrpc"}'""",
    "grpc": """echo '{"version":3,"address":"unix:///run/containerd/s/f00d","protocol":"grpc"}'""",
    "never": "sleep 31.5",
    "fails with 1 MiB": "head -c 1048576 /dev/zero | tr '\\0' e >&2; exit 1",
    "fails": "echo 'it rains today' >&2; exit 1",
    "keeps the pipe": "sleep 31.5 & echo unix:///run/containerd/s/f00d",
    "killed": "kill -9 $$",
}


def sleepers():
    found = []
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and b"31.5" in pathlib.Path(entry.path, "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            pass
    return found


class Made:
    """The names of what is made in a directory."""

    IN_CREATE, IN_NONBLOCK = 0x100, os.O_NONBLOCK

    def __init__(self, directory):
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(self.IN_NONBLOCK)
        assert self.fd >= 0 and libc.inotify_add_watch(self.fd, os.fsencode(directory), self.IN_CREATE) >= 0

    def names(self):
        found = []
        try:
            data = os.read(self.fd, 1 << 20)
        except BlockingIOError:
            data = b""
        while data:
            length = int.from_bytes(data[12:16], sys.byteorder)
            found.append(data[16:16 + length].rstrip(b"\0").decode())
            data = data[16 + length:]
        os.close(self.fd)
        return found


@pytest.mark.skipif(not shutil.which("crun"), reason="there is no crun")
def test_clean_up_is_spared_a_second_start(rig):
    """crun is executed from its detached mount after a shim's death as well: nothing of it in /tmp that would stay if
    it were killed."""
    options = message_class("containerd.runc.v1.Options")(binary_name="crun")
    rig.run("c1", options=options)
    made = Made("/tmp")
    os.kill(rig.shim("c1"), signal.SIGKILL)
    wait_until(lambda: rig.process("c1") is None, what="the end of the task")
    assert [name for name in made.names() if name.startswith("crun.")] == []
    is_clean(rig, "c1")


def test_false_starts(quick):
    """A shim binary that does not start a shim: an error that says so, in time, and nothing is left."""
    for number, (what, text) in enumerate(FAKES.items()):
        path = quick.d.base / f"containerd-shim-fake{number}-v1"
        path.write_text('#!/bin/sh\nfor a in "$@"; do [ "$a" = delete ] && exit 0; done\n' + text + "\n")
        path.chmod(0o755)
        name = f"c{number}"
        quick.container(name, runtime=str(path))
        started = time.monotonic()
        with pytest.raises(grpc.RpcError) as error:
            quick.create(name, timeout=10)
        assert time.monotonic() - started < 4, what
        assert error.value.code() != CODE.DEADLINE_EXCEEDED or "deadline" in error.value.details(), what
        assert 10 < len(error.value.details()) < 5000, what
        if what == "fails":
            assert "it rains today" in error.value.details()
        quick.forget_record(name)
        if what == "keeps the pipe":  # that one started well, and what it has left running is its own affair
            for pid in sleepers():
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not sleepers(), 3, f"{what}: the end of its processes")
        assert quick.left_behind() == [], what
    quick.run("good")
    quick.remove("good")


def test_stopped_shim(rig):
    """SIGSTOP: everybody's call on it ends in time, others notice nothing, and it can be removed."""
    pid = rig.run("c1")
    rig.run("c2")
    shim = rig.shim("c1")
    calls = {
        "Get": {}, "Kill": {"signal": 15}, "Pause": {}, "ListPids": {}, "Wait": {}, "Resume": {},
        "CloseIO": {"stdin": True}, "ResizePty": {"width": 1, "height": 1}, "Start": {"exec_id": "e1"},
    }
    fds = len(os.listdir(f"/proc/{rig.d.pid}/fd"))
    os.kill(shim, signal.SIGSTOP)

    def ask(method):
        try:
            rig.task(method, {"container_id": "c1", **calls[method]}, timeout=4)
            return "OK"
        except grpc.RpcError as error:
            return error.code().name

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        asked = [(m, pool.submit(ask, m)) for m in list(calls) * 5]
        slowest = 0
        for _ in range(100):
            begun = time.monotonic()
            assert rig.state("c2") == "RUNNING"
            slowest = max(slowest, time.monotonic() - begun)
            time.sleep(0.005)
        for method, answer in asked:
            assert answer.result() in (("OK",) if method == "Get" else ("DEADLINE_EXCEEDED",)), method
    assert slowest < 1
    told = rig.process("c1")  # with its pid: clients take a task without one for ended, and do not kill it
    assert (told.status, told.pid) == (0, pid)
    wait_until(lambda: len(os.listdir(f"/proc/{rig.d.pid}/fd")) <= fds, what="fds of the daemon back")
    # What was asked meanwhile is carried out, or not: it goes on in any case.
    os.kill(shim, signal.SIGCONT)
    wait_until(lambda: rig.state("c1") not in ("UNKNOWN", "PAUSING"), what="an answer again")
    rig.remove("c1")
    rig.remove("c2")


@pytest.mark.parametrize("known", [True, False], ids=["same daemon", "next daemon"])
def test_stopped_shim_is_removed(rig, known):
    """SIGKILL for a container whose shim does not answer at all ends both."""
    pid = rig.run("c1")
    events = rig.events()
    shim = rig.shim("c1")
    if known:
        os.kill(shim, signal.SIGSTOP)
    else:
        events.stop()
        rig.d.kill()
        os.kill(shim, signal.SIGSTOP)  # now: what is stopped when its parent dies is let go by the kernel
        rig.d.start()
        events = rig.events()
        assert rig.state("c1") == "UNKNOWN"
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        wait = pool.submit(rig.wait, "c1")
        with pytest.raises(grpc.RpcError) as error:
            rig.task("Kill", container_id="c1", signal=9, timeout=1)
        assert error.value.code() == CODE.DEADLINE_EXCEEDED
        wait_until(lambda: rig.process("c1") is None, 8, "the end of the task")
        assert wait.result() == 137
    assert has_ended(pid)
    assert [m.exit_status for m in events.exits("c1")] == [137]
    events.stop()
    is_clean(rig, "c1")


def test_stopped_shim_is_not_removed_unasked(rig):
    """A restart of the daemon finds it stopped: it is neither killed nor forgotten."""
    pid = rig.run("c1")
    shim = rig.shim("c1")
    rig.d.kill()
    os.kill(shim, signal.SIGSTOP)
    rig.d.start()
    assert rig.state("c1") == "UNKNOWN"
    os.kill(shim, signal.SIGCONT)
    wait_until(lambda: rig.state("c1") == "RUNNING", what="an answer again")
    assert rig.process("c1").pid == pid
    rig.remove("c1")


def test_dies_during_calls(rig):
    for number in range(6):
        name = f"c{number}"
        rig.run(name)
        shim = rig.shim(name)
        answers = []

        def ask(name=name, answers=answers):
            try:
                rig.execute(name, "e1", ("true",))
                answers.append(CODE.OK)
            except grpc.RpcError as error:
                answers.append(error.code())

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.006 * number)
        os.kill(shim, signal.SIGKILL)
        thread.join(10)
        assert answers[0] in (CODE.OK, CODE.UNAVAILABLE, CODE.NOT_FOUND), answers
        wait_until(lambda name=name: rig.process(name) is None, 5, "the end of the task")
        rig.forget_record(name)
    assert rig.left_behind() == []


def break_socket(rig, how):
    path = rig.socket("c1")
    path.unlink()
    if how == "directory":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "another's":
        # A listener of another user: nobody may be talked to by its name alone.
        other = subprocess.Popen([sys.executable, "-c", f"""
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind({str(path)!r})
os.chown({str(path)!r}, 65534, 65534)
os.setuid(65534)
s.listen()
print("ready", flush=True)
c, _ = s.accept()
print(len(c.recv(100)), flush=True)
"""], stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline() == "ready\n"
        return other
    return None


@pytest.mark.parametrize("how", ["missing", "directory", "fifo", "another's"])
def test_socket_is_broken(rig, how):
    """The running daemon has its connection; the next one finds no shim there, and ends what it cannot reach."""
    pid = rig.run("c1")
    shim = rig.shim("c1")
    other = break_socket(rig, how)
    assert rig.state("c1") == "RUNNING"
    rig.d.kill()
    rig.d.start()
    wait_until(lambda: rig.process("c1") is None, 8, "the end of the task")
    wait_until(lambda: has_ended(pid), 5, "the end of the container")
    wait_until(lambda: has_ended(shim), 5, "the end of the shim")
    if other:
        other.kill()
        assert other.communicate()[0] in ("", "0\n"), "something was said to a stranger"
    if how == "directory":
        rig.socket("c1").rmdir()
    elif rig.socket("c1").exists():
        rig.socket("c1").unlink()
    is_clean(rig, "c1")


@pytest.mark.parametrize("names", [("bootstrap.json",), ("bootstrap.json", "address"), ("log",), ("init.pid",),
                                   ("shim-binary-path",), ("config.json",), ("work",), ("log.json",)])
def test_file_of_the_bundle_is_missing(rig, names):
    """What the bundle says besides is not needed to find a shim that is well."""
    pid = rig.run("c1")
    for name in names:
        path = rig.bundle("c1") / name
        if path.exists() or path.is_symlink():
            path.unlink()
    rig.d.kill()
    rig.d.start()
    assert rig.state("c1") == "RUNNING" and rig.process("c1").pid == pid
    assert rig.execute("c1", "e1", ("true",)) > 0 and rig.wait("c1", "e1") == 0
    rig.remove("c1")
    is_clean(rig, "c1")


def test_file_of_the_bundle_is_empty(rig):
    pid = rig.run("c1")
    for name in ("bootstrap.json", "address", "config.json"):
        (rig.bundle("c1") / name).write_text("")
    rig.d.kill()
    rig.d.start()
    assert rig.state("c1") == "RUNNING" and rig.process("c1").pid == pid
    rig.remove("c1")
    is_clean(rig, "c1")


def test_bundle_is_removed(rig):
    """The directory goes under a running container: it can still be ended and deleted."""
    rig.run("c1")
    bundle = rig.bundle("c1")
    for entry in bundle.iterdir():
        if entry.name == "rootfs":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    assert rig.end("c1") == 7
    assert rig.delete("c1") == 7
    is_clean(rig, "c1")


class Innocent:
    """A process with a chosen pid, that notes every signal it gets."""

    PROGRAM = """
import os, signal, sys
pid = int(sys.argv[1])
for _ in range(200):
    with open("/proc/sys/kernel/ns_last_pid", "w") as f:
        f.write(str(pid - 1))
    child = os.fork()
    if child == 0:
        if os.getpid() != pid:
            os._exit(0)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        print("ready", flush=True)
        sys.stdin.read()
        print("signals", sorted(int(s) for s in signal.sigpending()), flush=True)
        os._exit(0)
    if child == pid:
        _, status = os.waitpid(child, 0)
        print("status", status, flush=True)
        break
    os.waitpid(child, 0)
else:
    print("failed", flush=True)
"""

    def __init__(self, pid, thread=False):
        self.process = subprocess.Popen([sys.executable, "-c", self.THREAD if thread else self.PROGRAM, str(pid)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if line != "ready\n":
            self.process.communicate()
            pytest.skip(f"process {pid} could not be made: the number is in use")

    # The same number as that of a thread, which is no process: what asks for it fails in another way.
    THREAD = """
import os, sys, threading
pid = int(sys.argv[1])
done = threading.Event()
for _ in range(200):
    found = threading.Event()
    with open("/proc/sys/kernel/ns_last_pid", "w") as f:
        f.write(str(pid - 1))
    thread = threading.Thread(target=lambda: (found.set(), threading.get_native_id() == pid and done.wait()))
    thread.start()
    found.wait()
    if thread.native_id == pid:
        print("ready", flush=True)
        sys.stdin.read()
        done.set()
        print("signals []", flush=True)
        print("status 0", flush=True)
        break
    thread.join()
else:
    print("failed", flush=True)
"""

    def end(self):
        out, _ = self.process.communicate("", timeout=10)
        assert out == "signals []\nstatus 0\n", f"the innocent process got signals: {out}"


def can_choose_pids():
    return os.path.exists("/proc/sys/kernel/ns_last_pid") and os.access("/proc/sys/kernel/ns_last_pid", os.W_OK)


@pytest.mark.skipif(not can_choose_pids(), reason="the kernel does not let one choose pids (ns_last_pid)")
@pytest.mark.parametrize("thread", [False, True], ids=["process", "thread"])
@pytest.mark.parametrize("host_pid", [False, True], ids=["private", "host"])
def test_reused_pid_of_init(rig, host_pid, thread):
    """Another process has the pid of the ended container: no verb reaches it, no wait waits for it."""
    pid = rig.run("c1", ("true",), host_pid=host_pid)
    rig.wait("c1")
    innocent = Innocent(pid, thread)
    for everything in (False, True):
        try:
            rig.kill("c1", 9, everything=everything)
        except grpc.RpcError as error:
            assert error.code() == CODE.NOT_FOUND, error.details()
    rig.d.kill()
    rig.d.start()
    assert rig.wait("c1", timeout=3) == 0
    assert rig.delete("c1") == 0
    innocent.end()
    is_clean(rig, "c1")


@pytest.mark.skipif(not can_choose_pids(), reason="the kernel does not let one choose pids (ns_last_pid)")
@pytest.mark.parametrize("whose, thread", [("init", False), ("init", True), ("shim", False)])
def test_reused_pid_after_the_shim(rig, whose, thread):
    """Shim and container end while the daemon is away, and others get their pids."""
    pid = rig.run("c1")
    shim = rig.shim("c1")
    rig.d.kill()
    os.kill(shim, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    victim = pid if whose == "init" else shim
    wait_until(lambda: not os.path.exists(f"/proc/{victim}"), what="its pid is free")
    innocent = Innocent(victim, thread)
    rig.d.start()
    wait_until(lambda: rig.process("c1") is None, 8, "the end of the task")
    innocent.end()
    is_clean(rig, "c1")


def test_init_dies_before_start(rig):
    """Killed behind the shim's back: Start fails or the end comes, nothing waits for ever, one exit is told."""
    for number in range(8):
        name = f"c{number}"
        events = rig.events()
        rig.container(name)
        pid = rig.create(name)
        killer = threading.Timer(0.001 * number, os.kill, (pid, signal.SIGKILL))
        if number == 0:
            os.kill(pid, signal.SIGKILL)
        else:
            killer.start()
        try:
            rig.start(name)
        except grpc.RpcError as error:
            assert error.code() != CODE.DEADLINE_EXCEEDED, error.details()
        if number:
            killer.join()
        assert rig.wait(name, timeout=5) == 137
        wait_until(lambda: events.exits(name), what="the event of its end")
        assert rig.delete(name) == 137
        wait_until(lambda: "/tasks/delete" in events.topics(name), what="the event of its removal")
        assert len(events.exits(name)) == 1
        topics = events.topics(name)
        if "/tasks/start" in topics:
            assert topics.index("/tasks/start") < topics.index("/tasks/exit")
        rig.forget_record(name)
        events.stop()
    assert rig.left_behind() == []


@pytest.mark.parametrize("host_pid", [False, True], ids=["private", "host"])
def test_many_execs_and_the_end_of_init(rig, host_pid):
    events = rig.events()
    pid = rig.run("c1", host_pid=host_pid)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        pids = list(pool.map(lambda n: rig.execute("c1", f"e{n}", ("sleep", "1000")), range(30)))
    rig.kill("c1")
    assert rig.wait("c1") == 137
    wait_until(lambda: len([t for t in events.topics("c1") if t == "/tasks/exit"]) == 31, what="31 exits")
    ids = [m.id for topic, m in events.seen if topic == "/tasks/exit"]
    assert ids[-1] == "c1" and len(set(ids)) == 31
    assert all(has_ended(p) for p in [*pids, pid])
    for number in range(30):
        assert rig.delete_exec("c1", f"e{number}") == 137
    rig.remove("c1")
    assert rig.left_behind() == []
    events.stop()


def test_exec_that_comes_late(rig):
    """Init ends while an exec is being started, and its process comes into being after all: it is ended, and the end
    of init told after its own."""
    path = rig.d.base / "runtime"
    path.write_text(f"""#!/bin/sh
case " $* " in *" exec "*)
    while [ "$1" != --pid-file ]; do shift; done
    touch {rig.d.base}/begun
    while [ ! -e {rig.d.base}/go ]; do sleep 0.02; done
    setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > "$2"
    exit 0
esac
exec {shutil.which("crun") or shutil.which("runc")} "$@"
""")
    path.chmod(0o755)
    events = rig.events()
    pid = rig.run("c1", host_pid=True, options=message_class("containerd.runc.v1.Options")(binary_name=str(path)))
    rig.add_exec("c1", "e1", ("sleep", "1000"))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        start = pool.submit(rig.start, "c1", "e1")
        wait_until(lambda: (rig.d.base / "begun").exists(), what="the call of the runtime")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: has_ended(pid), what="the end of init")
        (rig.d.base / "go").touch()
        late = start.result()
    assert rig.wait("c1", "e1", timeout=5) == 137 and has_ended(late)
    assert rig.wait("c1", timeout=5) == 137
    wait_until(lambda: events.exits("c1"), 5, "the event of the end of init")
    assert [m.id for topic, m in events.seen if topic == "/tasks/exit"] == ["e1", "c1"]
    events.stop()
    rig.remove("c1")
    assert rig.left_behind() == []


def children_of(pid):
    found = []
    for entry in os.scandir("/proc"):
        try:
            fields = pathlib.Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            if fields[1] == str(pid):
                found.append((int(entry.name), fields[0]))
        except (OSError, ValueError):
            pass
    return found


def test_orphans(rig):
    """With the host's pids, what a container leaves behind falls to the shim: it is ended and reaped."""
    rig.run("c1", ("sh", "-c", "i=0; while [ $i -lt 300 ]; do (sleep 1000 &) ; i=$((i+1)); done; exit 3"),
            host_pid=True)
    shim = rig.shim("c1")
    assert rig.wait("c1") == 3
    wait_until(lambda: not rig.processes_of("c1") and not children_of(shim), 5, "the end of the orphans")
    rig.remove("c1")
    assert rig.left_behind() == []


def test_many_end_at_once(rig):
    """60 processes end together, each with a status of its own."""
    rig.run("c1")
    # A frozen group lets all of them see their signal in the same moment.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: rig.execute("c1", f"e{n}", (
            "sh", "-c", f"trap 'exit {n + 1}' TERM; touch /r{n}; while :; do sleep 1000 & wait; done")), range(60)))
    root = pathlib.Path(f"/proc/{rig.process('c1').pid}/root")
    wait_until(lambda: all((root / f"r{n}").exists() for n in range(60)), what="all of them ready")
    waits = {}
    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        for n in range(60):
            waits[n] = pool.submit(rig.wait, "c1", f"e{n}")
        pids = [rig.process("c1", f"e{n}").pid for n in range(60)]
        rig.task("Pause", container_id="c1")
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        rig.task("Resume", container_id="c1")
        assert {n: w.result() for n, w in waits.items()} == {n: n + 1 for n in range(60)}
    rig.remove("c1")
    assert rig.left_behind() == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=lambda o: "".join(map(str, o)))
def test_group(rig, order):
    """A pod's containers share a shim, which leaves with the last of them and not before."""
    names = ["pod", "a", "b"]
    for name in names:
        rig.run(name, annotations={"io.kubernetes.cri.sandbox-id": "pod"})
    shim = rig.shim("pod")
    assert shim and not any(rig.shim(name) for name in names[1:])
    # One that dies is nobody else's affair.
    rig.kill("b")
    assert rig.wait("b") == 137
    assert [rig.state(n) for n in names] == ["RUNNING", "RUNNING", "STOPPED"]
    rig.d.kill()
    rig.d.start()
    for number in order:
        assert not has_ended(shim)
        rig.remove(names[number])
    wait_until(lambda: has_ended(shim), 5, "the end of the shim")
    assert rig.left_behind() == []


def test_group_dies(rig):
    """The shim of a pod is killed: each of its containers is ended and told of once."""
    names = ["pod", "a", "b"]
    events = rig.events()
    pids = [rig.run(name, annotations={"io.kubernetes.cri.sandbox-id": "pod"}) for name in names]
    os.kill(rig.shim("pod"), signal.SIGKILL)
    for name, pid in zip(names, pids):
        wait_until(lambda name=name: rig.process(name) is None, 5, f"the end of {name}")
        wait_until(lambda pid=pid: has_ended(pid), 5, f"the end of {name}'s process")
        wait_until(lambda name=name: events.exits(name), 5, f"the event of {name}'s end")
        assert [m.exit_status for m in events.exits(name)] == [137]
        rig.forget_record(name)
    assert rig.left_behind() == []
    events.stop()
