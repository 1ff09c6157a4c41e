# SPDX-License-Identifier: Apache-2.0
"""Kills the daemon, and its worker, at every call that changes something while images come and go.

Verbs, each under a lease of its own, as clients do it:

    import    every blob written in two messages and committed, then the image
    unpack    each layer: Prepare, Apply, Commit; then the label that keeps the snapshots with the image
    diff      Prepare on top of the image, and Diff of what was changed there
    collect   the lease and the image are deleted, the latter with a collection that the call waits for
    expire    the blobs have a lease that ends by itself, and the daemon collects them unasked
    remove    a snapshot on top of the image is prepared and removed, and Cleanup is called

After each death: what was acknowledged is there, blobs have the digest that they are named after, snapshots the tree
that their layer makes, and another image is untouched. Then, in turns, the verb is repeated to its end, or given up.
When lease and image have been deleted, a collection leaves what there was before, and no worker and no mount.
"""
import base64
import gzip
import hashlib
import io
import json
import os
import pathlib
import stat
import tarfile
import time

import grpc

from fault.killer import CODE, INTERRUPTED, Failure, Killer, Rows
from fault.rig import wait_until
from harness import ledger
from harness.api import message_class

CONTENT = "containerd.services.content.v1.Content/"
DIFF = "containerd.services.diff.v1.Diff/"
IMAGES = "containerd.services.images.v1.Images/"
LEASES = "containerd.services.leases.v1.Leases/"
SNAPSHOTS = "containerd.services.snapshots.v1.Snapshots/"
OCI = "application/vnd.oci.image."
# By victim: the worker is not there in the others.
VERBS = {"daemon": ("import", "unpack", "diff", "collect", "expire", "remove"), "worker": ("unpack", "diff")}
# A worker that is killed is an error of the call, as one is that its limits end.
WORKER_DIED = (CODE.RESOURCE_EXHAUSTED, CODE.INTERNAL)


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(name, number):
    """A tar of a few entries of every kind."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        def add(path, kind=tarfile.REGTYPE, data=b"", link="", **fields):
            entry = tarfile.TarInfo(path)
            entry.type, entry.size, entry.linkname, entry.mtime = kind, len(data), link, 1000000000 + number
            for key, value in fields.items():
                setattr(entry, key, value)
            tar.addfile(entry, io.BytesIO(data))

        add(f"d{number}", tarfile.DIRTYPE, mode=0o755)
        add(f"d{number}/file", data=f"{name} {number}".encode() * 5000, mode=0o4750, uid=7, gid=8)
        add(f"d{number}/hard", tarfile.LNKTYPE, link=f"d{number}/file")
        add(f"d{number}/soft", tarfile.SYMTYPE, link="file")
        add(f"d{number}/fifo", tarfile.FIFOTYPE, mode=0o600)
        if number:
            add(f"d{number - 1}", tarfile.DIRTYPE, mode=0o755)
            add(f"d{number - 1}/.wh.soft")
    return out.getvalue()


class Image:
    """Two layers, plain and compressed, a configuration, and a manifest that refers to them by labels."""

    def __init__(self, name):
        self.name = name
        tars = [layer(name, number) for number in range(2)]
        self.layers = [tars[0], gzip.compress(tars[1], mtime=0)]
        self.types = [OCI + "layer.v1.tar", OCI + "layer.v1.tar+gzip"]
        self.chain = [f"{name}-{number}" for number in range(len(tars))]
        self.config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {
            "type": "layers", "diff_ids": [digest_of(tar) for tar in tars]}}).encode()

        def descriptor(kind, data):
            return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

        self.manifest = json.dumps({
            "schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
            "config": descriptor(OCI + "config.v1+json", self.config),
            "layers": [descriptor(kind, data) for kind, data in zip(self.types, self.layers)]}).encode()
        self.target = {"media_type": OCI + "manifest.v1+json", "digest": digest_of(self.manifest),
                       "size": len(self.manifest)}
        below = [self.config, *self.layers]
        self.blobs = [(data, {}) for data in below] + [
            (self.manifest, {f"containerd.io/gc.ref.content.{n}": digest_of(data) for n, data in enumerate(below)})]

    @property
    def digests(self):
        return {digest_of(data) for data, _ in self.blobs}


def tree(directory):
    """What a snapshot's directory holds, whiteouts and all."""
    found = []
    for base, dirs, names in os.walk(directory):
        for name in sorted(dirs + names):
            path = pathlib.Path(base, name)
            info = path.lstat()
            content = os.readlink(path) if stat.S_ISLNK(info.st_mode) else \
                hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(info.st_mode) else info.st_rdev
            time_ = None if stat.S_ISCHR(info.st_mode) else info.st_mtime  # a whiteout is as old as it is
            found.append((str(path.relative_to(directory)), oct(info.st_mode), info.st_uid, info.st_gid, info.st_nlink,
                          time_, content))
    return sorted(found)


