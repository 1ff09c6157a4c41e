# SPDX-License-Identifier: Apache-2.0
"""A full disk below root or state: calls fail with a sentence and leave nothing half made, what frees space
works all the while, and when there is room again everything works without a restart."""
import hashlib
import os
import subprocess

import grpc
import pytest

from compat.test_ctr import IMAGE
from harness import daemons
from harness.api import any_of, message_class
from integration.bystander import comes_true

CONTAINERS = "containerd.services.containers.v1.Containers/"
CONTENT = "containerd.services.content.v1.Content/"
IMAGES = "containerd.services.images.v1.Images/"
LEASES = "containerd.services.leases.v1.Leases/"
NAMESPACES = "containerd.services.namespaces.v1.Namespaces/"
SNAPSHOTS = "containerd.services.snapshots.v1.Snapshots/"
TASKS = "containerd.services.tasks.v1.Tasks/"
FULL = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.FAILED_PRECONDITION)
MIB = 1 << 20


class Disk:
    """A small tmpfs under a directory of the daemon, that is there before the daemon starts."""

    def __init__(self, path, size_bytes, inodes):
        self.path = path
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes},nr_inodes={inodes},mode=0700", "tmpfs", path],
                       check=True)
        self.filler = path / "filler"

    def free(self):
        s = os.statvfs(self.path)
        return s.f_bavail * s.f_bsize

    def fill(self, leave_bytes=0):
        """All of it, but for leave_bytes."""
        with open(self.filler, "ab", buffering=0) as file:
            while (left := self.free() - leave_bytes) > 0:
                try:
                    file.write(bytes(min(left, MIB)))
                except OSError:
                    break

    def fill_inodes(self):
        self.filler.mkdir()
        try:
            for n in range(100000):
                (self.filler / str(n)).touch()
        except OSError:
            pass

    def empty(self):
        if self.filler.is_dir():
            for each in self.filler.iterdir():
                each.unlink()
            self.filler.rmdir()
        else:
            self.filler.unlink(missing_ok=True)

    def unmount(self):
        subprocess.run(["umount", "-l", self.path], check=True)


def daemon_on(which, size_bytes, inodes):
    d = daemons.Daemon()
    disk = Disk(getattr(d, which), size_bytes, inodes)
    try:
        with d:
            d.disk = disk
            yield d
            disk.empty()
            d.remove_everything()
            assert d.process.poll() is None, d.log_text()[-3000:]
            assert d.stop() == 0
    finally:
        if d.process:
            d.process.kill()
            d.process.wait()
        disk.unmount()
        d.remove()


@pytest.fixture
def small_root(balanced):
    yield from daemon_on("root", 24 * MIB, 3000)


@pytest.fixture
def small_state(balanced):
    yield from daemon_on("state", MIB, 400)


def sentence(error, codes=FULL):
    text = error.details()
    assert error.code() in codes, f"{error.code()}: {text}"
    assert text and "\n" not in text and len(text) <= 4096
    return text


def write(api, ref, data, lease):
    """Under a lease: nothing else would keep the blob from the next collection."""
    kind = message_class("containerd.services.content.v1.WriteContentRequest")
    requests = [kind(action=1, ref=ref, offset=at, data=data[at:at + MIB]) for at in range(0, len(data), MIB)]
    requests.append(kind(action=2, ref=ref, offset=len(data), total=len(data),
                         expected="sha256:" + hashlib.sha256(data).hexdigest()))
    return list(api.bidi(CONTENT + "Write", requests, lease=lease))


def container_request(name):
    request = message_class("containerd.services.containers.v1.CreateContainerRequest")()
    request.container.id = name
    request.container.runtime.name = "io.containerd.runc.v2"
    request.container.spec.type_url, request.container.spec.value = "types.containerd.io/x", b"{}" + b" " * 20000
    return request


def works(d, archive, name):
    d.import_image(archive)
    assert d.ctr("run", "--rm", IMAGE, name, "echo", "hello").stdout == "hello\n"


