# SPDX-License-Identifier: Apache-2.0
"""What stands at the other end of a container's standard input and output: files, links, full disks, logging
programs, terminals that are exchanged, and what a container gets of it all."""
import os
import pathlib
import subprocess
import time

import grpc
import pytest

from fault.rig import OBEDIENT, Reader, wait_until
from fault.test_stdio_faults import logger, reading
from harness import ledger
from harness.api import message_class
from harness.memory import private_kb

CODE = grpc.StatusCode


@pytest.fixture
def small_disk(rig):
    place = rig.d.base / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "small", place], check=True)
    rig.before = rig.ledger()
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def refused(rig, name, **io):
    with pytest.raises(grpc.RpcError) as error:
        rig.create(name, **io)
    assert error.value.code() in (CODE.UNKNOWN, CODE.INVALID_ARGUMENT, CODE.NOT_FOUND), error.value
    return error.value.details()


def touch(rig, name, file):
    """As seen by the container: an overlay does not notice what comes into its upper directory from outside."""
    pathlib.Path(f"/proc/{rig.process(name).pid}/root", file).touch()


def test_stdin_that_is_no_fifo(rig):
    """A file is read to its end; the container gets a pipe and never the file itself, much less a directory."""
    data = os.urandom(300000)
    (rig.d.base / "data").write_bytes(data)
    out, reader = reading(rig, "out")
    rig.run("c1", ("sh", "-c", "readlink /proc/self/fd/0; wc -c"),
            io={"stdin": str(rig.d.base / "data"), "stdout": out, "stderr": "/dev/null"})
    assert rig.wait("c1") == 0
    rig.delete("c1")
    reader.join(5)
    first, second = reader.tail.split()
    assert first.startswith(b"pipe:") and second == b"300000"
    rig.remove("c1")
    rig.container("c2", ("cat",))
    assert "is a directory" in refused(rig, "c2", stdin=str(rig.d.base), stdout="/dev/null", stderr="/dev/null")
    assert "no such file" in refused(rig, "c2", stdin=str(rig.d.base / "no"), stdout="/dev/null", stderr="/dev/null")
    rig.remove("c2")
    # What ends at once, and what never does.
    for path, args in (("/dev/null", ("cat",)), ("/dev/zero", ("head", "-c", "500000"))):
        rig.run("c3", args, io={"stdin": path, "stdout": "/dev/null", "stderr": "/dev/null"})
        assert rig.wait("c3") == 0
        rig.remove("c3")
    assert rig.left_behind() == []


def test_only_one_output_is_named(rig):
    rig.container("c1", ("true",))
    for io in ({"stdout": "/dev/null"}, {"stderr": "/dev/null"}):
        assert "stdout and stderr must both be given" in refused(rig, "c1", **io)
    rig.remove("c1")
    assert rig.left_behind() == []


@pytest.mark.parametrize("terminal", [False, True], ids=["pipes", "terminal"])
def test_no_streams_at_all(rig, terminal):
    """Reading ends at once, or with the terminal; writing never waits."""
    text = "head -c 300000 /dev/zero && head -c 300000 /dev/zero >&2 && exit 3"
    rig.run("c1", ("sh", "-c", text if terminal else f"cat && {text}"), terminal=terminal, io={"terminal": terminal})
    assert rig.wait("c1") == 3
    rig.delete("c1")
    rig.remove("c1")
    assert rig.left_behind() == []


@pytest.mark.skipif("WHERRY_DEADLINES" not in os.environ, reason="takes the 30 s of a deadline: WHERRY_DEADLINES=1")
def test_reader_never_comes(rig):
    path = rig.fifo("out")
    rig.container("c1", ("true",))
    with pytest.raises(grpc.RpcError) as error:
        rig.create("c1", timeout=60, stdout=str(path), stderr="/dev/null")
    assert "opening w/o fifo" in error.value.details() and "context deadline exceeded" in error.value.details()
    rig.forget_record("c1")
    assert rig.left_behind() == []


def test_both_outputs_are_one_fifo(rig):
    out, reader = reading(rig, "out")
    rig.run("c1", ("sh", "-c", "echo one; echo two >&2; echo three"), io={"stdout": out, "stderr": out})
    assert rig.wait("c1") == 0
    rig.delete("c1")
    reader.join(5)
    assert sorted(reader.tail.split()) == [b"one", b"three", b"two"] and not reader.is_alive()
    rig.remove("c1")
    assert rig.left_behind() == []


