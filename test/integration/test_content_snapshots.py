# SPDX-License-Identifier: Apache-2.0
"""Content, snapshots and layers through the API: what a client may rely on, codes and sentences included.

Tests with `both` hold for containerd as well, tests with `daemon` say what only wherryd promises.
"""
import base64
import gzip
import hashlib
import io
import os
import pathlib
import queue
import stat
import tarfile
import threading
import time

import grpc
import pytest

CONTENT = "containerd.services.content.v1.Content/"
SNAPSHOTS = "containerd.services.snapshots.v1.Snapshots/"
LEASES = "containerd.services.leases.v1.Leases/"
DIFF = "containerd.services.diff.v1.Diff/"
EVENTS = "containerd.services.events.v1.Events/"
EMPTY = "sha256:" + hashlib.sha256(b"").hexdigest()
TAR = "application/vnd.oci.image.layer.v1.tar"


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Writer:
    """One Content.Write stream, a message at a time."""

    def __init__(self, api, **options):
        self.requests = queue.Queue()
        self.replies = api.bidi(CONTENT + "Write", iter(self.requests.get, None), **options)

    def send(self, action, ref="", offset=0, data=b"", total=0, expected="", labels=None):
        self.requests.put({"action": action, "ref": ref, "offset": offset, "total": total, "expected": expected,
                           "data": base64.b64encode(data).decode(), "labels": labels or {}})
        return next(self.replies)

    def close(self):
        """Ends our side; drains what is left."""
        self.requests.put(None)
        return list(self.replies)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.requests.put(None)
        self.replies.cancel()


def put(api, data, ref=None, labels=None, **options):
    """A blob that stays: by its label, or by the lease of the options."""
    if "lease" not in options:
        labels = dict(labels or {}, **{"containerd.io/gc.root": "1"})
    with Writer(api, **options) as w:
        reply = w.send("COMMIT", ref or "put-" + digest_of(data), data=data, labels=labels)
        w.close()
    assert reply.digest == digest_of(data) and reply.offset == len(data)
    return reply.digest


def fails(code, call, *args, words=None, **kwargs):
    with pytest.raises(grpc.RpcError) as error:
        result = call(*args, **kwargs)
        if hasattr(result, "__next__"):
            list(result)
    assert error.value.code() == code, error.value.details()
    if words:
        assert words in error.value.details()
    return error.value.details()


def read(api, digest, **fields):
    return b"".join(m.data for m in api.stream(CONTENT + "Read", dict(digest=digest, **fields)))


# --- content ---------------------------------------------------------------------------------------


def test_write(both):
    api = both.api
    data = os.urandom(300000)
    with Writer(api) as w:
        first = w.send("STAT", "r", total=len(data), expected=digest_of(data))
        assert (first.action, first.offset, first.total, first.digest) == (0, 0, len(data), EMPTY)
        assert abs(first.started_at.seconds - time.time()) < 60
        assert w.send("WRITE", "r", data=data[:100000]).offset == 100000
        assert w.send("WRITE", "other refs are ignored", offset=100000, data=data[100000:]).offset == len(data)
        last = w.send("COMMIT", "r", offset=len(data), total=len(data), expected=digest_of(data),
                      labels={"containerd.io/gc.root": "1", "a": "b"})
        assert (last.action, last.offset, last.digest) == (2, len(data), digest_of(data))
        assert all(m == last for m in w.close())
    info = api.call(CONTENT + "Info", {"digest": digest_of(data)}).info
    assert info.size == len(data) and info.labels["a"] == "b"
    assert read(api, digest_of(data)) == data
    assert not api.call(CONTENT + "ListStatuses").statuses


def test_write_offsets(both):
    with Writer(both.api) as w:
        w.send("WRITE", "r", data=b"hello")
        fails(grpc.StatusCode.OUT_OF_RANGE, w.send, "WRITE", "r", offset=4, data=b"x",
              words="write @4 must occur at current offset 5")
    time.sleep(0.2)
    with Writer(both.api) as w:
        assert w.send("STAT", "r").offset == 5
        # Offset 0 starts anew, also in COMMIT.
        assert w.send("WRITE", "r", offset=0, data=b"hel").offset == 3
        assert w.send("COMMIT", "r", offset=0, labels={"containerd.io/gc.root": "1"}).digest == EMPTY
    assert read(both.api, EMPTY) == b""


