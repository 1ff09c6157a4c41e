# SPDX-License-Identifier: Apache-2.0
"""Clients that go in the middle, that never read, that come by the hundred, and that all want the same."""
import concurrent.futures
import hashlib
import os
import socket
import threading
import time

import grpc
import pytest

from compat.test_ctr import IMAGE, wait_until
from fault.test_death import shim_of
from harness import ledger
from harness.api import Api, message_class
from integration import grpc_rude as h2
from integration import ttrpc_rude as t
from integration.bystander import comes_true, private_kb, unharmed

CONTENT = "containerd.services.content.v1.Content/"
CONTAINERS = "containerd.services.containers.v1.Containers/"
EVENTS = "containerd.services.events.v1.Events/"
IMAGES = "containerd.services.images.v1.Images/"
LEASES = "containerd.services.leases.v1.Leases/"
NAMESPACES = "containerd.services.namespaces.v1.Namespaces/"
SNAPSHOTS = "containerd.services.snapshots.v1.Snapshots/"
TASKS = "containerd.services.tasks.v1.Tasks/"
NAMESPACE = [("containerd-namespace", "default")]

C = grpc.StatusCode


def code_of(function, *args, **how):
    try:
        function(*args, **how)
    except grpc.RpcError as error:
        return error.code()
    return C.OK


def write_request(**fields):
    return h2.message(message_class("containerd.services.content.v1.WriteContentRequest")(**fields).SerializeToString())


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def write(api, ref, data, start=0, commit=True):
    kind = message_class("containerd.services.content.v1.WriteContentRequest")
    requests = [kind(action=1, ref=ref, offset=at, data=data[at:at + (1 << 20)])
                for at in range(start, len(data), 1 << 20)]
    if commit:
        requests.append(kind(action=2, ref=ref, offset=len(data), total=len(data), expected=digest_of(data)))
    return list(api.bidi(CONTENT + "Write", requests))


# --- content ----------------------------------------------------------------------------------------

def write_and_go(address, headers, data, offset, cut):
    """A whole message, and the beginning of the next. False while the ref is held by the one before."""
    with h2.Connection(address) as c:
        c.call("/containerd.services.version.v1.Version/Version")  # the windows are open from here on
        stream = c.request("/" + CONTENT + "Write", headers)
        body = write_request(action=1, ref="r", offset=offset, data=data[offset:offset + cut], total=len(data))
        c.data(stream, body + write_request(action=1, ref="r", offset=offset + cut, data=b"x" * 5000)[:2500])
        while not c.replies[stream].messages and not c.replies[stream].ended:
            c.read_frame()
        assert c.replies[stream].grpc_status in (None, 14), c.replies[stream]
        return bool(c.replies[stream].messages)


def test_gone_in_the_middle_of_a_write(daemon):
    """Each time some more comes before the client is gone; what was written stays, the ref is free, and the
    last one finishes the blob."""
    data = os.urandom(3 << 20)
    api = daemon.api
    lease = api.call(LEASES + "Create", {"id": "bad-write"}).lease.id
    headers = NAMESPACE + [("containerd-lease", lease)]
    offset = 0
    with unharmed(daemon):
        for cut in (0, 1, 4096, 100000, 777777):
            deadline = time.monotonic() + 5
            while not write_and_go(daemon.address, headers, data, offset, cut):
                assert time.monotonic() < deadline, "the ref is still held"
            offset += cut
            status = api.call(CONTENT + "Status", {"ref": "r"}).status
            assert status.offset == offset, cut
        deadline = time.monotonic() + 5
        while True:
            try:
                answers = write(api, "r", data, offset)
                break
            except grpc.RpcError as error:  # the ref is held until the daemon has seen the last one go
                assert error.code() == C.UNAVAILABLE and time.monotonic() < deadline, error
    assert answers[-1].digest == digest_of(data)
    got = b"".join(m.data for m in api.stream(CONTENT + "Read", {"digest": digest_of(data)}))
    assert got == data
    assert code_of(api.call, CONTENT + "Status", {"ref": "r"}) == C.NOT_FOUND
    api.call(LEASES + "Delete", {"id": lease, "sync": True})


