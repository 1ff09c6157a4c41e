# SPDX-License-Identifier: Apache-2.0
"""The generations of the shim protocol, with the programs of other releases of Debian: their containerd drives our
shim, and wherryd drives their shims, all of them as they are."""
import concurrent.futures
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys

import grpc
import pytest

from compat import test_shim_under_containerd as under
from compat.test_ctr import IMAGE, Terminal, forget_fifos, status
from compat.test_shim_under_containerd import (  # noqa: F401  the same tests, with the `c` of this file
    test_death_of_the_shim, test_events_in_order, test_exec, test_failing_commands, test_nothing_but_one_shim_runs,
    test_pause_metrics_kill, test_restart_of_containerd, test_run, test_terminal)
from conftest import running
from fault.rig import OBEDIENT, Rig, has_ended, wait_until
from harness import daemons
from harness.api import any_of, message_class
from integration.ttrpc_rude import field, fields

SUITES = daemons.BIN.parent / "suites"
RELEASES = {"trixie": "1.7", "sid": "2.1"}


@pytest.fixture(scope="session")
def unpacked():
    """unpacked(suite): the folder that its containerd is unpacked in; skips where that cannot be had."""
    found = {}

    def unpack(suite):
        if suite not in found:
            result = subprocess.run([daemons.SOURCE / "tools" / "suite-packages", SUITES, suite, "containerd"],
                                    capture_output=True, text=True)
            found[suite] = result.stderr.strip() if result.returncode else SUITES / suite
        if isinstance(found[suite], str):
            pytest.skip(f"no containerd of {suite}: {found[suite][-300:]}")
        return found[suite]
    return unpack


class Release(daemons.Containerd):
    """containerd and ctr of another release, with our shim in the place of theirs."""

    def __init__(self, folder):
        super().__init__()
        self.put_shim_first()
        for name in ("containerd", "ctr"):
            (self.shims / name).symlink_to(folder / "usr" / "bin" / name)

    def command(self):
        return [str(self.shims / "containerd"), *super().command()[1:]]


@pytest.fixture(params=RELEASES)
def c(request, balanced, unpacked, archive):
    for release in running(Release(unpacked(request.param))):
        assert f" {RELEASES[request.param]}." in release.run("containerd", "--version").stdout
        release.suite = request.param
        release.options = ()
        release.import_image(archive)
        yield release


def test_version_of_the_protocol(c):
    """Each daemon is answered in the version it asks for."""
    under.start(c, "c1")
    bundle = next(c.state.glob("*/default/c1"))
    if (bundle / "bootstrap.json").exists():
        assert json.loads((bundle / "bootstrap.json").read_text())["version"] in (2, 3)
    assert (bundle / "address").read_text().startswith("unix:///run/containerd/s/")
    under.remove(c, "c1")
    forget_fifos()


def test_pod(c):
    """Containers of one pod share a shim."""
    under.start(c, "pod")
    under.remove(c, "pod")
    for name in ("pod", "a"):
        under.run(c, name, "sleep", "1000", options=("-d", "--annotation", "io.kubernetes.cri.sandbox-id=pod"))
        wait_until(lambda name=name: status(c, name) == "RUNNING", what=f"{name} running")
    assert set(under.shims(c)) == {"pod"}
    under.remove(c, "pod")
    assert status(c, "a") == "RUNNING" and set(under.shims(c)) == {"pod"}
    under.remove(c, "a")
    wait_until(lambda: not under.shims(c), what="shim gone")
    forget_fifos()


CONTROLLER = "/containerd.services.sandbox.v1.Controller/"
STORE = "/containerd.services.sandbox.v1.Store/"


class Pod:
    """A sandbox of containerd's `shim` controller, by its API: ctr has the commands, but none of it calls Create."""

    def __init__(self, c, name):
        self.c, self.name = c, name
        self.metadata = (("containerd-namespace", "default"),)
        runtime = field(1, "io.containerd.runc.v2")
        self.record = field(1, name) + field(2, runtime) + field(10, "shim")

    def call(self, path, request):
        """The reply's fields as {number: value}."""
        stub = self.c.api.channel.unary_unary(path, lambda b: b, lambda b: b)
        return dict(fields(stub(request, timeout=20, metadata=self.metadata)))

    def control(self, method, more=b""):
        try:
            return self.call(CONTROLLER + method, field(1, self.name) + more + field(10, "shim"))
        except grpc.RpcError as error:
            # 1.7 does it, and then cannot tell anybody about it: its own topic has no slash.
            if "must start with '/'" not in error.details():
                raise
            return None

    def create(self):
        self.call(STORE + "Create", field(1, self.record))
        self.control("Create", field(6, self.record))

    def remove(self):
        self.control("Stop")
        self.control("Shutdown")
        self.call(STORE + "Delete", field(1, self.name))


