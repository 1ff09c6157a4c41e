# SPDX-License-Identifier: Apache-2.0
"""Standard input and output whose other end is slow, absent, broken or hostile: no byte is lost, nobody else waits."""
import hashlib
import os
import pathlib
import threading
import time

import grpc
import pytest

from fault.rig import Reader, has_ended, wait_until
from harness.memory import private_kb

CODE = grpc.StatusCode
MIB = 1 << 20


def reading(rig, name):
    path = rig.fifo(name)
    reader = Reader(path)
    reader.start()
    return str(path), reader


def random_output(size, before=""):
    """A container's command that writes random bytes to its output, and into /sent too."""
    return ("sh", "-c", f"{before} head -c {size} /dev/urandom > /sent; cat /sent")


def sent(rig, name):
    return hashlib.sha256((rig.d.base / "c" / name / "upper" / "sent").read_bytes()).hexdigest()


def test_reader_comes_late(rig):
    """Create waits for the client to open its fifos; nobody else does, and nothing is lost."""
    path = rig.fifo("out")
    rig.container("c1", ("echo", "hello"))
    creating = threading.Thread(target=rig.create, args=("c1",), kwargs={"stdout": str(path), "stderr": "/dev/null"})
    creating.start()
    time.sleep(0.3)
    begun = time.monotonic()
    rig.run("c2", ("true",))
    assert rig.wait("c2") == 0 and time.monotonic() - begun < 2
    rig.remove("c2")
    reader = Reader(path)
    reader.start()
    creating.join(3)
    assert not creating.is_alive()
    rig.start("c1")
    assert rig.wait("c1") == 0
    rig.delete("c1")
    reader.join(5)
    assert reader.tail == b"hello\n"
    rig.remove("c1")
    assert rig.left_behind() == []


def test_nobody_writes_to_stdin(rig):
    path = rig.fifo("in")
    begun = time.monotonic()
    rig.run("c1", ("true",), io={"stdin": str(path)})
    assert rig.wait("c1") == 0
    assert time.monotonic() - begun < 2
    rig.remove("c1")
    assert rig.left_behind() == []


def test_reader_leaves_and_another_comes(rig):
    """What was not read waits: the second reader goes on where the first one stopped."""
    path = rig.fifo("out")
    first = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    rig.run("c1", random_output(4 * MIB), io={"stdout": str(path), "stderr": "/dev/null"})
    os.set_blocking(first, True)
    got = b""
    while len(got) < 300000:
        got += os.read(first, 5000)
    os.close(first)
    time.sleep(0.3)
    assert rig.state("c1") == "RUNNING"
    reader = Reader(path)
    reader.hash.update(got)
    reader.start()
    assert rig.wait("c1") == 0
    rig.delete("c1")
    reader.join(10)
    assert reader.n + len(got) == 4 * MIB and reader.hash.hexdigest() == sent(rig, "c1")
    rig.remove("c1")
    assert rig.left_behind() == []