class ImageMatrix(Rows):
    """offset 0 or 1: which of the points end in a repetition, and which are given up."""

    def __init__(self, daemon, tracer, offset=0):
        super().__init__(daemon, tracer, "image")
        self.offset = offset
        self.ns = f"images-{os.getpid()}"
        self.acknowledged = set()  # digests and names of snapshots
        self.trees = {}
        self.other = Image("other")
        self.import_(self.other)
        self.unpack(self.other)
        self.look(self.other)
        self.release(self.other)
        self.collect()
        self.before = self.stored()

    # calls

    def call(self, method, request, lease=None, timeout=20):
        return self.d.api.call(method, request, namespace=self.ns, lease=lease, timeout=timeout)

    def unless(self, code, method, request, **options):
        """The answer, None when it ends with this code: what was begun before may have gone so far."""
        try:
            return self.call(method, request, **options)
        except grpc.RpcError as error:
            if error.code() != code:
                raise
            return None

    def write(self, data, labels, lease):
        half = len(data) // 2
        ref = "ref-" + digest_of(data)

        def part(action, at, piece, **fields):
            return {"action": action, "ref": ref, "offset": at, "data": base64.b64encode(piece).decode(),
                    "expected": digest_of(data), "total": len(data), **fields}

        def parts():
            status = self.unless(CODE.NOT_FOUND, CONTENT + "Status", {"ref": ref})
            at = status.status.offset if status else 0  # what an interrupted one has left
            if at < half:
                yield part("WRITE", at, data[at:half])
                at = half
            yield part("COMMIT", at, data[at:], labels=labels)

        try:
            list(self.d.api.bidi(CONTENT + "Write", iter(list(parts())), namespace=self.ns, lease=lease))
        except grpc.RpcError as error:
            if error.code() != CODE.ALREADY_EXISTS:
                raise
        self.acknowledged.add(digest_of(data))

    def import_(self, image):
        self.unless(CODE.ALREADY_EXISTS, LEASES + "Create", {"id": image.name})
        for data, labels in image.blobs:
            self.write(data, labels, image.name)
        self.unless(CODE.ALREADY_EXISTS, IMAGES + "Create", {"image": {"name": image.name, "target": image.target}})

    def prepare_snapshot(self, key, parent, lease):
        """The mounts of a new one, in place of one that was begun and given up."""
        self.unless(CODE.NOT_FOUND, SNAPSHOTS + "Remove", {"snapshotter": "overlayfs", "key": key})
        return self.call(SNAPSHOTS + "Prepare", {"snapshotter": "overlayfs", "key": key, "parent": parent},
                         lease=lease).mounts

    def unpack(self, image):
        parent = ""
        for kind, data, name in zip(image.types, image.layers, image.chain):
            if not self.unless(CODE.NOT_FOUND, SNAPSHOTS + "Stat", {"snapshotter": "overlayfs", "key": name}):
                request = message_class("containerd.services.diff.v1.ApplyRequest")(
                    diff={"media_type": kind, "digest": digest_of(data), "size": len(data)})
                request.mounts.extend(self.prepare_snapshot(f"{name}-active", parent, image.name))
                self.call(DIFF + "Apply", request)
                self.call(SNAPSHOTS + "Commit", {"snapshotter": "overlayfs", "name": name, "key": f"{name}-active"},
                          lease=image.name)
            self.acknowledged.add(name)
            parent = name
        self.call(CONTENT + "Update", {
            "info": {"digest": digest_of(image.config), "labels": {"containerd.io/gc.ref.snapshot.overlayfs": parent}},
            "update_mask": "labels"})

    def diff(self, image):
        mounts = self.prepare_snapshot(f"{image.name}-changed", image.chain[-1], image.name)
        upper = next(o for o in mounts[0].options if o.startswith("upperdir=")).partition("=")[2]
        pathlib.Path(upper, "new").write_bytes(b"new" * 100000)
        self.unless(CODE.NOT_FOUND, SNAPSHOTS + "Remove", {"snapshotter": "overlayfs", "key": "left"})
        request = message_class("containerd.services.diff.v1.DiffRequest")(media_type=OCI + "layer.v1.tar+gzip",
                                                                           ref=f"{image.name}-diff")
        request.left.extend(self.call(SNAPSHOTS + "View", {"snapshotter": "overlayfs", "key": "left",
                                                           "parent": image.chain[-1]}, lease=image.name).mounts)
        request.right.extend(mounts)
        self.acknowledged.add(self.call(DIFF + "Diff", request, lease=image.name).diff.digest)

    def release(self, image, sync=False):
        self.unless(CODE.NOT_FOUND, LEASES + "Delete", {"id": image.name, "sync": sync})

    def expire(self, image):
        """What the lease holds gets another one that ends soon; then its own goes."""
        at = time.time() + 0.3
        expiry = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03}Z"
        self.unless(CODE.ALREADY_EXISTS, LEASES + "Create",
                    {"id": f"{image.name}-short", "labels": {"containerd.io/gc.expire": expiry}})
        for digest in image.digests:
            self.unless(CODE.NOT_FOUND, LEASES + "AddResource",
                        {"id": f"{image.name}-short", "resource": {"id": digest, "type": "content"}})
        self.acknowledged.clear()
        self.release(image)
        wait_until(lambda: not image.digests & self.blobs(), 5, "the collection of what has expired")

    def remove(self, image):
        self.prepare_snapshot("c", image.chain[-1], image.name)
        self.call(SNAPSHOTS + "Remove", {"snapshotter": "overlayfs", "key": "c"})
        self.call(SNAPSHOTS + "Cleanup", {"snapshotter": "overlayfs"})

    def delete(self, image):
        self.acknowledged.clear()
        self.release(image)
        self.unless(CODE.NOT_FOUND, IMAGES + "Delete", {"name": image.name, "sync": True})

    def collect(self):
        """A collection that has ended when it is answered."""
        self.unless(CODE.ALREADY_EXISTS, LEASES + "Create", {"id": "collect"})
        self.unless(CODE.NOT_FOUND, LEASES + "Delete", {"id": "collect", "sync": True})

    # what is there

    @property
    def content(self):
        return self.d.root / "io.containerd.content.v1.content"

    def blobs(self):
        return {"sha256:" + path.name for path in (self.content / "blobs" / "sha256").iterdir()}

    def workers(self):
        """Of this daemon or of none: those of others are their affair."""
        found = set()
        for line in ledger.processes():
            pid = line.split()[1]
            if "wherry-worker" not in line:
                continue
            try:
                parent = pathlib.Path(f"/proc/{pid}/status").read_text().partition("PPid:\t")[2].split()[0]
            except OSError:
                continue
            if parent in ("0", "1", str(self.d.pid)):
                found.add(f"worker {pid}")
        return found

    def stored(self):
        """All that the daemon keeps of images, and what could be left of its work."""
        overlay = self.d.root / "io.containerd.snapshotter.v1.overlayfs"
        places = [self.content / "blobs" / "sha256", self.content / "ingest", overlay / "snapshots",
                  self.d.root / "tmpmounts", overlay]
        found = {str(path) for place in places if place.exists() for path in place.iterdir()}
        records = {f"content {info.digest}" for part in self.d.api.stream(CONTENT + "List", {}, namespace=self.ns)
                   for info in part.info}
        records |= {f"ingest {s.ref}" for s in self.call(CONTENT + "ListStatuses", {}).statuses}
        records |= {f"snapshot {info.name}" for part in self.d.api.stream(
            SNAPSHOTS + "List", {"snapshotter": "overlayfs"}, namespace=self.ns) for info in part.info}
        records |= {f"image {image.name}" for image in self.call(IMAGES + "List", {}).images}
        records |= {f"lease {lease.id}" for lease in self.call(LEASES + "List", {}).leases}
        mounts = {m for m in ledger.mounts() if str(self.d.base) in m}
        return found | records | mounts | self.workers()

    def look(self, image):
        """The trees of its snapshots: those of the first image of the name are what all are compared with."""
        for name in image.chain:
            self.trees.setdefault(name, self.tree_of(name))
        # Nothing of the layers is missing there.
        assert len(self.trees[image.chain[0]]) == 5 and len(self.trees[image.chain[1]]) == 7, self.trees

    def tree_of(self, name):
        mounts = self.call(SNAPSHOTS + "View", {"snapshotter": "overlayfs", "key": "look", "parent": name,
                                                "labels": {"containerd.io/gc.root": "1"}}).mounts
        self.call(SNAPSHOTS + "Remove", {"snapshotter": "overlayfs", "key": "look"})
        lower = [o for o in mounts[0].options if o.startswith("lowerdir=")]
        return tree(lower[0].partition("=")[2].partition(":")[0] if lower else mounts[0].source)

    def check(self):
        """What has its name is what the name says, and what was acknowledged is there."""
        names = {name for part in self.d.api.stream(SNAPSHOTS + "List", {"snapshotter": "overlayfs"}, namespace=self.ns)
                 for name in (info.name for info in part.info)}
        recorded = {info.digest: info.size for part in self.d.api.stream(CONTENT + "List", {}, namespace=self.ns)
                    for info in part.info}
        for digest in sorted(self.blobs() | set(recorded)):
            path = self.content / "blobs" / "sha256" / digest.partition(":")[2]
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                # The daemon collects when it starts; what is on record has its file all the same.
                assert digest not in recorded or digest not in self.acknowledged | self.other.digests, f"{digest} is gone"
                continue
            assert digest_of(data) == digest, f"the blob {digest} is another"
            assert recorded.get(digest, len(data)) == len(data), f"the size of {digest} is not on record"
        missing = (self.acknowledged | self.other.digests | set(self.other.chain)) - set(recorded) - names
        assert not missing, f"what was acknowledged is missing: {missing}"
        for name in sorted(names & set(self.trees)):
            found = set(self.tree_of(name)) ^ set(self.trees[name])
            assert not found, f"the tree of {name} is another: {sorted(found)}"

    # one verb

    def prepare(self, verb, image):
        """The state from which the verb is carried out."""
        self.acknowledged.clear()
        if verb == "import":
            return
        self.import_(image)
        if verb == "expire":
            self.call(IMAGES + "Delete", {"name": image.name})
        elif verb != "unpack":
            self.unpack(image)

    def carry_out(self, verb, image):
        {"import": self.import_, "unpack": self.unpack, "diff": self.diff, "collect": self.delete,
         "expire": self.expire, "remove": self.remove}[verb](image)

    def check_done(self, verb, image):
        if verb == "collect":
            self.collect()  # the image may be gone, and then its deletion asks for nothing more
        stored = self.stored()
        if verb in ("collect", "expire"):
            assert not {f"content {digest}" for digest in image.digests} & stored, "not all was collected"
            return
        assert f"image {image.name}" in stored and image.digests <= self.blobs()
        if verb != "import":
            self.look(image)
            assert set(image.chain) <= {item.partition(" ")[2] for item in stored if item.startswith("snapshot ")}

    def forget(self, image):
        """As somebody does who has given up, or has no more use for it."""
        self.acknowledged.clear()
        for key in ("c", "left", "look", f"{image.name}-changed"):
            self.unless(CODE.NOT_FOUND, SNAPSHOTS + "Remove", {"snapshotter": "overlayfs", "key": key})
        self.unless(CODE.NOT_FOUND, LEASES + "Delete", {"id": f"{image.name}-short"})
        self.delete(image)
        self.collect()

        def difference():
            """Directories go soon after their records, and a worker with its daemon."""
            return self.stored() ^ self.before

        deadline = time.monotonic() + 5
        while difference() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not difference(), f"more or less than before: {sorted(difference())}"

    def victim_of(self, victim, point):
        if victim == "worker":
            return Killer(self.tracer, self.d.pid, point, "wherry-worker", "+")
        return Killer(self.tracer, self.d.pid, point)

    def once(self, verb, victim, point):
        """Carries the verb out and kills at this point; True if the point was reached."""
        image = Image(f"{victim}-{verb}")
        self.prepare(verb, image)
        killer = self.victim_of(victim, point)
        outcome = "OK"
        try:
            self.carry_out(verb, image)
            time.sleep(0.02)  # what comes after the answer
        except (grpc.RpcError, AssertionError) as error:
            if isinstance(error, AssertionError) and not killer.has_killed:
                raise
            code = error.code() if isinstance(error, grpc.RpcError) else None
            outcome = f"{code} {error.details()}" if code else repr(error)
            if code and code not in (INTERRUPTED if victim == "daemon" else WORKER_DIED):
                raise
        reached = wait_until(lambda: killer.has_killed, 5) if outcome != "OK" else killer.has_killed
        calls = killer.stop()
        try:
            if reached and victim == "daemon":
                self.d.kill()
                self.d.start()
            self.check()
            if (point + self.offset) % 2 or not reached:
                self.carry_out(verb, image)
                self.check()
                self.check_done(verb, image)
            self.forget(image)
            self.check()
        except Exception as error:
            raise Failure.after(calls, reached, verb, outcome, error) from error
        return reached, calls

    def recover(self, verb, victim):
        """After a failure: a clean start for the next point."""
        if self.d.process and self.d.process.poll() is not None:
            self.d.kill()
        if not self.d.process:
            self.d.start()
        try:
            self.forget(Image(f"{victim}-{verb}"))
        except Exception as error:  # noqa: BLE001
            self.failures.append(f"{victim} {verb} leaves something for good: {error}")
            self.before = self.stored()

    def end(self):
        """The other image goes too, and with it all that there was."""
        self.acknowledged.clear()
        self.delete(self.other)
        self.collect()
        left = {item for item in self.stored() if "/metadata" not in item and not item.endswith("/snapshots")}
        if left:
            self.failures.append(f"left at the end: {sorted(left)}")
