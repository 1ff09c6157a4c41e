# SPDX-License-Identifier: Apache-2.0
"""Malformed gRPC, HTTP/2 and protobuf bytes on the daemon's socket, floods, and requests beyond every limit.

Each is refused in a way that names what is wrong; the daemon goes on, answers others meanwhile, and keeps
nothing of it.
"""
import concurrent.futures
import struct
import threading
import time

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor as F

from harness import daemons
from harness.api import Api, message_class, pool
from integration import grpc_rude as h2
from integration.bystander import private_kb, unharmed

VERSION = "/containerd.services.version.v1.Version/Version"
NAMESPACES = "containerd.services.namespaces.v1.Namespaces/"
CONTAINERS = "containerd.services.containers.v1.Containers/"
CONTENT = "containerd.services.content.v1.Content/"
IMAGES = "containerd.services.images.v1.Images/"
LEASES = "containerd.services.leases.v1.Leases/"
SNAPSHOTS = "containerd.services.snapshots.v1.Snapshots/"
TASKS = "containerd.services.tasks.v1.Tasks/"
EVENTS = "containerd.services.events.v1.Events/"
SERVICES = ("containers", "content", "diff", "events", "images", "introspection", "leases", "namespaces", "snapshots",
            "tasks", "version")

OK, INVALID, NOT_FOUND, EXHAUSTED, PRECONDITION, UNIMPLEMENTED, INTERNAL = 0, 3, 5, 8, 9, 12, 13
SENTENCE_MAX = 4096
NOT_OFFERED = ("PluginInfo",)


@pytest.fixture(scope="module")
def shared():
    """One daemon for all tests that leave nothing in it."""
    with daemons.Daemon() as d:
        yield d
        assert d.process.poll() is None, d.log_text()[-4000:]


def alive(d):
    with h2.Connection(d.address) as c:
        assert c.call(VERSION).grpc_status == OK


# --- HTTP/2 -----------------------------------------------------------------------------------------

GOOD_HEADERS = h2.hpack_encode([(":method", "POST"), (":scheme", "http"), (":path", VERSION), (":authority", "x"),
                                ("content-type", "application/grpc"), ("te", "trailers")])


def with_headers(c, block):
    c.headers(1, (), end_stream=True, block=block)