def test_ref_is_held_by_one(daemon):
    """Fifty write to one ref at once: one has it at a time, the others are told, and it is not torn."""
    data = os.urandom(1 << 20)
    apis = [Api(daemon.address) for _ in range(10)]

    def attempt(n):
        return code_of(write, apis[n % 10], "shared", data)

    with unharmed(daemon):
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            codes = list(pool.map(attempt, range(50)))
        for api in apis:
            api.close()
    assert codes.count(C.OK) >= 1 and set(codes) <= {C.OK, C.UNAVAILABLE, C.ALREADY_EXISTS}, codes
    got = b"".join(m.data for m in daemon.api.stream(CONTENT + "Read", {"digest": digest_of(data)}))
    assert got == data
    daemon.api.call(CONTENT + "Delete", {"digest": digest_of(data)})


def test_gone_in_the_middle_of_a_read(daemon):
    data = os.urandom(16 << 20)
    write(daemon.api, "r", data)
    request = h2.message(h2.pb_bytes(1, digest_of(data)))
    with unharmed(daemon):
        stalled = []
        for n in range(30):
            c = h2.Connection(daemon.address, polite=n % 2 == 0)
            if not c.polite:
                c.preface()
                c.settings()
            stream = c.request("/" + CONTENT + "Read", NAMESPACE)
            c.data(stream, request, end_stream=True)
            while len(c.replies[stream].data) < 10000:
                c.read_frame()
            if n % 3:
                c.close()
            else:
                stalled.append(c)
        assert private_kb(daemon.pid) < 100 << 10
        for c in stalled:
            c.close()
    daemon.api.call(CONTENT + "Delete", {"digest": digest_of(data)})


# --- events -----------------------------------------------------------------------------------------

def publish(daemon, n, first=0):
    """n events by ttrpc, as shims send them, a hundred at a time."""
    with t.connect(daemon.address + ".ttrpc") as c:
        streams = []
        for i in range(first, first + n):
            event = t.field(1, "types.containerd.io/x") + t.field(2, b"x" * 400)
            envelope = t.field(1, t.field(1, 1700000000)) + t.field(2, "default") + t.field(3, "/bad/n%d" % i) + t.field(4, event)
            streams.append(c.start("containerd.services.events.ttrpc.v1.Events", "Forward", t.field(1, envelope)))
            if len(streams) == 100 or i == first + n - 1:
                for stream in streams:
                    assert c.wait(stream).code == 0
                streams = []


def test_subscriber_that_never_reads(daemon):
    """20,000 events for one that does not read, one that reads, and one that is gone. The first is cut off
    with a sentence, the second has every event, in order, and memory stays bounded."""
    api = Api(daemon.address)
    topics = []
    reader = api.stream(EVENTS + "Subscribe", {"filters": ["topic~=^/bad/"]}, timeout=60)

    def read():
        try:
            for event in reader:
                topics.append(event.topic)
                if len(topics) == 20000:
                    return
        except grpc.RpcError as error:
            topics.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    with unharmed(daemon, grow_kb=8192):
        deaf = h2.Connection(daemon.address, polite=False)
        deaf.preface()
        deaf.settings()
        stream = deaf.request("/" + EVENTS + "Subscribe")
        deaf.data(stream, h2.message(), end_stream=True)
        with h2.Connection(daemon.address) as gone:
            gone.data(gone.request("/" + EVENTS + "Subscribe"), h2.message(), end_stream=True)
        time.sleep(0.3)
        before = private_kb(daemon.pid)
        for first in range(0, 20000, 1000):
            publish(daemon, 1000, first)
            assert comes_true(lambda: len(topics) >= first), len(topics)
        assert private_kb(daemon.pid) < before + (24 << 10)
        thread.join(20)
        # Now it reads after all: what was kept for it, and why there is no more.
        deaf.polite = True
        deaf.window_update(0, 64 << 20)
        deaf.window_update(stream, 64 << 20)
        reply = deaf.reply(stream)
        deaf.close()
    reader.cancel()
    api.close()
    assert topics == ["/bad/n%d" % i for i in range(20000)], (len(topics), topics[-1:])
    assert reply.grpc_status == 8 and "subscribe" in reply.grpc_message, reply
    assert 0 < len(reply.messages) < 20000


