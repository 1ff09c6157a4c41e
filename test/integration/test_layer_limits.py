# SPDX-License-Identifier: Apache-2.0
"""wherry-worker: layers that are many, large, compressed, broken, or none."""
import gzip
import io
import os
import subprocess
import time
import zlib

import pytest

from harness.memory import is_sanitized
from integration.layers import (END, WORKER, device, digest, directory, make_tar, member, pad, pax, raw_header,
                                run_apply, zstd)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers are applied by root")


# Many, large, limited.


def test_a_hundred_thousand_entries(target):
    block = io.BytesIO()
    for i in range(100_000):
        block.write(raw_header(b"d%03d/f%05d" % (i // 1000, i)))
    layer = gzip.compress(block.getvalue() + END, 1)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", target], check=True)
    try:
        started = time.monotonic()
        result = run_apply(target, layer)
        elapsed = time.monotonic() - started
        names = os.listdir(target)
    finally:
        subprocess.run(["umount", target], check=True)
    assert result["entries"] == 100_000
    assert len(names) == 100
    assert elapsed < 30


def test_device_bomb_stops_at_the_limit(target):
    layer = make_tar(*[device(f"dev{i}", 1, 3) for i in range(500)])
    assert run_apply(target, layer, "--max-entries", "100")["code"] == 8
    assert len(os.listdir(target)) == 100


def test_bytes_stop_at_the_limit(target):
    bomb = gzip.compress(make_tar(member("zeros", data=b"\0" * (64 << 20))), 9)
    result = run_apply(target, bomb, "--max-bytes", str(8 << 20))
    assert result["code"] == 8
    assert sum(os.stat(target / n).st_size for n in os.listdir(target)) <= 8 << 20


def test_full_disk(target):
    small = target / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        result = run_apply(small, make_tar(member("big", data=b"x" * (4 << 20))))
    finally:
        subprocess.run(["umount", small], check=True)
    assert result["code"] == 8
    assert "no space left on device" in result["error"]


def test_memory_stays_small(target):
    """A large layer goes through; it is not collected."""
    layer = gzip.compress(make_tar(*[member(f"f{i}", data=os.urandom(1 << 20)) for i in range(64)]), 1)
    script = (
        "import resource,subprocess,sys;"
        "subprocess.run(sys.argv[1:], stdin=0, stdout=2, pass_fds=[3], check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    blob = target / "blob"
    blob.write_bytes(layer)
    root = target / "r"
    root.mkdir()
    done = subprocess.run(
        ["bash", "-c", 'exec "$@" 3<"$0"', root, "python3", "-c", script, WORKER, "apply",
         "--format", "gzip", "--whiteouts", "overlay"],
        stdin=open(blob, "rb"), capture_output=True, check=True)
    assert int(done.stdout) < 32 * 1024 or is_sanitized(), done.stdout


# ---- compression -------------------------------------------------------------------------------

SMALL = make_tar(member("a", data=b"hello " * 1000), directory("d"), member("d/b", data=os.urandom(70000)))


@pytest.mark.parametrize("format", ["auto", "gzip"])
def test_gzip(target, format):
    blob = gzip.compress(SMALL)
    result = run_apply(target, blob, format=format)
    assert (result["digest"], result["size"]) == (digest(SMALL), len(SMALL))
    assert (result["blob_digest"], result["blob_size"]) == (digest(blob), len(blob))


def test_gzip_header_fields(target):
    raw = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = raw.compress(SMALL) + raw.flush()
    trailer = zlib.crc32(SMALL).to_bytes(4, "little") + len(SMALL).to_bytes(4, "little")
    head = b"\x1f\x8b\x08\x1e" + b"\0" * 6 + b"\x05\0extra" + b"name\0" + b"comment\0"
    head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    assert run_apply(target, head + body + trailer)["digest"] == digest(SMALL)


@pytest.mark.parametrize("step", [1, 511, 5000, 30000])
def test_gzip_members(target, step):
    if step == 1:
        blob = b"".join(gzip.compress(SMALL[i : i + 97]) for i in range(0, len(SMALL), 97))
    else:
        blob = b"".join(gzip.compress(SMALL[i : i + step]) for i in range(0, len(SMALL), step))
    blob += gzip.compress(b"")
    result = run_apply(target, blob)
    assert (result["digest"], result["blob_digest"]) == (digest(SMALL), digest(blob))


@pytest.mark.parametrize("garbage", [b"\0" * 1000, b"garbage", b"\x1f", b"x" * 600_000],
                         ids=["zeros", "text", "half a magic", "long"])
def test_gzip_trailing_garbage(target, garbage):
    blob = gzip.compress(SMALL) + garbage
    result = run_apply(target, blob)
    assert (result["digest"], result["blob_digest"]) == (digest(SMALL), digest(blob))


def test_gzip_truncated_anywhere(target):
    blob = gzip.compress(SMALL)
    for cut in [1, 2, 5, 9, 10, 11, 100, len(blob) // 2, len(blob) - 9, len(blob) - 8, len(blob) - 1]:
        result = run_apply(target, blob[:cut], format="gzip")
        assert result.get("code") == 3, (cut, result)


def test_gzip_flipped_bits(target):
    blob = gzip.compress(SMALL)
    for at in [0, 1, 2, 20, len(blob) // 2, len(blob) - 8, len(blob) - 5, len(blob) - 4, len(blob) - 1]:
        broken = bytearray(blob)
        broken[at] ^= 0x41
        result = run_apply(target, bytes(broken), format="gzip")
        # A bit may mean nothing (the code of a symbol that never comes): then all that came out is as it was, and
        # only the blob's digest tells. Other bytes than the checksum vouches for are never taken.
        unharmed = (result.get("digest"), result.get("blob_digest")) == (digest(SMALL), digest(bytes(broken)))
        assert result.get("code") == 3 or unharmed, (at, result)


def test_zstd(target):
    frames = zstd(SMALL[:50000], "-3") + b"\x53\x2a\x4d\x18\x05\0\0\0skip!" + zstd(SMALL[50000:], "-19")
    result = run_apply(target, frames)
    assert (result["digest"], result["blob_digest"]) == (digest(SMALL), digest(frames))
    skip_first = b"\x50\x2a\x4d\x18\x01\0\0\0s" + zstd(SMALL)
    assert run_apply(target, skip_first)["digest"] == digest(SMALL)


def test_zstd_windows(target):
    assert run_apply(target, zstd(SMALL, "--long=27"))["digest"] == digest(SMALL)
    # A frame that asks for a window of 2 GiB before its content begins.
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + b"\xa8" + b"\x01\x00\x00"
    assert run_apply(target, frame)["code"] == 3


def test_zstd_broken(target):
    blob = zstd(SMALL)
    for cut in [4, 5, 20, len(blob) // 2, len(blob) - 1]:
        assert run_apply(target, blob[:cut], format="zstd")["code"] == 3
    flipped = bytearray(blob)
    flipped[len(blob) // 2] ^= 0x10
    assert run_apply(target, bytes(flipped))["code"] == 3
    assert run_apply(target, blob + b"garbage")["code"] == 3


def test_format_is_what_was_said(target):
    assert run_apply(target, SMALL, format="gzip")["code"] == 3
    assert run_apply(target, SMALL, format="zstd")["code"] == 3
    assert run_apply(target, gzip.compress(SMALL), format="tar")["code"] == 3


# Archives that are none.


def test_empty_layers(target):
    for layer in (b"", b"\0" * 512, END, b"\0" * 10240):
        result = run_apply(target, layer)
        assert (result["entries"], result["digest"]) == (0, digest(layer))


def test_bytes_behind_the_end_count(target):
    layer = make_tar(member("x")) + b"\0" * 100_000 + b"tail"
    result = run_apply(target, layer)
    assert (result["digest"], result["size"]) == (digest(layer), len(layer))


def test_truncated_tar(target):
    layer = make_tar(member("x", data=b"y" * 5000), member("z"))
    for cut in (100, 511, 513, 1500, 3000):
        assert run_apply(target, layer[:cut])["code"] == 3, cut


@pytest.mark.parametrize("junk", [b"junk" * 1000, b"\xff" * 2048, b'{"json": true}', b"\x80" * 4096],
                         ids=["text", "ones", "json", "bytes"])
def test_no_tar_at_all(target, junk):
    assert run_apply(target, junk, format="tar")["code"] == 3


def test_huge_pax_header(target):
    body = b"x" * (3 << 20)
    layer = raw_header(b"pax", len(body), b"x") + pad(body) + raw_header(b"file") + END
    assert run_apply(target, layer)["code"] in (3, 8)


def test_sparse_map_bomb(target):
    entries = 200_000
    body = b"%d\n" % entries + b"".join(b"%d\n1\n" % (i * 2) for i in range(entries))
    layer = (
        pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s",
               "GNU.sparse.realsize": "400000"})
        + raw_header(b"s", len(pad(body))) + pad(body) + END
    )
    started = time.monotonic()
    assert run_apply(target, layer).get("code", 3) in (3, 8)
    assert time.monotonic() - started < 10