# What is sent after the preface and SETTINGS, and the code of the GOAWAY for it.
CONNECTION_ERRORS = {
    "data on stream 0": (lambda c: c.frame(h2.DATA, 0, 0, b"x"), h2.PROTOCOL_ERROR),
    "data on an idle stream": (lambda c: c.frame(h2.DATA, 0, 5, b"x"), h2.PROTOCOL_ERROR),
    "headers on an even stream": (lambda c: c.headers(2, (), block=GOOD_HEADERS), h2.PROTOCOL_ERROR),
    "headers on stream 0": (lambda c: c.headers(0, (), block=GOOD_HEADERS), h2.PROTOCOL_ERROR),
    "a frame of 16385 bytes": (lambda c: c.frame(h2.DATA, 0, 1, bytes(16385)), h2.FRAME_SIZE_ERROR),
    "a frame of 2^24-1 bytes": (lambda c: c.frame(h2.PING, 0, 0, bytes(64), length=0xFFFFFF), h2.FRAME_SIZE_ERROR),
    "push promise": (lambda c: c.frame(h2.PUSH_PROMISE, h2.END_HEADERS, 1, struct.pack(">I", 2)), h2.PROTOCOL_ERROR),
    "continuation of nothing": (lambda c: c.frame(h2.CONTINUATION, h2.END_HEADERS, 1, GOOD_HEADERS),
                                h2.PROTOCOL_ERROR),
    "another frame inside headers": (
        lambda c: (c.headers(1, (), block=GOOD_HEADERS, end_headers=False), c.ping()), h2.PROTOCOL_ERROR),
    "more padding than frame": (lambda c: c.frame(h2.HEADERS, h2.PADDED | h2.END_HEADERS, 1, b"\xff" + GOOD_HEADERS),
                                h2.PROTOCOL_ERROR),
    "settings of 5 bytes": (lambda c: c.frame(h2.SETTINGS, 0, 0, bytes(5)), h2.FRAME_SIZE_ERROR),
    "settings on a stream": (lambda c: c.frame(h2.SETTINGS, 0, 1, bytes(6)), h2.PROTOCOL_ERROR),
    "an acknowledgement with settings": (lambda c: c.frame(h2.SETTINGS, h2.ACK, 0, bytes(6)), h2.FRAME_SIZE_ERROR),
    "a window of 2^31": (lambda c: c.settings([(4, 1 << 31)]), h2.FLOW_CONTROL_ERROR),
    "a frame size of 1": (lambda c: c.settings([(5, 1)]), h2.PROTOCOL_ERROR),
    "push of 2": (lambda c: c.settings([(2, 2)]), h2.PROTOCOL_ERROR),
    "ping of 7 bytes": (lambda c: c.frame(h2.PING, 0, 0, bytes(7)), h2.FRAME_SIZE_ERROR),
    "ping on a stream": (lambda c: c.frame(h2.PING, 0, 1, bytes(8)), h2.PROTOCOL_ERROR),
    "window update of 0": (lambda c: c.window_update(0, 0), h2.PROTOCOL_ERROR),
    "window over 2^31": (lambda c: (c.window_update(0, 0x7FFFFFFF), c.window_update(0, 0x7FFFFFFF)),
                         h2.FLOW_CONTROL_ERROR),
    "window update of 3 bytes": (lambda c: c.frame(h2.WINDOW_UPDATE, 0, 0, bytes(3)), h2.FRAME_SIZE_ERROR),
    "reset of an idle stream": (lambda c: c.rst_stream(7), h2.PROTOCOL_ERROR),
    "reset of 5 bytes": (lambda c: c.frame(h2.RST_STREAM, 0, 1, bytes(5)), h2.FRAME_SIZE_ERROR),
    "HPACK index 0": (lambda c: with_headers(c, b"\x80"), h2.COMPRESSION_ERROR),
    "HPACK index out of range": (lambda c: with_headers(c, b"\xff\x80\x01"), h2.COMPRESSION_ERROR),
    "HPACK integer over 2^32": (lambda c: with_headers(c, b"\xff" + b"\xff" * 10 + b"\x01"), h2.COMPRESSION_ERROR),
    "HPACK table size 2^30": (lambda c: with_headers(c, h2.hpack_integer(1 << 30, 5, 0x20)), h2.COMPRESSION_ERROR),
    "HPACK table size inside a block": (lambda c: with_headers(c, b"\x83\x20"), h2.COMPRESSION_ERROR),
    "HPACK cut string": (lambda c: with_headers(c, b"\x00\x7f\x81\x01abc"), h2.COMPRESSION_ERROR),
    "HPACK end of string": (lambda c: with_headers(c, b"\x00\x84\xff\xff\xff\xff\x01x"), h2.COMPRESSION_ERROR),
}


def test_connection_errors(shared):
    """Each ends its own connection with the code that the protocol has for it."""
    wrong = {}
    with unharmed(shared):
        for name, (send, expected) in CONNECTION_ERRORS.items():
            with h2.Connection(shared.address) as c:
                send(c)
                try:
                    code = c.goaway(2)
                except h2.Timeout:
                    code = "nothing came"
                if code != expected:
                    wrong[name] = (code, expected)
    assert not wrong, wrong


def test_what_must_be_ignored(shared):
    """Unknown frames, flags and settings mean nothing, and the call after them is answered."""
    with h2.Connection(shared.address) as c:
        for kind in (10, 11, 0x55, 0xFF):
            c.frame(kind, 0xFF, 0, b"whatever")
            c.frame(kind, 0xFF, 0x80000001, bytes(16384))
        c.settings([(0x99, 7), (0xFFFF, 0xFFFFFFFF)])
        c.priority(1, 0)
        c.ping()
        assert c.call(VERSION).grpc_status == OK
        c.next_stream = 101
        assert c.call(VERSION).grpc_status == OK
        c.headers(99, (), block=GOOD_HEADERS)  # a stream that was passed over is closed
        c.frame(h2.WINDOW_UPDATE, 0xFF, 0x80000000, struct.pack(">I", 1))
        assert c.call(VERSION).grpc_status == OK


FLOODS = dict([
    ("ping", lambda c: [c.ping() for _ in range(20000)]),
    ("settings", lambda c: [c.settings([(1, 4096)]) for _ in range(20000)]),
    ("reset", lambda c: [(c.headers(1 + 2 * i, (), block=GOOD_HEADERS), c.rst_stream(1 + 2 * i))
                         for i in range(10000)]),
    ("empty data", lambda c: (c.request(VERSION), [c.frame(h2.DATA, 0, 1, b"") for _ in range(20000)])),
    ("priority", lambda c: [c.priority(1 + 2 * i) for i in range(20000)]),
    ("resets that it must make", lambda c: [(c.headers(1 + 2 * i, (), block=GOOD_HEADERS),
                                             c.window_update(1 + 2 * i, 0x7FFFFFFF)) for i in range(10000)]),
])


