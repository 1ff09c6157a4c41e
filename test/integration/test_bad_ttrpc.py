# SPDX-License-Identifier: Apache-2.0
"""Malformed ttrpc bytes, on the daemon's socket and on a shim's, and peers that have no business there.

Both are servers of the same kind, so most tests run on each: `server` is the address, a call that works
there, and the process that must live.
"""
import collections
import os
import pathlib
import socket
import subprocess
import sys
import time

import grpc
import pytest

from compat.test_ctr import IMAGE, wait_until
from fault.test_death import shim_of
from harness import daemons, ledger
from integration import ttrpc_rude as t
from integration.bystander import comes_true, private_kb

OK, INVALID, DEADLINE, NOT_FOUND, EXHAUSTED, UNIMPLEMENTED, INTERNAL = 0, 3, 4, 5, 8, 12, 13
EVENTS = "containerd.services.events.ttrpc.v1.Events"
TASK = "containerd.task.v2.Task"
TASKS = "containerd.services.tasks.v1.Tasks/"

Server = collections.namedtuple("Server", "path pid service method payload alive")


def envelope(topic="/bad/ttrpc", namespace="default"):
    return t.field(1, t.field(1, t.field(1, 1700000000)) + t.field(2, namespace) + t.field(3, topic))


@pytest.fixture(scope="module")
def both_servers(tmp_path_factory):
    """A daemon with one running container, for all tests here."""
    with daemons.Daemon() as d:
        archive = tmp_path_factory.mktemp("image") / "busybox.tar"
        d.run(daemons.SOURCE / "tools" / "busybox-image", "--name", IMAGE, archive)
        d.import_image(archive)
        d.ctr("run", "-d", "--null-io", IMAGE, "bad-ttrpc", "sleep", "1000")
        shim = shim_of(d, "bad-ttrpc")
        address = (d.state / "io.containerd.runtime.v2.task/default/bad-ttrpc/address").read_text()
        path = address.removeprefix("unix://").strip()
        connect = t.field(1, "bad-ttrpc")

        def container_runs():
            assert d.api.call(TASKS + "Get", {"container_id": "bad-ttrpc"}).process.status == 2

        yield {"daemon": Server(d.address + ".ttrpc", d.pid, EVENTS, "Forward", envelope(), lambda: d.ctr("version")),
               "shim": Server(path, shim, TASK, "Connect", connect, container_runs)}
        container_runs()
        d.api.call(TASKS + "Kill", {"container_id": "bad-ttrpc", "signal": 9})
        wait_until(lambda: d.api.call(TASKS + "Get", {"container_id": "bad-ttrpc"}).process.status == 3, what="stopped")
        d.remove_everything()


@pytest.fixture(params=["daemon", "shim"])
def server(both_servers, request):
    """Its process lives, answers, and has its fds and its memory back afterwards."""
    s = both_servers[request.param]
    good_call(s)
    fds, memory = ledger.open_fds(s.pid), private_kb(s.pid)
    yield s
    assert os.path.exists(f"/proc/{s.pid}")
    good_call(s)
    s.alive()
    assert comes_true(lambda: ledger.open_fds(s.pid) <= fds), f"{ledger.open_fds(s.pid)} fds, {fds} before"
    grown = 2048 if request.param == "daemon" else 128
    assert comes_true(lambda: private_kb(s.pid) <= memory + grown), f"{private_kb(s.pid)} kB, {memory} kB before"


def good_call(s):
    with t.connect(s.path) as c:
        assert c.call(s.service, s.method, s.payload).code == OK


def request(s, payload=None, **how):
    return t.encode_request(s.service, s.method, s.payload if payload is None else payload, **how)


def test_cut_anywhere(server):
    """A good request, cut at each byte: half closed, closed, and reset."""
    frame = t.encode_frame(1, t.REQUEST, request(server))
    for n in range(len(frame)):
        with t.connect(server.path) as c:
            c.send_raw(frame[:n])
            c.half_close()
            assert c.is_closed(5), n
        with t.connect(server.path) as c:
            c.send_raw(frame[:n])
        c = t.connect(server.path)
        c.send_raw(frame[:n])
        c.reset()