class Sipper(threading.Thread):
    """Reads a fifo in sips, the first of them only after a pause."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(self.fd, True)
        self.n = 0

    def run(self):
        time.sleep(0.1)
        while data := os.read(self.fd, 4096):
            self.n += len(data)
            time.sleep(0.01)
        os.close(self.fd)


@pytest.mark.parametrize("exec_id", ["", "e1"], ids=["init", "exec"])
def test_end_is_told_when_all_is_read(rig, exec_id):
    """Clients stop reading at the end of the process; so it is told to nobody while they are still at it."""
    path = rig.fifo("out")
    sipper = Sipper(path)
    io = {"stdout": str(path), "stderr": "/dev/null"}
    # Less than the pipes hold: the process ends long before it is read.
    printing = ("sh", "-c", "head -c 100000 /dev/zero; exit 4")
    if exec_id:
        rig.run("c1")
        rig.execute("c1", exec_id, printing, **io)
    else:
        rig.run("c1", printing, io=io)
    sipper.start()
    assert rig.wait("c1", exec_id) == 4
    assert sipper.n > 100000 - 8192, "the end was told to a client that was still reading"
    sipper.join(5)
    assert sipper.n == 100000
    if exec_id:
        rig.delete_exec("c1", exec_id)
    rig.remove("c1")
    assert rig.left_behind() == []


def test_end_is_told_though_nobody_reads(rig):
    path = rig.fifo("out")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    rig.run("c1", ("sh", "-c", "head -c 50000 /dev/zero; exit 5"), io={"stdout": str(path), "stderr": "/dev/null"})
    assert rig.wait("c1", timeout=5) == 5
    assert rig.delete("c1") == 5
    os.set_blocking(reader, True)
    assert len(b"".join(iter(lambda: os.read(reader, 65536), b""))) == 50000
    os.close(reader)
    rig.remove("c1")
    assert rig.left_behind() == []


def test_slow_reader(rig):
    """A container that prints without end into a fifo that is hardly read waits; its shim does not grow, and
    another's output flows as ever."""
    path = rig.fifo("slow")
    slow = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(slow, True)
    rig.run("c1", ("yes", "all work and no play"), io={"stdout": str(path), "stderr": "/dev/null"})
    time.sleep(0.3)
    shim = rig.shim("c1")
    before = private_kb(shim)
    begun = time.monotonic()
    out, reader = reading(rig, "fast")
    rig.run("c2", random_output(32 * MIB), io={"stdout": out, "stderr": "/dev/null"})
    while time.monotonic() - begun < 1.5:
        assert os.read(slow, 1)
        time.sleep(0.05)
    assert rig.wait("c2") == 0
    rig.delete("c2")
    reader.join(10)
    assert reader.hash.hexdigest() == sent(rig, "c2")
    assert private_kb(shim) <= before + 256
    assert rig.state("c1") == "RUNNING"
    rig.remove("c1")
    rig.remove("c2")
    os.close(slow)
    assert rig.left_behind() == []


def logger(rig, text, name="logger"):
    path = rig.d.base / name
    path.write_text("#!/bin/sh\n" + text + "\n")
    path.chmod(0o755)
    return f"binary://{path}"


def test_every_way_carries_every_byte(rig):
    """Random bytes through a fifo, a terminal, a file and a logging program at the same time."""
    size = 24 * MIB
    readers = {}
    out, readers["fifo"] = reading(rig, "fifo")
    tty, readers["tty"] = reading(rig, "tty")
    file = rig.d.base / "file"
    logged = rig.d.base / "logged"
    uri = logger(rig, f"exec 5>&-; cat <&3 >{logged}")
    args = random_output(size)
    rig.run("fifo", args, io={"stdout": out, "stderr": "/dev/null"})
    rig.run("tty", random_output(4 * MIB, "stty raw;"), terminal=True, io={"stdout": tty, "terminal": True})
    rig.run("file", args, io={"stdout": f"file://{file}", "stderr": f"file://{file}"})
    rig.run("binary", args, io={"stdout": uri, "stderr": uri})
    for name in ("fifo", "tty", "file", "binary"):
        assert rig.wait(name, timeout=60) == 0
        rig.delete(name)
    for name, reader in readers.items():
        reader.join(10)
        assert reader.hash.hexdigest() == sent(rig, name), (name, reader.n)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == sent(rig, "file")
    wait_until(lambda: logged.stat().st_size == size, what="the logging program's last bytes")
    assert hashlib.sha256(logged.read_bytes()).hexdigest() == sent(rig, "binary")
    for name in ("fifo", "tty", "file", "binary"):
        rig.remove(name)
    assert rig.left_behind() == []


def test_stdin(rig):
    """48 MiB in, CloseIO, and the container has all of it and the end."""
    data = os.urandom(MIB) * 48
    path = rig.fifo("in")
    out, reader = reading(rig, "out")
    rig.run("c1", ("sha256sum",), io={"stdin": str(path), "stdout": out, "stderr": "/dev/null"})
    with open(path, "wb") as file:
        file.write(data)
    # The shim holds the fifo too, so that a client may come and go: the end is what CloseIO says.
    time.sleep(0.2)
    assert rig.state("c1") == "RUNNING"
    rig.task("CloseIO", container_id="c1", stdin=True)
    rig.task("CloseIO", container_id="c1", stdin=True)
    assert rig.wait("c1") == 0
    rig.delete("c1")
    reader.join(5)
    assert reader.tail.split()[0].decode() == hashlib.sha256(data).hexdigest()
    rig.remove("c1")
    assert rig.left_behind() == []