@pytest.mark.parametrize("name", FLOODS)
def test_floods_end_the_connection(shared, name):
    with unharmed(shared), h2.Connection(shared.address, polite=False) as c:
        c.preface()
        c.settings()
        FLOODS[name](c)
        assert c.goaway(5) == h2.ENHANCE_YOUR_CALM


def test_headers_without_end(shared):
    """64 MiB of CONTINUATION, and 64 MiB of headers that end: the connection or the stream ends long before."""
    with unharmed(shared):
        with h2.Connection(shared.address, polite=False) as c:
            c.preface()
            c.settings()
            c.frame(h2.HEADERS, 0, 1, GOOD_HEADERS)
            piece = h2.hpack_encode([("x-%d" % i, "y" * 1000) for i in range(15)])
            sent = 0
            while sent < 64 << 20 and c.frame(h2.CONTINUATION, 0, 1, piece):
                sent += len(piece)
            assert sent < 8 << 20
        with h2.Connection(shared.address) as c:
            stream = c.request(VERSION, [("x", "y" * 17000)], end_stream=True)
            reply = c.reply(stream)
            assert reply.http_status == 431 or reply.grpc_status in (EXHAUSTED, INTERNAL) or reply.reset is not None
            assert c.call(VERSION).grpc_status == OK
        with h2.Connection(shared.address) as c:
            stream = c.request(VERSION, [("x-%d" % i, "") for i in range(1000)], end_stream=True)
            reply = c.reply(stream)
            assert reply.grpc_status != OK
            assert c.call(VERSION).grpc_status == OK


def test_too_many_streams(shared):
    """Calls that never send their request, up to the limit and beyond it."""
    with unharmed(shared), h2.Connection(shared.address) as c:
        streams = [c.request(VERSION) for _ in range(1200)]
        assert all(c.reply(s).reset == h2.REFUSED_STREAM for s in streams[1000:])
        assert not any(c.replies[s].reset for s in streams[:1000])


def test_windows_that_stay_closed(shared):
    """A client that gives no window gets no more than its share of memory, and nobody else notices."""
    with unharmed(shared):
        connections = []
        for _ in range(20):
            c = h2.Connection(shared.address, polite=False, timeout_s=5)
            connections.append(c)
            c.preface()
            c.settings([(4, 0)])
            for _ in range(50):
                c.data(c.request("/containerd.services.introspection.v1.Introspection/Plugins"), h2.message(), True)
        time.sleep(0.5)
        for c in connections:
            c.close()


# --- gRPC -------------------------------------------------------------------------------------------

def unary(c, payload, headers=(), path=VERSION, end=True):
    stream = c.request(path, headers)
    c.data(stream, payload, end_stream=end)
    return c.reply(stream)


def test_message_limit_is_exact(shared):
    """16 MiB are taken and one byte more is not, told by its declared length alone."""
    limit = 16 << 20
    body = h2.varint(15 << 3 | 2) + h2.varint(limit - 5) + bytes(limit - 5)
    assert len(body) == limit
    with unharmed(shared):
        version = shared.api.channel.unary_unary(VERSION, lambda b: b, lambda b: b)
        version(body, timeout=10)
        text = fails(version, body + b"\0", codes=(C.RESOURCE_EXHAUSTED,), timeout=10)
        assert text == f"grpc: received message larger than max ({limit + 1} vs. {limit})"
        with h2.Connection(shared.address) as c:
            for length in (limit + 1, 0xFFFFFFFF):
                reply = unary(c, h2.message(b"", length=length), end=False)
                assert reply.grpc_status == EXHAUSTED, reply
                assert reply.grpc_message.startswith("grpc: received message larger than max"), reply


def test_many_large_messages(shared):
    """Forty messages of nearly 16 MiB at once: some may be refused, memory stays bounded."""
    peak, over = [0], threading.Event()

    def watch():
        while not over.wait(0.02):
            peak[0] = max(peak[0], private_kb(shared.pid))

    size = 15 << 20
    body = h2.varint(15 << 3 | 2) + h2.varint(size - 5) + bytes(size - 5)
    apis = [Api(shared.address) for _ in range(8)]

    def send(n):
        try:
            apis[n % 8].channel.unary_unary(VERSION, lambda b: b, lambda b: b)(body, timeout=20)
        except grpc.RpcError as error:
            return error.code()
        return C.OK

    with unharmed(shared, answer_seconds=5):
        watcher = threading.Thread(target=watch)
        watcher.start()
        with concurrent.futures.ThreadPoolExecutor(40) as workers:
            codes = list(workers.map(send, range(40)))
        over.set()
        watcher.join()
        for api in apis:
            api.close()
    assert set(codes) <= {C.OK, C.RESOURCE_EXHAUSTED} and codes.count(C.OK) > 4, codes
    assert peak[0] < 200 << 10, f"{peak[0]} kB"