def test_in_single_bytes(server):
    with t.connect(server.path) as c:
        for byte in t.encode_frame(1, t.REQUEST, request(server)):
            c.send_raw(bytes([byte]))
        assert c.wait(1).code == OK


def test_oversize(server):
    """4 MiB are taken, one byte more is skipped and refused on its stream, and the connection goes on."""
    with t.connect(server.path) as c:
        head = request(server)
        filler = t.varint(15 << 3 | 2) + t.varint((4 << 20) - len(head) - 5)
        body = head + filler
        body += bytes((4 << 20) - len(body))
        assert len(body) == 4 << 20
        c.send_frame(1, t.REQUEST, body)
        assert c.wait(1).code == OK
        c.send_frame(3, t.REQUEST, body + b"\0")
        answer = c.wait(3)
        assert answer.code == EXHAUSTED and "maximum message size" in answer.message, answer
        c.send_frame(5, t.REQUEST, bytes(9 << 20))
        assert c.wait(5).code == EXHAUSTED
        c.next_id = 7
        assert c.call(server.service, server.method, server.payload).code == OK


@pytest.mark.parametrize("length", [(4 << 20) + 1, 1 << 24, 0x7FFFFFFF, 0xFFFFFFFF])
def test_lengths_that_are_not_true(server, length):
    """Nothing is allocated for what was only declared."""
    before = private_kb(server.pid)
    connections = []
    for _ in range(20):
        c = t.connect(server.path)
        c.send_frame(1, t.REQUEST, b"abc", length=length)
        connections.append(c)
    good_call(server)
    assert private_kb(server.pid) < before + 2048
    for c in connections:
        c.close()


def test_slow_large_frames_are_bounded(server):
    """Memory for a frame grows with what has come of it."""
    before = private_kb(server.pid)
    connections = []
    for _ in range(10):
        c = t.connect(server.path)
        c.send_frame(1, t.REQUEST, bytes(1 << 16), length=4 << 20)
        connections.append(c)
    time.sleep(0.1)
    assert private_kb(server.pid) < before + 10 * 512
    for c in connections:
        c.close()


def test_stream_ids(server):
    body = request(server)

    def answer(*ids):
        with t.connect(server.path) as c:
            for stream in ids:
                c.send_frame(stream, t.REQUEST, body)
            for stream in ids[:-1]:
                c.wait(stream, 5)
            return c.wait(ids[-1], 5)

    assert answer(0x7FFFFFFF).code == OK
    assert answer(0xFFFFFFFF).code == OK
    for ids in ((0,), (2,), (0x80000000,), (3, 1), (5, 4)):
        got = answer(*ids)
        assert got.code == INVALID and got.message, (ids, got)
    with t.connect(server.path) as c:
        c.send_frame(1, t.REQUEST, body)
        c.send_frame(1, t.REQUEST, body)
        assert sorted((c.wait(1).code, c.wait(1).code)) == [OK, INVALID]


def test_types_and_flags(server):
    with t.connect(server.path) as c:
        stream = 1
        for kind in (0, t.RESPONSE, 4, 0x7F, 0xFF):
            c.send_frame(stream, kind, b"whatever")
            stream += 2
        for flags in (1, 2, 4, 7, 0xF8, 0xFF):
            c.send_frame(stream, t.REQUEST, request(server), flags)
            assert c.wait(stream, 5).code in (OK, INVALID)
            stream += 2
        c.send_frame(stream, t.DATA, b"data of nothing")
        assert c.wait(stream, 5).code == INVALID
        c.next_id = stream + 2
        assert c.call(server.service, server.method, server.payload).code == OK


