# SPDX-License-Identifier: Apache-2.0
"""A ttrpc client by hand, polite when asked to be and rude when told to.

Nothing here but the standard library, so that a test can send any bytes at any moment and look at
exactly what comes back. A polite call:

    with ttrpc_rude.connect("/run/wherry/wherry.sock.ttrpc") as c:
        code, message, payload = c.call("containerd.task.v2.Task", "State", payload)

A rude one:

    c.send_raw(b"\\x00\\x40")                          # half a header, and then nothing
    c.send_frame(2, REQUEST, b"")                      # an even stream id
    c.send_frame(1, REQUEST, b"", length=1 << 30)      # a length that is not true
    frame = c.recv_frame(timeout=1)                    # Frame, or None when the peer has closed

A frame is a header of ten bytes (u32 length, u32 stream id, u8 type, u8 flags, all big endian) and its
payload. A request's payload is the message ttrpc.Request, a response's ttrpc.Response.
"""

import collections
import socket
import struct
import time

HEADER_SIZE = 10
PAYLOAD_MAX = 4 << 20

REQUEST, RESPONSE, DATA = 1, 2, 3
REMOTE_CLOSED, REMOTE_OPEN, NO_DATA = 1, 2, 4

Frame = collections.namedtuple("Frame", "stream_id type flags payload")
"""One frame as it came."""

Answer = collections.namedtuple("Answer", "code message payload")
"""What a call came to: code 0 and a payload, or a code and a message."""


class Closed(Exception):
    """The peer closed the connection."""


class Timeout(Exception):
    """Nothing came in time."""


# --- protobuf, as much of it as the envelopes need --------------------------------------------