def test_log_file_is_made_where_it_was_said(rig):
    """Appended to, made with its directory, and never made through a link."""
    there = rig.d.base / "there"
    there.write_text("old\n")
    link = rig.d.base / "link"
    link.symlink_to(there)
    nowhere = rig.d.base / "nowhere"
    nowhere.symlink_to(rig.d.base / "elsewhere")
    rig.container("c1", ("true",))
    text = refused(rig, "c1", stdout=f"file://{nowhere}", stderr=f"file://{nowhere}")
    assert "nowhere" in text and not (rig.d.base / "elsewhere").exists()
    rig.remove("c1")
    deep = rig.d.base / "a" / "b" / "log"
    for path in (link, deep):
        rig.run("c1", ("sh", "-c", "echo new; echo bad >&2"), io={"stdout": f"file://{path}", "stderr": f"file://{path}"})
        assert rig.wait("c1") == 0
        rig.remove("c1")
    assert sorted(there.read_text().split()) == ["bad", "new", "old"] and there.read_text().startswith("old\n")
    assert sorted(deep.read_text().split()) == ["bad", "new"]
    assert deep.stat().st_mode & 0o777 == 0o644 and deep.parent.stat().st_mode & 0o777 == 0o755
    assert rig.left_behind() == []


def test_log_file_on_a_full_disk(rig, small_disk):
    """The container goes on; what did not fit is missing and told; there is more when there is room."""
    log, ballast = small_disk / "log", small_disk / "ballast"
    (small_disk / "ballast").write_bytes(bytes(200 << 10))
    rig.run("c1", ("sh", "-c", "head -c 500000 /dev/zero; touch /full; while [ ! -e /go ]; do usleep 10000; done;"
                               "echo; echo last"),
            io={"stdout": f"file://{log}", "stderr": f"file://{log}"})
    upper = rig.d.base / "c" / "c1" / "upper"
    wait_until((upper / "full").exists, what="the container's going on")
    assert rig.state("c1") == "RUNNING"
    wait_until(lambda: "is being dropped" in rig.d.log_text(), what="a word of it")
    ballast.unlink()
    touch(rig, "c1", "go")
    assert rig.wait("c1") == 0
    rig.delete("c1")
    content = log.read_bytes()
    assert content.endswith(b"\nlast\n") and 40000 < len(content) < 300000
    missing = 500000 + 6 - len(content)
    assert f"is taken again, {missing} bytes are missing" in rig.d.log_text()
    rig.remove("c1")
    assert rig.left_behind() == []


def test_log_file_is_rotated_and_locked(rig):
    """Renamed, cut, deleted and made read-only: what is open is written on, as with containerd."""
    log = rig.d.base / "lines"  # "log" is the daemon's own
    rig.run("c1", ("sh", "-c", "i=0; while [ ! -e /stop ]; do echo $i; i=$((i+1)); usleep 2000; done; echo end"),
            io={"stdout": f"file://{log}", "stderr": f"file://{log}"})
    wait_until(lambda: log.exists() and log.stat().st_size > 10, what="lines")
    os.truncate(log, 0)
    wait_until(lambda: log.stat().st_size > 4, what="lines after the cut")
    assert b"\0" not in log.read_bytes()
    log.chmod(0)
    moved = log.rename(rig.d.base / "lines.1")
    with open(moved, "rb") as file:
        moved.unlink()
        touch(rig, "c1", "stop")
        assert rig.wait("c1") == 0
        rig.delete("c1")
        assert file.read().endswith(b"\nend\n")
    assert not log.exists()
    rig.remove("c1")
    assert rig.left_behind() == []


def test_logging_program_of_a_terminal_dies(rig):
    """The terminal is read on: the container does not wait for ever in a write."""
    uri = logger(rig, "exec 5>&-; head -c 100 <&3 >/dev/null; exit 1")
    rig.run("c1", ("sh", "-c", "head -c 400000 /dev/zero; exit 6"), terminal=True,
            io={"stdout": uri, "stderr": uri, "terminal": True})
    assert rig.wait("c1") == 6
    rig.delete("c1")
    rig.remove("c1")
    assert rig.left_behind() == []


