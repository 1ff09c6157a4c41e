# SPDX-License-Identifier: Apache-2.0
"""Layers and archives made byte by byte, and wherry-worker run on them."""
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile

BIN = os.environ.get("WHERRY_BIN", os.path.join(os.path.dirname(__file__), "../../build/bin"))
WORKER = os.path.abspath(os.path.join(BIN, "wherry-worker"))


def member(name, kind=tarfile.REGTYPE, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = fields.pop("mode", 0o755 if kind == tarfile.DIRTYPE else 0o644)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def make_tar(*members, format=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def directory(name, **fields):
    return member(name, tarfile.DIRTYPE, **fields)


def symlink(name, target):
    return member(name, tarfile.SYMTYPE, linkname=target)


def hardlink(name, target):
    return member(name, tarfile.LNKTYPE, linkname=target)


def device(name, major, minor, kind=tarfile.CHRTYPE):
    return member(name, kind, devmajor=major, devminor=minor)


def raw_header(name, size=0, kind=b"0", linkname=b"", magic=b"ustar\x0000"):
    """One header by hand, for what tarfile refuses to write."""
    size_field = size if isinstance(size, bytes) else b"%011o\0" % size
    head = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size_field + b"%011o\0" % 0
    tail = kind + linkname.ljust(100, b"\0") + magic
    block = (head + b" " * 8 + tail).ljust(512, b"\0")
    return head + b"%06o\0 " % sum(block) + block[len(head) + 8 :]


def pad(data):
    return data + b"\0" * (-len(data) % 512)


def pax(**records):
    body = b""
    for key, value in records.items():
        value = value if isinstance(value, bytes) else value.encode()
        rest = b" " + key.encode() + b"=" + value + b"\n"
        size = len(rest) + 1
        while len(str(size)) + len(rest) != size:
            size += 1
        body += str(size).encode() + rest
    return raw_header(b"pax", len(body), b"x") + pad(body)


END = b"\0" * 1024


def run_apply(target, blob, *arguments, whiteouts="overlay", format="auto", parents=(), timeout=50):
    """Returns the JSON result; `blob` is bytes or an open file."""
    target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    parent_fds = [os.open(p, os.O_RDONLY | os.O_DIRECTORY) for p in parents]
    command = [WORKER, "apply", "--format", format, "--whiteouts", whiteouts, *arguments]
    if parents:
        command += ["--parents", str(len(parents))]

    # Numbers are arranged by the shell: python can pass fds on, but not renumber them.
    order = [target_fd, *parent_fds]
    high = [os.dup2(fd, 100 + i) for i, fd in enumerate(order)]
    moves = " ".join(f"{3 + i}<&{fd}" for i, fd in enumerate(high))
    script = f'exec "$@" {moves}'
    try:
        feed = {"stdin": blob} if hasattr(blob, "fileno") else {"input": blob}
        done = subprocess.run(
            ["bash", "-c", script, "bash", *command],
            capture_output=True,
            pass_fds=high,
            timeout=timeout,
            **feed,
        )
    finally:
        for fd in set(order + high):
            os.close(fd)
    assert done.returncode in (0, 1), (done.returncode, done.stderr)
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 1, (lines, done.stderr)
    result = json.loads(lines[0])
    assert ("error" in result) == (done.returncode == 1), result
    return result


def run_import(blob, *arguments):
    done = subprocess.run(
        [WORKER, "import", *arguments], input=blob, capture_output=True, timeout=50
    )
    records, at = [], 0
    while at < len(done.stdout):
        line_end = done.stdout.index(b"\n", at)
        record = json.loads(done.stdout[at:line_end])
        at = line_end + 1
        if "size" in record:
            record["data"] = done.stdout[at : at + record["size"]]
            at += record["size"]
        records.append(record)
    return done.returncode, records, done.stderr.decode()


def zstd(data, *options):
    return subprocess.run(["zstd", "-qc", *options], input=data, capture_output=True, check=True).stdout


def snapshot_of(tree):
    found = {}
    for folder, dirs, files in os.walk(tree):
        for name in dirs + files:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            found[os.path.relpath(path, tree)] = (st.st_mode, st.st_size, st.st_nlink, st.st_mtime_ns)
    return found


def is_whiteout(path):
    st = os.lstat(path)
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()