def test_write_needs_a_reference(both):
    with Writer(both.api) as w:
        fails(grpc.StatusCode.INVALID_ARGUMENT, w.send, "STAT", "", words="first message must have a reference")


def test_commit_checks(both):
    with Writer(both.api) as w:
        w.send("WRITE", "r", data=b"hello")
        fails(grpc.StatusCode.FAILED_PRECONDITION, w.send, "COMMIT", "r", offset=5, total=6,
              words='"r" failed size validation: 5 != 6: failed precondition')
    with Writer(both.api) as w:
        w.send("WRITE", "r2", data=b"hello")
        fails(grpc.StatusCode.FAILED_PRECONDITION, w.send, "COMMIT", "r2", offset=5, expected=EMPTY,
              words=f"unexpected commit digest {digest_of(b'hello')}, expected {EMPTY}: failed precondition")


def test_resume(both):
    with Writer(both.api) as w:
        w.send("WRITE", "r", data=b"hel")
        assert all(m.offset == 3 for m in w.close())
    status = both.api.call(CONTENT + "Status", {"ref": "r"}).status
    assert (status.ref, status.offset) == ("r", 3)
    assert [s.ref for s in both.api.call(CONTENT + "ListStatuses").statuses] == ["r"]
    with Writer(both.api) as w:
        first = w.send("STAT", "r")
        assert (first.offset, first.digest) == (3, digest_of(b"hel"))
        last = w.send("COMMIT", "r", offset=3, data=b"lo", expected=digest_of(b"hello"),
                      labels={"containerd.io/gc.root": "1"})
        assert last.digest == digest_of(b"hello")
    fails(grpc.StatusCode.NOT_FOUND, both.api.call, CONTENT + "Status", {"ref": "r"},
          words='could not get status for ref "r"')


def test_abort(both):
    with Writer(both.api) as w:
        w.send("WRITE", "r", data=b"hel")
        w.close()
    both.api.call(CONTENT + "Abort", {"ref": "r"})
    assert not both.api.call(CONTENT + "ListStatuses").statuses
    fails(grpc.StatusCode.NOT_FOUND, both.api.call, CONTENT + "Abort", {"ref": "r"}, words="reference r: not found")


def test_locked_reference(both):
    with Writer(both.api) as holder:
        holder.send("WRITE", "r", data=b"hel")
        with Writer(both.api) as w:
            words = fails(grpc.StatusCode.UNAVAILABLE, w.send, "STAT", "r", words="locked")
            assert words.startswith("ref default/1/r locked")
        # The same words elsewhere are another reference.
        with Writer(both.api, namespace="other") as w:
            assert w.send("STAT", "r").offset == 0


def test_reference_is_free_after_the_last_answer(daemon):
    for i in range(50):
        with Writer(daemon.api) as w:
            w.send("COMMIT", "same", data=b"%d" % i)
        with Writer(daemon.api) as w:
            w.send("STAT", "same")
            w.close()


def test_already_there(both):
    digest = put(both.api, b"hello")
    with Writer(both.api) as w:
        fails(grpc.StatusCode.ALREADY_EXISTS, w.send, "STAT", "r", expected=digest,
              words=f"content {digest}: already exists")
    with Writer(both.api) as w:
        w.send("WRITE", "r", data=b"hel")
        fails(grpc.StatusCode.ALREADY_EXISTS, w.send, "STAT", "r", expected=digest,
              words=f"blob with expected digest {digest} exists")
    fails(grpc.StatusCode.NOT_FOUND, both.api.call, CONTENT + "Status", {"ref": "r"})
    with Writer(both.api) as w:
        fails(grpc.StatusCode.ALREADY_EXISTS, w.send, "COMMIT", "r2", data=b"hello")
    assert not both.api.call(CONTENT + "ListStatuses").statuses


def test_client_that_goes_away_leaves_a_resumable_ingest(daemon):
    with Writer(daemon.api) as w:
        w.send("WRITE", "r", data=b"x" * 1000000)
    deadline = time.time() + 5
    while True:
        try:
            with Writer(daemon.api) as w:
                assert w.send("STAT", "r").offset == 1000000
                break
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE and time.time() < deadline
            time.sleep(0.05)


