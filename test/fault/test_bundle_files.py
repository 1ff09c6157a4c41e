# SPDX-License-Identifier: Apache-2.0
"""Files of a bundle that are not what they were: the shim that lives believes none of them, and whoever cleans up
after one that was killed finds the container all the same, touches nothing else, and does not hang or grow."""
import os
import shutil
import signal
import stat
import subprocess

import pytest

from fault.rig import has_ended, start_time, wait_until
from harness import daemons


def replace(path, kind, precious):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if kind == "garbage":
        path.write_bytes(os.urandom(3000))
    elif kind == "deep":
        path.write_bytes(b"[" * 1000000)
    elif kind == "huge":
        with open(path, "wb") as file:
            file.truncate(1 << 40)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    elif kind == "somebody's":
        path.symlink_to(precious)
    elif kind == "wrong types":
        path.write_text('{"root":5,"binary_name":["x"],"io_uid":-1,"process":"no","linux":{"cgroupsPath":7,"namespaces":{}},'
                        '"annotations":[1],"version":"x","address":{},"protocol":null,"mounts":null,"hooks":1,"bundle":false}')


FILES = ("config.json", "options.json", "runtime", "address", "bootstrap.json", "log.json", "init.pid")


@pytest.mark.parametrize("kind", ["garbage", "deep", "huge", "fifo", "device", "directory", "somebody's", "wrong types"])
def test_files_are_replaced(rig, kind):
    precious = rig.d.base / "precious"
    precious.write_text(str(os.getpid()))
    pid = rig.run("c1", host_pid=True)
    for name in FILES:
        replace(rig.bundle("c1") / name, kind, precious)
    # What needs no file works.
    assert rig.state("c1") == "RUNNING"
    rig.task("Pause", container_id="c1")
    rig.task("Resume", container_id="c1")
    rig.execute("c1", "e1", ("true",))
    assert rig.wait("c1", "e1") == 0
    rig.delete_exec("c1", "e1")
    shim, born = rig.shim("c1"), start_time(os.getpid())
    os.kill(shim, signal.SIGKILL)
    wait_until(lambda: has_ended(pid), what="the end of the container")
    wait_until(lambda: rig.state("c1") is None, 15, "the end of the task")
    assert precious.read_text() == str(os.getpid()) and start_time(os.getpid()) == born
    rig.remove("c1")
    assert rig.left_behind() == []


def test_files_are_replaced_before_the_end(rig):
    """The shim ends its container by what it knows itself."""
    for kind in ("garbage", "somebody's"):
        precious = rig.d.base / "precious"
        precious.write_text("1\n")
        rig.run("c1")
        for name in FILES:
            replace(rig.bundle("c1") / name, kind, precious)
        assert rig.end("c1") == 7
        assert rig.delete("c1") == 7
        rig.remove("c1")
        assert precious.read_text() == "1\n"
        assert rig.left_behind() == []


def test_modes(rig):
    """Nobody but root reaches a shim or its files; the socket lies in a directory of root's alone."""
    rig.run("c1")

    def mode(path):
        return stat.S_IMODE(os.lstat(path).st_mode)

    assert mode(rig.socket("c1")) == 0o600 and mode(rig.socket("c1").parent) & 0o066 == 0
    assert os.lstat(rig.socket("c1").parent).st_uid == 0
    bundle = rig.bundle("c1")
    assert mode(bundle) == 0o700
    for name in ("options.json", "shim-binary-path", "runtime", "cgroup"):
        assert mode(bundle / name) == 0o600, name
    assert mode(bundle / "log") & 0o077 == 0 and stat.S_ISFIFO(os.lstat(bundle / "log").st_mode)
    assert mode(bundle.parent) & 0o022 == 0
    assert mode(f"/run/containerd/runc/{rig.ns}") & 0o066 == 0
    assert rig.end("c1") == 7
    rig.remove("c1")
    assert rig.left_behind() == []


def test_delete_by_hand(rig):
    """The action itself, in a directory of nothing but hostile files: it answers, and touches nothing."""
    precious = rig.d.base / "precious"
    precious.write_text("1\n")
    shim = daemons.BIN / "containerd-shim-wherry-v2"
    for kind in ("garbage", "deep", "huge", "fifo", "device", "directory", "somebody's", "wrong types"):
        bundle = rig.d.base / "bundle"
        bundle.mkdir()
        for name in (*FILES, "cgroup", "rootfs", "exits", "log"):
            replace(bundle / name, kind, precious)
        result = subprocess.run([shim, "-namespace", rig.ns, "-id", "c1", "-address", rig.d.address, "-bundle", bundle, "delete"],
                                cwd=bundle, capture_output=True, timeout=10)
        assert result.returncode == 0 and result.stdout, (kind, result)
        assert precious.read_text() == "1\n"
        shutil.rmtree(bundle)
    assert rig.left_behind() == []
