# SPDX-License-Identifier: Apache-2.0
"""OCI runtimes that are not there, fail, hang, babble, and lie about the process they started.

A client names one with the options of a task; each time the error is one sentence, nothing is left, and the
same id can be used again.
"""
import concurrent.futures
import os
import shutil
import signal
import subprocess
import time

import grpc
import pytest

from compat.test_ctr import IMAGE
from harness import ledger
from harness.api import any_of, message_class
from integration.bystander import comes_true, private_kb

TASKS = "containerd.services.tasks.v1.Tasks/"
SNAPSHOTS = "containerd.services.snapshots.v1.Snapshots/"
REAL = shutil.which("runc") or shutil.which("crun")
SENTENCE_MAX = 4096


@pytest.fixture
def d(daemon, archive):
    daemon.import_image(archive)
    return daemon


def script(d, text, mode=0o755, name="runtime"):
    """A runtime of our own making. $REAL is a good one, $PID_FILE and $COMMAND what it was asked."""
    path = d.base / name
    path.write_text("#!/bin/sh\nREAL=" + REAL + '''
COMMAND= PID_FILE= PREVIOUS=
for a in "$@"; do
    [ "$PREVIOUS" = --pid-file ] && PID_FILE=$a
    case $a in create|start|exec|kill|delete|state|pause|resume|update|ps|features) [ -z "$COMMAND" ] && COMMAND=$a ;; esac
    PREVIOUS=$a
done
''' + text + "\n")
    path.chmod(mode)
    return path


def create(d, runtime, name="bad-rt", timeout=15):
    """Tasks.Create with that runtime; the error, or None."""
    mounts = d.api.call(SNAPSHOTS + "Mounts", {"snapshotter": "overlayfs", "key": name}).mounts
    options = message_class("containerd.runc.v1.Options")(binary_name=str(runtime))
    request = message_class("containerd.services.tasks.v1.CreateTaskRequest")(
        container_id=name, rootfs=mounts, options=any_of(options))
    try:
        d.api.call(TASKS + "Create", request, timeout=timeout)
    except grpc.RpcError as error:
        return error
    return None


def container(d, name="bad-rt", command=("true",)):
    d.ctr("containers", "create", IMAGE, name, *command)


def traces(name):
    """Whatever is named after the container: shims, cgroups, runtime state, mounts."""
    return [item for item in ledger.snapshot() if f"/{name}" in item or f"-id {name} " in item]


def refused(d, runtime, *words, name="bad-rt"):
    error = create(d, runtime, name)
    assert error, "it was taken"
    text = error.details()
    assert error.code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT,
                            grpc.StatusCode.FAILED_PRECONDITION), error
    assert text and len(text) <= SENTENCE_MAX and "\n" not in text and text.isprintable(), repr(text[:500])
    assert any(word in text for word in words) or not words, text
    with pytest.raises(grpc.RpcError) as missing:
        d.api.call(TASKS + "Get", {"container_id": name})
    assert missing.value.code() == grpc.StatusCode.NOT_FOUND
    assert comes_true(lambda: not traces(name), 5), traces(name)
    assert not list(d.state.glob(f"io.containerd.runtime.v2.task/default/{name}"))
    assert not list(d.root.glob(f"io.containerd.runtime.v2.task/default/{name}"))
    return text


def works(d, name="bad-rt"):
    """The same id, with a runtime that is one."""
    error = create(d, REAL, name)
    assert error is None, error
    d.api.call(TASKS + "Start", {"container_id": name})
    assert d.api.call(TASKS + "Wait", {"container_id": name}).exit_status == 0
    d.api.call(TASKS + "Delete", {"container_id": name})


def test_no_program(d):
    container(d)
    directory = d.base / "directory"
    directory.mkdir()
    plain = script(d, "exit 0", 0o644, "plain")
    broken = d.base / "broken"
    broken.write_bytes(b"\x7fELF" + bytes(60))
    broken.chmod(0o755)
    empty = d.base / "interpreter"
    empty.write_text("#!/nonexistent/interpreter\n")
    empty.chmod(0o755)
    loop = d.base / "loop"
    loop.symlink_to("loop")
    own = d.base / "own"
    own.write_text(f"#!{own}\n")
    own.chmod(0o755)
    foreign = d.base / "foreign"
    foreign.write_bytes(open(REAL, "rb").read(18) + b"\xf3\0" + open(REAL, "rb").read()[20:100000])  # RISC-V
    foreign.chmod(0o755)
    busy = d.base / "busy"
    shutil.copy2("/bin/true", busy)
    busy_writer = open(busy, "ab")
    for runtime, words in [("/nonexistent/runc", ("no such file",)), ("no-such-runtime", ("not found", "no such file")),
                           (directory, ("permission denied", "is a directory")), (plain, ("permission denied",)),
                           (broken, ("exec format error",)), (empty, ("no such file",)), (loop, ("symbolic links", "symlinks")),
                           ("../runc", ()), ("/" + "x" * 5000, ()), ("/a\nb", ()), ("/dev/null", ()),
                           (own, ("symbolic links", "symlinks")), (foreign, ("exec format error",)),
                           (busy, ("text file busy",))]:
        refused(d, runtime, *words)
    busy_writer.close()
    works(d)


