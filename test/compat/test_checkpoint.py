# SPDX-License-Identifier: Apache-2.0
"""Checkpoint and restore by Debian's ctr with the real CRIU, for both runtimes: through wherryd, and through
Debian's containerd with our shims in the place of its own."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tarfile
import time

import pytest

from compat.test_ctr import IMAGE, Terminal, forget_fifos, status, wait_until
from conftest import running
from harness import criu, daemons

V1 = "io.containerd.runtime.v1.linux"
OWN_V1_SHIM = str(daemons.BIN / "containerd-shim")
# Says how far it is when it is asked: a file that is open during a dump may not change until it is restored.
COUNTER = "trap 'echo $i > /count' USR1; i=0; while :; do i=$((i+1)); usleep 20000; done"
TAR = "application/vnd.containerd.container.criu.checkpoint.criu.tar"
SPEC = "application/vnd.containerd.container.checkpoint.config.v1+proto"

pytestmark = pytest.mark.skipif(not shutil.which("ctr") or not shutil.which("runc"),
                                reason="ctr and runc are needed (packages containerd and runc)")


@pytest.fixture
def path_with_criu(monkeypatch):
    directory = criu.directory()
    if not directory:
        pytest.skip(criu.why())
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def served(kind, generation, archive):
    daemon = kind(f'[plugins."{V1}"]\n  shim = "{OWN_V1_SHIM}"\n  runtime = "runc"\n')
    daemon.options = ("--runtime", V1) if generation == "v1" else ("--runc-binary", "runc")
    daemon.runtime = V1 if generation == "v1" else "io.containerd.runtime.v2.task"
    if kind is daemons.Containerd and generation == "v2":
        daemon.put_shim_first()
    for d in running(daemon):
        d.import_image(archive)
        yield d


# Debian's containerd takes no options of `ctr containers checkpoint` for runtime v1.
@pytest.fixture(params=[(daemons.Daemon, "v2"), (daemons.Daemon, "v1"), (daemons.Containerd, "v2")],
                ids=lambda p: f"{p[0].name}-{p[1]}")
def d(request, path_with_criu, balanced, archive):
    kind, generation = request.param
    if kind is daemons.Containerd and not shutil.which("containerd"):
        pytest.skip("containerd is not installed")
    if generation == "v1" and not pathlib.Path("/sys/fs/cgroup/memory").is_dir():
        pytest.skip("runtime v1 is for cgroup v1")
    yield from served(kind, generation, archive)


@pytest.fixture(params=["v2", "v1"])
def w(request, path_with_criu, balanced, archive):
    if request.param == "v1" and not pathlib.Path("/sys/fs/cgroup/memory").is_dir():
        pytest.skip("runtime v1 is for cgroup v1")
    yield from served(daemons.Daemon, request.param, archive)


def pid(d, name):
    return next(int(row.split()[1]) for row in d.ctr("tasks", "ls").stdout.splitlines()[1:] if row.split()[0] == name)


def count(d, name, task_pid=None):
    """How far the container has counted."""
    path = d.state / d.runtime / "default" / name / "rootfs" / "count"
    path.unlink(missing_ok=True)
    task_pid = task_pid or pid(d, name)
    os.kill(task_pid, signal.SIGUSR1)
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), what=f"{name} answers")
    return int(path.read_text())


def start(d, name="c1", script=COUNTER):
    d.ctr("run", "-d", *d.options, IMAGE, name, "sh", "-c", script)
    task_pid = pid(d, name)
    # Until the shell has set its trap the signal would be dropped.
    wait_until(lambda: int(re.search(r"SigCgt:\s+(\w+)", pathlib.Path(f"/proc/{task_pid}/status").read_text()).group(1), 16)
               >> signal.SIGUSR1 - 1 & 1, what=f"{name} counts")


def goes_on(d, name):
    task_pid = pid(d, name)
    before = count(d, name, task_pid)
    wait_until(lambda: count(d, name, task_pid) > before, what=f"{name} goes on")
    return before


def remove(d, *names):
    for name in names:
        d.ctr("tasks", "kill", "-s", "SIGKILL", name, check=False)
        wait_until(lambda: status(d, name) in ("STOPPED", None), what=f"{name} stopped")
        d.ctr("tasks", "rm", name, check=False)
        d.ctr("containers", "rm", name)


def blob(d, digest):
    return d.ctr("content", "get", digest, text=False).stdout


def test_images_where_the_client_says(d):
    """Nothing is stored, the container runs on, and the work directory has CRIU's log."""
    start(d)
    images, work = d.base / "images", d.base / "work"
    out = d.ctr("tasks", "checkpoint", "--image-path", images, "--work-path", work, "c1").stdout
    assert "containerd.io/checkpoint" not in out
    assert (images / "inventory.img").exists() and (work / "dump.log").exists()
    assert status(d, "c1") == "RUNNING"
    goes_on(d, "c1")
    assert "checkpoint" not in d.ctr("images", "ls").stdout
    remove(d, "c1")