def test_shared_between_namespaces(both):
    digest = put(both.api, b"hello", namespace="one")
    fails(grpc.StatusCode.NOT_FOUND, both.api.call, CONTENT + "Info", {"digest": digest}, namespace="two",
          words=f"content digest {digest}: not found")
    with Writer(both.api, namespace="two") as w:
        first = w.send("STAT", "r", total=5, expected=digest)
        assert (first.offset, first.digest) == (5, digest)
        assert w.send("COMMIT", "r", offset=5, total=5, expected=digest,
                      labels={"containerd.io/gc.root": "1"}).digest == digest
    assert both.api.call(CONTENT + "Info", {"digest": digest}, namespace="two").info.size == 5


def test_read_ranges(both):
    data = os.urandom(2500000)
    digest = put(both.api, data)
    messages = list(both.api.stream(CONTENT + "Read", {"digest": digest}))
    assert max(len(m.data) for m in messages) <= 1 << 20
    assert b"".join(m.data for m in messages) == data
    assert read(both.api, digest, offset=10, size=20) == data[10:30]
    assert read(both.api, digest, offset=2499999, size=20) == data[2499999:]
    assert read(both.api, digest, offset=-5, size=7) == data[:7]
    fails(grpc.StatusCode.OUT_OF_RANGE, both.api.stream, CONTENT + "Read", {"digest": digest, "offset": 2500001},
          words="read past object length 2500000 bytes")
    fails(grpc.StatusCode.NOT_FOUND, both.api.stream, CONTENT + "Read", {"digest": EMPTY})


def test_slow_reader_holds_no_memory(daemon):
    digest = put(daemon.api, b"\0" * 8000000)
    streams = [daemon.api.stream(CONTENT + "Read", {"digest": digest}, timeout=60) for _ in range(20)]
    firsts = [next(s) for s in streams]
    assert all(m.data for m in firsts)
    assert daemon.api.call(CONTENT + "Info", {"digest": digest}).info.size == 8000000
    for s in streams:
        s.cancel()


def test_info_of_nonsense(both):
    fails(grpc.StatusCode.INVALID_ARGUMENT, both.api.call, CONTENT + "Info", {"digest": "sha256:../../x"})
    fails(grpc.StatusCode.INVALID_ARGUMENT, both.api.call, CONTENT + "Delete", {"digest": "nonsense"})
    fails(grpc.StatusCode.NOT_FOUND, both.api.call, CONTENT + "Info", {"digest": EMPTY},
          words=f"content digest {EMPTY}: not found")


def test_update(both):
    digest = put(both.api, b"hello", labels={"a": "1"})

    def update(labels, *paths):
        request = {"info": {"digest": digest, "labels": labels}}
        if paths:
            request["updateMask"] = ",".join(paths)
        return dict(both.api.call(CONTENT + "Update", request).info.labels)

    message = both.api.message("containerd.services.content.v1.UpdateRequest")
    message.info.digest = digest
    message.info.labels["b.c"] = "2"
    message.update_mask.paths.append("labels.b.c")
    labels = dict(both.api.call(CONTENT + "Update", message).info.labels)
    assert labels == {"containerd.io/gc.root": "1", "a": "1", "b.c": "2"}
    message.update_mask.paths[:] = ["size"]
    fails(grpc.StatusCode.INVALID_ARGUMENT, both.api.call, CONTENT + "Update", message,
          words='cannot update "size" field on content info')
    assert update({"containerd.io/gc.root": "2"}) == {"containerd.io/gc.root": "2"}


def test_delete_tells(both):
    digest = put(both.api, b"hello")
    found = threading.Event()
    stream = both.api.stream(EVENTS + "Subscribe", {"filters": ['topic=="/content/delete"']})

    def listen():
        try:
            for envelope in stream:
                assert envelope.event.type_url == "containerd.events.ContentDelete"
                assert digest.encode() in envelope.event.value
                found.set()
        except grpc.RpcError:
            pass

    listener = threading.Thread(target=listen)
    listener.start()
    time.sleep(0.3)
    both.api.call(CONTENT + "Delete", {"digest": digest})
    assert found.wait(5)
    stream.cancel()
    listener.join()
    fails(grpc.StatusCode.NOT_FOUND, both.api.call, CONTENT + "Delete", {"digest": digest})