def test_sandbox(c):
    """Made, started, looked at, found again by the next containerd, stopped and removed."""
    pod = Pod(c, "s1")
    pod.create()
    shim = under.shims(c)["s1"]
    started = pod.control("Start")
    assert not started or started[2] == shim
    assert pod.control("Status")[3] == b"SANDBOX_READY"
    c.kill()
    c.start()
    assert pod.control("Status")[3] == b"SANDBOX_READY" and under.shims(c) == {"s1": shim}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        wait = pool.submit(pod.control, "Wait")
        pod.control("Stop")
        assert 1 not in (wait.result() or ())  # a status of 0
    assert pod.control("Status")[3] == b"SANDBOX_NOTREADY"
    pod.remove()
    wait_until(lambda: has_ended(shim), what="shim gone")
    assert not list(c.state.glob("*sandbox*/default/s1"))


def test_container_in_a_sandbox(c):
    """It runs in the sandbox's shim, and ends with it when that is killed."""
    pod = Pod(c, "s1")
    pod.create()
    pod.control("Start")
    under.run(c, "a", "sleep", "1000", options=("-d", "--annotation", "io.kubernetes.cri.sandbox-id=s1"))
    wait_until(lambda: status(c, "a") == "RUNNING", what="a running")
    assert set(under.shims(c)) == {"s1"}
    pid = int(next(line.split() for line in c.ctr("tasks", "ls").stdout.splitlines() if line.startswith("a "))[1])
    os.kill(under.shims(c)["s1"], signal.SIGKILL)
    wait_until(lambda: has_ended(pid), what="the end of the container")
    c.ctr("tasks", "rm", "--force", "a", check=False)
    c.ctr("containers", "rm", "a")
    pod.call(STORE + "Delete", field(1, "s1"))
    forget_fifos()


@pytest.mark.parametrize("end", ["removed", "restarted", "killed"])
def test_join_a_sandbox(c, end):
    """`ctr run --sandbox`: by the sandbox's record alone, without an annotation, and without a `start`."""
    pod = Pod(c, "s1")
    pod.create()
    pod.control("Start")
    shim = under.shims(c)
    for name in "ab":
        under.run(c, name, "sleep", "1000", options=("-d", "--sandbox", "s1"))
    assert status(c, "a") == status(c, "b") == "RUNNING" and under.shims(c) == shim
    short = under.run(c, "d", "sh", "-c", "echo hello; exit 3", options=("--rm", "--sandbox", "s1"), check=False)
    assert (short.returncode, short.stdout) == (3, "hello\n")
    pids = [int(line.split()[1]) for line in c.ctr("tasks", "ls").stdout.splitlines()[1:]]
    if end == "restarted":
        c.kill()
        c.start()
        assert c.ctr("tasks", "exec", "--exec-id", "e1", "a", "echo", "hi").stdout == "hi\n"
    if end == "killed":
        os.kill(shim["s1"], signal.SIGKILL)
        wait_until(lambda: all(has_ended(pid) for pid in pids), what="the end of the containers")
        for name in "ab":
            c.ctr("tasks", "rm", "--force", name, check=False)
            c.ctr("containers", "rm", name)
        pod.call(STORE + "Delete", field(1, "s1"))
    else:
        under.remove(c, "a", "b")
        assert under.shims(c) == shim
        pod.remove()
    wait_until(lambda: has_ended(shim["s1"]), what="shim gone")
    forget_fifos()


def test_debug_log(c):
    """What the shim logs is seen in the daemon's log."""
    c.stop()
    command = c.command
    c.command = lambda: [word if word != "info" else "debug" for word in command()]
    c.start()
    under.run(c, "c1", "true", options=("--rm",))
    assert 'level=debug msg="' in c.log_text()


OURS = daemons.BIN / "containerd-shim-wherry-v2"


def ask(program, *flags, stdin=b""):
    return subprocess.run([program, *flags], input=stdin, capture_output=True, check=True, timeout=20)


def test_info(unpacked):
    """The same words as theirs about the same OCI runtime, whatever the options are."""
    theirs = unpacked("sid") / "usr" / "bin" / "containerd-shim-runc-v2"
    info = message_class("containerd.types.RuntimeInfo")
    chosen = any_of(message_class("containerd.runc.v1.Options")(binary_name="runc"))
    answers = [info.FromString(ask(program, "-info", stdin=chosen.SerializeToString()).stdout)
               for program in (OURS, theirs)]
    assert answers[0].options == answers[1].options == chosen
    assert answers[0].features.type_url == answers[1].features.type_url
    assert json.loads(answers[0].features.value) == json.loads(answers[1].features.value)
    assert answers[0].name == "io.containerd.wherry.v2" and answers[0].version.version
    for stdin in (b"", b"\0", b"hello", os.urandom(5000)):
        assert info.FromString(ask(OURS, "-info", stdin=stdin).stdout).name == "io.containerd.wherry.v2"