def test_requests_that_are_none(server):
    s, m = server.service, server.method
    cases = [
        (b"", UNIMPLEMENTED), (b"\xff" * 100, INVALID), (b"\x0a\xff\xff\xff\xff\x0f", INVALID),
        (t.field(1, s), UNIMPLEMENTED), (t.field(2, m), UNIMPLEMENTED),
        (t.encode_request("x" * (1 << 20), "y"), UNIMPLEMENTED),
        (t.encode_request(s, "y" * (1 << 20)), UNIMPLEMENTED),
        (t.encode_request(s + "\n", m), UNIMPLEMENTED), (t.encode_request(s, m.lower()), UNIMPLEMENTED),
        (t.field(1, b"\xff\xfe") + t.field(2, m), INVALID),
        (t.encode_request(s, m, b"\xff\xff\xff"), INTERNAL), (t.encode_request(s, m, b"\x0a\x05a"), INTERNAL),
        (t.encode_request(s, m, b"\x0a\x02\xff\xfe"), None), (t.encode_request(s, m, b"\x0b" * 1000), INTERNAL),
        (t.encode_request(s, m, server.payload, timeout=-1), DEADLINE),
        (t.encode_request(s, m, server.payload, timeout=(1 << 62) / 1e9), OK),
        (t.encode_request(s, m, server.payload, metadata=[("k%d" % i, "v") for i in range(100000)]), None),
        (t.encode_request(s, m, server.payload, metadata=[("k" * (1 << 20), "v" * (1 << 20))]), OK),
    ]
    nested = b""
    for _ in range(3000):
        nested = t.field(1, nested)
    cases.append((t.encode_request(s, m, nested), None))
    with t.connect(server.path) as c:
        for stream, (body, code) in zip(range(1, 1000, 2), cases):
            c.send_frame(stream, t.REQUEST, body)
            answer = c.wait(stream, 5)
            assert code is None or answer.code == code, (body[:60], answer)
            assert answer.code == OK or 0 < len(answer.message) <= 4096, (body[:60], answer)
            assert "\n" not in answer.message
        c.next_id = 1001
        assert c.call(s, m, server.payload).code == OK


def test_peers_that_do_not_read(server):
    """Their queue is bounded, then they are cut off; others are answered all the while."""
    rude = []
    for _ in range(4):
        c = t.connect(server.path, receive_buffer=4096)
        rude.append(c)
        c.sock.settimeout(0.2)
        frame = b"".join(t.encode_frame(i, t.REQUEST, t.encode_request("x" * 2000, "y")) for i in range(1, 2001, 2))
        sent = 0
        try:
            for n in range(40):
                c.sock.sendall(frame)
                sent += len(frame)
        except (socket.timeout, BrokenPipeError, ConnectionResetError):
            pass
        started = time.monotonic()
        good_call(server)
        assert time.monotonic() - started < 1
    assert private_kb(server.pid) < 100 << 10
    for c in rude:
        c.close()


def test_data_for_a_call_under_way(both_servers):
    """A stream that nobody opened for data: refused, and the call on it is answered all the same."""
    s = both_servers["shim"]
    with t.connect(s.path) as c:
        waiting = [c.start(s.service, "Wait", t.field(1, "bad-ttrpc")) for _ in range(100)]
        for flags in (0, t.REMOTE_CLOSED, t.REMOTE_CLOSED | t.NO_DATA, t.REMOTE_OPEN):
            c.send_frame(waiting[0], t.DATA, b"" if flags & t.NO_DATA else b"data", flags)
        c.send_frame(waiting[0], t.REQUEST, request(s))
        stream = c.start(s.service, s.method, s.payload)
        assert c.wait(stream).code == OK
    good_call(s)
    s.alive()


