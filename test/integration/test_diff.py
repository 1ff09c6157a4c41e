# SPDX-License-Identifier: Apache-2.0
"""Diff: what changed in a snapshot, as a layer. Whether it is right is told by applying it: Apply on the parent must
give the tree that was compared. Tests with `both` hold for containerd as well."""
import collections
import contextlib
import gzip
import hashlib
import io
import os
import pathlib
import signal
import socket
import stat
import subprocess
import tarfile
import threading
import time

import grpc
import pytest

from harness.api import Api
from integration.test_content_snapshots import (CONTENT, DIFF, LEASES, TAR, Writer, apply_layer, commit, digest_of, fails,
                                                prepare, put, read)
from integration.test_full_disk import MIB, sentence, small_root  # noqa: F401 (a fixture)

GZIP, ZSTD = TAR + "+gzip", TAR + "+zstd"
OLD = 1_500_000_000_123_456_789  # nanoseconds
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep


# ---- trees -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(mounts, path):
    """The snapshot as a container would see it."""
    path.mkdir(exist_ok=True)
    for m in mounts:
        flags = [o for o in m.options if o not in ("rbind", "rw")]
        kind = ["--rbind"] if "rbind" in m.options else ["-t", m.type]
        subprocess.run(["mount", *kind, *(["-o", ",".join(flags)] if flags else []), m.source, path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def tree(root):
    """Everything that a layer is to carry, by name."""
    found, links = {}, collections.defaultdict(list)
    for base, dirs, names in os.walk(os.fsencode(root)):
        for name in dirs + names:
            path = os.path.join(base, name)
            s, relative = os.lstat(path), os.path.relpath(path, os.fsencode(root))
            entry = {"mode": oct(s.st_mode), "owner": (s.st_uid, s.st_gid), "mtime": s.st_mtime_ns, "rdev": s.st_rdev}
            if stat.S_ISLNK(s.st_mode):
                entry["target"] = os.readlink(path)
            else:
                entry["xattrs"] = {x: os.getxattr(path, x) for x in os.listxattr(path)
                                   if x.startswith("user.") or x == "security.capability"}
            if stat.S_ISREG(s.st_mode):
                with open(path, "rb") as file:
                    entry["content"] = s.st_size, hashlib.sha256(file.read()).hexdigest()
            if not stat.S_ISDIR(s.st_mode) and s.st_nlink > 1:
                links[(s.st_dev, s.st_ino)].append(relative)
            found[relative] = entry
    for group in links.values():
        for path in group:
            found[path]["links"] = sorted(group)
    return found


def coarse(entries):
    """What containerd's layers carry of it: whole seconds, one kind of xattr, and no times of directories in which only
    a name went away."""
    for entry in entries.values():
        entry["mtime"] = None if entry["mode"].startswith("0o4") else entry["mtime"] // 10**9
        if "xattrs" in entry:
            entry["xattrs"] = {k: v for k, v in entry["xattrs"].items() if k == "security.capability"}
    return entries


def write(path, data=b"", mode=0o644, when=OLD):
    path.write_bytes(data)
    path.chmod(mode)
    os.utime(path, ns=(when, when))


def make_base(root):
    for d in ("d", "d/sub", "kept", "kept/below", "emptied", "goes", "goes/deep", "to-file", "again", "mode-of-dir", "time-of-dir"):
        (root / d).mkdir()
    for f in ("d/content", "d/sub/x", "kept/same", "kept/below/same", "emptied/1", "emptied/2", "goes/deep/f", "goes-file",
              "to-file/in", "again/old", "to-dir", "to-link", "mode", "owner", "time", "setuid", "xattr", "caps", "one",
              "unlinked", "shorter", "same-time"):
        write(root / f, f.encode())
    write(root / "whole-second", b"1111", when=OLD // 10**9 * 10**9)
    os.link(root / "one", root / "two")
    os.link(root / "unlinked", root / "unlinked-too")
    (root / "link").symlink_to("one")
    os.mkfifo(root / "fifo-goes")
    os.mknod(root / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    (root / "sparse").write_bytes(b"begin")
    os.truncate(root / "sparse", 3 * MIB)
    for d, _, _ in os.walk(root, topdown=False):
        if d != str(root):
            os.utime(d, ns=(OLD, OLD))


def change(root):
    write(root / "d/content", b"other content", when=OLD + 1)
    write(root / "d/new", b"new")
    (root / "d/sub/deeper/still").mkdir(parents=True)
    write(root / "d/sub/deeper/still/f", b"f")
    for gone in ("emptied/1", "emptied/2", "goes-file", "goes/deep/f", "to-file/in", "again/old", "to-dir", "to-link",
                 "unlinked-too", "fifo-goes"):
        (root / gone).unlink()
    for gone in ("goes/deep", "goes", "to-file", "again"):
        (root / gone).rmdir()
    write(root / "to-file", b"a file now")
    (root / "to-dir").mkdir()
    write(root / "to-dir/in", b"in")
    (root / "to-link").symlink_to("../../..")
    (root / "again").mkdir()
    write(root / "again/new", b"new")
    (root / "mode").chmod(0o600)
    (root / "mode-of-dir").chmod(0o1777)
    os.chown(root / "owner", 1000, 70000)
    os.utime(root / "time", ns=(OLD, OLD + 10**9))
    os.utime(root / "time-of-dir", ns=(OLD, OLD + 5))
    (root / "setuid").chmod(0o4711)
    os.setxattr(root / "xattr", "user.some.thing", b"\x00value\xff")
    os.setxattr(root / "d/sub", "user.of-a-directory", b"")
    os.setxattr(root / "caps", "security.capability", CAPABILITY)
    write(root / "shorter", b"s", when=OLD)
    write(root / "whole-second", b"2222", when=OLD // 10**9 * 10**9)
    os.link(root / "kept/same", root / "kept-too")
    os.link(root / "d/new", root / "d/sub/new-too")
    (root / "link").unlink()
    (root / "link").symlink_to("two")
    os.mkfifo(root / "fifo", 0o622)
    os.mknod(root / "block", 0o640 | stat.S_IFBLK, os.makedev(7, 300))
    (root / "device").unlink()
    os.mknod(root / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    with open(root / "sparse", "r+b") as file:
        file.seek(2 * MIB)
        file.write(b"in the middle")
    with open(root / "huge-hole", "wb") as file:
        file.truncate(20 * MIB)
    write(root / ("n" * 255), b"long")
    long = root
    for part in ("p" * 200, "q" * 200, "r" * 200):
        long = long / part
        long.mkdir()
    write(long / "f", b"below a long name")
    for odd in (b"new\nline", b"latin\xe4", "e\u0301".encode(), b"\xff\xfe", b" ", b"back\\slash", b"..a", b"=", b"[1]*"):
        with open(os.path.join(os.fsencode(root), odd), "wb") as file:
            file.write(odd)
    (root / "loop").symlink_to("loop")
    (root / "d/up").symlink_to("..")
    (root / "old").symlink_to("o" * 300)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(root / "socket"))


# ---- calls -----------------------------------------------------------------------------------------


def diff(api, left, right, media_type=TAR, ref="", labels=None, epoch=None, timeout=60, **options):
    message = api.message("containerd.services.diff.v1.DiffRequest", media_type=media_type, ref=ref)
    message.left.extend(left)
    message.right.extend(right)
    # Nothing else would keep the blob from the next collection.
    message.labels.update({"containerd.io/gc.root": "1"} if labels is None else labels)
    if epoch is not None:
        message.source_date_epoch.seconds = epoch
    return api.call(DIFF + "Diff", message, timeout=timeout, **options).diff


def unpacked(api, descriptor):
    data = read(api, descriptor.digest)
    assert len(data) == descriptor.size and digest_of(data) == descriptor.digest
    if descriptor.media_type == GZIP:
        return gzip.decompress(data)
    if descriptor.media_type == ZSTD:
        return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


def entries(tar):
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as archive:
        return archive.getmembers()


def names(tar):
    return [m.name for m in entries(tar)]


class Chain:
    """A base snapshot, a snapshot on it that was changed, and a view of the base."""

    def __init__(self, api, tmp_path, snapshotter="overlayfs", base=make_base, change=change):
        self.api, self.snapshotter, self.path = api, snapshotter, tmp_path / "mnt"
        with mounted(prepare(api, snapshotter, "base-active"), self.path) as root:
            base(root)
        commit(api, snapshotter, "base", "base-active")
        self.right = prepare(api, snapshotter, "changed", "base")
        self.left = prepare(api, snapshotter, "view", "base", method="View")
        with mounted(self.right, self.path) as root:
            change(root)
        self.n = 0

    def diff(self, *args, **options):
        return diff(self.api, self.left, self.right, *args, **options)

    def tree(self):
        with mounted(self.right, self.path) as root:
            return tree(root)

    def applied(self, descriptor):
        """The tree of the layer on a fresh snapshot of the base."""
        self.n += 1
        mounts = prepare(self.api, self.snapshotter, f"applied-{self.n}", "base")
        apply_layer(self.api, descriptor.digest, descriptor.size, mounts, descriptor.media_type)
        with mounted(mounts, self.path) as root:
            return tree(root)


def compare(got, expected):
    assert sorted(got) == sorted(expected)
    for name in expected:
        assert got[name] == expected[name], name


# ---- tests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
def test_round_trip(both, tmp_path, snapshotter):
    """Every kind of change; sockets stay behind."""
    chain = Chain(both.api, tmp_path, snapshotter)
    expected = chain.tree()
    del expected[b"socket"]
    if both.name == "wherryd":
        for media_type in (TAR, GZIP, ZSTD):
            compare(chain.applied(chain.diff(media_type)), expected)
    else:
        compare(coarse(chain.applied(chain.diff())), coarse(expected))


@pytest.mark.parametrize("maker", ["wherryd", "containerd"])
def test_layers_of_one_are_applied_by_the_other(daemon, containerd, tmp_path, maker):
    here, there = (daemon, containerd) if maker == daemon.name else (containerd, daemon)
    chain, other = Chain(here.api, tmp_path), Chain(there.api, tmp_path, change=lambda root: None)
    layer = chain.diff(GZIP)
    put(there.api, read(here.api, layer.digest))
    expected = chain.tree()
    del expected[b"socket"]
    compare(coarse(other.applied(layer)), coarse(expected))


def few(root):
    (root / "d").mkdir()
    (root / "e").mkdir()
    for f in ("d/a", "d/b", "e/c", "f"):
        write(root / f, f.encode())


def few_changes(root):
    write(root / "d/a", b"changed", when=OLD + 1)
    (root / "e/c").unlink()
    write(root / "n", b"new", mode=0o4755)


def few_additions(root):
    """Nothing is taken away: containerd writes the time of day into its whiteouts."""
    write(root / "d/a", b"changed", when=OLD + 1)
    write(root / "n", b"new")


def test_only_what_changed(both, tmp_path):
    chain = Chain(both.api, tmp_path, base=few, change=few_changes)
    members = entries(unpacked(both.api, chain.diff()))
    assert [m.name for m in members] == ["d", "d/a", "e", "e/.wh.c", "n"]
    assert members[3].size == 0 and members[3].isreg()
    assert (members[4].mode, members[4].uid, members[4].uname) == (0o4755, 0, "")
    nothing = diff(both.api, chain.left, chain.left)
    assert unpacked(both.api, nothing).strip(b"\0") == b""
    everything = names(unpacked(both.api, diff(both.api, [], chain.left)))
    assert everything == ["d", "d/a", "d/b", "e", "e/c", "f"]
    assert names(unpacked(both.api, diff(both.api, chain.left, []))) == [".wh.d", ".wh.e", ".wh.f"]


def test_what_looks_changed_is_not(daemon, tmp_path):
    """Copied up by overlayfs, but the same as before."""
    def touch(root):
        for f in ("d/a", "f"):
            (root / f).chmod(0o600)
            (root / f).chmod(0o644)
            os.utime(root / f, ns=(OLD, OLD))
        (root / "whole").write_bytes(b"1234")
        os.utime(root / "whole", (OLD // 10**9,) * 2)

    def base(root):
        few(root)
        touch(root)

    chain = Chain(daemon.api, tmp_path, base=base, change=touch)
    assert names(unpacked(daemon.api, chain.diff())) == []


def test_times_cannot_tell(both, tmp_path):
    """Of the same whole second and size: the content decides."""
    def base(root):
        for name in ("same", "other"):
            write(root / name, b"1234", when=10**18)

    def rewrite(root):
        write(root / "same", b"1234", when=10**18)
        write(root / "other", b"4321", when=10**18)

    chain = Chain(both.api, tmp_path, base=base, change=rewrite)
    assert names(unpacked(both.api, chain.diff())) == ["other"]


def test_another_name_of_an_old_file(both, tmp_path):
    def base(root):
        (root / "a").mkdir()
        write(root / "a/old", b"old")
        write(root / "a/alone", b"alone")
        os.link(root / "a/alone", root / "a/alone-too")

    def link(root):
        os.link(root / "a/old", root / "new")

    chain = Chain(both.api, tmp_path, base=base, change=link)
    members = {m.name: m for m in entries(unpacked(both.api, chain.diff()))}
    assert sorted(members) == ["a", "a/old", "new"]
    first, second = sorted(("a/old", "new"), key=lambda name: members[name].offset)
    assert members[first].isreg() and members[second].islnk() and members[second].linkname == first


def test_sockets_and_whiteout_devices(daemon, tmp_path):
    """A socket in the place of something takes it away; a device 0:0 is not there, as overlayfs has it."""
    def replace(root):
        (root / "f").unlink()
        (root / "d/a").unlink()
        with socket.socket(socket.AF_UNIX) as s, socket.socket(socket.AF_UNIX) as t:
            s.bind(str(root / "f"))
            t.bind(str(root / "only-a-socket"))

    chain = Chain(daemon.api, tmp_path, base=few, change=replace)
    assert names(unpacked(daemon.api, chain.diff())) == ["d", "d/.wh.a", ".wh.f"]
    plain = tmp_path / "plain"
    plain.mkdir()
    os.mknod(plain / "whiteout", 0o600 | stat.S_IFCHR, 0)
    write(plain / "file")
    bind = daemon.api.message("containerd.types.Mount", type="bind", source=str(plain), options=["rbind", "rw"])
    assert names(unpacked(daemon.api, diff(daemon.api, [], [bind]))) == ["file"]


def test_what_no_layer_can_hold(daemon, tmp_path):
    base = tmp_path / "base"
    base.mkdir()

    def refused(make, words):
        right = tmp_path / "right"
        right.mkdir()
        make(right)
        bind = daemon.api.message("containerd.types.Mount", type="bind", source=str(right), options=["rbind", "ro"])
        fails(grpc.StatusCode.FAILED_PRECONDITION, diff, daemon.api, [], [bind], words=words)
        subprocess.run(["rm", "-rf", right], check=True)

    def nested(root, name, depth):
        fd = os.open(root, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(name, dir_fd=fd)
            below = os.open(name, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)

    refused(lambda root: (root / ".wh.f").touch(), ".wh.")
    refused(lambda root: (root / ".wh.d/in").mkdir(parents=True), ".wh.")
    refused(lambda root: nested(root, "d", 1100), "directories deep")
    refused(lambda root: nested(root, "d" * 200, 25), "longer than 4096 bytes")
    assert not daemon.api.call(CONTENT + "ListStatuses").statuses


def test_same_trees_same_digest(daemon, tmp_path):
    chain = Chain(daemon.api, tmp_path)
    for media_type in (TAR, GZIP, ZSTD):
        first = chain.diff(media_type)
        assert chain.diff(media_type) == first
        daemon.api.call(CONTENT + "Delete", {"digest": first.digest})
        assert chain.diff(media_type, ref="again") == first
    # The order of names in the directory is the file system's own.
    plain = []
    for order in (1, -1):
        path = tmp_path / f"plain{order}"
        path.mkdir()
        for n in range(300)[::order]:
            write(path / str(n), b"%d" % n)
        plain.append(daemon.api.message("containerd.types.Mount", type="bind", source=str(path), options=["rbind", "rw"]))
    assert diff(daemon.api, [], [plain[0]]).digest == diff(daemon.api, [], [plain[1]]).digest


def test_media_types(both, tmp_path):
    chain = Chain(both.api, tmp_path, base=few, change=few_additions)
    assert chain.diff("").media_type == GZIP
    plain, packed = chain.diff(TAR), chain.diff(GZIP)
    assert unpacked(both.api, packed) == unpacked(both.api, plain)
    for bad in ("text/plain", "application/vnd.docker.image.rootfs.diff.tar.gzip", TAR + "+xz"):
        fails(grpc.StatusCode.UNIMPLEMENTED, chain.diff, bad, words=f"unsupported diff media type: {bad}: not implemented")


def test_labels(both, tmp_path):
    chain = Chain(both.api, tmp_path, base=few, change=few_additions)

    def labels(digest):
        return dict(both.api.call(CONTENT + "Info", {"digest": digest}).info.labels)

    keep = {"containerd.io/gc.root": "1", "a/b": "c"}
    plain = chain.diff(TAR, labels=keep)
    assert labels(plain.digest) == keep
    packed = chain.diff(GZIP, labels=keep)
    assert labels(packed.digest) == {**keep, "containerd.io/uncompressed": plain.digest}
    # A blob that came by another way gets what says what it is, and keeps its own.
    data = read(both.api, packed.digest)
    both.api.call(CONTENT + "Delete", {"digest": packed.digest})
    put(both.api, data, labels={"own": "x"})
    assert chain.diff(GZIP, labels=keep) == packed
    assert labels(packed.digest) == {"containerd.io/gc.root": "1", "own": "x", "containerd.io/uncompressed": plain.digest}


def test_references(both, tmp_path):
    chain = Chain(both.api, tmp_path, base=few, change=few_additions)
    expected = chain.diff()
    both.api.call(CONTENT + "Delete", {"digest": expected.digest})
    with Writer(both.api) as w:
        w.send("WRITE", "left", data=b"of something else")
        w.close()
    assert both.api.call(CONTENT + "ListStatuses").statuses
    assert chain.diff(ref="left") == expected
    with Writer(both.api) as w:
        w.send("WRITE", "held", data=b"x")
        words = fails(grpc.StatusCode.UNAVAILABLE, chain.diff, ref="held", words="locked")
        assert "/held locked for" in words
        w.close()
    assert [s.ref for s in both.api.call(CONTENT + "ListStatuses").statuses] == ["held"]
    both.api.call(CONTENT + "Abort", {"ref": "held"})


def test_lease(both, tmp_path):
    chain = Chain(both.api, tmp_path, base=few, change=few_changes)
    both.api.call(LEASES + "Create", {"id": "l"})
    layer = chain.diff(labels={}, lease="l")
    resources = both.api.call(LEASES + "ListResources", {"id": "l"}).resources
    assert [(r.type, r.id) for r in resources] == [("content", layer.digest)]
    both.api.call(LEASES + "Delete", {"id": "l", "sync": True})
    fails(grpc.StatusCode.NOT_FOUND, both.api.call, CONTENT + "Info", {"digest": layer.digest})


def test_source_date_epoch(daemon, tmp_path):
    def changes(root):
        few_changes(root)
        write(root / "older", when=10**17)

    chain = Chain(daemon.api, tmp_path, base=few, change=changes)
    times = {m.name: m.mtime for m in entries(unpacked(daemon.api, chain.diff(epoch=10**9)))}
    assert times == {"d": 10**9, "d/a": 10**9, "e": 10**9, "e/.wh.c": 0, "n": 10**9, "older": 10**8}
    assert {m.mtime for m in entries(unpacked(daemon.api, chain.diff(epoch=0)))} == {0}


def test_refuses(daemon, tmp_path):
    fails(grpc.StatusCode.FAILED_PRECONDITION, diff, daemon.api, [], [], namespace=False, words="namespace is required")
    missing = daemon.api.message("containerd.types.Mount", type="bind", source=str(tmp_path / "missing"), options=["rbind"])
    assert "no such file or directory" in fails(grpc.StatusCode.UNKNOWN, diff, daemon.api, [], [missing],
                                                words="failed to mount")
    fails(grpc.StatusCode.UNKNOWN, diff, daemon.api, [missing], [])
    for nanos in (-1, 10**9):
        fails(grpc.StatusCode.INVALID_ARGUMENT, daemon.api.call, DIFF + "Diff",
              daemon.api.message("containerd.services.diff.v1.DiffRequest", source_date_epoch={"nanos": nanos}))
    assert not list((daemon.root / "tmpmounts").iterdir())
    assert not daemon.api.call(CONTENT + "ListStatuses").statuses


def test_nothing_is_written_to_either_side(daemon, tmp_path):
    """Not even access times; and a bind mount that is read only stays what it is."""
    plain = tmp_path / "plain"
    (plain / "d").mkdir(parents=True)
    write(plain / "d/f", b"data")
    os.utime(plain / "d/f", ns=(10**18, 2 * 10**18))
    before = os.stat(plain / "d/f")
    bind = daemon.api.message("containerd.types.Mount", type="bind", source=str(plain), options=["rbind", "rw"])
    diff(daemon.api, [], [bind])
    after = os.stat(plain / "d/f")
    assert (before.st_atime_ns, before.st_ctime_ns) == (after.st_atime_ns, after.st_ctime_ns)
    assert str(plain) not in pathlib.Path("/proc/self/mountinfo").read_text()


def test_full_disk(small_root, tmp_path):  # noqa: F811
    api, disk = small_root.api, small_root.disk
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "f").write_bytes(os.urandom(6 * MIB))
    bind = api.message("containerd.types.Mount", type="bind", source=str(plain), options=["rbind", "rw"])
    diff(api, [], [])  # makes what it makes once
    disk.fill(leave_bytes=2 * MIB)
    with pytest.raises(grpc.RpcError) as error:
        diff(api, [], [bind], ref="r")
    assert "no space left" in sentence(error.value)
    disk.empty()
    assert not api.call(CONTENT + "ListStatuses").statuses
    assert names(unpacked(api, diff(api, [], [bind], ref="r"))) == ["f"]


# ---- in the middle of it ---------------------------------------------------------------------------


def workers(daemon):
    """The process of the daemon that waits, and the one that does the job."""
    found = []
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if "Name:\twherry-worker\n" in status.read_text():
                found.append(int(status.parent.name))
    return found


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


@pytest.fixture
def endless(daemon, tmp_path):
    """A tree that takes long: an eighth of a terabyte of a hole, in a layer of hardly anything."""
    plain = tmp_path / "plain"
    plain.mkdir()
    with open(plain / "hole", "wb") as file:
        file.truncate(1 << 37)
    return daemon.api.message("containerd.types.Mount", type="bind", source=str(plain), options=["rbind", "rw"])


def start(daemon, right):
    errors = []
    api = Api(daemon.address)  # a connection that killing the daemon does not close before

    def call():
        try:
            diff(api, [], [right], ZSTD, ref="r")
        except grpc.RpcError as error:
            errors.append(error)
        api.close()

    thread = threading.Thread(target=call)
    thread.start()
    data = daemon.root / "io.containerd.content.v1.content" / "ingest"
    until(lambda: any(f.stat().st_size > 0 for f in data.glob("*/data")) and workers(daemon))
    return thread, errors


def test_worker_is_confined(daemon, endless):
    """Nobody, with nothing but the right to read; and of the host it sees two trees, which it cannot write to."""
    thread, _ = start(daemon, endless)
    pid = max(workers(daemon))
    status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    assert set(status["Uid"].split()) == {"65534"} and status["Groups"].strip() == ""
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 1 << 2  # CAP_DAC_READ_SEARCH
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert not os.listdir(f"/proc/{pid}/root")
    for namespace in ("mnt", "net", "ipc", "uts", "pid", "cgroup"):
        assert os.readlink(f"/proc/{pid}/ns/{namespace}") != os.readlink(f"/proc/self/ns/{namespace}")
    for fd in (3, 4):
        flags = pathlib.Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
        assert "mnt_id" in flags
        assert os.statvfs(f"/proc/{pid}/fd/{fd}").f_flag & os.ST_RDONLY
    for each in workers(daemon):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    thread.join(10)


def test_worker_is_killed(daemon, endless):
    thread, errors = start(daemon, endless)
    for pid in workers(daemon):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    thread.join(10)
    assert errors[0].code() == grpc.StatusCode.RESOURCE_EXHAUSTED, errors
    assert "ended by signal 9" in errors[0].details()
    assert not daemon.api.call(CONTENT + "ListStatuses").statuses
    assert not list((daemon.root / "tmpmounts").iterdir())
    assert diff(daemon.api, [], [], ref="r").size


def test_client_goes_away(daemon, endless):
    with pytest.raises(grpc.RpcError) as error:
        diff(daemon.api, [], [endless], ref="r", timeout=0.3)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: not workers(daemon))
    until(lambda: not daemon.api.call(CONTENT + "ListStatuses").statuses)
    assert diff(daemon.api, [], [], ref="r").size


def test_daemon_is_killed(daemon, endless):
    """Its worker goes with it, and the next daemon writes anew what is left under the reference."""
    thread, _ = start(daemon, endless)
    daemon.kill()
    thread.join(10)
    until(lambda: not workers(daemon))
    daemon.start()
    assert [s.ref for s in daemon.api.call(CONTENT + "ListStatuses").statuses] == ["r"]
    assert not list((daemon.root / "tmpmounts").iterdir())
    assert names(unpacked(daemon.api, diff(daemon.api, [], [], ref="r"))) == []
    assert not daemon.api.call(CONTENT + "ListStatuses").statuses


def test_too_much(daemon, tmp_path):
    """A file of 16 TiB of nothing does not become a layer of as much."""
    plain = tmp_path / "plain"
    plain.mkdir()
    with open(plain / "hole", "wb") as file:
        file.truncate((1 << 44) - 4096)
    bind = daemon.api.message("containerd.types.Mount", type="bind", source=str(plain), options=["rbind", "rw"])
    fails(grpc.StatusCode.RESOURCE_EXHAUSTED, diff, daemon.api, [], [bind], ZSTD, words="more than")


# ---- the real clients ------------------------------------------------------------------------------


@pytest.mark.parametrize("media_type", [TAR, GZIP])
def test_ctr_snapshots_diff(both, archive, media_type):
    """Of a running container, which goes on meanwhile and afterwards."""
    both.import_image(archive)
    both.ctr("run", "-d", "docker.io/library/busybox:latest", "c", "sh", "-c",
             "echo new > /new; rm /etc/passwd; while sleep 0.05; do echo x >> /log; done")
    log = both.state / "io.containerd.runtime.v2.task" / "default" / "c" / "rootfs" / "log"
    until(lambda: log.exists() and log.stat().st_size > 4)
    result = both.ctr("snapshots", "diff", "--media-type", media_type, "--ref", "mine", "c", text=False)
    data = gzip.decompress(result.stdout) if media_type == GZIP else result.stdout
    members = {m.name: m for m in entries(data)}
    assert members["new"].size == 4 and "etc/.wh.passwd" in members and members["log"].size >= 2
    assert not any(name.startswith("bin") for name in members)
    before = log.stat().st_size
    until(lambda: log.stat().st_size > before)
    both.ctr("tasks", "kill", "-s", "SIGKILL", "c")
    until(lambda: "STOPPED" in both.ctr("tasks", "ls").stdout)
    both.ctr("tasks", "rm", "c")