def test_list_in_batches(both):
    lease = both.api.call(LEASES + "Create", {"id": "keep"}).lease.id
    digests = sorted(put(both.api, b"%d" % i, lease=lease, labels={"n": str(i)}) for i in range(150))
    messages = list(both.api.stream(CONTENT + "List"))
    assert [len(m.info) for m in messages] == [100, 50]
    assert sorted(i.digest for m in messages for i in m.info) == digests
    found = [i for m in both.api.stream(CONTENT + "List", {"filters": ["labels.n==7", "labels.n==8"]}) for i in m.info]
    assert sorted(i.labels["n"] for i in found) == ["7", "8"]
    fails(grpc.StatusCode.INVALID_ARGUMENT, both.api.stream, CONTENT + "List", {"filters": ["digest=="]},
          words="filters: parse error")
    assert not list(both.api.stream(CONTENT + "List", namespace="empty"))
    both.api.call(LEASES + "Delete", {"id": lease, "sync": True})
    assert not list(both.api.stream(CONTENT + "List"))


def test_lease_holds(both):
    both.api.call(LEASES + "Create", {"id": "l"})
    digest = put(both.api, b"hello", lease="l")
    resources = both.api.call(LEASES + "ListResources", {"id": "l"}).resources
    assert [(r.type, r.id) for r in resources] == [("content", digest)]
    with Writer(both.api, lease="no such lease") as w:
        fails(grpc.StatusCode.NOT_FOUND, w.send, "STAT", "r")


def test_namespace_is_required(both):
    fails(grpc.StatusCode.FAILED_PRECONDITION, both.api.call, CONTENT + "Info", {"digest": EMPTY}, namespace=False,
          words="namespace is required")
    with Writer(both.api, namespace=False) as w:
        fails(grpc.StatusCode.FAILED_PRECONDITION, w.send, "STAT", "r", words="namespace is required")
    fails(grpc.StatusCode.FAILED_PRECONDITION, both.api.stream, CONTENT + "List", namespace=False)


def test_damaged_blob_is_noticed(daemon):
    layer = make_layer({"f": b"data"})
    digest = put(daemon.api, layer)
    path = daemon.root / "io.containerd.content.v1.content" / "blobs" / digest.replace(":", "/")
    path.chmod(0o644)
    path.write_bytes(layer[:600] + b"X" + layer[601:])
    mounts = prepare(daemon.api, "overlayfs", "k")
    fails(grpc.StatusCode.FAILED_PRECONDITION, apply_layer, daemon.api, digest, len(layer), mounts, words=digest)
    path.write_bytes(layer[:100])
    fails(grpc.StatusCode.FAILED_PRECONDITION, daemon.api.stream, CONTENT + "Read", {"digest": digest}, words=digest)
    path.unlink()
    fails(grpc.StatusCode.NOT_FOUND, daemon.api.stream, CONTENT + "Read", {"digest": digest}, words=digest)


# --- snapshots -------------------------------------------------------------------------------------


def prepare(api, snapshotter, key, parent="", method="Prepare", labels=None, **options):
    labels = dict(labels or {}, **{"containerd.io/gc.root": "1"})
    return api.call(SNAPSHOTS + method, {"snapshotter": snapshotter, "key": key, "parent": parent, "labels": labels},
                    **options).mounts


def commit(api, snapshotter, name, key):
    api.call(SNAPSHOTS + "Commit", {"snapshotter": snapshotter, "name": name, "key": key,
                                    "labels": {"containerd.io/gc.root": "1"}})


def shape(mounts):
    """Type and options without the directory they lie in and without what depends on the kernel."""
    assert len(mounts) == 1
    options = []
    for option in mounts[0].options:
        name, _, paths = option.partition("=")
        paths = ":".join(str(pathlib.Path(*pathlib.Path(p).parts[-2:])) for p in paths.split(":")) if paths else ""
        options.append(name + ("=" + paths if paths else ""))
    source = str(pathlib.Path(*pathlib.Path(mounts[0].source).parts[-2:]))
    return mounts[0].type, source, options