def test_memory_of_many_calls(server):
    """One connection, calls one after the other and a hundred at once: what they needed is given back."""
    calls = int(os.environ.get("WHERRY_CALLS", "20000"))
    with t.connect(server.path) as c:
        frames = []

        def burst(n):
            frames.clear()
            for _ in range(n):
                frames.append(t.encode_frame(c.next_id, t.REQUEST, request(server)))
                c.next_id += 2
            c.send_raw(b"".join(frames))
            for at in range(c.next_id - 2 * n, c.next_id, 2):
                assert c.wait(at).code == OK

        for _ in range(20):
            burst(100)
        before = private_kb(server.pid)
        for _ in range(calls // 2):
            assert c.call(server.service, server.method, server.payload).code == OK
        for _ in range(calls // 200):
            burst(100)
        grown = private_kb(server.pid) - before
        assert grown <= 64, f"{grown} kB more after {calls} calls"


def test_many_connections(server):
    """More than are served at once; who comes too many is closed, and there is room again afterwards."""
    connections = []
    for _ in range(400):
        connections.append(connect(server.path))
    for c in connections:
        c.close()
    assert comes_true(lambda: answers(server), 5)
    for _ in range(500):
        connect(server.path).close()


def connect(path):
    """Patiently: the backlog may be full for a moment."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return t.connect(path)
        except BlockingIOError:
            assert time.monotonic() < deadline
            time.sleep(0.001)


def answers(server):
    try:
        good_call(server)
        return True
    except (t.Closed, OSError):
        return False


def test_noise(server):
    import random
    rng = random.Random(11)
    for _ in range(300):
        with connect(server.path) as c:
            try:
                for _ in range(rng.randrange(1, 10)):
                    c.send_frame(rng.randrange(16), rng.randrange(5), rng.randbytes(rng.randrange(60)), rng.randrange(8))
                if rng.random() < 0.3:
                    c.send_raw(rng.randbytes(rng.randrange(200)))
            except t.Closed:
                pass


def test_another_user_is_not_served(server):
    result = subprocess.run([sys.executable, pathlib.Path(__file__).with_name("intruder.py"), server.path, server.service,
                             server.method, server.payload.hex()], capture_output=True, text=True, timeout=60)
    assert result.stdout.split("\n") == ["path refused"] + 100 * ["peer refused"] + [""], result


def test_requests_of_a_shim_for_other_containers(both_servers):
    """A shim knows its own containers alone, and names are checked before they become paths."""
    s = both_servers["shim"]
    with t.connect(s.path) as c:
        for method in ("State", "Start", "Delete", "Pids", "Pause", "Resume", "Kill", "Exec", "ResizePty", "CloseIO",
                       "Update", "Wait", "Stats", "Checkpoint"):
            for name in ("", "other", "../bad-ttrpc", "a" * 10000, "bad-ttrpc\n"):
                answer = c.call(s.service, method, t.field(1, name), timeout=5)
                assert answer.code in (NOT_FOUND, INVALID, 9), (method, name[:20], answer)
                assert answer.message and len(answer.message) <= 4096 and "\n" not in answer.message
        for name in ("", "../x", "a/b", "a" * 77, "a\nb"):
            answer = c.call(s.service, "Create", t.field(1, name) + t.field(2, "/nonexistent"), timeout=5)
            assert answer.code not in (OK, INTERNAL) and answer.message, (name, answer)
        for name in ("../x", "a/b", "a" * 77, "a" * 10000, "a\nb"):
            answer = c.call(s.service, "Exec", t.field(1, "bad-ttrpc") + t.field(2, name), timeout=5)
            assert answer.code == INVALID, (name[:20], answer)
    s.alive()


def test_events_that_are_none(both_servers):
    """What the daemon is told by a peer of its own user is checked like everything else."""
    s = both_servers["daemon"]
    with t.connect(s.path) as c:
        for body in (b"", t.field(1, b""), envelope("no-slash"), envelope("/"), envelope("/a//b"), envelope("/a/../b"),
                     envelope("/a/" + "b" * 77), envelope("/a" * 50000 + "/"),
                     envelope("/ok", "../x"), envelope("/ok", ""),
                     t.field(1, t.field(2, "default") + t.field(3, "/ok"))):
            answer = c.call(s.service, s.method, body)
            assert answer.code == INVALID and answer.message and len(answer.message) <= 4096, (body[:60], answer)
        assert c.call(s.service, s.method, envelope()).code == OK
    s.alive()


def test_hostile_shim(daemon, archive):
    """A shim of somebody else's making, that answers with anything: the daemon lives, signals nobody, and has
    no task left of it."""
    shim = daemon.base / "bin" / "containerd-shim-rude-v1"
    shim.parent.mkdir()
    shim.write_text(RUDE_SHIM.format(tests=daemons.SOURCE / "test"))
    shim.chmod(0o755)
    daemon.import_image(archive)
    for manner in ("silence", "noise", "unknown-stream", "twice", "large-status", "wrong-message", "pid-1", "no-socket",
                   "garbage-address", "exit", "flood"):
        name = "rude-" + manner
        daemon.ctr("containers", "create", "--runtime", str(shim), IMAGE, name, "true")
        with pytest.raises(grpc.RpcError) as error:
            daemon.api.call(TASKS + "Create", {"container_id": name}, timeout=3 if manner in ("silence", "flood") else 15)
            # One that says it made process 1 is believed as far as asking goes; nothing signals by that number.
            daemon.api.call(TASKS + "Start", {"container_id": name}, timeout=3)
            daemon.api.call(TASKS + "Kill", {"container_id": name, "signal": 9}, timeout=3)
            daemon.api.call(TASKS + "Delete", {"container_id": name}, timeout=3)
            raise grpc.RpcError()
        if isinstance(error.value, grpc.Call):
            assert len(error.value.details()) <= 4096, manner
        for pid in stray_shims(str(shim)):
            os.kill(pid, 9)

        def gone():
            try:
                daemon.api.call(TASKS + "Get", {"container_id": name}, timeout=5)
            except grpc.RpcError as missing:
                return missing.code() == grpc.StatusCode.NOT_FOUND
            return False

        assert comes_true(gone, 15), manner
        daemon.api.call("containerd.services.version.v1.Version/Version")
        daemon.ctr("containers", "rm", name)
    assert not list(daemon.state.glob("io.containerd.runtime.v2.task/default/*"))


def stray_shims(path):
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    if path.encode() in file.read().split(b"\0"):
                        yield int(entry)
            except OSError:
                pass


RUDE_SHIM = '''#!/usr/bin/python3
import os, socket, sys
sys.path.insert(0, "{tests}")
from integration import ttrpc_rude as t
args = sys.argv[1:]
name = args[args.index("-id") + 1] if "-id" in args else ""
action = args[-1]
manner = name.removeprefix("rude-")
path = "/tmp/rude-shim-%d.sock" % os.getppid()
if action == "delete":
    sys.exit(0)
if manner == "exit":
    sys.stderr.write("\\x1b[31mno\\n" * 100000)
    sys.exit(3)
if manner == "garbage-address":
    print("\\0\\xff" * 10000)
    sys.exit(0)
if manner == "no-socket":
    print("unix:///nonexistent/socket")
    sys.exit(0)
listener = socket.socket(socket.AF_UNIX)
if os.path.exists(path):
    os.unlink(path)
listener.bind(path)
listener.listen()
if os.fork():
    print("unix://" + path, end="")
    sys.stdout.flush()
    os._exit(0)
for fd in (0, 1, 2):
    os.close(fd)
for fd in (0, 1, 2):
    os.open("/dev/null", os.O_RDWR)
os.setsid()
listener.settimeout(20)
peer, _ = listener.accept()
os.unlink(path)
c = t.Connection(peer)
def answer(frame, payload, status=b""):
    c.send_frame(frame.stream_id, t.RESPONSE, t.field(1, status) + t.field(2, payload))
while True:
    frame = c.recv_frame(20)
    if frame is None:
        break
    if manner == "noise":
        c.send_raw(os.urandom(65536))
        break
    elif manner == "unknown-stream":
        for stream in (0, 2, 99, 0xffffffff):
            c.send_frame(stream, t.RESPONSE, b"")
        c.send_frame(frame.stream_id, 77, b"x")
        c.send_frame(frame.stream_id, t.DATA, b"x")
        break
    elif manner == "twice":
        answer(frame, b"", t.field(1, 3) + t.field(2, "no"))
        answer(frame, b"", t.field(1, 3) + t.field(2, "no"))
    elif manner == "large-status":
        answer(frame, b"", t.field(1, 77777) + t.field(2, "x\\n" * 1000000))
    elif manner == "wrong-message":
        answer(frame, b"\\xff" * 1000)
    elif manner == "pid-1":
        answer(frame, t.field(1, 1))
    elif manner == "flood":
        try:
            for n in range(20000):
                c.send_frame(2 * n + 1, t.RESPONSE, b"x" * 1000)
        except Exception:
            break
'''