@pytest.mark.parametrize("when", ["before start", "while writing", "without a writer"])
def test_close_io_early(rig, when):
    """Closed before the client has written: what it writes all the same arrives, then the end."""
    path = rig.fifo("in")
    out, reader = reading(rig, "out")
    rig.container("c1", ("cat",))
    rig.create("c1", stdin=str(path), stdout=out, stderr="/dev/null")
    if when == "before start":
        rig.task("CloseIO", container_id="c1", stdin=True)
    if when == "without a writer":
        rig.start("c1")
        rig.task("CloseIO", container_id="c1", stdin=True)
    else:
        writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        rig.start("c1")
        os.write(writer, b"one ")
        wait_until(lambda: when == "before start" or reader.n == 4, what="first bytes")
        if when == "while writing":
            rig.task("CloseIO", container_id="c1", stdin=True)
        os.write(writer, b"two")
        os.close(writer)
    assert rig.wait("c1", timeout=5) == 0
    rig.delete("c1")
    reader.join(5)
    assert reader.tail == (b"" if when == "without a writer" else b"one two")
    rig.remove("c1")
    assert rig.left_behind() == []


def test_all_that_was_printed_before_the_end(rig):
    """Containers that print 64 KiB and are gone: nothing that they printed is missing once Delete has answered."""
    for number in range(15):
        name = f"c{number}"
        out, reader = reading(rig, name)
        rig.run(name, ("sh", "-c", "head -c 65536 /dev/zero | tr '\\0' x; exit 4"),
                io={"stdout": out, "stderr": "/dev/null"})
        assert rig.wait(name) == 4
        rig.delete(name)
        reader.join(5)
        assert reader.n == 65536 and not reader.is_alive()
        rig.forget_record(name)
    assert rig.left_behind() == []


def test_grandchild_keeps_the_pipe(rig):
    """An exec ends when its process does, though what it left running holds its output."""
    rig.run("c1")
    out, reader = reading(rig, "out")
    begun = time.monotonic()
    rig.execute("c1", "e1", ("sh", "-c", "sleep 1234 & echo last words; exit 6"), stdout=out, stderr="/dev/null")
    assert rig.wait("c1", "e1") == 6
    assert time.monotonic() - begun < 2
    assert rig.delete_exec("c1", "e1") == 6
    assert time.monotonic() - begun < 12
    reader.join(5)
    assert reader.tail == b"last words\n"
    root = pathlib.Path("/proc")
    left = [p for p in rig.processes_of("c1") if b"1234" in (root / str(p) / "cmdline").read_bytes().split(b"\0")]
    assert left and not has_ended(left[0])
    rig.remove("c1")
    assert rig.left_behind() == []


def test_bad_paths(rig):
    """Each is refused with a sentence, or used without harm to what is there."""
    precious = rig.d.base / "precious"
    link = rig.d.base / "link"
    link.symlink_to(precious)
    (rig.d.base / "directory").mkdir()
    base = str(rig.d.base)
    cases = {
        "regular": str(precious), "link": str(link), "uri of a link": f"file://{link}",
        "directory": base + "/directory", "uri of a directory": f"file://{base}/directory",
        "missing": base + "/nowhere/out", "too long": "/" + "x/" * 2500, "too long a name": base + "/" + "y" * 300,
        "relative": "out", "relative uri": "file://out", "uri of a file as directory": f"file://{precious}/out",
        "unknown": "ftp://example.org/out", "no program": "binary:///nonexistent/logger",
        "program is a directory": f"binary://{base}/directory", "no path": "binary://", "odd": "binary:///x?..&=&&%zz",
        "many": "binary:///nonexistent?" + "&".join(f"k{i}=v" for i in range(20000)),
        "control": "file://" + base + "/a\nb\x01", "device": "/dev/full",
    }
    for number, (what, path) in enumerate(cases.items()):
        precious.write_text("do not lose this\n")
        name = f"c{number}"
        rig.container(name, ("echo", "printed"))
        begun = time.monotonic()
        try:
            rig.create(name, stdout=path, stderr=path)
            rig.start(name)
            rig.wait(name)
            outcome = "ran"
        except grpc.RpcError as error:
            outcome = f"{error.code().name}: {error.details()}"
            assert error.code() not in (CODE.DEADLINE_EXCEEDED, CODE.UNAVAILABLE), (what, outcome)
            assert 10 < len(error.details()) < 5000, (what, outcome)
        assert time.monotonic() - begun < 12, what
        assert precious.read_text().startswith("do not lose this\n"), (what, outcome)
        if what in ("regular", "link", "uri of a link", "device", "control"):
            assert outcome == "ran", (what, outcome)
        else:
            assert outcome != "ran", what
        rig.remove(name)
        assert rig.left_behind() == [], what
    (rig.d.base / "a\nb\x01").unlink()