def test_version_flag(unpacked):
    theirs = unpacked("sid") / "usr" / "bin" / "containerd-shim-runc-v2"
    for program in (OURS, theirs):
        name, version = ask(program, "-v").stdout.decode().splitlines()[:2]
        assert name.endswith(f"{program.name}:") and version.startswith("  Version:  ")


# wherryd and everybody's shims.

LATE = """#!{python}
# A shim of 2.3 and newer at its `start`: bootstrap parameters or nothing.
import os, subprocess, sys
sys.path.insert(0, {test!r})
from integration.ttrpc_rude import get
words = sys.argv[1:]
given = None
if words[-1] == "start":
    given = sys.stdin.buffer.read()
    wanted = [words[words.index(flag) + 1].encode() for flag in ("-id", "-namespace")]
    try:
        ok = [get(given, 1), get(given, 2)] == wanted and get(given, 6) is not None
    except (ValueError, IndexError):
        ok = False
    if not ok:
        sys.exit("io.containerd.late.v1: shim was started through the deprecated API but was built against the new API; "
                 "if you upgraded containerd, you may need to restart the daemon")
sys.exit(subprocess.run([{shim!r}, *words], input=given).returncode)
"""


def late_shim(base):
    path = base / "containerd-shim-late-v1"
    path.write_text(LATE.format(python=sys.executable, test=str(daemons.SOURCE / "test"),
                                shim=str(daemons.BIN / "containerd-shim-wherry-v2")))
    path.chmod(0o755)
    return path


SHIMS = {"runc-v1 of 1.6": (None, "containerd-shim-runc-v1"), "runc-v2 of 1.6": (None, "containerd-shim-runc-v2"),
         "runc-v1 of 1.7": ("trixie", "containerd-shim-runc-v1"), "runc-v2 of 1.7": ("trixie", "containerd-shim-runc-v2"),
         "runc-v2 of 2.1": ("sid", "containerd-shim-runc-v2"), "2.3": (None, None)}


@pytest.fixture(params=SHIMS)
def foreign(request, daemon, unpacked):
    """A Rig whose containers are run by somebody else's shim."""
    suite, name = SHIMS[request.param]
    if name is None:
        path = late_shim(daemon.base)
    elif suite:
        path = unpacked(suite) / "usr" / "bin" / name
    else:
        path = shutil.which(name) or pytest.skip(f"{name} is not installed (package containerd)")
    rig = Rig(daemon, str(path))
    yield rig
    rig.forget()


def test_foreign_life(foreign):
    """Run, exec, pause, metrics, kill, delete, with the events of all of it."""
    rig = foreign
    events = rig.events()
    out = rig.fifo("out")
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    pid = rig.run("c1", ("sh", "-c", "echo hello; trap 'exit 7' TERM; while :; do sleep 1000 & wait; done"),
                  io={"stdout": str(out), "stderr": str(out)})
    assert rig.state("c1") == "RUNNING" and rig.process("c1").pid == pid
    assert select.select([reader], [], [], 10)[0] and os.read(reader, 100) == b"hello\n"
    assert rig.execute("c1", "e1", ("sh", "-c", "exit 5")) > 0
    assert rig.wait("c1", "e1") == 5 and rig.delete_exec("c1", "e1") == 5
    rig.task("Pause", container_id="c1")
    assert rig.state("c1") == "PAUSED"
    rig.task("Resume", container_id="c1")
    assert rig.state("c1") == "RUNNING"
    assert pid in [p.pid for p in rig.task("ListPids", container_id="c1").processes]
    metrics = rig.task("Metrics", filters=[f"id=={'c1'}"]).metrics
    assert metrics[0].id == "c1" and metrics[0].data.type_url.startswith("io.containerd.cgroups.v")
    assert rig.end("c1") == 7
    assert rig.delete("c1") == 7
    wait_until(lambda: len(events.exits("c1")) == 1, what="the event of its end")
    # A shim of Go's may be gone before the last event, that of the removal, has left it.
    assert [t for t in events.topics("c1") if t != "/tasks/delete"] == [
        "/tasks/create", "/tasks/start", "/tasks/exec-added", "/tasks/exec-started", "/tasks/exit", "/tasks/paused",
        "/tasks/resumed", "/tasks/exit"]
    assert [(m.id, m.exit_status) for t, m in events.seen if t == "/tasks/exit"] == [("e1", 5), ("c1", 7)]
    events.stop()
    os.close(reader)
    os.unlink(out)
    rig.forget_record("c1")
    assert rig.left_behind() == []