def test_what_a_logging_program_gets(rig):
    """Its arguments in their order, two variables, fds 0 to 5, no blocked or ignored signals."""
    seen = rig.d.base / "seen"
    program = rig.d.base / "logger"
    program.write_text(f"""#!/usr/bin/python3
import os, sys
with open("{seen}.tmp", "w") as out:
    fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
    own = out.fileno()
    targets = {{fd: os.readlink("/proc/self/fd/%d" % fd) for fd in fds if fd != own and os.path.exists("/proc/self/fd/%d" % fd)
               or fd in (3, 4, 5)}}
    print(repr((sys.argv[1:], dict(os.environ), targets,
                [l.split()[1] for l in open("/proc/self/status") if l.startswith(("SigBlk", "Umask"))])), file=out)
os.rename("{seen}.tmp", "{seen}")
os.close(5)
while os.read(3, 1000): pass
while os.read(4, 1000): pass
""")
    program.chmod(0o755)
    uri = f"binary://{program}?b=2&a=1&flag&b=3&empty=&%20sp+ace=x%26y"
    rig.run("c1", io={"stdout": uri, "stderr": uri})
    args, environment, fds, status = eval(seen.read_text())
    assert args == ["b", "2", "a", "1", "flag", "", "empty", "", " sp ace", "x&y"]
    environment.pop("LC_CTYPE", None)  # python's own
    assert environment == {"CONTAINER_ID": "c1", "CONTAINER_NAMESPACE": rig.ns}
    assert sorted(fds) == [0, 1, 2, 3, 4, 5], fds
    assert fds[0] == fds[1] == fds[2] == "/dev/null" and all(fds[n].startswith("pipe:") for n in (3, 4, 5))
    assert status == ["0022", "0000000000000000"]
    seen.unlink()
    rig.execute("c1", "e1", ("true",), stdout=uri, stderr=uri)
    assert rig.wait("c1", "e1") == 0
    assert eval(seen.read_text())[1]["CONTAINER_ID"] == "e1"
    rig.delete_exec("c1", "e1")
    assert rig.end("c1") == 7
    rig.remove("c1")
    assert rig.left_behind() == []


READY = {
    "binary: closes": ("binary", "exec 5>&-; cat <&3", True),
    "binary: a byte": ("binary", "printf x >&5; cat <&3", True),
    "binary: ends without a word": ("binary", "exit 0", True),
    "binary-v2: closes": ("binary-v2", "exec 5>&-; cat <&3", False),
    "binary-v2: a byte": ("binary-v2", "printf x >&5; cat <&3", True),
    "binary-v2: ends without a word": ("binary-v2", "exit 0", False),
    "binary-v2: a byte, then ends": ("binary-v2", "printf x >&5; exit 0", True),
}


@pytest.mark.parametrize("how", list(READY))
def test_readiness(rig, how):
    scheme, text, works = READY[how]
    uri = logger(rig, text).replace("binary", scheme, 1)
    rig.container("c1", ("true",))
    if works:
        rig.create("c1", stdout=uri, stderr=uri)
        rig.start("c1")
        assert rig.wait("c1") == 0
    else:
        assert "failed to start logging program" in refused(rig, "c1", stdout=uri, stderr=uri)
    rig.remove("c1")
    assert rig.left_behind() == []


def test_logging_program_that_does_not_stop(rig):
    """Delete asks it to end, and does not wait for what it has started."""
    mark = rig.d.base / "mark"
    uri = logger(rig, f"trap 'echo asked >{mark}; exit 0' TERM; exec 5>&-; while :; do sleep 0.05; done")
    rig.run("c1", ("true",), io={"stdout": uri, "stderr": uri})
    assert rig.wait("c1") == 0
    begun = time.monotonic()
    rig.delete("c1")
    assert mark.read_text() == "asked\n" and time.monotonic() - begun < 8
    rig.remove("c1")
    assert rig.left_behind() == []


def test_owner_of_the_pipes(rig):
    """io_uid and io_gid: a process of that user may open its own output again."""
    options = message_class("containerd.runc.v1.Options")(io_uid=1234, io_gid=4321)
    out, reader = reading(rig, "out")
    spec = rig.spec("c1", ("sh", "-c", "stat -L -c %u:%g /proc/self/fd/0 /proc/self/fd/1; echo again >/proc/self/fd/1"))
    spec["process"]["user"] = {"uid": 1234, "gid": 4321}
    rig.run("c1", spec=spec, options=options, io={"stdin": str(rig.fifo("in")), "stdout": out, "stderr": out})
    assert rig.wait("c1") == 0
    rig.delete("c1")
    reader.join(5)
    assert reader.tail.split() == [b"1234:4321", b"1234:4321", b"again"]
    rig.remove("c1")
    assert rig.left_behind() == []


def test_terminal_is_hung_up(rig):
    """The client's input has ended and CloseIO has come: the processes of the terminal get SIGHUP."""
    path = rig.fifo("in")
    out, reader = reading(rig, "out")
    rig.run("c1", ("sh", "-c", "trap 'exit 9' HUP; echo ready; while :; do read x; done"), terminal=True,
            io={"stdin": str(path), "stdout": out, "terminal": True})
    writer = os.open(path, os.O_WRONLY)
    wait_until(lambda: b"ready" in reader.tail, what="its first word")
    os.close(writer)
    time.sleep(0.2)
    assert rig.state("c1") == "RUNNING"
    rig.task("CloseIO", container_id="c1", stdin=True)
    assert rig.wait("c1", timeout=5) in (9, 129)
    rig.delete("c1")
    reader.join(5)
    assert not reader.is_alive()
    rig.remove("c1")
    assert rig.left_behind() == []