def test_content(small_root):
    """A write that does not fit fails, what came of it can be given up, and it fits when there is room."""
    api, disk = small_root.api, small_root.disk
    lease = api.call(LEASES + "Create", {"id": "bad-disk"}).lease.id
    disk.fill(leave_bytes=2 * MIB)
    data = os.urandom(6 * MIB)
    with pytest.raises(grpc.RpcError) as error:
        write(api, "r", data, lease)
    assert "no space left" in sentence(error.value)
    disk.fill()
    with pytest.raises(grpc.RpcError) as error:
        write(api, "r2", data, lease)
    sentence(error.value)
    for ref in ("r", "r2"):
        try:
            api.call(CONTENT + "Abort", {"ref": ref})
        except grpc.RpcError as missing:
            assert missing.code() == grpc.StatusCode.NOT_FOUND, missing
    disk.empty()
    assert not api.call(CONTENT + "ListStatuses").statuses
    write(api, "r", data, lease)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    assert b"".join(m.data for m in api.stream(CONTENT + "Read", {"digest": digest})) == data
    disk.fill()
    api.call(CONTENT + "Delete", {"digest": digest})
    api.call(LEASES + "Delete", {"id": lease, "sync": True})
    assert disk.free() > 5 * MIB


def test_import(small_root, archive):
    """The layers do not fit; the one who imports is told, and nothing stays of it."""
    d, disk = small_root, small_root.disk
    for leave in (0, 300000, MIB):
        disk.empty()
        disk.fill(leave_bytes=leave)
        result = d.ctr("images", "import", archive, check=False)
        assert result.returncode != 0 and result.stderr.count("\n") <= 3, result
        assert d.answers()
    disk.empty()
    works(d, archive, "bad-disk")


def test_metadata(small_root):
    """Every kind of record on a full disk: refused, or there. What is there can be removed, as many as it is; and when
    there is room, all kinds can be made."""
    api, disk = small_root.api, small_root.disk
    makers = {
        "container": lambda n: api.call(CONTAINERS + "Create", container_request(f"c{n}")),
        "namespace": lambda n: api.call(NAMESPACES + "Create", {"namespace": {"name": f"n{n}", "labels": {"a": "b" * 4000}}}),
        "lease": lambda n: api.call(LEASES + "Create", {"id": f"l{n}", "labels": {"a": "b" * 4000}}),
        "snapshot": lambda n: api.call(SNAPSHOTS + "Prepare", {"snapshotter": "overlayfs", "key": f"s{n}", "labels": {
            "containerd.io/gc.root": "x" * 4000}}),
        "image": lambda n: api.call(IMAGES + "Create", {"image": {"name": f"i{n}", "labels": {"a": "b" * 4000}, "target": {
            "media_type": "x", "digest": "sha256:" + "0" * 64, "size": 1}}}),
    }
    made = {(kind, n) for kind in makers for n in range(20)}
    for kind, n in sorted(made):
        makers[kind](n)
    disk.fill()
    for kind, make in makers.items():
        refused = 0
        for n in range(20, 100):
            try:
                make(n)
                made.add((kind, n))
            except grpc.RpcError as error:
                sentence(error)
                refused += 1
                if refused == 3:
                    break
        assert refused, kind
    assert api.call("containerd.services.version.v1.Version/Version").version
    listed = {("container", int(c.id[1:])) for c in api.call(CONTAINERS + "List").containers}
    listed |= {("namespace", int(n.name[1:])) for n in api.call(NAMESPACES + "List").namespaces if n.name != "default"}
    listed |= {("lease", int(lease.id[1:])) for lease in api.call(LEASES + "List").leases}
    listed |= {("image", int(i.name[1:])) for i in api.call(IMAGES + "List").images}
    listed |= {("snapshot", int(s.name[1:])) for m in api.stream(SNAPSHOTS + "List", {"snapshotter": "overlayfs"})
               for s in m.info}
    assert listed == made
    removers = {
        "container": lambda n: api.call(CONTAINERS + "Delete", {"id": f"c{n}"}),
        "namespace": lambda n: api.call(NAMESPACES + "Delete", {"name": f"n{n}"}),
        "lease": lambda n: api.call(LEASES + "Delete", {"id": f"l{n}"}),
        "snapshot": lambda n: api.call(SNAPSHOTS + "Remove", {"snapshotter": "overlayfs", "key": f"s{n}"}),
        "image": lambda n: api.call(IMAGES + "Delete", {"name": f"i{n}"}),
    }
    # Nobody makes room: what removals need was kept back for them.
    assert disk.free() < MIB
    for kind, n in sorted(made):
        removers[kind](n)
    disk.empty()
    for kind, make in makers.items():
        make(1000)
        removers[kind](1000)


