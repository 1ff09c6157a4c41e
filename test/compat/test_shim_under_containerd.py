# SPDX-License-Identifier: Apache-2.0
"""Debian's containerd with our shim in place of its own: the shim's protocol, from the other end."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

from compat.test_ctr import IMAGE, Terminal, forget_fifos, has_ended, status, wait_until


pytestmark = pytest.mark.skipif(not shutil.which("containerd"), reason="containerd is not installed")


@pytest.fixture(params=["own name", "runc", "crun"])
def c(request, containerd, archive):
    """containerd and the options that make it use our shim: under its own name, where it chooses the OCI runtime;
    or in the place of containerd-shim-runc-v2, where ctr can name one."""
    containerd.import_image(archive)
    containerd.options = ("--runtime", "io.containerd.wherry.v2")
    if request.param != "own name":
        if not shutil.which(request.param):
            pytest.skip(f"{request.param} is not installed")
        containerd.options = ("--runc-binary", request.param)
        containerd.stop()
        containerd.put_shim_first()
        containerd.start()
    return containerd


def run(c, *args, options=(), **how):
    return c.ctr("run", *c.options, *options, IMAGE, *args, **how)


def shims(c):
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if os.path.basename(words[0]).startswith("containerd-shim") and c.address in words:
                found[words[words.index("-id") + 1]] = int(entry.name)
    return found


def start(c, name, *command):
    run(c, name, *(command or ("sleep", "1000")), options=("-d",))
    wait_until(lambda: status(c, name) == "RUNNING", what=f"{name} running")


def remove(c, *names):
    for name in names:
        c.ctr("tasks", "kill", "-s", "SIGKILL", name, check=False)
        wait_until(lambda: status(c, name) in ("STOPPED", None), what=f"{name} stopped")
        c.ctr("tasks", "rm", name, check=False)
        c.ctr("containers", "rm", name)


def test_run(c):
    result = run(c, "c1", "sh", "-c", "echo out; echo err >&2; exit 7", options=("--rm",), check=False)
    assert (result.returncode, result.stdout, result.stderr) == (7, "out\n", "err\n")


def test_terminal(c):
    t = Terminal(c, "ctr", "--address", c.address, "run", "--rm", "-t", *c.options, IMAGE, "c1", "sh")
    t.expect("#")
    t.send("stty size; exit 3\n")
    t.expect("exit 3")
    assert t.wait() == 3


def test_exec(c):
    start(c, "c1")
    result = c.ctr("tasks", "exec", "--exec-id", "e1", "c1", "sh", "-c", "echo out; echo err >&2; exit 5", check=False)
    assert (result.returncode, result.stdout, result.stderr) == (5, "out\n", "err\n")
    t = Terminal(c, "ctr", "--address", c.address, "tasks", "exec", "-t", "--exec-id", "e2", "c1", "sh")
    t.expect("#")
    t.send("exit 4\n")
    assert t.wait() == 4
    remove(c, "c1")


def test_failing_commands(c):
    missing = run(c, "c1", "/no/such/program", options=("--rm",), check=False)
    assert missing.returncode == 1 and "OCI runtime create failed" in missing.stderr
    start(c, "c2")
    missing = c.ctr("tasks", "exec", "--exec-id", "e1", "c2", "/no/such/program", check=False)
    assert missing.returncode == 1 and "OCI runtime exec failed" in missing.stderr
    remove(c, "c2")


def test_pause_metrics_kill(c):
    start(c, "c1")
    c.ctr("tasks", "pause", "c1")
    assert status(c, "c1") == "PAUSED"
    c.ctr("tasks", "resume", "c1")
    assert int(json.loads(c.ctr("tasks", "metrics", "--format", "json", "c1").stdout)["pids"]["current"]) >= 1
    c.ctr("tasks", "kill", "-s", "SIGKILL", "c1")
    wait_until(lambda: status(c, "c1") == "STOPPED", what="c1 stopped")
    assert "not found" in c.ctr("tasks", "kill", "c1", check=False).stderr
    assert c.ctr("tasks", "rm", "c1", check=False).returncode in (0, 137)
    c.ctr("containers", "rm", "c1")


def test_events_in_order(c):
    watcher = c.popen("ctr", "--address", c.address, "events", stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    run(c, "c1", "true", options=("--rm",))
    time.sleep(0.5)
    watcher.terminate()
    topics = [line.split()[5] for line in watcher.communicate(timeout=10)[0].splitlines()]
    tasks = [topic for topic in topics if topic.startswith("/tasks/")]
    assert tasks == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]


def test_restart_of_containerd(c):
    start(c, "c1", "sh", "-c", "while [ ! -e /go ]; do sleep 0.1; done; exit 6")
    before = shims(c)["c1"]
    c.kill()
    c.start()
    assert status(c, "c1") == "RUNNING" and shims(c)["c1"] == before
    c.ctr("tasks", "exec", "--exec-id", "e1", "c1", "touch", "/go")
    wait_until(lambda: status(c, "c1") == "STOPPED", what="c1 stopped")
    assert c.ctr("tasks", "rm", "c1", check=False).returncode in (0, 6)
    c.ctr("containers", "rm", "c1")


def test_death_of_the_shim(c):
    """containerd finds out, and has our `delete` end the container."""
    start(c, "c1")
    row = next(line.split() for line in c.ctr("tasks", "ls").stdout.splitlines() if line.startswith("c1"))
    os.kill(shims(c)["c1"], signal.SIGKILL)
    wait_until(lambda: status(c, "c1") is None, what="task gone")
    wait_until(lambda: has_ended(row[1]), what="container ended")
    c.ctr("containers", "rm", "c1")
    forget_fifos()


def test_nothing_but_one_shim_runs(c):
    start(c, "c1")
    start(c, "c2")
    assert set(shims(c)) == {"c1", "c2"}
    remove(c, "c1", "c2")
    wait_until(lambda: not shims(c), what="shims gone")
    forget_fifos()


def test_version_flag(c):
    out = c.run("containerd-shim-wherry-v2", "-v").stdout
    assert re.search(r"Version:\s+\S+", out)
