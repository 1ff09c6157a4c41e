# SPDX-License-Identifier: Apache-2.0
"""wherry-worker itself: its confinement and usage, and the import of archives."""
import gzip
import json
import os
import shutil
import subprocess
import time

import pytest

from compat.test_ctr import has_ended
from integration.layers import (END, WORKER, device, directory, hardlink, make_tar, member, pad, pax, raw_header,
                                run_import, symlink, zstd)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers are applied by root")


# The sandbox.


def test_confinement(target):
    """What the kernel says about the process that reads the layer."""
    read_end, write_end = os.pipe()
    target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    os.dup2(target_fd, 100)
    worker = subprocess.Popen(
        ["bash", "-c", 'exec "$@" 3<&100', "bash", WORKER, "apply", "--format", "gzip",
         "--whiteouts", "plain"],
        stdin=read_end, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[100])
    os.close(read_end)
    os.close(100)
    os.close(target_fd)
    try:
        child = wait_for_child(worker.pid)
        status = dict(
            line.split(":\t", 1) for line in open(f"/proc/{child}/status").read().splitlines() if ":\t" in line
        )
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        # CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SETFCAP
        wanted = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 27 | 1 << 31
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == wanted
        assert int(status["CapBnd"], 16) == wanted
        assert int(status["CapAmb"], 16) == int(status["CapInh"], 16) == 0
        for kind in ("mnt", "net", "ipc", "uts", "pid", "cgroup"):
            assert os.readlink(f"/proc/{child}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
        assert os.listdir(f"/proc/{child}/root") == []
        mounts = open(f"/proc/{child}/mountinfo").read().splitlines()
        assert len(mounts) == 1, mounts
        assert {"nosuid", "nodev", "noexec"} <= set(mounts[0].split()[5].split(","))
        limits = open(f"/proc/{child}/limits").read()
        assert "Max core file size        0" in limits
        assert sorted(os.listdir(f"/proc/{child}/fd"))[:4] == ["0", "1", "2", "3"]
        assert len(os.listdir(f"/proc/{child}/fd")) == 4
    finally:
        os.write(write_end, gzip.compress(END))
        os.close(write_end)
        out, _ = worker.communicate(timeout=20)
    assert json.loads(out)["entries"] == 0


def wait_for_child(pid):
    """The process in the pid namespace, once its filter is on."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        children = open(f"/proc/{pid}/task/{pid}/children").read().split()
        if children:
            try:
                status = open(f"/proc/{children[0]}/status").read()
            except FileNotFoundError:
                status = ""
            if "Seccomp:\t2" in status:
                return int(children[0])
        time.sleep(0.01)
    raise AssertionError("the worker did not start its job")


def test_dies_with_the_one_that_started_it(target):
    read_end, write_end = os.pipe()
    target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    os.dup2(target_fd, 100)
    worker = subprocess.Popen(
        ["bash", "-c", 'exec "$@" 3<&100', "bash", WORKER, "apply", "--format", "gzip",
         "--whiteouts", "overlay"],
        stdin=read_end, stdout=subprocess.DEVNULL, pass_fds=[100])
    os.close(read_end)
    os.close(100)
    os.close(target_fd)
    child = wait_for_child(worker.pid)
    worker.kill()
    worker.wait()
    deadline = time.monotonic() + 5
    while not has_ended(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert has_ended(child)
    os.close(write_end)


def test_usage():
    for arguments in ([], ["nonsense"], ["apply", "--format", "rar"], ["apply", "--whiteouts", "no"],
                      ["import", "extra"], ["apply", "--max-bytes", "-1"]):
        done = subprocess.run([WORKER, *arguments], capture_output=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 2
        assert done.stderr.startswith(b"usage: wherry-worker")


def test_missing_target():
    done = subprocess.run(
        [WORKER, "apply", "--format", "tar", "--whiteouts", "overlay"],
        input=END, capture_output=True)
    assert done.returncode == 1
    assert "target directory" in json.loads(done.stdout)["error"]


# ---- import ------------------------------------------------------------------------------------

ARCHIVE = make_tar(
    directory("blobs"), member("./oci-layout", data=b'{"imageLayoutVersion":"1.0.0"}'),
    member("blobs//sha256/./aa", data=b"a" * 300_000), symlink("x/layer.tar", "../blobs/sha256/aa"),
    hardlink("y", "./oci-layout"), device("null", 1, 3), member("empty"),
)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd])
def test_import(pack):
    code, records, _ = run_import(pack(ARCHIVE))
    assert code == 0
    assert records == [
        {"name": "oci-layout", "size": 30, "data": b'{"imageLayoutVersion":"1.0.0"}'},
        {"name": "blobs/sha256/aa", "size": 300_000, "data": b"a" * 300_000},
        {"name": "x/layer.tar", "link": "blobs/sha256/aa"},
        {"name": "y", "link": "oci-layout"},
        {"name": "empty", "size": 0, "data": b""},
        {"end": True},
    ]


@pytest.mark.parametrize("bad", [
    member("../x"), member("a/../b"), member("/etc/passwd"), hardlink("x", "../y"), hardlink("x", "/y"),
    symlink("x", "/etc/passwd"), symlink("a/x", "../../y"), symlink("a", "../z"),
], ids=range(8))
def test_import_names(bad):
    code, records, _ = run_import(make_tar(member("good", data=b"1"), bad))
    assert code == 1
    assert records[0]["name"] == "good"
    assert records[-1]["code"] == 3


def test_import_truncated_everywhere():
    for cut in range(1, len(ARCHIVE) - 10240, 4096):
        code, records, log = run_import(ARCHIVE[:cut])
        if code == 0:
            assert records[-1] == {"end": True}  # cut between members: what is missing is missing
            assert len(records) < 7
        else:
            assert records == [] or "error" in records[-1] or "level=error" in log


def test_import_junk():
    for junk in (b"junk" * 300, gzip.compress(b"junk" * 300), b"\x1f\x8b\x08junk", b"\x28\xb5\x2f\xfdjunk"):
        code, records, _ = run_import(junk)
        assert code == 1
        assert records[-1]["code"] == 3


def test_import_limits():
    code, records, _ = run_import(ARCHIVE, "--max-entries", "3")
    assert (code, records[-1]["code"]) == (1, 8)
    code, records, _ = run_import(ARCHIVE, "--max-bytes", "100000")
    assert code == 1
    hole = (
        pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "huge",
               "GNU.sparse.realsize": str(1 << 40)})
        + raw_header(b"x", 512) + pad(b"1\n%d\n0\n" % (1 << 40)) + END
    )
    code, records, _ = run_import(hole)
    assert (code, records[-1]["code"]) == (1, 8)


def test_import_without_privileges(tmp_path):
    tmp_path.chmod(0o755)
    worker = tmp_path / "worker"
    shutil.copy(WORKER, worker)
    worker.chmod(0o755)
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", WORKER, "import"],
        input=ARCHIVE, capture_output=True)
    if b"ermission denied" in done.stderr and done.returncode in (126, 127):
        pytest.skip("the program is where nobody else may look")
    assert done.returncode == 0
    assert done.stdout.endswith(b'{"end":true}\n')