def test_removal_on_a_full_disk(small_root, archive):
    """With not a byte left: container, snapshot and image go, and what they held is collected."""
    d, disk, api = small_root, small_root.disk, small_root.api
    d.import_image(archive)
    d.ctr("run", IMAGE, "bad-disk", "true")
    d.ctr("containers", "create", IMAGE, "bad-disk2", "true")
    disk.fill()
    assert disk.free() == 0
    d.ctr("tasks", "rm", "bad-disk", check=False)
    d.ctr("containers", "rm", "bad-disk")
    api.call(CONTAINERS + "Delete", {"id": "bad-disk2"})
    api.call(SNAPSHOTS + "Remove", {"snapshotter": "overlayfs", "key": "bad-disk2"})
    api.call(IMAGES + "Delete", {"name": IMAGE, "sync": True})
    assert comes_true(lambda: not [s for m in api.stream(SNAPSHOTS + "List", {"snapshotter": "overlayfs"}) for s in m.info], 5)
    assert comes_true(lambda: not [i for m in api.stream(CONTENT + "List") for i in m.info], 5)
    assert disk.free() > MIB
    disk.empty()
    works(d, archive, "bad-disk")


def test_no_inodes(small_root, archive):
    d, disk, api = small_root, small_root.disk, small_root.api
    d.import_image(archive)
    disk.fill_inodes()
    with pytest.raises(grpc.RpcError) as error:
        api.call(SNAPSHOTS + "Prepare", {"snapshotter": "overlayfs", "key": "s", "labels": {"containerd.io/gc.root": "x"}})
    assert "no space left" in sentence(error.value)
    with pytest.raises(grpc.RpcError) as error:
        write(api, "r", b"x" * 1000, None)
    sentence(error.value)
    disk.empty()
    works(d, archive, "bad-disk")


def test_state(small_state, archive):
    """No room for a bundle: Create is refused and leaves nothing; a running container is not disturbed."""
    d, disk, api = small_state, small_state.disk, small_state.api
    d.import_image(archive)
    d.ctr("run", "-d", "--null-io", IMAGE, "bad-runs", "sleep", "1000")
    d.ctr("containers", "create", IMAGE, "bad-disk", "echo", "hello")
    mounts = api.call(SNAPSHOTS + "Mounts", {"snapshotter": "overlayfs", "key": "bad-disk"}).mounts
    options = message_class("containerd.runc.v1.Options")()
    request = message_class("containerd.services.tasks.v1.CreateTaskRequest")(
        container_id="bad-disk", rootfs=mounts, options=any_of(options))
    for fill in (disk.fill, lambda: disk.fill(leave_bytes=4096), lambda: disk.fill(leave_bytes=12288), disk.fill_inodes):
        fill()
        with pytest.raises(grpc.RpcError) as error:
            api.call(TASKS + "Create", request)
            raise AssertionError("made, with a full disk")
        sentence(error.value, FULL + (grpc.StatusCode.UNKNOWN,))
        assert not (disk.path / "io.containerd.runtime.v2.task/default/bad-disk").exists()
        assert api.call(TASKS + "Get", {"container_id": "bad-runs"}).process.status == 2
        disk.empty()
    disk.fill()
    # The exit cannot be recorded in the bundle; it is told all the same, and the task can be deleted.
    api.call(TASKS + "Kill", {"container_id": "bad-runs", "signal": 9})
    assert api.call(TASKS + "Wait", {"container_id": "bad-runs"}).exit_status == 137
    api.call(TASKS + "Delete", {"container_id": "bad-runs"})
    disk.empty()
    api.call(TASKS + "Create", request)
    api.call(TASKS + "Start", {"container_id": "bad-disk"})
    assert api.call(TASKS + "Wait", {"container_id": "bad-disk"}).exit_status == 0
    api.call(TASKS + "Delete", {"container_id": "bad-disk"})