LOGGERS = {
    "crashes": ("kill -9 $$", True),
    "fails": ("echo no room >&2; exit 3", True),
    "ends at once, ready": ("exec 5>&-; exit 0", True),
    "ready, then closes its input": ("exec 5>&-; exec 3<&-; exec 4<&-; sleep 0.5", True),
    "leaves somebody behind": ("exec 5>&-; cat <&3 >/dev/null & exit 0", True),
    "crashes later": ("exec 5>&-; head -c 100 <&3 >/dev/null; kill -9 $$", True),
}


@pytest.mark.parametrize("how", list(LOGGERS))
def test_logging_program(rig, how):
    """One that ends counts as ready, as with containerd; that nobody reads does not stop the container."""
    text, can_run = LOGGERS[how]
    uri = logger(rig, text)
    rig.container("c1", ("sh", "-c", "trap '' PIPE; head -c 300000 /dev/zero; exit 5"))
    try:
        rig.create("c1", stdout=uri, stderr=uri, timeout=15)
        created = True
        rig.start("c1")
        assert rig.wait("c1", timeout=15) == 5
    except grpc.RpcError as error:
        created = False
        assert error.code() not in (CODE.DEADLINE_EXCEEDED, CODE.UNAVAILABLE), error.details()
    assert created == can_run
    rig.remove("c1")
    assert rig.left_behind() == []


def test_logging_program_is_not_ready(rig):
    """The create waits for it, nobody else does, and nothing is left when it is killed."""
    mark = rig.d.base / "pid"
    uri = logger(rig, f"echo $$ >{mark}.tmp; mv {mark}.tmp {mark}; exec sleep 1000")
    rig.container("c1", ("true",))
    outcome = []

    def create():
        try:
            outcome.append(rig.create("c1", stdout=uri, stderr=uri))
        except grpc.RpcError as error:
            outcome.append(error)

    thread = threading.Thread(target=create)
    thread.start()
    wait_until(mark.exists, what="its start")
    begun = time.monotonic()
    rig.run("c2", ("true",))
    assert rig.wait("c2") == 0 and time.monotonic() - begun < 3
    rig.remove("c2")
    assert thread.is_alive()
    os.kill(int(mark.read_text()), 9)
    thread.join(5)
    assert not thread.is_alive()
    rig.remove("c1")
    assert rig.left_behind() == []


def test_daemon_dies_while_containers_print(rig):
    """Numbered lines of several containers, over two deaths of the daemon: none missing, none twice."""
    readers = {}
    for name in ("c1", "c2", "c3"):
        out, reader = reading(rig, name)
        reader.keep = True
        readers[name] = reader
        rig.run(name, ("sh", "-c", "i=0; while [ ! -e /stop ]; do echo $i; i=$((i+1)); done; echo end"),
                io={"stdout": out, "stderr": "/dev/null"})
    for _ in range(2):
        time.sleep(0.2)
        rig.d.kill()
        time.sleep(0.2)
        rig.d.start()
    for name, reader in readers.items():
        pathlib.Path(f"/proc/{rig.process(name).pid}/root/stop").touch()
        assert rig.wait(name) == 0
        rig.delete(name)
        reader.join(5)
        lines = b"".join(reader.kept).split(b"\n")
        assert lines[-2:] == [b"end", b""] and len(lines) > 1000
        assert lines[:-2] == [b"%d" % i for i in range(len(lines) - 2)]
        rig.remove(name)
    assert rig.left_behind() == []