def test_overlay_mounts(both):
    api = both.api
    index = ["index=off"] if os.path.exists("/sys/module/overlay/parameters/index") else []
    assert shape(prepare(api, "overlayfs", "k")) == ("bind", "1/fs", ["rw", "rbind"])
    commit(api, "overlayfs", "one", "k")
    assert shape(prepare(api, "overlayfs", "v0", method="View")) == ("bind", "2/fs", ["ro", "rbind"])
    assert shape(prepare(api, "overlayfs", "v1", "one", method="View")) == ("bind", "1/fs", ["ro", "rbind"])
    prepare(api, "overlayfs", "k", "one")
    commit(api, "overlayfs", "two", "k")
    assert shape(prepare(api, "overlayfs", "k", "two")) == (
        "overlay", "overlay", index + ["workdir=5/work", "upperdir=5/fs", "lowerdir=4/fs:1/fs"])
    assert shape(prepare(api, "overlayfs", "v2", "two", method="View")) == (
        "overlay", "overlay", index + ["lowerdir=4/fs:1/fs"])
    again = api.call(SNAPSHOTS + "Mounts", {"snapshotter": "overlayfs", "key": "k"}).mounts
    assert shape(again)[2][-1] == "lowerdir=4/fs:1/fs"


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
def test_snapshot_rules(both, snapshotter):
    api, ss = both.api, {"snapshotter": snapshotter}
    exists, missing = grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.NOT_FOUND
    precondition = grpc.StatusCode.FAILED_PRECONDITION
    prepare(api, snapshotter, "k")
    commit(api, snapshotter, "one", "k")
    fails(missing, api.call, SNAPSHOTS + "Stat", dict(ss, key="k"), words="snapshot k does not exist")
    prepare(api, snapshotter, "k", "one")
    fails(exists, prepare, api, snapshotter, "k", words='snapshot "k": already exists')
    fails(exists, prepare, api, snapshotter, "one", words='snapshot "one": already exists')
    fails(grpc.StatusCode.INVALID_ARGUMENT, prepare, api, snapshotter, "x", "k", words="is not committed snapshot")
    fails(missing, prepare, api, snapshotter, "x", "nope", words="parent snapshot nope does not exist")
    fails(missing, prepare, api, snapshotter, "x", "one", namespace="other")
    fails(precondition, api.call, SNAPSHOTS + "Remove", dict(ss, key="one"), words="cannot remove snapshot with child")
    fails(missing, api.call, SNAPSHOTS + "Remove", dict(ss, key="nope"), words="snapshot nope does not exist")
    fails(missing, api.call, SNAPSHOTS + "Mounts", dict(ss, key="nope"), words="snapshot nope does not exist")
    fails(missing, api.call, SNAPSHOTS + "Usage", dict(ss, key="nope"), words="snapshot nope does not exist")
    fails(precondition, api.call, SNAPSHOTS + "Mounts", dict(ss, key="one"))
    fails(exists, commit, api, snapshotter, "one", "k", words='snapshot "one": already exists')
    fails(exists, prepare, api, snapshotter, "x", labels={"containerd.io/snapshot.ref": "one"},
          words='target snapshot "one": already exists')
    prepare(api, snapshotter, "v", "one", method="View")
    if both.name == "wherryd" or snapshotter == "overlayfs":  # containerd's native looks for a directory of v first
        fails(precondition, commit, api, snapshotter, "two", "v")
    info = api.call(SNAPSHOTS + "Stat", dict(ss, key="v")).info
    assert (info.name, info.parent, info.kind) == ("v", "one", 1)
    kinds = {i.name: i.kind for m in api.stream(SNAPSHOTS + "List", ss) for i in m.info}
    assert kinds == {"k": 2, "one": 3, "v": 1}
    found = [i.name for m in api.stream(SNAPSHOTS + "List", dict(ss, filters=["kind==active", "name==v"]))
             for i in m.info]
    assert sorted(found) == ["k", "v"]


def test_snapshot_sentences(daemon):
    prepare(daemon.api, "overlayfs", "k")
    commit(daemon.api, "overlayfs", "one", "k")
    ss = {"snapshotter": "overlayfs"}
    fails(grpc.StatusCode.FAILED_PRECONDITION, daemon.api.call, SNAPSHOTS + "Mounts", dict(ss, key="one"),
          words="requested snapshot one not active or view")
    fails(grpc.StatusCode.FAILED_PRECONDITION, commit, daemon.api, "overlayfs", "two", "one",
          words='snapshot "one" is not active: failed precondition')
    fails(grpc.StatusCode.INVALID_ARGUMENT, prepare, daemon.api, "overlayfs", "", words="must not be empty")
    fails(grpc.StatusCode.NOT_FOUND, prepare, daemon.api, "overlayfs", "x", lease="none",
          words="lease does not exist: not found")


