# SPDX-License-Identifier: Apache-2.0
"""The figures of a container as Debian's containerd tells them with its own shim and with ours: one message."""
import json
import shutil

import pytest

from fault.rig import Rig, wait_until
from harness.api import message_class

pytestmark = pytest.mark.skipif(not shutil.which("containerd"), reason="containerd is not installed")

# What its work makes differ between two runs of the same container; that it is there is compared.
MEMORY = {"limit": 64 << 20, "swap": 96 << 20, "kernelTCP": 32 << 20}
COMMAND = ("sh", "-c", "head -c 3000000 /dev/urandom >/file; sync; cat /file >/dev/null; touch /ready;"
           "while :; do sleep 1000; done")


def metrics(rig):
    """The message of a container that has done some work, as protobuf."""
    spec = rig.spec("c1", COMMAND)
    spec["linux"]["resources"].update(memory=MEMORY, pids={"limit": 77}, cpu={"quota": 50000, "period": 100000})
    rig.run("c1", spec=spec, options=message_class("containerd.runc.v1.Options")(binary_name="runc"))
    wait_until((rig.d.base / "c" / "c1" / "upper" / "ready").exists, what="its work")
    reply = rig.call("containerd.services.tasks.v1.Tasks/Metrics", {"filters": ["id==c1"]})
    data = reply.metrics[0].data
    message = message_class(data.type_url)()
    message.ParseFromString(data.value)
    rig.remove("c1")
    return data.type_url, message


def shape(message, at=""):
    """Which fields are filled: their paths, repeated ones with their count, and the values of what was set."""
    found = {}
    for field, value in message.ListFields():
        path = f"{at}.{field.name}" if at else field.name
        if field.label == field.LABEL_REPEATED:
            if field.message_type:
                found[path] = sorted(json.dumps(keys(item)) for item in value)
            else:
                found[path] = len(value)
        elif field.message_type:
            found[path] = "there"
            found.update(shape(value, path))
        else:
            found[path] = value if is_set(path) else "there"
    return found


def keys(item):
    """What names an entry of a list: words and device numbers, not what was counted."""
    return {field.name: value for field, value in item.ListFields()
            if isinstance(value, str) or field.name in ("major", "minor")}


def is_set(path):
    return path.endswith(("limit", "pids.current", "oom_kill_disable"))


# Zero or not as it happens: figures of the kernel that come and go with what else runs.
CHANGING = ("memory.dirty", "memory.writeback", "memory.total_dirty", "memory.total_writeback", "maj_fault", "mapped_file",
            "throttling.", "failcnt", "unevictable", "huge", "inactive_anon", "active_anon", "active_file", "rss",
            "pg_out", "kernel.", "cache", "inactive_file", "cpu.usage.user", "cpu.usage.kernel")


def stable(found):
    return {path: value for path, value in found.items() if not any(c in path for c in CHANGING)}


def test_same_fields(containerd):
    rig = Rig(containerd)
    url, theirs = metrics(rig)
    containerd.stop()
    containerd.put_shim_first()
    containerd.start()
    our_url, ours = metrics(rig)
    rig.forget()
    assert our_url == url
    left, right = stable(shape(theirs)), stable(shape(ours))
    assert left == right, {path: (left.get(path), right.get(path)) for path in left.keys() | right.keys()
                           if left.get(path) != right.get(path)}
    # Counted by the kernel in both, and of the same order.
    if url.endswith("v1.Metrics"):
        for path in ("memory.usage.usage", "memory.cache", "cpu.usage.total", "memory.pg_fault"):
            a, b = value_at(theirs, path), value_at(ours, path)
            assert a and b and 0.1 < a / b < 10, (path, a, b)


def value_at(message, path):
    for name in path.split("."):
        message = getattr(message, name)
    return message
