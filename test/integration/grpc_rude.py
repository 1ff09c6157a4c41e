# SPDX-License-Identifier: Apache-2.0
"""A gRPC client over raw HTTP/2 frames, for tests that need to send what no library would.

Two modes:

    polite  Connection(path): sends the preface and SETTINGS, acknowledges SETTINGS and PING, and gives
            windows back while it reads. Connection.call() is a whole unary call.
    rude    Connection(path, polite=False): nothing is sent that the test does not send, nothing is
            answered by itself.

Frames are made by hand (Connection.frame() takes any type, flags, stream and even a lying length),
header blocks are literals without Huffman coding and without the dynamic table. What the server sends
is decoded: frames (Connection.read_frame()) and header blocks (HPACK with its dynamic table and the
Huffman codes of printable ASCII).

    with Connection("/run/wherry/wherry.sock") as c:
        reply = c.call("/grpc.health.v1.Health/Check")
        assert reply.grpc_status == 0

    with Connection(path) as c:
        stream = c.request("/grpc.health.v1.Health/Check", headers=[("content-type", "text/plain")])
        assert c.reply(stream).http_status == 415

    with Connection(path, polite=False) as c:
        c.preface()
        for _ in range(5000):
            c.ping()
        assert c.goaway() == ENHANCE_YOUR_CALM

Every read has a deadline (timeout_s of the connection); Timeout is raised when it passes. Writing to a
connection that the server has closed is not an error: the test learns of it from what it reads.
"""

import select
import socket
import struct
import time
from collections import namedtuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = 0, 1, 2, 3, 4, 5
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 6, 7, 8, 9

END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 0x1, 0x1, 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM = 4, 5, 6, 7
CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = 8, 9, 10, 11

Frame = namedtuple("Frame", "type flags stream payload")


class Timeout(Exception):
    """The server said nothing in time."""


class Closed(Exception):
    """The server closed the connection where an answer was expected."""


class Reply:
    """What came on one stream. Fields are None where nothing came."""

    def __init__(self):
        self.headers = []  # (name, value) of all header blocks, in order
        self.data = b""  # DATA, still with message prefixes
        self.ended = False  # END_STREAM
        self.reset = None  # code of RST_STREAM

    def header(self, name):
        """Last value of a header, or None."""
        for key, value in reversed(self.headers):
            if key == name:
                return value
        return None

    @property
    def http_status(self):
        value = self.header(":status")
        return None if value is None else int(value)

    @property
    def grpc_status(self):
        value = self.header("grpc-status")
        return None if value is None else int(value)

    @property
    def grpc_message(self):
        """With percent-encoding undone; None when absent."""
        value = self.header("grpc-message")
        return None if value is None else percent_decode(value)

    @property
    def messages(self):
        """Payloads of the whole messages in data."""
        found, rest = [], self.data
        while len(rest) >= 5:
            size = struct.unpack(">I", rest[1:5])[0]
            if len(rest) < 5 + size:
                break
            found.append(rest[5 : 5 + size])
            rest = rest[5 + size :]
        return found

    def __repr__(self):
        return "Reply(http %s, grpc %s %r, %d bytes, ended %s, reset %s)" % (
            self.http_status,
            self.grpc_status,
            self.grpc_message,
            len(self.data),
            self.ended,
            self.reset,
        )


def percent_decode(text):
    out, i, raw = bytearray(), 0, text.encode("latin-1")
    while i < len(raw):
        if raw[i : i + 1] == b"%" and i + 2 < len(raw):
            try:
                out.append(int(raw[i + 1 : i + 3], 16))
                i += 3
                continue
            except ValueError:
                pass
        out.append(raw[i])
        i += 1
    return out.decode("utf-8", "replace")


def message(payload=b"", compressed=0, length=None):
    """A message with its prefix; length may lie."""
    return struct.pack(">BI", compressed, len(payload) if length is None else length) + payload


# --- protobuf, as much as requests by hand need -------------------------------------------------


