# SPDX-License-Identifier: Apache-2.0
"""import: one big layer from an archive into content store and snapshot."""
import gzip
import hashlib
import io
import json
import os
import pathlib
import statistics
import tarfile

from harness import daemons

from .disk import FreshDisk
from .pair import table, timed


def big_image(path, size_mib=200):
    """One gzip layer of that many MiB of tar: files of this machine, since made-up ones compress like nothing real."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for base, directories, names in os.walk("/usr"):
            directories.sort()
            for name in sorted(names):
                file = pathlib.Path(base, name)
                if file.is_symlink() or not file.is_file() or file.stat().st_size > 16 << 20:
                    continue
                if raw.tell() < size_mib << 20:
                    tar.add(file, arcname=str(file)[1:], recursive=False)
    layer = raw.getvalue()
    packed = gzip.compress(layer, 6, mtime=0)
    sha = lambda data: "sha256:" + hashlib.sha256(data).hexdigest()
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                         "rootfs": {"type": "layers", "diff_ids": [sha(layer)]}}).encode()
    base = "application/vnd.oci.image."
    manifest = json.dumps({"schemaVersion": 2, "mediaType": base + "manifest.v1+json",
                           "config": {"mediaType": base + "config.v1+json", "digest": sha(config), "size": len(config)},
                           "layers": [{"mediaType": base + "layer.v1.tar+gzip", "digest": sha(packed),
                                       "size": len(packed)}]}).encode()
    index = json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": base + "manifest.v1+json", "digest": sha(manifest), "size": len(manifest),
         "annotations": {"io.containerd.image.name": "docker.io/library/big:latest"}}]}).encode()
    with tarfile.open(path, "w") as tar:
        for name, data in [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", index)] + [
                ("blobs/sha256/" + sha(blob)[7:], blob) for blob in (manifest, config, packed)]:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return len(layer), len(packed)


def sample(pair, kind, archive, command):
    """Seconds, on a file system that nobody has deleted from: ext4 looks long for inodes after deletions."""
    with FreshDisk(pair.scratch) as place:
        daemon = kind(log_level="info", place=place)
        daemon.start()
        try:
            return timed(command(daemon, str(archive)), daemon.environment()) / 1000
        finally:
            daemon.stop()


def show(pair):
    path = pair.scratch / "big.tar"
    size, packed = big_image(path)
    with open(path, "rb") as file:  # into the page cache
        while file.read(1 << 20):
            pass

    def ctr(daemon, archive):
        return ["ctr", "--address", daemon.address, "images", "import", archive]

    def wherry(daemon, archive):
        return [str(daemons.BIN / "wherry"), "--address", daemon.address, "import", archive]

    runs = 3 if pair.quick else 5
    rows = [("", "containerd", "wherry", "ratio", "to reach")]
    for name, ours in (("ctr", ctr), ("wherry beside ctr", wherry)):
        samples = ([], [])
        for _ in range(runs):
            samples[0].append(sample(pair, daemons.Containerd, path, ctr))
            samples[1].append(sample(pair, daemons.Daemon, path, ours))
        a, b = (statistics.median(s) for s in samples)
        rows.append((name, f"{a:.2f} s", f"{b:.2f} s", f"{b / a:.2f}", "0.35"))
    table(f"Import and unpack of one layer of {size >> 20} MiB ({packed >> 20} MiB gzip), a fresh file system each time: "
          f"median of {runs}", rows)