def test_subscribers_that_come_and_go(daemon):
    """Two hundred subscribers leave while events come, in every way there is to leave."""
    with unharmed(daemon):
        over = threading.Event()

        def keep_publishing():
            while not over.is_set():
                publish(daemon, 100)

        thread = threading.Thread(target=keep_publishing)
        thread.start()
        for n in range(200):
            with h2.Connection(daemon.address) as c:
                stream = c.request("/" + EVENTS + "Subscribe")
                c.data(stream, h2.message(h2.pb_bytes(1, "topic~=^/bad")), end_stream=True)
                if n % 4 == 0:
                    c.rst_stream(stream)
                elif n % 4 == 1:
                    while not c.replies[stream].messages:
                        c.read_frame()
                elif n % 4 == 2:
                    c.socket.shutdown(socket.SHUT_WR)
        over.set()
        thread.join()


# --- tasks ------------------------------------------------------------------------------------------

@pytest.fixture
def running(daemon, archive):
    daemon.import_image(archive)
    daemon.ctr("run", "-d", "--null-io", IMAGE, "bad-client", "sleep", "1000")
    wait_until(lambda: daemon.api.call(TASKS + "Get", {"container_id": "bad-client"}).process.status == 2, what="running")
    yield daemon
    code_of(daemon.api.call, TASKS + "Kill", {"container_id": "bad-client", "signal": 9})
    daemon.api.call(TASKS + "Wait", {"container_id": "bad-client"})


def test_gone_while_waiting(running):
    """300 Waits of clients that leave; the daemon forgets them, and the one that stays is answered."""
    request = h2.message(h2.pb_bytes(1, "bad-client"))
    shim = shim_of(running, "bad-client")
    shim_fds = ledger.open_fds(shim)
    with unharmed(running):
        for round_ in range(3):
            with h2.Connection(running.address) as c:
                for n in range(100):
                    stream = c.request("/" + TASKS + "Wait", NAMESPACE)
                    c.data(stream, request, end_stream=True)
                    if n % 2:
                        c.rst_stream(stream)
                c.ping()
                c.read_frame()
        for n in range(30):
            assert code_of(running.api.call, TASKS + "Wait", {"container_id": "bad-client"}, timeout=0.02) == C.DEADLINE_EXCEEDED
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(running.api.call, TASKS + "Wait", {"container_id": "bad-client"})
        time.sleep(0.1)
        running.api.call(TASKS + "Kill", {"container_id": "bad-client", "signal": 9})
        assert future.result(10).exit_status == 137
    assert ledger.open_fds(shim) <= shim_fds


def test_thousand_waits(running):
    """All are answered when the process ends, with one truth."""
    request = h2.message(h2.pb_bytes(1, "bad-client"))
    with unharmed(running):
        with h2.Connection(running.address) as c:
            streams = []
            for _ in range(1000):
                stream = c.request("/" + TASKS + "Wait", NAMESPACE)
                c.data(stream, request, end_stream=True)
                streams.append(stream)
            time.sleep(0.2)
            running.api.call(TASKS + "Kill", {"container_id": "bad-client", "signal": 9})
            started = time.monotonic()
            answers = {c.reply(stream).messages[0] for stream in streams}
            assert time.monotonic() - started < 3 and len(answers) == 1
            assert all(c.replies[stream].grpc_status == 0 for stream in streams)


# --- many -------------------------------------------------------------------------------------------

def test_connections_by_the_hundred(daemon):
    with unharmed(daemon):
        for keep in (False, True):
            connections = []
            for n in range(300):
                s = socket.socket(socket.AF_UNIX)
                s.settimeout(5)
                s.connect(daemon.address)
                if n % 3:
                    s.sendall(h2.PREFACE[:n % 25])
                if keep:
                    connections.append(s)
                else:
                    s.close()
            for s in connections:
                s.close()