def test_snapshotter_names(both):
    fails(grpc.StatusCode.INVALID_ARGUMENT, both.api.call, SNAPSHOTS + "Stat", {"key": "k"},
          words="snapshotter argument missing")
    fails(grpc.StatusCode.INVALID_ARGUMENT, both.api.call, SNAPSHOTS + "Stat", {"snapshotter": "nope", "key": "k"},
          words="snapshotter not loaded: nope: invalid argument")


def test_snapshot_update(both):
    prepare(both.api, "overlayfs", "k", labels={"a": "1"})
    message = both.api.message("containerd.services.snapshots.v1.UpdateSnapshotRequest", snapshotter="overlayfs")
    message.info.name = "k"
    message.info.labels["b.c"] = "2"
    message.update_mask.paths.append("labels.b.c")
    labels = dict(both.api.call(SNAPSHOTS + "Update", message).info.labels)
    assert labels == {"a": "1", "b.c": "2", "containerd.io/gc.root": "1"}
    message.update_mask.paths[:] = ["parent"]
    fails(grpc.StatusCode.INVALID_ARGUMENT, both.api.call, SNAPSHOTS + "Update", message,
          words='cannot update "parent" field on snapshot "k"')


def test_removed_directories_go(daemon):
    directory = daemon.root / "io.containerd.snapshotter.v1.overlayfs" / "snapshots"
    for i in range(20):
        prepare(daemon.api, "overlayfs", f"k{i}")
    assert len(list(directory.iterdir())) == 20
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for i in range(20):
        daemon.api.call(SNAPSHOTS + "Remove", {"snapshotter": "overlayfs", "key": f"k{i}"})
    deadline = time.time() + 5
    while list(directory.iterdir()) and time.time() < deadline:
        time.sleep(0.05)
    assert not list(directory.iterdir())


def test_cleanup(daemon):
    directory = daemon.root / "io.containerd.snapshotter.v1.overlayfs" / "snapshots"
    (directory / "4711" / "fs").mkdir(parents=True)
    prepare(daemon.api, "overlayfs", "k")
    daemon.api.call(SNAPSHOTS + "Cleanup", {"snapshotter": "overlayfs"})
    assert len(list(directory.iterdir())) == 1