def test_stored_and_restored(d, tmp_path):
    """Task, image and filesystem become one image, and a second container goes on from there."""
    start(d)
    wait_until(lambda: count(d, "c1") > 20, what="c1 counts")
    reached = count(d, "c1")
    d.ctr("containers", "checkpoint", "--task", "--image", "--rw", "c1", "saved:1")
    index = json.loads(blob(d, re.search(r"saved:1\s.*?(sha256:[0-9a-f]{64})", d.ctr("images", "ls").stdout).group(1)))
    types = {m["mediaType"]: m["digest"] for m in index["manifests"]}
    assert {TAR, SPEC} <= set(types)
    (tmp_path / "tar").write_bytes(blob(d, types[TAR]))
    with tarfile.open(tmp_path / "tar") as tar:
        assert {"inventory.img", "descriptors.json"} <= {name.removeprefix("./").strip("/") for name in tar.getnames()}
    assert b"types.containerd.io/opencontainers/runtime-spec/1/Spec" in blob(d, types[SPEC])

    remove(d, "c1")
    d.ctr("containers", "restore", "--live", "c2", "saved:1")
    assert status(d, "c2") == "RUNNING"
    goes_on(d, "c2")
    assert count(d, "c2") > reached > 0
    if d.name == "wherryd":
        wait_until(lambda: not (d.root / d.runtime / "default" / "c2" / "images").exists(), what="images removed")
    d.ctr("tasks", "kill", "-s", "SIGKILL", "c2")
    wait_until(lambda: status(d, "c2") == "STOPPED", what="c2 stopped")
    assert "exit code 137" in d.ctr("tasks", "rm", "c2").stderr
    d.ctr("containers", "rm", "c2")
    d.ctr("images", "rm", "saved:1")
    forget_fifos()


def test_exit(w):
    """A container that ends by its checkpoint: one end like any other."""
    start(w)
    events = w.popen("ctr", "--address", w.address, "events", stdout=subprocess.PIPE, text=True)
    time.sleep(0.3)
    w.ctr("tasks", "checkpoint", "--exit", "c1")
    wait_until(lambda: status(w, "c1") == "STOPPED", what="c1 stopped")
    remove(w, "c1")
    time.sleep(0.3)
    events.terminate()
    text = events.communicate(timeout=10)[0]
    assert text.count("/tasks/exit") == 1 and '"exit_status":137' in text
    if w.runtime == V1:
        assert text.count("/tasks/checkpointed") == 1
    assert not list((w.root / "tmpcheckpoints").iterdir())


def test_failed_restore(w):
    """No images, broken images: an error, and nothing of the container is left but its record."""
    start(w)
    w.ctr("containers", "checkpoint", "--task", "--image", "--rw", "c1", "saved:3")
    broken = json.loads(blob(w, re.search(r"saved:3\s.*?(sha256:[0-9a-f]{64})", w.ctr("images", "ls").stdout).group(1)))
    digest = next(m["digest"] for m in broken["manifests"] if m["mediaType"] == TAR)
    path = w.root / "io.containerd.content.v1.content" / "blobs" / "sha256" / digest.partition(":")[2]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    failed = w.ctr("containers", "restore", "--live", "c2", "saved:3", check=False)
    assert failed.returncode == 1 and digest in failed.stderr, failed.stderr
    assert status(w, "c2") is None
    w.ctr("containers", "rm", "c2", check=False)
    remove(w, "c1")
    w.ctr("images", "rm", "saved:3")
    forget_fifos()


@pytest.fixture
def cli(w):
    """wherry's containers run with runc, which has CRIU; Debian's crun has not."""
    w.shim = ("--runtime", V1) if w.runtime == V1 else ("--runtime", shutil.which("runc"))
    return w


def log_of(d, name):
    return d.wherry("logs", name).stdout.split()


def asked(d, name):
    """What a TALKER says next."""
    before = len(log_of(d, name))
    d.wherry("kill", "-s", "USR1", name)
    wait_until(lambda: len(log_of(d, name)) > before, what=f"{name} answers")
    return int(log_of(d, name)[-1])


TALKER = "trap 'echo $i' USR1; i=0; echo 0; while :; do i=$((i+1)); usleep 20000; done"