def test_foreign_restart(foreign):
    """The next daemon finds what the last one has left, with the version that it speaks."""
    rig = foreign
    pid = rig.run("c1")
    rig.run("c2")
    rig.container("c3")
    rig.create("c3")
    version = json.loads((rig.bundle("c1") / "bootstrap.json").read_text())["version"]
    assert version in (2, 3)
    rig.d.kill()
    rig.d.start()
    assert rig.process("c1").pid == pid and rig.state("c3") == "CREATED"
    assert rig.execute("c1", "e1", ("true",)) > 0 and rig.wait("c1", "e1") == 0
    assert rig.start("c3") > 0
    rig.d.kill()
    os.kill(int((rig.bundle("c2") / "init.pid").read_text()), signal.SIGKILL)
    rig.d.start()
    assert rig.wait("c2") == 137
    for name in ("c1", "c2", "c3"):
        rig.remove(name)
    assert rig.left_behind() == []


@pytest.mark.parametrize("away", [False, True], ids=["daemon there", "daemon away"])
def test_foreign_death(foreign, away):
    """A killed shim: its container ends, told once, and nothing is left."""
    rig = foreign
    pid = rig.run("c1")
    events = rig.events()
    shim = rig.shim("c1")
    if away:
        events.stop()
        rig.d.kill()
    os.kill(shim, signal.SIGKILL)
    if away:
        rig.d.start()
    wait_until(lambda: rig.process("c1") is None, 8, "the end of the task")
    wait_until(lambda: has_ended(pid), 5, "the end of the container")
    if not away:
        wait_until(lambda: "/tasks/delete" in events.topics("c1"), 5, "the event of its removal")
        assert [m.exit_status for m in events.exits("c1")] == [137]
        events.stop()
    rig.forget_record("c1")
    assert rig.left_behind() == []


def test_foreign_failures(foreign):
    """What cannot be run says why, and leaves no shim."""
    rig = foreign
    rig.container("c1", ("/no/such/program",))
    with pytest.raises(Exception) as error:
        rig.create("c1")
        rig.start("c1")
    assert "no such" in error.value.details().lower() or "not found" in error.value.details().lower()
    rig.remove("c1")
    assert rig.shim("c1") is None
    assert rig.left_behind() == []


def test_foreign_terminal(foreign, archive):
    d = foreign.d
    d.import_image(archive)
    t = Terminal(d, "ctr", "--address", d.address, "run", "--rm", "-t", "--runtime", foreign.runtime, IMAGE, "c1", "sh")
    t.expect("#")
    t.send("stty size; exit 3\n")
    t.expect("exit 3")
    assert t.wait() == 3


def test_start_is_tried_in_order(daemon):
    """Options first, parameters when those are refused; who takes neither is quoted, and leaves nothing running."""
    rig = Rig(daemon)
    log = daemon.base / "tries"
    path = daemon.base / "containerd-shim-picky-v1"
    path.write_text(f"""#!{sys.executable}
import sys
if sys.argv[-1] == "delete":
    sys.exit(0)
given = sys.stdin.buffer.read()
with open({str(log)!r}, "a") as file:
    file.write(given.hex() + "\\n")
sys.exit("picky: try %d" % len(open({str(log)!r}).readlines()))
""")
    path.chmod(0o755)
    rig.container("c1", runtime=str(path))
    with pytest.raises(Exception) as error:
        rig.create("c1")
    assert "picky: try 1" in error.value.details()
    first, second = log.read_text().splitlines()
    assert first == "" and b"c1" in bytes.fromhex(second) and rig.ns.encode() in bytes.fromhex(second)
    rig.forget_record("c1")
    # One that starts well, and answers what we do not understand: its process must not stay.
    path.write_text(f"""#!/bin/sh
case "$*" in *delete) exec {daemons.BIN}/containerd-shim-wherry-v2 "$@";; esac
{daemons.BIN}/containerd-shim-wherry-v2 "$@" >/dev/null && echo '{{"version":4,"address":"unix:///x","protocol":"ttrpc"}}'
""")
    rig.container("c2", runtime=str(path))
    with pytest.raises(Exception) as error:
        rig.create("c2")
    assert "unsupported shim version (4)" in error.value.details()
    assert rig.shim("c2") is None
    rig.forget_record("c2")
    assert rig.left_behind() == []
    rig.forget()