def test_broken_prefixes(shared):
    with unharmed(shared), h2.Connection(shared.address) as c:
        for name, payload, codes in [
                ("compressed", h2.message(b"", compressed=1), (UNIMPLEMENTED, INTERNAL)),
                ("flag 255", h2.message(b"", compressed=255), (UNIMPLEMENTED, INTERNAL)),
                ("no message", b"", (INTERNAL,)),
                ("cut prefix", b"\0\0\0", (INTERNAL,)),
                ("cut message", h2.message(b"abc", length=10), (INTERNAL,)),
                ("two messages", h2.message() * 2, (INTERNAL, UNIMPLEMENTED)),
                ("a message and a half", h2.message() + b"\0\0", (OK, INTERNAL))]:
            reply = unary(c, payload)
            assert reply.grpc_status in codes, (name, reply)
            assert reply.grpc_status == OK or reply.grpc_message, name
            assert c.call(VERSION).grpc_status == OK, name


def test_broken_headers(shared):
    with unharmed(shared), h2.Connection(shared.address) as c:
        def status(headers, path=VERSION):
            reply = unary(c, h2.message(), headers, path)
            if reply.http_status == 415:
                return 415
            return reply.grpc_status if reply.grpc_status is not None else reply.http_status or ("reset", reply.reset)

        assert status([("content-type", "text/plain")]) == 415
        assert status([("content-type", None)]) == 415
        assert status([(":method", "GET")]) in (405, INTERNAL, UNIMPLEMENTED)
        for path in ("/x.Y/Z", "/containerd.services.tasks.v1.Tasks/Nonsense", "/a", "/", "/a/b/c"):
            assert status([], path) == UNIMPLEMENTED, path
        for path in ("", "x", "*"):
            assert status([], path) in (UNIMPLEMENTED, 400, ("reset", h2.PROTOCOL_ERROR)), path
        assert status([], "/" + "a" * 8000 + "/b") == UNIMPLEMENTED
        for timeout in ("", "1", "S", "-1S", "123456789S", "1X", "1.5S", "S1", "0x1S", " 1S", "1 S"):
            assert status([("grpc-timeout", timeout)]) not in (OK, None), timeout
        for timeout in ("99999999H", "20S", "20000m", "1M"):
            assert status([("grpc-timeout", timeout)]) == OK, timeout
        for header in ([("UPPER", "x")], [("connection", "close")], [("te", "gzip")], [(":path", "/a"), (":path", "/b")],
                       [("x", b"a\0b")], [("x", b"a\nb")], [("", "x")], [(":nonsense", "x")]):
            assert status(header) != OK, header
            assert c.call(VERSION).grpc_status == OK, header


def test_requests_cut_at_each_byte(shared):
    """The bytes of a whole call, cut anywhere, and the connection closed."""
    recorded = bytearray()

    class Recorder(h2.Connection):
        def raw(self, data):
            recorded.extend(data)
            return True

    with Recorder(shared.address) as r:
        r.data(r.request(VERSION, [("containerd-namespace", "default")]), h2.message(b""), end_stream=True)
    with unharmed(shared):
        for n in range(len(recorded)):
            with h2.Connection(shared.address, polite=False) as c:
                c.raw(bytes(recorded[:n]))


# --- protobuf ---------------------------------------------------------------------------------------

NUMBERS = (F.TYPE_INT32, F.TYPE_INT64, F.TYPE_UINT32, F.TYPE_UINT64, F.TYPE_SINT32, F.TYPE_SINT64, F.TYPE_FIXED32,
           F.TYPE_FIXED64, F.TYPE_SFIXED32, F.TYPE_SFIXED64)


def methods():
    for service in SERVICES:
        descriptor = pool().FindServiceByName(f"containerd.services.{service}.v1.{service.capitalize()}")
        for method in descriptor.methods:
            if method.name in NOT_OFFERED:
                continue
            yield f"/{descriptor.full_name}/{method.name}", message_class(method.input_type.full_name)