def test_one_of_many_wins(daemon):
    results = queue.Queue()

    def race():
        try:
            prepare(daemon.api, "overlayfs", "same")
            results.put("won")
        except grpc.RpcError as error:
            results.put(error.code())

    threads = [threading.Thread(target=race) for _ in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    got = [results.get() for _ in threads]
    assert got.count("won") == 1 and got.count(grpc.StatusCode.ALREADY_EXISTS) == 19


def test_snapshot_events(both):
    got = queue.Queue()
    stream = both.api.stream(EVENTS + "Subscribe", {"filters": ["topic~=|^/snapshot/|"]})

    def listen():
        try:
            for envelope in stream:
                got.put((envelope.topic, envelope.event.type_url))
        except grpc.RpcError:
            pass

    listener = threading.Thread(target=listen)
    listener.start()
    time.sleep(0.3)
    prepare(both.api, "overlayfs", "v", method="View")
    prepare(both.api, "overlayfs", "k")
    commit(both.api, "overlayfs", "one", "k")
    both.api.call(SNAPSHOTS + "Remove", {"snapshotter": "overlayfs", "key": "one"})
    events = [got.get(timeout=5) for _ in range(3)]
    stream.cancel()
    listener.join()
    assert events == [("/snapshot/prepare", "containerd.events.SnapshotPrepare"),
                      ("/snapshot/commit", "containerd.events.SnapshotCommit"),
                      ("/snapshot/remove", "containerd.events.SnapshotRemove")]


# --- layers ----------------------------------------------------------------------------------------


def make_layer(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), 0o644, 1000000000
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def apply_layer(api, digest, size, mounts, media_type=TAR, **options):
    message = api.message("containerd.services.diff.v1.ApplyRequest")
    message.diff.media_type, message.diff.digest, message.diff.size = media_type, digest, size
    message.mounts.extend(mounts)
    return api.call(DIFF + "Apply", message, **options).applied


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
def test_apply(both, snapshotter):
    api = both.api
    lower, upper = make_layer({"d/a": b"a", "d/b": b"b", "e/c": b"c"}), make_layer({"d/.wh.a": b"", "d/n": b"new"})
    packed = gzip.compress(upper)
    one = put(api, lower)
    two = put(api, packed)
    applied = apply_layer(api, one, len(lower), prepare(api, snapshotter, "k"))
    assert (applied.media_type, applied.digest, applied.size) == (TAR, one, len(lower))
    commit(api, snapshotter, "one", "k")
    applied = apply_layer(api, two, len(packed), prepare(api, snapshotter, "k", "one"),
                          "application/vnd.docker.image.rootfs.diff.tar.gzip")
    assert applied.digest == digest_of(upper)
    commit(api, snapshotter, "two", "k")
    # Whatever the type says about its compression, the bytes know better.
    applied = apply_layer(api, one, len(lower), prepare(api, snapshotter, "k"), TAR + "+gzip")
    assert applied.digest == one
    usage = api.call(SNAPSHOTS + "Usage", {"snapshotter": snapshotter, "key": "two"})
    assert usage.size > 0 and usage.inodes >= 3


def test_apply_result_on_disk(daemon):
    lower = make_layer({"d/a": b"a", "d/b": b"b"})
    upper = make_layer({"d/.wh.a": b"", "d/.wh..wh..opq": b"", "n": b"new"})
    one, two = put(daemon.api, lower), put(daemon.api, upper)
    apply_layer(daemon.api, one, len(lower), prepare(daemon.api, "overlayfs", "k"))
    commit(daemon.api, "overlayfs", "one", "k")
    mounts = prepare(daemon.api, "overlayfs", "k", "one")
    apply_layer(daemon.api, two, len(upper), mounts)
    fs = pathlib.Path([o for o in mounts[0].options if o.startswith("upperdir=")][0][9:])
    assert stat.S_ISCHR((fs / "d" / "a").lstat().st_mode) and (fs / "d" / "a").lstat().st_rdev == 0
    assert os.getxattr(fs / "d", "trusted.overlay.opaque") == b"y"
    assert (fs / "n").read_bytes() == b"new" and (fs / "n").stat().st_mtime == 1000000000


def test_apply_through_a_mount(daemon):
    """What is neither an overlay nor a writable bind mount is mounted where nobody sees it."""
    layer = make_layer({"f": b"data"})
    digest = put(daemon.api, layer)
    mount = daemon.api.message("containerd.types.Mount", type="tmpfs", source="tmpfs")
    assert apply_layer(daemon.api, digest, len(layer), [mount]).digest == digest
    read_only = daemon.api.message("containerd.types.Mount", type="bind", source=str(daemon.root))
    read_only.options.extend(["ro", "rbind"])
    fails(grpc.StatusCode.UNKNOWN, apply_layer, daemon.api, digest, len(layer), [read_only], words=digest)
    assert str(daemon.root) not in pathlib.Path("/proc/self/mountinfo").read_text()
    assert not list((daemon.root / "tmpmounts").iterdir())


def test_apply_refuses(daemon):
    layer = make_layer({"f": b"data"})
    digest = put(daemon.api, layer)
    mounts = prepare(daemon.api, "overlayfs", "k")
    fails(grpc.StatusCode.UNIMPLEMENTED, apply_layer, daemon.api, digest, len(layer), mounts, "text/plain",
          words="no processor for media-type")
    fails(grpc.StatusCode.NOT_FOUND, apply_layer, daemon.api, EMPTY, 0, mounts, words=EMPTY)
    fails(grpc.StatusCode.NOT_FOUND, apply_layer, daemon.api, digest, len(layer), mounts, namespace="other")
    fails(grpc.StatusCode.INVALID_ARGUMENT, apply_layer, daemon.api, digest, len(layer), [])
    broken = put(daemon.api, gzip.compress(layer)[:-20])
    fails(grpc.StatusCode.INVALID_ARGUMENT, apply_layer, daemon.api, broken, 1, mounts, TAR + "+gzip", words=broken)


def test_apply_is_cancelled(daemon):
    layer = make_layer({f"{i}": bytes(50000) for i in range(2000)})
    digest = put(daemon.api, gzip.compress(layer, 1))
    mounts = prepare(daemon.api, "overlayfs", "k")
    with pytest.raises(grpc.RpcError):
        apply_layer(daemon.api, digest, 1, mounts, TAR + "+gzip", timeout=0.05)

    def workers():
        found = []
        for status in pathlib.Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
            except OSError:
                continue
            if "Name:\twherry-worker\n" in text and f"PPid:\t{daemon.process.pid}\n" in text:
                found.append(status)
        return found

    deadline = time.time() + 5
    while workers() and time.time() < deadline:
        time.sleep(0.05)
    assert not workers()