def varint(n):
    """An unsigned number (negative ones as their 64-bit two's complement)."""
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, value):
    """One field: bytes and str are length-delimited, an int is a varint."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, (bytes, bytearray)):
        return varint(number << 3 | 2) + varint(len(value)) + bytes(value)
    return varint(number << 3) + varint(value)


def _read_varint(data, at):
    n = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a varint does not end")
        byte = data[at]
        at += 1
        n |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return n, at


def fields(data):
    """All fields of a message in their order: a list of (number, int or bytes)."""
    out, at = [], 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _read_varint(data, at)
        else:
            if kind == 2:
                n, at = _read_varint(data, at)
            elif kind in (1, 5):
                n = 8 if kind == 1 else 4
            else:
                raise ValueError("wire type %d" % kind)
            value = data[at : at + n]
            at += n
            if len(value) != n:
                raise ValueError("a field goes beyond the end")
        out.append((tag >> 3, value))
    return out


def get(data, number, default=None):
    """The last value of a field of a message, as proto3 reads it."""
    for n, value in fields(data):
        if n == number:
            default = value
    return default


def encode_request(service, method, payload=b"", metadata=None, timeout=None):
    """A ttrpc.Request. metadata: a dict or a list of pairs; timeout in seconds."""
    out = field(1, service) + field(2, method)
    if payload:
        out += field(3, payload)
    if timeout is not None:
        out += field(4, int(timeout * 1e9))
    pairs = metadata.items() if isinstance(metadata, dict) else metadata or ()
    for key, value in pairs:
        out += field(5, field(1, key) + field(2, value))
    return out


def decode_response(data):
    """A ttrpc.Response as an Answer."""
    status = get(data, 1, b"")
    return Answer(get(status, 1, 0), get(status, 2, b"").decode(), get(data, 2, b""))


def encode_frame(stream_id, type_, payload=b"", flags=0, length=None):
    """One frame; `length` replaces the true length in the header."""
    n = len(payload) if length is None else length
    return struct.pack(">IIBB", n, stream_id, type_, flags) + payload


# --- the connection ---------------------------------------------------------------------------


class Connection:
    """One connection. Methods that wait take a timeout in seconds and raise Timeout after it."""

    def __init__(self, sock):
        self.sock = sock
        self.next_id = 1
        self._in = bytearray()
        self._answers = {}  # of streams that another wait came across

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def reset(self):
        """Closes with bytes unread, which the peer sees as ECONNRESET where there are any."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def half_close(self):
        """No more bytes from us; reading goes on."""
        self.sock.shutdown(socket.SHUT_WR)

    # Rude: bytes and frames.

    def send_raw(self, data, timeout=10.0):
        """Sends any bytes. Closed when the peer has gone, Timeout when it does not read."""
        self.sock.settimeout(timeout)
        try:
            self.sock.sendall(data)
        except socket.timeout:
            raise Timeout("the peer does not read") from None
        except (BrokenPipeError, ConnectionResetError):
            raise Closed() from None

    def send_frame(self, stream_id, type_, payload=b"", flags=0, length=None, timeout=10.0):
        """Sends one frame with any header."""
        self.send_raw(encode_frame(stream_id, type_, payload, flags, length), timeout)

    def recv_raw(self, size=65536, timeout=10.0):
        """At most `size` bytes; b"" when the peer has closed. Takes no part in frames."""
        self.sock.settimeout(timeout)
        try:
            return self.sock.recv(size)
        except socket.timeout:
            raise Timeout("nothing came") from None
        except ConnectionResetError:
            return b""

    def recv_frame(self, timeout=10.0):
        """The next Frame, or None when the peer has closed (in the middle of one: Closed)."""
        deadline = time.monotonic() + timeout
        while True:
            if len(self._in) >= HEADER_SIZE:
                n, stream_id, type_, flags = struct.unpack_from(">IIBB", self._in)
                if len(self._in) >= HEADER_SIZE + n:
                    payload = bytes(self._in[HEADER_SIZE : HEADER_SIZE + n])
                    del self._in[: HEADER_SIZE + n]
                    return Frame(stream_id, type_, flags, payload)
            data = self.recv_raw(timeout=max(deadline - time.monotonic(), 0.001))
            if not data:
                if self._in:
                    raise Closed("in the middle of a frame")
                return None
            self._in += data

    def is_closed(self, timeout=10.0):
        """Waits for the peer to close, dropping what it still sends. False when it does not."""
        deadline = time.monotonic() + timeout
        try:
            while self.recv_raw(timeout=max(deadline - time.monotonic(), 0.001)):
                pass
            return True
        except Timeout:
            return False

    # Polite: calls.

    def start(self, service, method, payload=b"", metadata=None, timeout=None, namespace=None):
        """Sends a request and returns its stream id, to be waited for with wait()."""
        metadata = dict(metadata or {})
        if namespace is not None:
            metadata["containerd-namespace-ttrpc"] = namespace
        stream_id = self.next_id
        self.next_id += 2
        self.send_frame(
            stream_id, REQUEST, encode_request(service, method, payload, metadata, timeout)
        )
        return stream_id

    def wait(self, stream_id, timeout=10.0):
        """The Answer on a stream; those of other streams are kept for their own wait()."""
        deadline = time.monotonic() + timeout
        while stream_id not in self._answers:
            frame = self.recv_frame(max(deadline - time.monotonic(), 0.001))
            if frame is None:
                raise Closed()
            if frame.type != RESPONSE:
                raise ValueError("a frame of type %d where an answer was due" % frame.type)
            self._answers.setdefault(frame.stream_id, []).append(decode_response(frame.payload))
        answers = self._answers[stream_id]
        answer = answers.pop(0)
        if not answers:
            del self._answers[stream_id]
        return answer

    def call(self, service, method, payload=b"", timeout=10.0, metadata=None, namespace=None):
        """One call from request to Answer (code, message, payload). The timeout is ours alone; to
        give the peer one, use start(timeout=)."""
        stream_id = self.start(service, method, payload, metadata, namespace=namespace)
        return self.wait(stream_id, timeout)


def connect(path, timeout=10.0, receive_buffer=None):
    """Connects to a unix socket. receive_buffer: a small one makes the peer's writes block soon."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(timeout)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return Connection(sock)
