# SPDX-License-Identifier: Apache-2.0
"""OCI runtimes that die at any moment, are exchanged, find things busy, and hooks that do harm.

What a runtime may answer, or not answer, to one call is in integration/test_bad_runtime.py.
"""
import concurrent.futures
import os
import pathlib
import shutil
import signal
import threading
import time

import grpc
import pytest

from fault.rig import OBEDIENT, has_ended, wait_until
from harness.api import message_class

CODE = grpc.StatusCode
RUNTIMES = [r for r in map(shutil.which, ("crun", "runc")) if r]
# Arguments up to the command are options with and without values.
FIND_COMMAND = """COMMAND=
for a in "$@"; do
    case $a in create|start|exec|kill|delete|state) [ -z "$COMMAND" ] && COMMAND=$a ;; esac
done
"""


def wrapper(rig, text, real=RUNTIMES[0]):
    """Options that name a runtime of our making; $REAL is a good one."""
    path = rig.d.base / "runtime"
    temporary = rig.d.base / "runtime.new"
    temporary.write_text(f"#!/bin/sh\nREAL={real}\n{FIND_COMMAND}{text}\n")
    temporary.chmod(0o755)
    temporary.rename(path)
    return message_class("containerd.runc.v1.Options")(binary_name=str(path))


@pytest.mark.parametrize("real", RUNTIMES, ids=os.path.basename)
@pytest.mark.parametrize("verb", ["create", "start", "exec", "kill", "delete"])
def test_killed_at_any_moment(rig, verb, real):
    """SIGKILL of the runtime itself, later each time: the call fails or has succeeded, it can be repeated or
    undone, and nothing is left."""
    for step in range(5):
        name = f"{verb}{step}"
        options = wrapper(rig, f"""
[ "$COMMAND" = {verb} ] && [ -e {rig.d.base}/armed ] || exec $REAL "$@"
$REAL "$@" & P=$!
sleep 0.00{step * 2} ; kill -9 $P 2>/dev/null
wait $P""", real)
        armed = rig.d.base / "armed"
        rig.container(name, options=options)
        armed.touch()
        try:
            rig.create(name)
            rig.start(name)
            rig.execute(name, "e1", ("sh", "-c", "exit 3"))
            assert rig.wait(name, "e1") == 3
            rig.kill(name)
            assert rig.wait(name) == 137
            assert rig.delete(name) == 137
        except grpc.RpcError as error:
            assert error.code() in (CODE.UNKNOWN, CODE.NOT_FOUND, CODE.FAILED_PRECONDITION), error
            assert error.details()
        armed.unlink()
        rig.remove(name)
        assert rig.left_behind() == [], f"{verb} killed after {step * 2} ms"
        assert not rig.processes_of(name)


@pytest.mark.parametrize("verb", ["create", "exec"])
@pytest.mark.parametrize("who", ["the shim", "the delete of a dead shim"])
def test_leaves_a_mount_where_its_state_is(rig, verb, who):
    """As runc does when it is killed at the right moment: the container can be deleted."""
    state = f"/run/containerd/runc/{rig.ns}/c1"
    options = wrapper(rig, f"""
[ "$COMMAND" = {verb} ] || exec $REAL "$@"
mkdir -p {state}
touch {state}/runc.XXXXXX
mount --bind $REAL {state}/runc.XXXXXX
{'' if who == 'the shim' else 'kill -9 $PPID'}
kill -9 $$""", shutil.which("runc") or RUNTIMES[0])
    rig.container("c1", options=options)
    with pytest.raises(grpc.RpcError):
        rig.create("c1")
        rig.start("c1")
        rig.execute("c1", "e1", ("true",))
    rig.remove("c1")
    assert rig.left_behind() == []


# Where a process can be put to be of a container's group.
HIERARCHIES = [p.parent for p in sorted(pathlib.Path("/sys/fs/cgroup").glob("*/cgroup.procs")) if p.parent.name != "cpuset"] \
    or [pathlib.Path("/sys/fs/cgroup")]
STRAYS = {
    # How it leaves the runtime's process group; the runtime runs in the bundle.
    "in the bundle": "setsid $WORK &",
    "a family": "setsid sh -c '$WORK & (cd /; exec $WORK) & wait' &",
    "elsewhere, in the group": "(cd /; exec setsid $WORK) & enter $!",
    "elsewhere, in the group, frozen": "(cd /; exec setsid $WORK) & enter $!; begun; freeze",
}


