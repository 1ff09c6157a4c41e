# SPDX-License-Identifier: Apache-2.0
"""Single calls of the OCI runtime that hang, die half way, come too late, or lie about the process they made."""
import os
import pathlib
import signal
import subprocess
import threading
import time

import grpc
import pytest

from fault.rig import OBEDIENT, any_json, has_ended, start_time, wait_until
from fault.test_runtime_faults import RUNTIMES
from harness import daemons, ledger
from harness.api import any_of, message_class

CODE = grpc.StatusCode
RESOURCES_URL = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"


def runtime(rig, text, real=RUNTIMES[0]):
    """Options that name a runtime of our making. $REAL is a good one, $COMMAND what it was asked, $PID_FILE where
    it is to leave a number, $BASE a directory of the test."""
    path = rig.d.base / "runtime"
    temporary = rig.d.base / "runtime.new"
    temporary.write_text(f"""#!/bin/sh
REAL={real} BASE={rig.d.base} COMMAND= PID_FILE= PREVIOUS=
for a in "$@"; do
    [ "$PREVIOUS" = --pid-file ] && PID_FILE=$a
    case $a in create|start|exec|kill|delete|state|pause|resume|update|ps) [ -z "$COMMAND" ] && COMMAND=$a ;; esac
    PREVIOUS=$a
done
{text}
exec "$REAL" "$@"
""")
    temporary.chmod(0o755)
    temporary.rename(path)
    return message_class("containerd.runc.v1.Options")(binary_name=str(path))


def update(rig, name, timeout=20):
    message = message_class("containerd.services.tasks.v1.UpdateTaskRequest")(container_id=name)
    message.resources.CopyFrom(any_json(RESOURCES_URL, {"memory": {"limit": 64 << 20}}))
    return rig.task("Update", message, timeout=timeout)


# What a client calls, and how the container has to stand for it.
CALLS = {
    "pause": lambda rig, timeout: rig.task("Pause", container_id="c1", timeout=timeout),
    "resume": lambda rig, timeout: rig.task("Resume", container_id="c1", timeout=timeout),
    "update": lambda rig, timeout: update(rig, "c1", timeout),
    "ps": lambda rig, timeout: rig.task("ListPids", container_id="c1", timeout=timeout),
    "exec": lambda rig, timeout: rig.start("c1", "e1", timeout=timeout),
    "delete": lambda rig, timeout: rig.delete("c1", timeout=timeout),
    "kill": lambda rig, timeout: rig.task("Kill", container_id="c1", signal=int(signal.SIGUSR1), timeout=timeout),
}


def prepare(rig, command):
    if command == "resume":
        rig.task("Pause", container_id="c1")
    elif command == "exec":
        rig.add_exec("c1", "e1", ("true",))
    elif command == "delete":
        rig.kill("c1")
        rig.wait("c1")


def outcome(call):
    try:
        return call()
    except grpc.RpcError as error:
        return error


@pytest.mark.parametrize("command", list(CALLS))
def test_hangs(rig, command):
    """The caller alone waits. When the runtime has been killed the call fails, nothing is left of it, and the same
    call works with a runtime that works."""
    options = runtime(rig, f'[ $COMMAND = {command} ] && [ -e $BASE/hang ] && {{ echo $$ >$BASE/pid; exec sleep 871; }}')
    rig.run("c1", ("sh", "-c", "trap : USR1; while :; do sleep 1000 & wait; done"), options=options)
    rig.run("c2")
    prepare(rig, command)
    shim = rig.shim("c1")
    fds = ledger.open_fds(shim)
    mark, pid_file = rig.d.base / "hang", rig.d.base / "pid"
    mark.touch()
    results = []
    thread = threading.Thread(target=lambda: results.append(outcome(lambda: CALLS[command](rig, 20))))
    thread.start()
    wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), what="the call")
    begun = time.monotonic()
    assert rig.state("c2") == "RUNNING" and rig.state("c1") is not None
    rig.task("Pause", container_id="c2")
    rig.task("Resume", container_id="c2")
    assert rig.end("c2") == 7
    rig.remove("c2")
    assert time.monotonic() - begun < 5 and thread.is_alive()
    hung = int(pid_file.read_text())
    mark.unlink()
    os.kill(hung, signal.SIGKILL)
    thread.join(10)
    assert isinstance(results[0], grpc.RpcError) and results[0].code() == CODE.UNKNOWN and results[0].details()
    wait_until(lambda: not os.path.exists(f"/proc/{hung}"), what="its reaping")
    if command == "exec":
        rig.delete_exec("c1", "e1")
        rig.add_exec("c1", "e1", ("true",))
    assert not isinstance(outcome(lambda: CALLS[command](rig, 20)), grpc.RpcError)
    if command not in ("exec", "delete"):
        assert ledger.open_fds(shim) <= fds + 1
    rig.remove("c1")
    assert rig.left_behind() == []