def test_client_of_a_terminal_is_exchanged(rig):
    """Killed with what it had read, and another opens the same fifos: the session goes on where it was."""
    into, out = rig.fifo("in"), rig.fifo("out")
    client = subprocess.Popen(["sh", "-c", f"exec 3<>{into}; echo 'x=41' >&3; exec cat {out}"], stdout=subprocess.PIPE)
    rig.run("c1", ("sh",), terminal=True, io={"stdin": str(into), "stdout": str(out), "terminal": True})
    seen = b""
    while b"x=41" not in seen:
        seen += client.stdout.read1()
    client.kill()
    client.wait()
    client.stdout.close()
    process = rig.process("c1")
    assert (process.stdin, process.stdout, process.terminal) == (str(into), str(out), True)
    reader = Reader(out)
    reader.start()
    with open(into, "wb", buffering=0) as file:
        file.write(b"echo $((x+1))\n")
        wait_until(lambda: b"\r\n42\r\n" in reader.tail, what="the answer")
        file.write(b"exit 5\n")
        assert rig.wait("c1") == 5
    rig.delete("c1")
    reader.join(5)
    rig.remove("c1")
    assert rig.left_behind() == []


def test_exec_prints_after_the_end_of_init(rig):
    """In the pid namespace of the host an exec is ended with its container, and what it had said arrives."""
    rig.run("c1", host_pid=True)
    out, reader = reading(rig, "out")
    rig.execute("c1", "e1", ("sh", "-c", "head -c 50000 /dev/zero; echo said; exec sleep 1000"), stdout=out,
                stderr="/dev/null")
    rig.kill("c1")
    assert rig.wait("c1") == 137 and rig.wait("c1", "e1") == 137
    rig.delete_exec("c1", "e1")
    reader.join(5)
    assert not reader.is_alive()
    rig.remove("c1")
    assert rig.left_behind() == []


def test_many_resizes(rig):
    """The last one counts, and nothing of them is kept."""
    out, reader = reading(rig, "out")
    rig.run("c1", ("sh", "-c", "while [ ! -e /go ]; do usleep 10000; done; stty size"), terminal=True,
            io={"stdout": out, "terminal": True})
    pid = rig.shim("c1")
    before = private_kb(pid)
    for n in range(int(os.environ.get("WHERRY_RESIZES", "2000"))):
        rig.task("ResizePty", container_id="c1", width=n % 500 + 1, height=n % 300 + 1)
    rig.task("ResizePty", container_id="c1", width=4000000000, height=0)
    rig.task("ResizePty", container_id="c1", width=77, height=33)
    assert private_kb(pid) <= before + 16
    touch(rig, "c1", "go")
    assert rig.wait("c1") == 0
    rig.delete("c1")
    reader.join(5)
    assert reader.tail.split() == [b"33", b"77"]
    rig.remove("c1")
    assert rig.left_behind() == []


def test_no_terminal_is_left(rig):
    """A devpts with room for one: the second is refused with a sentence, until the first has gone."""
    spec = rig.spec("c1", OBEDIENT)
    next(m for m in spec["mounts"] if m["type"] == "devpts")["options"].append("max=1")
    rig.run("c1", spec=spec)
    rig.execute("c1", "e1", ("sleep", "1000"), stdout="/dev/null", terminal=True)
    fds = ledger.open_fds(rig.shim("c1"))
    for number in range(3):
        rig.add_exec("c1", f"x{number}", ("true",), stdout="/dev/null", terminal=True)
        with pytest.raises(grpc.RpcError) as error:
            rig.start("c1", f"x{number}")
        assert "OCI runtime exec failed" in error.value.details() and len(error.value.details()) < 4096
        assert rig.delete_exec("c1", f"x{number}") == 0
    assert ledger.open_fds(rig.shim("c1")) <= fds
    rig.kill("c1", exec_id="e1")
    assert rig.wait("c1", "e1") == 137 and rig.delete_exec("c1", "e1") == 137
    rig.execute("c1", "e2", ("true",), stdout="/dev/null", terminal=True)
    assert rig.wait("c1", "e2") == 0
    assert rig.end("c1") == 7
    rig.remove("c1")
    assert rig.left_behind() == []


def test_many_readers_of_one_terminal(rig):
    """Some of them stop reading: a fifo gives to whoever reads, and the container goes on."""
    path = rig.fifo("out")
    stalled = [os.open(path, os.O_RDONLY | os.O_NONBLOCK) for _ in range(5)]
    reading_on = [subprocess.Popen(["sh", "-c", f"exec cat {path} >/dev/null"]) for _ in range(5)]
    rig.run("c1", ("sh", "-c", "head -c 3000000 /dev/urandom; exit 4"), terminal=True,
            io={"stdout": str(path), "terminal": True})
    assert rig.wait("c1") == 4
    rig.delete("c1")
    for reader in reading_on:
        assert reader.wait(5) == 0
    for fd in stalled:
        os.close(fd)
    rig.remove("c1")
    assert rig.left_behind() == []