FAILURES = {
    "says nothing": "exit 1",
    "garbage": "head -c 3000 /dev/urandom; head -c 3000 /dev/urandom >&2; exit 1",
    "terminal codes": "printf '\\033[31mred\\033]0;title\\007\\n\\n\\r' >&2; exit 1",
    "garbage in the log": 'while [ $# -gt 0 ]; do [ "$1" = --log ] && head -c 5000 /dev/urandom > "$2"; shift; done; exit 1',
    "a log of 100 MB": 'while [ $# -gt 0 ]; do [ "$1" = --log ] && truncate -s 100M "$2"; shift; done; exit 1',
    "a long message in the log": '''while [ $# -gt 0 ]; do [ "$1" = --log ] && { printf '{"level":"error","msg":"'
        head -c 20000 /dev/zero | tr '\\0' x; printf 'the end"}\\n'; } > "$2"; shift; done; exit 1''',
    "codes in the log": '''while [ $# -gt 0 ]; do [ "$1" = --log ] && printf '{"level":"error","msg":"\\u001b[31mred\\r\\n\\u0007"}\\n'\
        '{"level":"error","msg":"a\\u0000b"}' > "$2"; shift; done; exit 1''',
    "a signal": "kill -9 $$",
    "a core": "kill -SEGV $$",
    "10 MB on stderr": "head -c 10000000 /dev/zero | tr '\\0' 'y' >&2; exit 1",
    "10 MB on stdout": "head -c 10000000 /dev/zero | tr '\\0' 'y'; exit 1",
    "fails after the container was made": '[ $COMMAND = create ] && { "$REAL" "$@"; exit 1; }; exec "$REAL" "$@"',
}


@pytest.mark.parametrize("how", FAILURES)
def test_fails(d, how):
    container(d)
    # Whatever it does to make a container, it can delete one.
    runtime = script(d, 'case $COMMAND in delete|kill|state) exec "$REAL" "$@" ;; esac\n' + FAILURES[how])
    d.api.call("containerd.services.version.v1.Version/Version")
    memory, fds = private_kb(d.pid), ledger.open_fds(d.pid)
    for _ in range(2):
        refused(d, runtime)
    assert private_kb(d.pid) < memory + 2048
    assert comes_true(lambda: ledger.open_fds(d.pid) <= fds)
    works(d)


@pytest.mark.parametrize("how", ["garbage", "10 MB on stderr"])
def test_fails_at_everything(d, how):
    """Not even delete works."""
    container(d)
    refused(d, script(d, FAILURES[how]))
    works(d)


PID_FILES = {
    "none": "exit 0",
    "empty": ': > "$PID_FILE"',
    "a word": 'echo abc > "$PID_FILE"',
    "0": 'echo 0 > "$PID_FILE"',
    "-1": 'echo -1 > "$PID_FILE"',
    "1": 'echo 1 > "$PID_FILE"',
    "2^31": 'echo 2147483648 > "$PID_FILE"',
    "2^64+5": 'echo 18446744073709551621 > "$PID_FILE"',
    "1 MB": 'head -c 1000000 /dev/zero | tr "\\\\0" 7 > "$PID_FILE"',
    "a fifo": 'rm -f "$PID_FILE"; mkfifo "$PID_FILE"',
    "a directory": 'rm -f "$PID_FILE"; mkdir "$PID_FILE"',
    "another's": 'echo $VICTIM > "$PID_FILE"',
}


@pytest.mark.parametrize("what", PID_FILES)
def test_pid_file(d, what):
    """The process it names is not the container's: it is refused, and nobody is signalled."""
    container(d)
    victim = subprocess.Popen(["sleep", "1000"])
    try:
        runtime = script(d, f"VICTIM={victim.pid}\n" + 'case $COMMAND in create) ;; *) exec "$REAL" "$@" ;; esac\n'
                         + PID_FILES[what])
        refused(d, runtime)
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()
    works(d)


def test_leaves_processes_and_fds(d):
    """Children that keep its stderr open hold up nobody, and do not outlive the container."""
    container(d)
    runtime = script(d, 'case $COMMAND in create) sleep 873 & ;; esac\nexec "$REAL" "$@"')
    started = time.monotonic()
    assert create(d, runtime) is None
    assert time.monotonic() - started < 5
    d.api.call(TASKS + "Start", {"container_id": "bad-rt"})
    assert d.api.call(TASKS + "Wait", {"container_id": "bad-rt"}).exit_status == 0
    d.api.call(TASKS + "Delete", {"container_id": "bad-rt"})

    works(d)