def at_work(rig):
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(rig.d.base / "work").encode() in entry.read_bytes().split(b"\0"):
                found.append(entry.parent.name)
        except OSError:
            pass
    return found


@pytest.mark.parametrize("how", list(STRAYS))
def test_leaves_somebody_at_work(rig, how):
    """A killed runtime's child, in a session of its own, goes on making directories in the rootfs: it is ended before
    the create is undone, or the bundle would stay for what it puts into the unmounted rootfs."""
    work = rig.d.base / "work"
    work.write_text("#!/bin/sh\ntrap '' TERM HUP INT\nwhile :; do mkdir $ROOT/late; done\n")
    work.chmod(0o755)
    groups = " ".join(str(p / rig.ns / "c1") for p in HIERARCHIES)
    options = wrapper(rig, f"""
[ "$COMMAND" = create ] || exec $REAL "$@"
export WORK={work} ROOT={rig.bundle("c1")}/rootfs
enter() {{ for g in {groups}; do mkdir -p $g; echo $1 >$g/cgroup.procs; done; }}
freeze() {{ for g in {groups}; do
    if [ -e $g/freezer.state ]; then echo FROZEN >$g/freezer.state; fi
    if [ -e $g/cgroup.freeze ]; then echo 1 >$g/cgroup.freeze; fi
done; }}
begun() {{ while [ ! -e $ROOT/late ]; do sleep 0.01; done; }}
exec </dev/null >/dev/null 2>&1
{STRAYS[how]}
begun
kill -9 $$""")
    rig.container("c1", options=options)
    with pytest.raises(grpc.RpcError) as refused:
        rig.create("c1")
    assert refused.value.code() == CODE.UNKNOWN and "signal 9" in refused.value.details()
    assert not at_work(rig)
    assert not rig.bundle("c1").exists()
    rig.remove("c1")
    assert rig.left_behind() == []


def test_daemon_dies_while_it_creates(rig):
    """The next daemon waits for the container that the shim is still making, and has it then."""
    gate = rig.d.base / "gate"
    options = wrapper(rig, f"""
[ "$COMMAND" = create ] && {{ touch {rig.d.base}/begun; while [ ! -e {gate} ]; do sleep 0.01; done; }}
exec $REAL "$@" """)
    rig.container("c1", ("sh", "-c", "exit 6"), options=options)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        create = pool.submit(rig.create, "c1")
        wait_until(lambda: (rig.d.base / "begun").exists(), what="the call of the runtime")
        rig.d.kill()
        assert isinstance(create.exception(), grpc.RpcError)
    rig.d.start()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        start = pool.submit(rig.start, "c1")
        time.sleep(0.2)
        assert not start.done(), "answered for a container that is not made yet"
        gate.touch()
        assert start.result() > 1
    assert rig.wait("c1") == 6
    assert rig.delete("c1") == 6
    rig.remove("c1")
    assert rig.left_behind() == []


def test_daemon_dies_while_it_deletes(rig):
    """The next daemon does not keep what the shim deletes meanwhile."""
    gate = rig.d.base / "gate"
    options = wrapper(rig, f"""
[ "$COMMAND" = delete ] && {{ touch {rig.d.base}/begun; while [ ! -e {gate} ]; do sleep 0.01; done; }}
exec $REAL "$@" """)
    rig.run("c1", ("sh", "-c", "exit 6"), options=options)
    assert rig.wait("c1") == 6
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        delete = pool.submit(rig.delete, "c1")
        wait_until(lambda: (rig.d.base / "begun").exists(), what="the call of the runtime")
        rig.d.kill()
        assert isinstance(delete.exception(), grpc.RpcError)
    rig.d.start()
    assert rig.state("c1") == "STOPPED"
    gate.touch()
    wait_until(lambda: rig.process("c1") is None, 10, "the end of the task")
    rig.forget_record("c1")
    rig.run("c1", ("sh", "-c", "exit 7"))
    assert rig.wait("c1") == 7
    rig.remove("c1")
    assert rig.left_behind() == []