def varint(n):
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def pb_bytes(field, value):
    """A string, bytes or message field."""
    if isinstance(value, str):
        value = value.encode()
    return varint(field << 3 | 2) + varint(len(value)) + value


def pb_int(field, value):
    return varint(field << 3) + varint(value)


# --- HPACK ---------------------------------------------------------------------------------------

STATIC = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
] + [
    (name, "")
    for name in (
        "accept-language accept-ranges accept access-control-allow-origin age allow authorization "
        "cache-control content-disposition content-encoding content-language content-length "
        "content-location content-range content-type cookie date etag expect expires from host "
        "if-match if-modified-since if-none-match if-range if-unmodified-since last-modified link "
        "location max-forwards proxy-authenticate proxy-authorization range referer refresh "
        "retry-after server set-cookie strict-transport-security transfer-encoding user-agent vary "
        "via www-authenticate"
    ).split()
]

# Symbols by the length of their code, RFC 7541 appendix B; the codes are canonical, so that lengths
# are all there is to know. Longer ones belong to bytes that no header of ours holds.
HUFFMAN_LENGTHS = {
    5: "012aceiost",
    6: " %-./3456789=A_bdfghlmnpru",
    7: ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: "&*,;XZ",
    10: '!"()?',
    11: "'+|",
    12: "#>",
    13: "\0$@[]~",
    14: "^}",
    15: "<`{",
    19: "\\\xc3\xd0",
}


def _huffman_codes():
    codes, code, last = {}, 0, 5
    for length in sorted(HUFFMAN_LENGTHS):
        code <<= length - last
        last = length
        for symbol in HUFFMAN_LENGTHS[length]:
            codes[(length, code)] = symbol
            code += 1
    return codes


HUFFMAN = _huffman_codes()


def huffman_decode(raw):
    out, code, length = [], 0, 0
    for byte in raw:
        for bit in range(7, -1, -1):
            code, length = code << 1 | byte >> bit & 1, length + 1
            symbol = HUFFMAN.get((length, code))
            if symbol is not None:
                out.append(symbol)
                code = length = 0
    if length > 7 or code != (1 << length) - 1:
        raise ValueError("a Huffman code that is not known here")
    return "".join(out)


def hpack_integer(value, prefix_bits, first=0):
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first | value])
    out, value = bytearray([first | limit]), value - limit
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def hpack_encode(headers):
    """Literals never indexed by name, no Huffman coding; names and values are str or bytes."""
    out = bytearray()
    for pair in headers:
        out.append(0)
        for text in pair:
            raw = text if isinstance(text, bytes) else text.encode()
            out += hpack_integer(len(raw), 7) + raw
    return bytes(out)