def processes_with(word):
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    if word.encode() in file.read():
                        yield int(entry)
            except OSError:
                pass


@pytest.mark.parametrize("command", ["create", "start", "kill", "pause"])
def test_hangs(d, command):
    """One call hangs; others of the same container that need no runtime, and everything on other containers,
    do not. The client may give up, and whoever ends the runtime ends the matter."""
    container(d, "bad-other", ("sleep", "1000"))
    assert create(d, REAL, "bad-other") is None
    d.api.call(TASKS + "Start", {"container_id": "bad-other"})
    container(d, "bad-rt", ("sleep", "1000"))
    hang = f"[ $COMMAND = {command} ] && exec sleep 874\n" + 'exec "$REAL" "$@"'
    runtime = script(d, hang)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        if command == "create":
            hanging = pool.submit(create, d, runtime, "bad-rt", 2)
        else:
            assert create(d, runtime) is None
            method, request = {"start": ("Start", {}), "kill": ("Kill", {"signal": 15}), "pause": ("Pause", {})}[command]
            if command != "start":
                d.api.call(TASKS + "Start", {"container_id": "bad-rt"})

            def call():
                try:
                    d.api.call(TASKS + method, {"container_id": "bad-rt", **request}, timeout=2)
                except grpc.RpcError as error:
                    return error
                return None

            hanging = pool.submit(call)
        assert comes_true(lambda: list(processes_with("sleep\x00874")), 5)
        started = time.monotonic()
        for _ in range(20):
            assert d.api.call(TASKS + "Get", {"container_id": "bad-other"}).process.status == 2
            d.api.call(TASKS + "Pause", {"container_id": "bad-other"})
            d.api.call(TASKS + "Resume", {"container_id": "bad-other"})
            if command != "create":
                d.api.call(TASKS + "Get", {"container_id": "bad-rt"})
            if time.monotonic() - started > 1:
                break
        assert time.monotonic() - started < 2
        error = hanging.result(10)
        assert error is None if command == "kill" and error is None else error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    if command == "create":
        # Still being made: nobody else may have the id, and there is no task to ask for yet.
        again = create(d, REAL)
        assert again.code() == grpc.StatusCode.ALREADY_EXISTS, again
    script(d, 'exec "$REAL" "$@"')
    for pid in processes_with("sleep\x00874"):
        os.kill(pid, signal.SIGKILL)

    def gone_or_known():
        try:
            return d.api.call(TASKS + "Get", {"container_id": "bad-rt"}, timeout=5).process.status != 0
        except grpc.RpcError as missing:
            return missing.code() == grpc.StatusCode.NOT_FOUND and create_is_over()

    def create_is_over():
        return not (d.state / "io.containerd.runtime.v2.task/default/bad-rt").exists()

    assert comes_true(gone_or_known, 10)
    for name in ("bad-other", "bad-rt"):
        end(d, name)
    d.ctr("containers", "rm", "bad-other")
    error = create(d, REAL)
    assert error is None, error
    end(d, "bad-rt")


def end(d, name):
    """However it stands: a task that was started is killed, one that was not is deleted."""
    def gone():
        try:
            status = d.api.call(TASKS + "Get", {"container_id": name}).process.status
            if status in (2, 4, 5):
                d.api.call(TASKS + "Kill", {"container_id": name, "signal": 9, "all": True})
            else:
                d.api.call(TASKS + "Delete", {"container_id": name})
        except grpc.RpcError as error:
            return error.code() == grpc.StatusCode.NOT_FOUND and "task" in error.details()
        return False

    assert comes_true(gone, 5), (name, d.log_text()[-3000:])


def test_many_hang(d):
    """More creations hang than there are threads for them; the rest of the daemon goes on."""
    runtime = script(d, "[ $COMMAND = create ] && exec sleep 875\n" + 'exec "$REAL" "$@"')
    names = [f"bad-hang{i}" for i in range(40)]
    for name in names:
        container(d, name)
    container(d, "bad-good", ("sleep", "1000"))
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        hanging = [pool.submit(create, d, runtime, name, 20) for name in names]
        assert comes_true(lambda: len(list(processes_with("sleep\x00875"))) >= 20, 15), (
            len(list(processes_with("sleep\x00875"))), [f.result() for f in hanging if f.done()][:3], d.log_text()[-2000:])
        started = time.monotonic()
        try:
            d.api.call("containerd.services.images.v1.Images/List", timeout=2)
            error = create(d, REAL, "bad-good", timeout=5)
        except grpc.RpcError as late:
            error = late
        waited = time.monotonic() - started
        script(d, "[ $COMMAND = create ] && exit 1\n" + 'exec "$REAL" "$@"')
        while not all(f.done() for f in hanging):
            for pid in processes_with("sleep\x00875"):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        assert all(f.result() for f in hanging)
        assert error is None and waited < 5, error
    d.api.call(TASKS + "Start", {"container_id": "bad-good"})
    end(d, "bad-good")
