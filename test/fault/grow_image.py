#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Adds a layer of so many megabytes to an image archive: grow_image.py FROM.tar TO.tar MEGABYTES."""
import hashlib
import io
import json
import os
import sys
import tarfile


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(megabytes):
    """A tar of one file that does not compress."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        entry = tarfile.TarInfo("big")
        entry.size = megabytes << 20
        tar.addfile(entry, io.BytesIO(os.urandom(1 << 20) * megabytes))
    return out.getvalue()


def main():
    source, target, megabytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with tarfile.open(source) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}

    def take(descriptor):
        return files.pop("blobs/sha256/" + descriptor["digest"].partition(":")[2])

    def put(descriptor, data):
        descriptor.update(digest=digest(data), size=len(data))
        files["blobs/sha256/" + digest(data).partition(":")[2]] = data

    index = json.loads(files["index.json"])
    manifest = json.loads(take(index["manifests"][0]))
    config = json.loads(take(manifest["config"]))
    data = layer(megabytes)
    descriptor = {"mediaType": "application/vnd.oci.image.layer.v1.tar"}
    put(descriptor, data)
    manifest["layers"].append(descriptor)
    config["rootfs"]["diff_ids"].append(digest(data))
    config["history"].append({"created_by": "grow_image"})
    put(manifest["config"], json.dumps(config).encode())
    put(index["manifests"][0], json.dumps(manifest).encode())
    files["index.json"] = json.dumps(index).encode()
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    main()