class HpackDecoder:
    def __init__(self):
        self.dynamic = []  # newest first
        self.size, self.max_size = 0, 4096

    def _integer(self, raw, i, bits):
        limit = (1 << bits) - 1
        value, i = raw[i] & limit, i + 1
        if value < limit:
            return value, i
        shift = 0
        while True:
            byte, i = raw[i], i + 1
            value += (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value, i

    def _string(self, raw, i):
        coded = raw[i] & 0x80
        size, i = self._integer(raw, i, 7)
        text = raw[i : i + size]
        return (huffman_decode(text) if coded else text.decode("latin-1")), i + size

    def _entry(self, index):
        if index <= len(STATIC):
            return STATIC[index - 1]
        return self.dynamic[index - 1 - len(STATIC)]

    def _evict(self):
        while self.size > self.max_size:
            name, value = self.dynamic.pop()
            self.size -= len(name) + len(value) + 32

    def decode(self, raw):
        headers, i = [], 0
        while i < len(raw):
            first = raw[i]
            if first & 0x80:
                index, i = self._integer(raw, i, 7)
                headers.append(self._entry(index))
                continue
            if first & 0xE0 == 0x20:
                self.max_size, i = self._integer(raw, i, 5)
                self._evict()
                continue
            indexed = first & 0x40
            index, i = self._integer(raw, i, 6 if indexed else 4)
            if index:
                name = self._entry(index)[0]
            else:
                name, i = self._string(raw, i)
            value, i = self._string(raw, i)
            headers.append((name, value))
            if indexed:
                self.dynamic.insert(0, (name, value))
                self.size += len(name) + len(value) + 32
                self._evict()
        return headers


# --- the connection ------------------------------------------------------------------------------


class Connection:
    """One connection. address: path of a unix socket, or a connected socket (then owned)."""

    def __init__(self, address, polite=True, settings=(), timeout_s=15.0):
        if isinstance(address, socket.socket):
            self.socket = address
        else:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            self.socket.connect(address)
        self.socket.setblocking(False)
        self.polite = polite
        self.timeout_s = timeout_s
        self.buffer = b""
        self.is_closed = False  # by the server
        self.decoder = HpackDecoder()
        self.replies = {}
        self.next_stream = 1
        self.goaway_code = None
        self.goaway_text = b""
        self.block = None  # (stream, END_STREAM, bytes) of a header block that goes on
        if polite:
            self.preface()
            self.settings(settings)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    # Sending. While the socket is full what the server sends is taken in, so that a test cannot block
    # itself; it is looked at when the test reads.

    def raw(self, data):
        """Any bytes. False once the server has closed the connection."""
        view, end = memoryview(data), time.monotonic() + self.timeout_s
        while len(view) > 0:
            if self.is_closed:
                return False
            readable, writable, _ = select.select(
                [self.socket], [self.socket], [], max(0, end - time.monotonic())
            )
            if not readable and not writable:
                raise Timeout("the server does not read")
            if readable:
                self._receive()
            if writable:
                try:
                    view = view[self.socket.send(view[: 1 << 20]) :]
                except BlockingIOError:
                    pass
                except OSError:
                    self._receive()
                    self.is_closed = True
        return not self.is_closed

    def preface(self):
        return self.raw(PREFACE)

    def frame(self, type_, flags=0, stream=0, payload=b"", length=None):
        """One frame; length may lie, stream may have the reserved bit."""
        size = len(payload) if length is None else length
        return self.raw(
            struct.pack(">BHBBI", size >> 16 & 0xFF, size & 0xFFFF, type_, flags, stream) + payload
        )

    def settings(self, entries=(), ack=False):
        payload = b"".join(struct.pack(">HI", key, value) for key, value in entries)
        return self.frame(SETTINGS, ACK if ack else 0, 0, payload)

    def ping(self, data=b"\2\4\x10\x10\x09\x0e\7\7", ack=False):
        return self.frame(PING, ACK if ack else 0, 0, data)

    def rst_stream(self, stream, code=CANCEL):
        return self.frame(RST_STREAM, 0, stream, struct.pack(">I", code))

    def window_update(self, stream, increment):
        return self.frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))

    def priority(self, stream, depends_on=0, weight=15):
        return self.frame(PRIORITY, 0, stream, struct.pack(">IB", depends_on, weight))

    def data(self, stream, payload=b"", end_stream=False):
        """DATA in frames of at most 16384 bytes. Keeps to no window."""
        pieces = [payload[i : i + 16384] for i in range(0, len(payload), 16384)] or [b""]
        for i, piece in enumerate(pieces):
            last = i == len(pieces) - 1
            self.frame(DATA, END_STREAM if end_stream and last else 0, stream, piece)

    def headers(self, stream, headers, end_stream=False, end_headers=True, block=None):
        """HEADERS, with CONTINUATION behind it where the block is long. block: raw HPACK bytes."""
        block = hpack_encode(headers) if block is None else block
        flags = END_STREAM if end_stream else 0
        pieces = [block[i : i + 16384] for i in range(0, len(block), 16384)] or [b""]
        for i, piece in enumerate(pieces):
            if end_headers and i == len(pieces) - 1:
                flags |= END_HEADERS
            self.frame(CONTINUATION if i else HEADERS, flags, stream, piece)
            flags = 0

    def request(self, path, headers=(), end_stream=False, stream=None):
        """Opens a stream with the headers of a gRPC request and returns its id. headers replaces those
        of the same name (a value of None drops it) and adds the others, repeated ones too."""
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        names = [name for name, _ in headers]
        fields = [field for field in fields if field[0] not in names]
        fields += [field for field in headers if field[1] is not None]
        fields.sort(key=lambda field: not field[0].startswith(":"))
        if stream is None:
            stream, self.next_stream = self.next_stream, self.next_stream + 2
        self.replies[stream] = Reply()
        self.headers(stream, fields, end_stream)
        return stream

    # Receiving.

    def _receive(self):
        """Takes in what is there."""
        try:
            got = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        if not got:
            self.is_closed = True
        self.buffer += got

    def read_frame(self, timeout_s=None):
        """The next frame, or None when the server has closed the connection. Polite connections answer
        it first. Replies are kept up to date."""
        end = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while True:
            if len(self.buffer) >= 9:
                high, low, type_, flags, stream = struct.unpack(">BHBBI", self.buffer[:9])
                size = high << 16 | low
                if len(self.buffer) >= 9 + size:
                    frame = Frame(type_, flags, stream & 0x7FFFFFFF, self.buffer[9 : 9 + size])
                    self.buffer = self.buffer[9 + size :]
                    self._take(frame)
                    return frame
            if self.is_closed:
                return None
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise Timeout("no frame came")
            self._receive()

    def _take(self, frame):
        reply = self.replies.get(frame.stream)
        if frame.type == DATA:
            if reply:
                reply.data += frame.payload
                reply.ended |= bool(frame.flags & END_STREAM)
            if self.polite and frame.payload:
                self.window_update(0, len(frame.payload))
                if not frame.flags & END_STREAM:
                    self.window_update(frame.stream, len(frame.payload))
        elif frame.type == HEADERS:
            self.block = (frame.stream, bool(frame.flags & END_STREAM), frame.payload)
        elif frame.type == CONTINUATION and self.block:
            self.block = (self.block[0], self.block[1], self.block[2] + frame.payload)
        elif frame.type == RST_STREAM and reply:
            reply.reset = struct.unpack(">I", frame.payload)[0]
        elif frame.type == GOAWAY:
            self.goaway_code = struct.unpack(">I", frame.payload[4:8])[0]
            self.goaway_text = frame.payload[8:]
        elif frame.type == SETTINGS and self.polite and not frame.flags & ACK:
            self.settings(ack=True)
        elif frame.type == PING and self.polite and not frame.flags & ACK:
            self.ping(frame.payload, ack=True)
        if frame.type in (HEADERS, CONTINUATION) and frame.flags & END_HEADERS and self.block:
            stream, ended, block = self.block
            self.block = None
            headers = self.decoder.decode(block)
            if stream in self.replies:
                self.replies[stream].headers += headers
                self.replies[stream].ended |= ended

    def reply(self, stream, timeout_s=None):
        """Reads until the stream has ended or was reset. Closed when the connection ends before."""
        end = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        reply = self.replies[stream]
        while not reply.ended and reply.reset is None:
            if self.read_frame(max(0, end - time.monotonic())) is None:
                raise Closed("connection closed, GOAWAY %s %r" % (self.goaway_code, self.goaway_text))
        return reply

    def goaway(self, timeout_s=None):
        """Reads until the connection is closed. The code of its GOAWAY, None when there was none."""
        end = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while self.read_frame(max(0, end - time.monotonic())) is not None:
            pass
        return self.goaway_code

    def call(self, path, payload=b"", headers=(), timeout_s=None):
        """One polite unary call: the request as serialized protobuf, a Reply back."""
        stream = self.request(path, headers)
        self.data(stream, message(payload), end_stream=True)
        return self.reply(stream, timeout_s)