@pytest.mark.skipif("WHERRY_DEADLINES" not in os.environ,
                    reason="takes the 20 s of a deadline: WHERRY_DEADLINES=1; unit test shim-runtime_call has short ones")
def test_deadlines(rig):
    """Nobody kills it: the shim does, and the container is as it was."""
    options = runtime(rig, 'case $COMMAND in pause|update|ps|kill) [ -e $BASE/hang ] && exec sleep 871 ;; esac')
    rig.run("c1", ("sleep", "1000"), options=options)
    (rig.d.base / "hang").touch()
    results = {}

    def call(command):
        results[command] = outcome(lambda: CALLS[command](rig, 60))

    threads = [threading.Thread(target=call, args=(command,)) for command in ("ps", "kill", "pause")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {r.code() for r in results.values()} == {CODE.DEADLINE_EXCEEDED} and len(results) == 3, results
    (rig.d.base / "hang").unlink()
    assert rig.state("c1") == "RUNNING"
    rig.remove("c1")
    assert rig.left_behind() == []


def test_features_hang(rig):
    """What the shim tells about itself comes without them, in the time that managers give it."""
    rig.d.base.joinpath("hanging").write_text("#!/bin/sh\nexec sleep 871\n")
    rig.d.base.joinpath("hanging").chmod(0o755)
    options = any_of(message_class("containerd.runc.v1.Options")(binary_name=str(rig.d.base / "hanging")))
    begun = time.monotonic()
    result = subprocess.run([daemons.BIN / "containerd-shim-wherry-v2", "-info"], input=options.SerializeToString(),
                            capture_output=True, timeout=20)
    assert result.returncode == 0 and time.monotonic() - begun < 10
    info = message_class("containerd.types.RuntimeInfo").FromString(result.stdout)
    assert info.name == "io.containerd.wherry.v2" and not info.HasField("features")


def is_frozen(rig, name):
    for path in (pathlib.Path("/sys/fs/cgroup/freezer", rig.ns, name, "freezer.state"),
                 pathlib.Path("/sys/fs/cgroup", rig.ns, name, "cgroup.freeze")):
        if path.exists():
            return path.read_text().strip() not in ("THAWED", "0")
    raise AssertionError("it has no freezer")


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_done_but_not_told(rig, command):
    """The runtime freezes or thaws and then dies: what the kernel says is what the task's state says."""
    options = runtime(rig, f'[ $COMMAND = {command} ] && [ -e $BASE/die ] && {{ "$REAL" "$@"; kill -9 $$; }}')
    rig.run("c1", options=options)
    prepare(rig, command)
    (rig.d.base / "die").touch()
    assert isinstance(outcome(lambda: CALLS[command](rig, 20)), grpc.RpcError)
    (rig.d.base / "die").unlink()
    assert rig.state("c1") == "RUNNING" and not is_frozen(rig, "c1")
    rig.task("Pause", container_id="c1")
    assert is_frozen(rig, "c1")
    rig.task("Resume", container_id="c1")
    assert rig.end("c1") == 7
    rig.remove("c1")
    assert rig.left_behind() == []


LATE = {
    # In the background, with the caller's fds and without them, while the caller is told that all went well.
    "daemon": '[ $COMMAND = create ] && { (sleep 0.4; exec "$REAL" "$@") & exit 0; }',
    "daemon, new session": '[ $COMMAND = create ] && { setsid sh -c "sleep 0.4; exec $REAL $*" </dev/null >/dev/null 2>&1 & exit 0; }',
    "at once": '[ $COMMAND = create ] && { "$REAL" "$@" & exit 0; }',
    "at once, and a failure": '[ $COMMAND = create ] && { "$REAL" "$@" & sleep 0.0$N; exit 3; }',
    "daemon, and a failure": '[ $COMMAND = create ] && { (sleep 0.4; exec "$REAL" "$@") & exit 3; }',
}


@pytest.mark.parametrize("how", list(LATE))
def test_made_too_late(rig, how):
    """A container that comes into being after its create has failed does not stay."""
    for number in range(5 if "at once" in how else 1):
        name = f"c{number}"
        rig.container(name, options=runtime(rig, f"N={number}\n" + LATE[how]))
        error = outcome(lambda: rig.create(name))
        # One that is quick enough has made its container before its parent was asked for it.
        if isinstance(error, grpc.RpcError):
            assert error.code() == CODE.UNKNOWN and len(error.details()) > 10
        time.sleep(0.1 if "at once" in how else 0.8)
        rig.remove(name)
        wait_until(lambda: not rig.processes_of(name), 30, "the end of what came late")
    assert rig.left_behind(30) == []


def test_changes_its_group_and_closes_everything(rig):
    """A runtime in a process group and session of its own, that leaves a child without any fd of ours."""
    options = runtime(rig, """
[ $COMMAND = create ] && { setsid sleep 2 </dev/null >/dev/null 2>&1 & }
[ $COMMAND = start ] && exec setsid -w "$REAL" "$@"
[ $COMMAND = kill ] && { "$REAL" "$@"; exec >&- 2>&- <&-; exit 0; }""")
    begun = time.monotonic()
    rig.run("c1", options=options)
    assert rig.end("c1") == 7
    rig.remove("c1")
    assert time.monotonic() - begun < 5
    assert rig.left_behind() == []


EXEC_PIDS = {
    "process 1": "echo 1", "nothing": ":", "init of the container": "cat $BASE/victims/own",
    "init of another": "cat $BASE/victims/other", "the shim": "cat $BASE/victims/shim", "garbage": "head -c 9000 /dev/urandom",
}


@pytest.mark.parametrize("what", list(EXEC_PIDS))
def test_exec_with_the_pid_of_somebody_else(rig, what):
    """Refused, and whoever it names is not touched."""
    options = runtime(rig, f"[ $COMMAND = exec ] && {{ {EXEC_PIDS[what]} >$PID_FILE; exit 0; }}")
    own = rig.run("c1", options=options)
    other = rig.run("c2")
    (rig.d.base / "victims").mkdir()
    victims = {"own": own, "other": other, "shim": rig.shim("c1")}
    for name, pid in victims.items():
        (rig.d.base / "victims" / name).write_text(str(pid))
    born = {pid: start_time(pid) for pid in victims.values()}
    rig.add_exec("c1", "e1", ("true",))
    error = outcome(lambda: rig.start("c1", "e1"))
    assert isinstance(error, grpc.RpcError) and error.code() == CODE.UNKNOWN and "pid" in error.details()
    assert rig.wait("c1", "e1") == 0
    try:
        rig.kill("c1", exec_id="e1")
    except grpc.RpcError as refused:
        assert refused.code() in (CODE.FAILED_PRECONDITION, CODE.NOT_FOUND)
    rig.delete_exec("c1", "e1")
    assert all(not has_ended(pid) and start_time(pid) == born[pid] for pid in born)
    for name in ("c1", "c2"):
        assert rig.end(name) == 7
        rig.remove(name)
    assert rig.left_behind() == []


STATES = {
    "running for ever": '''printf '{"ociVersion":"1.0.2","id":"c1","pid":1,"status":"running","bundle":"/"}' ''',
    "stopped": '''printf '{"ociVersion":"1.0.2","id":"other","pid":0,"status":"stopped"}' ''',
    "garbage": "head -c 100000 /dev/urandom",
}


@pytest.mark.parametrize("what", list(STATES))
def test_state_that_is_not_true(rig, what):
    """Whatever the runtime says about a container, the kernel is believed."""
    rig.container("c1", OBEDIENT, options=runtime(rig, f"[ $COMMAND = state ] && {{ {STATES[what]}; exit 0; }}"))
    rig.create("c1")
    pid = rig.start("c1")
    assert rig.state("c1") == "RUNNING" and not has_ended(pid)
    os.kill(pid, signal.SIGKILL)
    assert rig.wait("c1") == 137 and rig.state("c1") == "STOPPED"
    rig.remove("c1")
    assert rig.left_behind() == []


HOLD = 'touch $BASE/held; while [ ! -e $BASE/go ]; do sleep 0.02; done'


def held(rig, call):
    """A call whose runtime has done its work and is held before its end: how it is let go, and its outcome."""
    results = []
    thread = threading.Thread(target=lambda: results.append(outcome(call)))
    thread.start()
    wait_until((rig.d.base / "held").exists, what="the call of the runtime")

    def let_go():
        (rig.d.base / "go").touch()
        thread.join(10)
        return results[0]

    return let_go


@pytest.mark.parametrize("command", ["start", "exec"])
def test_ends_before_its_start_has_ended(rig, command):
    """The process is over while the runtime is still at it: its end is told after its start."""
    events = rig.events()
    options = runtime(rig, f"""
[ $COMMAND = {command} ] && {{ "$REAL" "$@"; [ -z "$PID_FILE" ] || cp "$PID_FILE" $BASE/pid; {HOLD}; exit 0; }}""")
    exec_id = "e1" if command == "exec" else ""
    rig.container("c1", OBEDIENT if exec_id else ("sh", "-c", "exit 5"), options=options)
    pid = rig.create("c1")
    if exec_id:
        rig.start("c1")
        rig.add_exec("c1", exec_id, ("sh", "-c", "exit 5"))
    let_go = held(rig, lambda: rig.start("c1", exec_id))
    if exec_id:
        pid = int((rig.d.base / "pid").read_text())
    wait_until(lambda: has_ended(pid), what="the end of the process")
    # By its second answer the shim, which does one thing at a time, has seen that end.
    for _ in range(2):
        rig.state("c1", exec_id)
    assert let_go() > 1
    assert rig.wait("c1", exec_id) == 5
    wait_until(lambda: events.exits("c1", exec_id or None), what="the event of its end")
    told = [topic for topic in events.topics("c1")
            if topic in (("/tasks/exec-started", "/tasks/exit") if exec_id else ("/tasks/start", "/tasks/exit"))]
    assert told == ["/tasks/exec-started" if exec_id else "/tasks/start", "/tasks/exit"]
    events.stop()
    if exec_id:
        rig.delete_exec("c1", exec_id)
    rig.remove("c1")
    assert rig.left_behind() == []


def test_killed_while_it_is_paused(rig):
    """The kill comes when all is frozen and the pause has not ended yet: no process stays frozen with its death due."""
    options = runtime(rig, f'[ $COMMAND = pause ] && [ ! -e $BASE/go ] && {{ "$REAL" "$@"; {HOLD}; exit 0; }}')
    pid = rig.run("c1", options=options)
    let_go = held(rig, lambda: rig.task("Pause", container_id="c1"))
    assert is_frozen(rig, "c1")
    rig.kill("c1")
    let_go()
    assert rig.wait("c1", timeout=5) == 137 and has_ended(pid)
    rig.remove("c1")
    assert rig.left_behind() == []


def test_killed_and_paused_at_once(rig):
    """The runtime has said that it has killed the container, and a pause freezes it before it has died of that."""
    options = runtime(rig, f"""
[ $COMMAND = kill ] && [ ! -e $BASE/killed ] && {{ touch $BASE/killed; exit 0; }}
[ $COMMAND = pause ] && {{ {HOLD}; "$REAL" "$@"; kill -9 $(cat $BASE/init); exit 0; }}""")
    pid = rig.run("c1", options=options)
    (rig.d.base / "init").write_text(str(pid))
    let_go = held(rig, lambda: rig.task("Pause", container_id="c1"))
    rig.kill("c1")
    let_go()
    assert rig.wait("c1", timeout=5) == 137 and has_ended(pid)
    rig.remove("c1")
    assert rig.left_behind() == []


@pytest.mark.parametrize("who", ["the shim", "the delete of a dead shim"])
def test_does_not_delete(rig, who):
    """As crun when a thread has the pid that init had: nobody is left of the container, and its state does not stay."""
    options = runtime(rig, '[ $COMMAND = delete ] && { echo "open pidfd: No such file or directory" >&2; exit 1; }')
    pid = rig.run("c1", options=options)
    if who == "the shim":
        assert rig.end("c1") == 7 and rig.delete("c1") == 7
    else:
        os.kill(rig.shim("c1"), signal.SIGKILL)
        wait_until(lambda: rig.process("c1") is None, 10, "the end of the task")
    assert has_ended(pid)
    rig.forget_record("c1")
    assert rig.left_behind() == []
    runtime(rig, "")
    rig.run("c1", options=options)
    assert rig.end("c1") == 7
    rig.remove("c1")
    assert rig.left_behind() == []