def test_busy_when_it_deletes(rig):
    """EBUSY some times, then success: it is tried again, and the caller does not hear of it."""
    options = wrapper(rig, f"""
if [ "$COMMAND" = delete ]; then
    echo x >> {rig.d.base}/tries
    if [ $(wc -l < {rig.d.base}/tries) -le 6 ]; then
        echo "rmdir: Device or resource busy" >&2
        exit 1
    fi
fi
exec $REAL "$@" """)
    rig.run("c1", ("sh", "-c", "exit 8"), options=options)
    assert rig.wait("c1") == 8
    assert rig.delete("c1") == 8
    assert len((rig.d.base / "tries").read_text().split()) == 7
    rig.remove("c1")
    assert rig.left_behind() == []


@pytest.mark.skipif(len(RUNTIMES) < 2, reason="only one OCI runtime is installed (packages crun and runc)")
def test_exchanged_while_it_runs(rig):
    """The container of one runtime is killed and deleted with the other in its place."""
    for first, second in (RUNTIMES, RUNTIMES[::-1]):
        options = wrapper(rig, 'exec $REAL "$@"', first)
        pid = rig.run("c1", options=options)
        wrapper(rig, 'exec $REAL "$@"', second)
        rig.d.kill()
        rig.d.start()
        try:
            rig.kill("c1")
        except grpc.RpcError as error:
            # The other one does not know it: then it is ended behind its back.
            assert error.code() in (CODE.UNKNOWN, CODE.NOT_FOUND), error
            os.kill(pid, signal.SIGKILL)
        assert rig.wait("c1") == 137
        assert rig.delete("c1") == 137
        rig.forget_record("c1")
        left = [item for item in rig.left_behind(1) if "/run/containerd/runc/" not in item and "cgroup" not in item]
        assert left == []
        # What only the first one knows of.
        state = pathlib.Path("/run/containerd/runc", rig.ns, "c1")
        if state.exists():
            rig.d.run(first, "--root", state.parent, "delete", "--force", "c1", check=False)
        rig.before |= {i for i in rig.ledger() if "cgroup" in i}
        for item in rig.ledger():
            if item.startswith("cgroup") and item.endswith("/c1"):
                os.rmdir(item.partition(" ")[2])
        rig.before -= {i for i in rig.before if i.endswith("/c1")}
        assert rig.left_behind() == []


HOOKS = {
    "fails": (["/bin/sh", "-c", "echo hook says no >&2; exit 1"], False),
    "is missing": (["/nonexistent/hook"], False),
    "prints much": (["/bin/sh", "-c", "head -c 3000000 /dev/zero"], True),
    "kills the runtime": (["/bin/sh", "-c", "kill -9 $PPID"], False),
    "leaves somebody behind": (["/bin/sh", "-c", "sleep 2 & exit 0"], True),
}


@pytest.mark.parametrize("how", list(HOOKS))
def test_hook(rig, how):
    args, works = HOOKS[how]
    rig.container("c1", hooks={"prestart": [{"path": args[0], "args": args}]})
    if works:
        rig.create("c1")
        rig.start("c1")
        assert rig.end("c1") == 7
    else:
        with pytest.raises(grpc.RpcError) as error:
            rig.create("c1")
        assert error.value.code() == CODE.UNKNOWN and len(error.value.details()) > 10
    rig.remove("c1")
    assert not rig.processes_of("c1")
    assert rig.left_behind() == []


def test_hook_kills_the_shim(rig):
    """The shim dies in the middle of its first create: an error, and nothing is left."""
    text = "for p in $(busybox pidof containerd-shim-wherry-v2); do grep -qz " + rig.ns + \
           " /proc/$p/cmdline && kill -9 $p; done; sleep 0.2"
    rig.container("c1", hooks={"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", text], "env": [
        "PATH=/usr/bin:/bin"]}]})
    with pytest.raises(grpc.RpcError) as error:
        rig.create("c1")
    assert error.value.code() == CODE.UNAVAILABLE
    rig.forget_record("c1")
    wait_until(lambda: not rig.processes_of("c1"), 5, "the end of its processes")
    assert rig.left_behind() == []


def test_hook_hangs(rig):
    """It holds up its own create alone."""
    rig.container("slow", hooks={"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", "sleep 1.5"]}]})
    thread = threading.Thread(target=rig.create, args=("slow",))
    thread.start()
    time.sleep(0.2)
    begun = time.monotonic()
    pid = rig.run("c1", OBEDIENT)
    assert rig.end("c1") == 7 and has_ended(pid)
    rig.remove("c1")
    assert time.monotonic() - begun < 1.2
    thread.join()
    rig.remove("slow")
    assert rig.left_behind() == []