def test_wherry(cli):
    """Made, listed, restored and removed by name; the daemon keeps it over a restart and a collection."""
    d = cli
    d.wherry("run", "-d", *d.shim, "--name", "c1", IMAGE, "sh", "-c", TALKER)
    wait_until(lambda: log_of(d, "c1"), what="c1 talks")
    wait_until(lambda: asked(d, "c1") > 20, what="c1 counts")
    assert d.wherry("checkpoint", "create", "--leave-running", "c1", "one").stdout == "one\n"
    reached = asked(d, "c1")
    assert d.wherry("checkpoint", "create", "c1", "two").stdout == "two\n"
    assert "ended (137)" in d.wherry("ps", "-a").stdout
    taken = d.wherry("checkpoint", "create", "c1", "two", check=False)
    assert taken.returncode == 1 and taken.stderr == "wherry: container c1 is not running\n"
    d.restart()
    listed = json.loads(d.wherry("checkpoint", "ls", "c1", "--json").stdout)
    assert sorted((c["container"], c["name"]) for c in listed) == [("c1", "one"), ("c1", "two")]
    assert all(c["digest"].startswith("sha256:") and c["createdAt"] for c in listed)
    assert d.wherry("checkpoint", "ls", "other", "--json").stdout == "[]\n"

    assert d.wherry("checkpoint", "restore", "c1", "two").stdout == "c1\n"
    assert asked(d, "c1") >= reached > 20
    running_already = d.wherry("checkpoint", "restore", "c1", "two", check=False)
    assert running_already.returncode == 1 and "is running; stop it first" in running_already.stderr
    again = d.wherry("checkpoint", "create", "c1", "two", check=False)
    assert again.returncode == 1 and again.stderr == "wherry: container c1 has a checkpoint two already\n"
    d.wherry("stop", "-t", "0", "c1")
    d.wherry("checkpoint", "restore", "c1", "one")
    asked(d, "c1")
    assert d.wherry("checkpoint", "rm", "c1", "one").stdout == "one\n"
    missing = d.wherry("checkpoint", "restore", "c1", "one", check=False)
    assert missing.returncode == 1 and "has no checkpoint one" in missing.stderr
    bad = d.wherry("checkpoint", "create", "c1", "../x", check=False)
    assert bad.returncode == 1 and "name of the checkpoint" in bad.stderr
    d.wherry("rm", "-f", "c1")
    assert json.loads(d.wherry("checkpoint", "ls", "--json").stdout) == []


def test_wherry_directory(cli):
    d = cli
    place = d.base / "place"
    d.wherry("run", "-d", *d.shim, "--name", "c1", IMAGE, "sh", "-c", TALKER)
    wait_until(lambda: log_of(d, "c1"), what="c1 talks")
    d.wherry("checkpoint", "create", "--checkpoint-dir", place, "c1", "one")
    assert (place / "one" / "inventory.img").exists() and place.stat().st_mode & 0o777 == 0o700
    assert [c["name"] for c in json.loads(d.wherry("checkpoint", "ls", "--checkpoint-dir", place, "--json").stdout)] == ["one"]
    assert json.loads(d.wherry("checkpoint", "ls", "--json").stdout) == []
    d.wherry("checkpoint", "restore", "--checkpoint-dir", place, "c1", "one")
    asked(d, "c1")
    taken = d.wherry("checkpoint", "create", "--checkpoint-dir", place, "c1", "one", check=False)
    assert taken.returncode == 1 and "is there already" in taken.stderr
    (place / "mine").mkdir()
    refused = d.wherry("checkpoint", "rm", "--checkpoint-dir", place, "c1", "mine", check=False)
    assert refused.returncode == 1 and "is no checkpoint" in refused.stderr and (place / "mine").exists()
    d.wherry("checkpoint", "rm", "--checkpoint-dir", place, "c1", "one")
    assert not (place / "one").exists()
    d.wherry("rm", "-f", "c1")


def test_wherry_terminal(cli):
    """A shell with a variable, on a terminal: restored, and somebody attaches."""
    d = cli
    d.wherry("run", "-dit", *d.shim, "--name", "c1", IMAGE, "sh")
    t = Terminal(d, daemons.BIN / "wherry", "--address", d.address, "attach", "c1")
    t.send("kept=one''two; echo kept:$kept\n")
    t.expect("kept:onetwo")
    d.wherry("checkpoint", "create", "c1", "one")
    t.wait()
    d.wherry("checkpoint", "restore", "c1", "one")
    t = Terminal(d, daemons.BIN / "wherry", "--address", d.address, "attach", "c1")
    t.send("echo got:$kept; exit 5\n")
    t.expect("got:onetwo")
    assert t.wait() == 5
    d.wherry("rm", "-f", "c1")