def test_silent_connections_are_closed(daemon):
    """No preface in ten seconds: there is nobody there."""
    with socket.socket(socket.AF_UNIX) as s, socket.socket(socket.AF_UNIX) as half:
        for each in (s, half):
            each.settimeout(13)
            each.connect(daemon.address)
        half.sendall(h2.PREFACE[:10])
        started = time.monotonic()
        for each in (s, half):
            try:
                while each.recv(1 << 16):
                    pass
            except ConnectionResetError:
                pass
        assert time.monotonic() - started < 12


def container_request(name):
    request = message_class("containerd.services.containers.v1.CreateContainerRequest")()
    request.container.id = name
    request.container.runtime.name = "io.containerd.runc.v2"
    request.container.spec.type_url, request.container.spec.value = "types.containerd.io/x", b"{}"
    return request


TARGET = {"media_type": "x", "digest": "sha256:" + "0" * 64, "size": 1}
RACES = {
    "container": (CONTAINERS + "Create", lambda: container_request("same"), CONTAINERS + "Delete", {"id": "same"}),
    "namespace": (NAMESPACES + "Create", lambda: {"namespace": {"name": "same"}}, NAMESPACES + "Delete", {"name": "same"}),
    "lease": (LEASES + "Create", lambda: {"id": "same"}, LEASES + "Delete", {"id": "same"}),
    "image": (IMAGES + "Create", lambda: {"image": {"name": "same", "target": TARGET}}, IMAGES + "Delete", {"name": "same"}),
    "snapshot": (SNAPSHOTS + "Prepare", lambda: {"snapshotter": "overlayfs", "key": "same", "labels": {
        "containerd.io/gc.root": "now"}}, SNAPSHOTS + "Remove", {"snapshotter": "overlayfs", "key": "same"}),
}


@pytest.mark.parametrize("kind", RACES)
def test_one_winner(daemon, kind):
    """Fifty clients create the same, and fifty remove it: one each time."""
    create, request, remove, removal = RACES[kind]
    apis = [Api(daemon.address) for _ in range(10)]
    with unharmed(daemon):
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            for _ in range(5):
                codes = list(pool.map(lambda n: code_of(apis[n % 10].call, create, request()), range(50)))
                assert codes.count(C.OK) == 1 and codes.count(C.ALREADY_EXISTS) == 49, codes
                codes = list(pool.map(lambda n: code_of(apis[n % 10].call, remove, removal), range(50)))
                assert codes.count(C.OK) == 1 and codes.count(C.NOT_FOUND) == 49, codes
        for api in apis:
            api.close()


def test_one_task(daemon, archive):
    """Twenty clients create the task of one container, start it, and delete it."""
    daemon.import_image(archive)
    daemon.ctr("containers", "create", IMAGE, "bad-race", "true")
    mounts = daemon.api.call(SNAPSHOTS + "Mounts", {"snapshotter": "overlayfs", "key": "bad-race"}).mounts
    request = message_class("containerd.services.tasks.v1.CreateTaskRequest")(container_id="bad-race", rootfs=mounts)
    name = {"container_id": "bad-race"}
    with unharmed(daemon), concurrent.futures.ThreadPoolExecutor(20) as pool:
        for _ in range(3):
            codes = list(pool.map(lambda _: code_of(daemon.api.call, TASKS + "Create", request), range(20)))
            assert codes.count(C.OK) == 1 and codes.count(C.ALREADY_EXISTS) == 19, codes
            codes = list(pool.map(lambda _: code_of(daemon.api.call, TASKS + "Start", name), range(20)))
            assert codes.count(C.OK) == 1 and set(codes) - {C.OK} <= {C.FAILED_PRECONDITION, C.UNKNOWN}, codes
            assert daemon.api.call(TASKS + "Wait", name).exit_status == 0
            codes = list(pool.map(lambda _: code_of(daemon.api.call, TASKS + "Delete", name), range(20)))
            assert codes.count(C.OK) == 1 and set(codes) - {C.OK} <= {C.NOT_FOUND, C.FAILED_PRECONDITION}, codes