def is_map(field):
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def filled(message, depth=0, text="!"):
    """Every field set; no name that it holds is a valid one, so that nothing can come of it."""
    for field in message.DESCRIPTOR.fields:
        repeated = field.label == F.LABEL_REPEATED
        if is_map(field):
            value = field.message_type.fields_by_name["value"]
            target = getattr(message, field.name)
            if value.type == F.TYPE_STRING:
                target[text] = text
            elif value.type == F.TYPE_MESSAGE and depth < 3:
                filled(target[text], depth + 1, text)
        elif field.type == F.TYPE_MESSAGE:
            if depth < 3:
                filled(getattr(message, field.name).add() if repeated else getattr(message, field.name), depth + 1, text)
        else:
            if field.type == F.TYPE_STRING:
                value = text
            elif field.type == F.TYPE_BYTES:
                value = text.encode()
            elif field.type in (F.TYPE_DOUBLE, F.TYPE_FLOAT):
                value = 1.5
            elif field.type == F.TYPE_BOOL:
                value = True
            elif field.type == F.TYPE_ENUM:
                value = field.enum_type.values[-1].number
            else:
                assert field.type in NUMBERS
                value = 1
            if repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
    return message


def spread(n, most):
    """At most `most` of range(n), both ends among them."""
    return range(n) if n <= most else sorted({i * (n - 1) // (most - 1) for i in range(most)})


def is_valid(kind, payload):
    try:
        kind.FromString(payload)
        return True
    except Exception:  # pylint: disable=broad-except  # DecodeError; UnicodeDecodeError of some versions
        return False


BAD_FIELDS = {
    "a field number of 0": b"\x00\x00",
    "a number of 11 bytes": b"\x08" + b"\xff" * 10 + b"\x01",
    "a field number over 2^29": h2.varint(1 << 32 | 2) + b"\x00",
    "wire type 6": b"\x0e\x00",
    "wire type 7": b"\x0f\x00",
    "the end of a group": b"\x0c",
    "a group without end": b"\x0b\x08\x01",
    "a length of 2^63": b"\x7a" + h2.varint(1 << 63),
    "a length of 2^64-1": b"\x7a" + h2.varint((1 << 64) - 1),
    "a length of 2^32": b"\x7a" + h2.varint(1 << 32),
}


def variants(kind):
    """(name, bytes, whether it must be understood; None: either)"""
    whole = filled(kind()).SerializeToString()
    yield "whole", whole, True
    for n in spread(len(whole), 60):
        yield f"cut at {n}", whole[:n], is_valid(kind, whole[:n])
    for name, bad in BAD_FIELDS.items():
        yield name, bad, False
        yield "then " + name, whole + bad, False
    for field in kind.DESCRIPTOR.fields:
        key = field.number << 3
        for wire, value in ((0, b"\x01"), (1, bytes(8)), (2, b"\x01!"), (5, bytes(4))):
            payload = h2.varint(key | wire) + value
            yield f"{field.name} as wire type {wire}", payload, None if is_valid(kind, payload) else False
        yield f"{field.name} as an open group", h2.varint(key | 3), False
        if field.type == F.TYPE_STRING:
            for bad in (b"\xff", b"a\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"):
                yield f"{field.name} as {bad!r}", h2.pb_bytes(field.number, bad), False
    yield "unknown fields", whole + h2.pb_int(1000, 1) + h2.pb_bytes(1001, b"x" * 100), True


def test_protobuf_of_every_request(shared):
    """Cut, mistyped and malformed requests of every method. What the reference implementation does not
    understand is refused as such; what it understands comes as far as the check of the namespace or of
    the names. Nothing is made of any."""
    wrong, count = [], 0
    with unharmed(shared):
        for path, kind in methods():
            with h2.Connection(shared.address) as c:
                batch = []

                def settle():
                    for name, stream, understood in batch:
                        reply = c.reply(stream)
                        refused = reply.grpc_status == INTERNAL and "unmarshal" in (reply.grpc_message or "")
                        if reply.grpc_status is None or (understood is not None and refused == understood) or (
                                not refused and reply.grpc_status == INTERNAL):
                            wrong.append((path, name, understood, repr(reply)))
                    batch.clear()

                headers = [("grpc-timeout", "50m")] if path.endswith("Subscribe") else []
                for name, payload, understood in variants(kind):
                    stream = c.request(path, headers)
                    c.data(stream, h2.message(payload), end_stream=True)
                    batch.append((name, stream, understood))
                    count += 1
                    if len(batch) == 100:
                        settle()
                settle()
    assert count > 3000
    assert not wrong, f"{len(wrong)} of {count}: " + "\n".join(map(str, wrong[:20]))


def test_deep_and_wide_messages(shared):
    """Nesting, and millions of small parts, cost neither stack nor memory without bound."""
    value = b""
    for _ in range(20000):
        value = h2.pb_bytes(5, value)
    many = h2.pb_bytes(1, b"") * (4 << 20)
    entries = h2.pb_bytes(2, b"") * (1 << 20)
    container = h2.pb_bytes(1, value)
    with unharmed(shared, grow_kb=16384), h2.Connection(shared.address) as c:
        for path, payload in [
                ("/" + CONTAINERS + "Create", container), ("/" + CONTAINERS + "List", many),
                ("/" + CONTAINERS + "Create", h2.pb_bytes(1, entries)), ("/" + NAMESPACES + "Create", container),
                ("/" + EVENTS + "Subscribe", many), ("/" + SNAPSHOTS + "List", many), ("/" + IMAGES + "List", many),
                ("/" + TASKS + "Create", h2.pb_bytes(3, b"") * (4 << 20))]:
            reply = unary(c, h2.message(payload), [("containerd-namespace", "default")], path)
            assert reply.grpc_status in (INVALID, INTERNAL, EXHAUSTED), (path, reply)


# --- limits of requests -----------------------------------------------------------------------------

def fails(function, *args, codes, **how):
    try:
        answer = function(*args, **how)
        if hasattr(answer, "__iter__"):
            list(answer)
    except grpc.RpcError as error:
        text = error.details()
        assert error.code() in codes, f"{args}: {error.code()}: {text[:300]}"
        assert text and len(text) <= SENTENCE_MAX and "\n" not in text and text.isprintable(), repr(text)
        return text
    raise AssertionError(f"{str(args)[:300]} was taken")


C = grpc.StatusCode


def test_namespaces_in_headers(shared):
    path = "/" + CONTAINERS + "List"
    with h2.Connection(shared.address) as c:
        def status(*values):
            return unary(c, h2.message(), [("containerd-namespace", v) for v in values], path).grpc_status

        assert status() == PRECONDITION
        assert status("") == PRECONDITION
        for bad in ("../x", "a b", "a/b", "-a", "a-", "a..b", "a" * 77, "a" * 10000, "%2e", b"\xff\xfe", "ü"):
            assert status(bad) == INVALID, bad
        assert status("a" * 76) == OK
        # As containerd: the first counts.
        assert status("default", "../x") == OK
        assert status("../x", "default") == INVALID


def container_request(name, labels=None):
    request = message_class("containerd.services.containers.v1.CreateContainerRequest")()
    request.container.id = name
    request.container.runtime.name = "io.containerd.runc.v2"
    request.container.spec.type_url, request.container.spec.value = "types.containerd.io/x", b"{}"
    request.container.labels.update(labels or {})
    return request


BAD_IDS = ("", "a" * 77, "a" * 10000, "../x", "a/b", "/", ".", "..", "a b", "a\nb", "-a", "a_", "ä", "%s%n")


def test_bad_ids(api):
    """Wherever a name becomes part of a path or of a key that others must be able to type."""
    calls = [
        (CONTAINERS + "Create", container_request),
        (NAMESPACES + "Create", lambda i: {"namespace": {"name": i}}),
        (NAMESPACES + "Update", lambda i: {"namespace": {"name": i, "labels": {"a": "b"}}}),
        (EVENTS + "Publish", lambda i: {"topic": "/a/" + i + "//"}),
    ]
    for path, request in calls:
        for bad in BAD_IDS:
            text = fails(api.call, path, request(bad), codes=(C.INVALID_ARGUMENT,))
            assert "identifier" in text or "must" in text, text
    assert not api.call(CONTAINERS + "List").containers
    assert not api.call(NAMESPACES + "List").namespaces


LONG = "a" * 10000


def test_names_that_are_only_keys(api):
    """Leases, snapshots, refs and image names are free text; the empty one is refused, a very long one is
    taken and can be removed again, or refused."""
    def taken_or_refused(create, remove):
        try:
            create()
        except grpc.RpcError as error:
            assert error.code() == C.INVALID_ARGUMENT and len(error.details()) <= SENTENCE_MAX, error
        else:
            remove()

    target = {"media_type": "x", "digest": "sha256:" + "0" * 64, "size": 1}
    fails(api.call, IMAGES + "Create", {"image": {"name": "", "target": target}}, codes=(C.INVALID_ARGUMENT,))
    fails(api.call, SNAPSHOTS + "Prepare", {"snapshotter": "overlayfs", "key": ""}, codes=(C.INVALID_ARGUMENT,))
    fails(api.call, SNAPSHOTS + "View", {"snapshotter": "overlayfs", "key": ""}, codes=(C.INVALID_ARGUMENT,))
    fails(api.bidi, CONTENT + "Write", [{"action": "STAT", "ref": ""}], codes=(C.INVALID_ARGUMENT,))
    for name in (LONG, "../../x", "a\nb", "a/../b", "ä", "%s%n", "a" * 77):
        taken_or_refused(lambda: api.call(IMAGES + "Create", {"image": {"name": name, "target": target}}),
                         lambda: api.call(IMAGES + "Delete", {"name": name}))
        taken_or_refused(lambda: api.call(LEASES + "Create", {"id": name}),
                         lambda: api.call(LEASES + "Delete", {"id": name}))
        for verb in ("Prepare", "View"):
            taken_or_refused(lambda: api.call(SNAPSHOTS + verb, {"snapshotter": "overlayfs", "key": name}),
                             lambda: api.call(SNAPSHOTS + "Remove", {"snapshotter": "overlayfs", "key": name}))
        taken_or_refused(lambda: list(api.bidi(CONTENT + "Write", [{"action": "STAT", "ref": name, "total": 1}])),
                         lambda: api.call(CONTENT + "Abort", {"ref": name}))
    for snapshotter in ("", "nonsense", "../overlayfs", LONG):
        fails(api.call, SNAPSHOTS + "Prepare", {"snapshotter": snapshotter, "key": "k"},
              codes=(C.INVALID_ARGUMENT, C.NOT_FOUND))
    for digest in ("", "x", "sha256:", "sha256:" + "0" * 63, "sha256:" + "G" * 64, "md5:" + "0" * 32, "sha256:../../x",
                   "sha256:" + "0" * 10000):
        for path in ("Info", "Delete", "Read"):
            call = api.stream if path == "Read" else api.call
            fails(call, CONTENT + path, {"digest": digest}, codes=(C.INVALID_ARGUMENT, C.NOT_FOUND))


def test_tasks_of_bad_ids(api):
    """There is no such container, whatever its name."""
    for bad in BAD_IDS:
        for method in ("Create", "Start", "Get", "Kill", "Delete", "Wait", "Pause", "ListPids"):
            fails(api.call, TASKS + method, {"container_id": bad}, codes=(C.NOT_FOUND, C.INVALID_ARGUMENT), timeout=5)
        for method in ("Exec", "DeleteProcess"):
            fails(api.call, TASKS + method, {"container_id": "c", "exec_id": bad}, timeout=5,
                  codes=(C.INVALID_ARGUMENT, C.NOT_FOUND))


def test_labels_beyond_limits(api):
    for labels in ({"k" * 4096: "v"}, {"k": "v" * 4096}, {"k" * 2000: "v" * 2097}, {"k": "v" * (1 << 20)}):
        for path, request in [
                (NAMESPACES + "Create", {"namespace": {"name": "n", "labels": labels}}),
                (CONTAINERS + "Create", container_request("c", labels)),
                (IMAGES + "Create", {"image": {"name": "i", "labels": labels, "target": {
                    "media_type": "x", "digest": "sha256:" + "0" * 64, "size": 1}}}),
                (SNAPSHOTS + "Prepare", {"snapshotter": "overlayfs", "key": "k", "labels": labels}),
                (LEASES + "Create", {"id": "l", "labels": labels})]:
            text = fails(api.call, path, request, codes=(C.INVALID_ARGUMENT,))
            assert "label key and value" in text, text
    api.call(NAMESPACES + "Create", {"namespace": {"name": "n", "labels": {"k": "v" * 4095}}})
    api.call(NAMESPACES + "Delete", {"name": "n"})


def test_a_hundred_thousand_labels(daemon):
    labels = {f"label-{i}": "value" for i in range(100000)}
    with unharmed(daemon, grow_kb=48 << 10):
        try:
            daemon.api.call(NAMESPACES + "Create", {"namespace": {"name": "n", "labels": labels}})
        except grpc.RpcError as error:
            assert error.code() in (C.INVALID_ARGUMENT, C.RESOURCE_EXHAUSTED)
        else:
            assert len(daemon.api.call(NAMESPACES + "Get", {"name": "n"}).namespace.labels) == 100000
            daemon.api.call(NAMESPACES + "Delete", {"name": "n"})


def filtered():
    """(path, request without filters, whether it is a stream)"""
    return [(CONTAINERS + "List", {}, False), (IMAGES + "List", {}, False), (LEASES + "List", {}, False),
            (CONTENT + "List", {}, True), (CONTENT + "ListStatuses", {}, False),
            (SNAPSHOTS + "List", {"snapshotter": "overlayfs"}, True), (EVENTS + "Subscribe", {}, True),
            ("containerd.services.introspection.v1.Introspection/Plugins", {}, False)]


def test_filters_beyond_limits(shared):
    """10^5 terms, 10^5 filters, and expressions that would take for ever: an answer at once."""
    api = shared.api
    with unharmed(shared):
        for filters in ([",".join(["id==a"] * 100000)], ["id==a" + "a" * 100000], ["id=="], ["id~=("], ["==="],
                        ["id~=" + "(" * 5000], ["id==\"" + "\\" * 70000], ["id~=/(.*)\\1/"], ["\x01"], ["a." * 40000 + "b"]):
            for path, request, is_stream in filtered():
                started = time.monotonic()
                call = api.stream if is_stream else api.call
                fails(call, path, {**request, "filters": filters}, codes=(C.INVALID_ARGUMENT,), timeout=5)
                assert time.monotonic() - started < 2, (path, filters[0][:50])
        for path, request, is_stream in filtered():
            started = time.monotonic()
            try:
                answer = (api.stream if is_stream else api.call)(path, {**request, "filters": ["id==a"] * 100000},
                                                                timeout=2)
                if is_stream:
                    list(answer)
            except grpc.RpcError as error:
                # More memory than a request of its size may take.
                assert error.code() == C.RESOURCE_EXHAUSTED or path.endswith("Subscribe"), (path, error)
            assert time.monotonic() - started < 2.5, path


EVIL = ["(a*)*b", "(a+)+$", "(x+x+)+y", "(a|a)*c", "(a|aa)+$", "(.*a){20}", "((a{0,100}){0,100}){0,100}", "(a?){60}a{60}",
        "(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)z", "a{65535}", "[a-z]{1000}{1000}", "(((((((((a*)*)*)*)*)*)*)*)*)*b",
        "(.{1,1000}){1,4}z", "(a|b|ab)*(a|b|ab)*(a|b|ab)*c"]


def test_patterns_that_explode(daemon):
    """Each against a thousand texts that are made to fail late."""
    api = daemon.api
    for i in range(20):
        api.call(NAMESPACES + "Create", {"namespace": {"name": f"n{i}"}})
    target = {"media_type": "x", "digest": "sha256:" + "0" * 64, "size": 1}
    for i in range(100):
        api.call(IMAGES + "Create", {"image": {"name": "a" * 200 + f"!{i}", "target": target}})
    with unharmed(daemon):
        for evil in EVIL:
            started = time.monotonic()
            try:
                api.call(IMAGES + "List", {"filters": [f"name~=/{evil}/"]}, timeout=10)
            except grpc.RpcError as error:
                assert error.code() == C.INVALID_ARGUMENT, (evil, error)
            assert time.monotonic() - started < 2, evil
    for image in api.call(IMAGES + "List").images:
        api.call(IMAGES + "Delete", {"name": image.name})
    for i in range(20):
        api.call(NAMESPACES + "Delete", {"name": f"n{i}"})


# --- time -------------------------------------------------------------------------------------------

def test_no_time_for_anything(shared):
    """A deadline of one millisecond, and of less, on every method."""
    with unharmed(shared):
        for path, kind in methods():
            for timeout in ("1m", "1u", "1n", "0S"):
                with h2.Connection(shared.address) as c:
                    streams = []
                    for _ in range(10):
                        stream = c.request(path, [("grpc-timeout", timeout), ("containerd-namespace", "default")])
                        c.data(stream, h2.message(filled(kind()).SerializeToString()), end_stream=True)
                        streams.append(stream)
                    for stream in streams:
                        c.reply(stream, 5)


def test_random_bytes(shared):
    """Noise behind a good beginning; what comes of it is the sender's affair alone."""
    import random
    rng = random.Random(7)
    with unharmed(shared):
        for _ in range(300):
            with h2.Connection(shared.address, polite=False) as c:
                c.preface()
                c.settings()
                for _ in range(rng.randrange(1, 30)):
                    c.frame(rng.randrange(12), rng.randrange(256), rng.randrange(8),
                            bytes(rng.randrange(256) for _ in range(rng.randrange(40))))
    alive(shared)
