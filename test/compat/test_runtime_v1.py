# SPDX-License-Identifier: Apache-2.0
"""Runtime v1, io.containerd.runtime.v1.linux: both daemons, each with both shims of that runtime."""
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

import pytest

from compat.test_ctr import IMAGE, Terminal, forget_fifos, has_ended, status, wait_until
from conftest import running
from harness import daemons
from harness.api import Api, any_of

RUNTIME = "io.containerd.runtime.v1.linux"
DEBIANS_SHIM = "/usr/bin/containerd-shim"

pytestmark = [
    pytest.mark.skipif(not os.path.exists(DEBIANS_SHIM), reason="containerd-shim is not installed (package containerd)"),
    pytest.mark.skipif(not pathlib.Path("/sys/fs/cgroup/memory").is_dir(), reason="runtime v1 is for cgroup v1"),
]


def configuration(**keys):
    return f'[plugins."{RUNTIME}"]\n' + "".join(f"  {key} = {json.dumps(value)}\n" for key, value in keys.items())


def serve(daemon, **keys):
    daemon.stop()
    daemon.extra_config = configuration(**keys)
    daemon.start()
    return daemon


SHIMS = {"debian": DEBIANS_SHIM, "own": str(daemons.BIN / "containerd-shim")}
# How a task is served: by a process of its own, or inside the daemon.
WAYS = {**{name: {"shim": path} for name, path in SHIMS.items()}, "none": {"no_shim": True}}
KINDS = {kind.name: kind for kind in (daemons.Daemon, daemons.Containerd)}


def serving(way, archive, kind=daemons.Daemon):
    keys = WAYS[way]
    for d in running(kind(configuration(**keys))):
        d.shim = keys.get("shim")
        d.archive = archive
        d.import_image(archive)
        yield d


@pytest.fixture(params=SHIMS)
def w(request, balanced, archive):
    """wherryd with either shim."""
    yield from serving(request.param, archive)


@pytest.fixture(params=WAYS)
def v(request, balanced, archive):
    """wherryd with either shim, and without."""
    yield from serving(request.param, archive)


@pytest.fixture(params=[(kind, shim) for kind in KINDS for shim in SHIMS], ids="-".join)
def s(request, balanced, archive):
    """Either daemon with either shim."""
    kind, shim = request.param
    yield from serving(shim, archive, KINDS[kind])


# Without shim Debian's containerd starts containers and never learns of their ends, so it is no peer then.
@pytest.fixture(params=[(kind, way) for kind in KINDS for way in WAYS if (kind, way) != ("containerd", "none")],
                ids="-".join)
def d(request, balanced, archive):
    """Either daemon with either shim, and ours without."""
    kind, way = request.param
    yield from serving(way, archive, KINDS[kind])


def run(d, *args, options=(), **how):
    return d.ctr("run", "--runtime", RUNTIME, *options, IMAGE, *args, **how)


def start(d, name, *command, options=()):
    run(d, name, *(command or ("sleep", "1000")), options=("-d", *options))
    wait_until(lambda: status(d, name) == "RUNNING", what=f"{name} running")


def remove(d, *names):
    for name in names:
        d.ctr("tasks", "kill", "-s", "SIGKILL", name, check=False)
        wait_until(lambda: status(d, name) in ("STOPPED", None), what=f"{name} stopped")
        d.ctr("tasks", "rm", name, check=False)
        d.ctr("containers", "rm", name)


def bundle(d, name):
    return d.state / RUNTIME / "default" / name


def shim_pid(d, name):
    return int((bundle(d, name) / "shim.pid").read_text())


class Events:
    """What `ctr events` says of tasks."""

    def __init__(self, d):
        # Not a pipe, which would be full one day while nobody reads it.
        self.output = tempfile.TemporaryFile("w+")
        self.process = d.popen("ctr", "--address", d.address, "events", stdout=self.output)
        time.sleep(0.5)

    def stop(self, settle=0.7):
        time.sleep(settle)
        self.process.terminate()
        self.process.wait(10)
        self.output.seek(0)
        found = []
        for line in self.output.read().splitlines():
            _, topic, text = re.fullmatch(r"(.*) (/[\w/?-]+) (.*)", line).groups()
            if topic.startswith("/tasks/"):
                found.append((topic, json.loads(text)))
        return found


def without_warnings(errors):
    """What a container wrote: containerd 1.7 tells ctr that runtime v1 is deprecated, and ctr says so, too."""
    return "".join(line for line in errors.splitlines(True) if "DEPRECATION" not in line)


def test_run(d):
    result = run(d, "c1", "sh", "-c", "echo out; echo err >&2; exit 7", options=("--rm",), check=False)
    assert (result.returncode, result.stdout, without_warnings(result.stderr)) == (7, "out\n", "err\n")
    assert not bundle(d, "c1").exists()


def test_stdin(d):
    # ctr forgets an end of its input that comes before the task.
    p = d.popen("ctr", "--address", d.address, "run", "--rm", "--runtime", RUNTIME, IMAGE, "c1", "cat",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    p.stdin.write("one\n")
    p.stdin.flush()
    assert p.stdout.readline() == "one\n"
    assert p.communicate("two\n", timeout=15)[0] == "two\n"
    assert p.returncode == 0


def test_terminal(d):
    t = Terminal(d, "ctr", "--address", d.address, "run", "--rm", "-t", "--runtime", RUNTIME, IMAGE, "c1", "sh")
    t.expect("#")
    t.send("stty size; exit 3\n")
    t.expect("exit 3")
    assert t.wait() == 3


def test_exec(d):
    start(d, "c1")
    result = d.ctr("tasks", "exec", "--exec-id", "e1", "c1", "sh", "-c", "echo out; echo err >&2; exit 5", check=False)
    assert (result.returncode, result.stdout, without_warnings(result.stderr)) == (5, "out\n", "err\n")
    t = Terminal(d, "ctr", "--address", d.address, "tasks", "exec", "-t", "--exec-id", "e2", "c1", "sh")
    t.expect("#")
    t.send("exit 4\n")
    assert t.wait() == 4
    remove(d, "c1")


def test_failing_commands(d):
    missing = run(d, "c1", "/no/such/program", options=("--rm",), check=False)
    assert missing.returncode == 1 and "OCI runtime create failed" in missing.stderr
    wait_until(lambda: not bundle(d, "c1").exists(), what="bundle removed")
    start(d, "c2")
    missing = d.ctr("tasks", "exec", "--exec-id", "e1", "c2", "/no/such/program", check=False)
    assert missing.returncode == 1 and "OCI runtime exec failed" in missing.stderr
    again = d.ctr("tasks", "start", "c2", check=False)
    assert again.returncode == 1
    running = d.ctr("tasks", "rm", "c2", check=False)
    assert running.returncode == 1
    assert status(d, "c2") == "RUNNING"
    remove(d, "c2")


def test_pause_and_kill(d):
    start(d, "c1")
    d.ctr("tasks", "pause", "c1")
    assert status(d, "c1") == "PAUSED"
    d.ctr("tasks", "resume", "c1")
    assert status(d, "c1") == "RUNNING"
    rows = d.ctr("tasks", "ps", "c1").stdout.splitlines()[1:]
    # The shim of v1 tells of init, too.
    assert len(rows) == 1 and ("ExecID:c1" in rows[0] or 'exec_id:"c1"' in rows[0])  # 1.6, 1.7
    d.ctr("tasks", "kill", "-s", "SIGKILL", "c1")
    wait_until(lambda: status(d, "c1") == "STOPPED", what="c1 stopped")
    assert "not found" in d.ctr("tasks", "kill", "c1", check=False).stderr
    d.ctr("tasks", "rm", "c1", check=False)
    d.ctr("containers", "rm", "c1")


def test_metrics(d):
    start(d, "c1", options=("--memory-limit", "50000000"))
    metrics = json.loads(d.ctr("tasks", "metrics", "--format", "json", "c1").stdout)
    assert int(metrics["pids"]["current"]) >= 1
    assert int(metrics["memory"]["usage"]["limit"]) // 4096 == 50000000 // 4096
    assert int(metrics["cpu"]["usage"]["total"]) > 0
    remove(d, "c1")


def test_events_of_a_run(d):
    events = Events(d)
    run(d, "c1", "true", options=("--rm",))
    found = events.stop()
    topics = [topic for topic, _ in found]
    assert sorted(topics) == ["/tasks/create", "/tasks/delete", "/tasks/exit", "/tasks/start"]
    assert topics[:2] == ["/tasks/create", "/tasks/start"]
    by_topic = dict(found)
    create = by_topic["/tasks/create"]
    assert create["bundle"] == str(bundle(d, "c1")) and create["rootfs"] and create["io"]["stdout"]
    assert {e.get("pid") for e in by_topic.values()} == {create["pid"]}
    assert by_topic["/tasks/exit"]["id"] == "c1"


def test_events_of_everything(d):
    events = Events(d)
    start(d, "c1")
    d.ctr("tasks", "exec", "--exec-id", "e1", "c1", "sh", "-c", "exit 5", check=False)
    time.sleep(0.5)  # exits come by a process of their own
    d.ctr("tasks", "pause", "c1")
    d.ctr("tasks", "resume", "c1")
    time.sleep(0.5)
    remove(d, "c1")
    found = events.stop()
    assert [(topic, e.get("exec_id") or e.get("id"), e.get("exit_status")) for topic, e in found] == [
        ("/tasks/create", None, None), ("/tasks/start", None, None), ("/tasks/exec-started", "e1", None),
        ("/tasks/exit", "e1", 5), ("/tasks/paused", None, None), ("/tasks/resumed", None, None),
        ("/tasks/exit", "c1", 137), ("/tasks/delete", None, 137)]


def test_every_exit_once_and_after_its_start(v):
    """Short lives: the shim is killed right after Delete, often before its publisher has spoken."""
    events = Events(v)
    for i in range(15):
        run(v, f"c{i}", "true", options=("--rm",))
    found = events.stop(1.5)
    for i in range(15):
        topics = [topic for topic, e in found if e["container_id"] == f"c{i}"]
        assert topics == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"], (i, topics)


def test_files(w):
    start(w, "c1")
    directory = bundle(w, "c1")
    assert directory.stat().st_mode & 0o7777 == 0o700
    address = (directory / "address").read_text()
    assert re.fullmatch(r"unix:///run/containerd/s/[0-9a-f]{64}", address)
    work = w.root / RUNTIME / "default" / "c1"
    for log in ("shim.stdout.log", "shim.stderr.log"):
        assert (work / log).is_fifo()
    pid = shim_pid(w, "c1")
    words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    assert words[0] == w.shim and words[words.index("-workdir") + 1] == str(work)
    assert words[words.index("-address") + 1] == w.address and "-debug" not in words
    assert os.readlink(f"/proc/{pid}/cwd") == str(directory)
    own = int(pathlib.Path(f"/proc/{w.pid}/oom_score_adj").read_text())
    assert int(pathlib.Path(f"/proc/{pid}/oom_score_adj").read_text()) == min(own + 1, 1000)
    remove(w, "c1")
    assert not directory.exists() and not work.exists() and has_ended(pid)
    assert not os.path.exists(address.removeprefix("unix://"))


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_restart_of_the_daemon(s, how):
    start(s, "c1")
    start(s, "c2", "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done")
    if how == "kill":
        s.kill()
        s.start()
    else:
        s.restart()
    assert status(s, "c1") == "RUNNING"
    result = s.ctr("tasks", "exec", "--exec-id", "e1", "c1", "echo", "still here")
    assert result.stdout == "still here\n"
    s.ctr("tasks", "kill", "-s", "SIGTERM", "c2")
    wait_until(lambda: status(s, "c2") == "STOPPED", what="c2 stopped")
    assert s.ctr("tasks", "rm", "c2", check=False).returncode in (0, 9)
    s.ctr("containers", "rm", "c2")
    remove(s, "c1")
    forget_fifos()


def test_end_while_the_daemon_is_away(w):
    start(w, "c1", "sh", "-c", "sleep 0.5; exit 6")
    w.kill()
    time.sleep(1)
    w.start()
    assert status(w, "c1") == "STOPPED"
    exit_status = w.api.call("containerd.services.tasks.v1.Tasks/Wait", {"container_id": "c1"}).exit_status
    assert exit_status == 6
    remove(w, "c1")
    forget_fifos()


def test_death_of_the_shim(s):
    start(s, "c1")
    init = int((bundle(s, "c1") / "init.pid").read_text())
    events = Events(s)
    os.kill(shim_pid(s, "c1"), signal.SIGKILL)
    wait_until(lambda: status(s, "c1") is None, what="c1 gone")
    found = events.stop()
    assert [(topic, e["exit_status"], e["pid"]) for topic, e in found] == [
        ("/tasks/exit", 137, init), ("/tasks/delete", 137, init)]
    assert has_ended(init) and not bundle(s, "c1").exists()
    s.ctr("containers", "rm", "c1")
    forget_fifos()


def test_death_of_the_shim_answers_waits(w):
    start(w, "c1")
    wait = w.popen("ctr", "--address", w.address, "tasks", "attach", "c1", stdin=subprocess.DEVNULL)
    time.sleep(0.5)
    os.kill(shim_pid(w, "c1"), signal.SIGKILL)
    assert wait.wait(10) in (137, 1)
    wait_until(lambda: status(w, "c1") is None, what="c1 gone")
    w.ctr("containers", "rm", "c1")
    forget_fifos()


def test_shim_dead_at_start(s):
    start(s, "c1")
    pid, init = shim_pid(s, "c1"), int((bundle(s, "c1") / "init.pid").read_text())
    s.kill()
    os.kill(pid, signal.SIGKILL)
    s.start()
    wait_until(lambda: status(s, "c1") is None, what="c1 gone")
    wait_until(lambda: has_ended(init) and not bundle(s, "c1").exists(), what="container ended")
    s.ctr("containers", "rm", "c1")
    forget_fifos()


def create(w, name, runtime_options=None, task_options=None, **fields):
    """Container and task through the API, since ctr gives no options to this runtime."""
    start(w, "model")
    container = w.api.call("containerd.services.containers.v1.Containers/Get", {"id": "model"}).container
    remove(w, "model")
    spec = json.loads(container.spec.value)
    spec["linux"]["cgroupsPath"] = f"/default/{name}"
    spec["root"] = {"path": "rootfs"}
    container.id, container.spec.value = name, json.dumps(spec).encode()
    container.snapshotter, container.snapshot_key = "overlayfs", name
    if runtime_options is not None:
        container.runtime.options.CopyFrom(any_of(runtime_options))
    # First, or the snapshot would be garbage in between.
    request = Api.message("containerd.services.containers.v1.CreateContainerRequest", container=container)
    w.api.call("containerd.services.containers.v1.Containers/Create", request)
    keys = [i for i in w.ctr("snapshots", "ls").stdout.splitlines()[1:] if "Committed" in i]
    mounts = w.api.call("containerd.services.snapshots.v1.Snapshots/Prepare",
                        {"snapshotter": "overlayfs", "key": name, "parent": keys[-1].split()[0]}).mounts
    request = Api.message("containerd.services.tasks.v1.CreateTaskRequest", container_id=name, rootfs=mounts)
    if task_options is not None:
        request.options.CopyFrom(any_of(task_options))
    return request


def forget(w, name):
    w.ctr("containers", "rm", name)


def test_options(w, tmp_path):
    log = tmp_path / "calls"
    runtime = tmp_path / "my-runc"
    runtime.write_text(f'#!/bin/sh\necho "$@" >>{log}\nexec runc "$@"\n')
    runtime.chmod(0o755)
    group = pathlib.Path("/sys/fs/cgroup/memory/w-shims")
    options = Api.message("containerd.linux.runc.RuncOptions", runtime=str(runtime), runtime_root=str(tmp_path / "root"))
    request = create(w, "c1", options,
                     Api.message("containerd.linux.runc.CreateOptions", shim_cgroup="/w-shims", no_new_keyring=True))
    w.api.call("containerd.services.tasks.v1.Tasks/Create", request)
    w.api.call("containerd.services.tasks.v1.Tasks/Start", {"container_id": "c1"})
    words = pathlib.Path(f"/proc/{shim_pid(w, 'c1')}/cmdline").read_bytes().decode().split("\0")
    assert words[words.index("-runtime-root") + 1] == str(tmp_path / "root")
    assert "memory:/w-shims" in pathlib.Path(f"/proc/{shim_pid(w, 'c1')}/cgroup").read_text()
    first = [line for line in log.read_text().splitlines() if " create " in line][0]
    assert f"--root {tmp_path}/root/default " in first and "--no-new-keyring" in first
    # A dead shim's container is ended by the runtime that made it.
    os.kill(shim_pid(w, "c1"), signal.SIGKILL)
    wait_until(lambda: status(w, "c1") is None, what="c1 gone")
    assert " delete --force c1" in log.read_text()
    forget(w, "c1")
    for directory in pathlib.Path("/sys/fs/cgroup").glob("*/w-shims"):
        wait_until(lambda: not (directory / "cgroup.procs").read_text(), what="no shim left")
        directory.rmdir()
    assert not group.exists()


@pytest.mark.parametrize("which", ["runtime", "task"])
def test_options_of_another_type(v, which):
    wrong = Api.message("containerd.runc.v1.Options", binary_name="runc")
    request = create(v, "c1", wrong if which == "runtime" else None, wrong if which == "task" else None)
    with pytest.raises(Exception) as info:
        v.api.call("containerd.services.tasks.v1.Tasks/Create", request)
    assert info.value.code().name == "INVALID_ARGUMENT" and "invalid runtime options format" in info.value.details()
    assert not bundle(v, "c1").exists()
    forget(v, "c1")


def test_runtime_of_the_configuration(w, tmp_path):
    log = tmp_path / "calls"
    runtime = tmp_path / "my-runc"
    runtime.write_text(f'#!/bin/sh\necho "$@" >>{log}\nexec runc "$@"\n')
    runtime.chmod(0o755)
    serve(w, shim=w.shim, runtime=str(runtime), runtime_root=str(tmp_path / "root"), shim_debug=True)
    start(w, "c1")
    words = pathlib.Path(f"/proc/{shim_pid(w, 'c1')}/cmdline").read_bytes().decode().split("\0")
    assert "-debug" in words and words[words.index("-runtime-root") + 1] == str(tmp_path / "root")
    remove(w, "c1")
    assert f"--root {tmp_path}/root/default" in log.read_text()


@pytest.mark.parametrize("debug", [False, True], ids=["without", "with"])
def test_bundle_of_a_failed_cleanup(w, tmp_path, debug):
    """With shim_debug it is kept for whoever looks for the reason, and removed when a later daemon can clean up."""
    runtime = tmp_path / "my-runc"
    broken = tmp_path / "broken"
    runtime.write_text(f"""#!/bin/sh
for a in "$@"; do [ "$a" = delete ] && [ -e {broken} ] && {{ echo no such luck >&2; exit 1; }}; done
exec runc "$@"
""")
    runtime.chmod(0o755)
    serve(w, shim=w.shim, runtime=str(runtime), shim_debug=debug)
    start(w, "c1")
    init = int((bundle(w, "c1") / "init.pid").read_text())
    events = Events(w)
    broken.touch()
    os.kill(shim_pid(w, "c1"), signal.SIGKILL)
    wait_until(lambda: status(w, "c1") is None, what="c1 gone")
    told = [("/tasks/exit", 137, init), ("/tasks/delete", 137, init)]
    assert [(topic, e["exit_status"], e["pid"]) for topic, e in events.stop()] == told
    assert has_ended(init) and not os.path.ismount(bundle(w, "c1") / "rootfs")
    assert (bundle(w, "c1") / "config.json").exists() == debug
    broken.unlink()
    if not debug:
        subprocess.run(["runc", "--root", "/run/containerd/runc/default", "delete", "--force", "c1"], check=True)
    w.stop()
    w.start()
    wait_until(lambda: not bundle(w, "c1").exists(), what="the second cleanup")
    w.ctr("containers", "rm", "c1")
    forget_fifos()


def test_shim_that_is_missing(w):
    serve(w, shim="/no/such/shim")
    result = run(w, "c1", "true", check=False)
    assert result.returncode == 1 and "/no/such/shim" in result.stderr and "no such file" in result.stderr
    assert not bundle(w, "c1").exists()
    w.ctr("containers", "rm", "c1")


def test_shim_that_is_none(w, tmp_path):
    """A program that ends at once, and one that listens to nobody: the call fails, and nothing is left."""
    shim = tmp_path / "shim"
    shim.write_text("#!/bin/sh\nexit 3\n")
    shim.chmod(0o755)
    serve(w, shim=str(shim))
    result = run(w, "c1", "true", check=False)
    assert result.returncode == 1 and not bundle(w, "c1").exists()
    w.ctr("containers", "rm", "c1")


def test_both_generations_side_by_side(w):
    start(w, "c1")
    w.ctr("run", "-d", IMAGE, "c2", "sleep", "1000")
    wait_until(lambda: status(w, "c2") == "RUNNING", what="c2 running")
    w.restart()
    assert {line.split()[0] for line in w.ctr("tasks", "ls").stdout.splitlines()[1:]} == {"c1", "c2"}
    again = w.ctr("tasks", "start", "c1", check=False)
    assert again.returncode == 1
    remove(w, "c1", "c2")
    forget_fifos()


def test_want_of_memory(d):
    """The limit leaves room for runc, of which some versions need 8 MB to start a container at times."""
    events = Events(d)
    run(d, "c1", "sh", "-c", "tail /dev/zero", options=("--rm", "--memory-limit", "32000000"), check=False)
    topics = [topic for topic, _ in events.stop()]
    assert topics.count("/tasks/oom") >= 1 and topics.count("/tasks/exit") == 1, topics


def test_kill_of_the_daemon_while_creating(v):
    """At any moment of a short life: the next daemon finds what there is, and nothing is left."""
    for i in range(8):
        p = v.popen("ctr", "--address", v.address, "run", "--rm", "--runtime", RUNTIME, IMAGE, f"c{i}", "sleep", "0.03",
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.03 + i * 0.02)
        v.kill()
        v.start()
        p.wait(30)

        def settled():
            state = status(v, f"c{i}")
            if state == "CREATED":
                v.ctr("tasks", "kill", "-s", "SIGKILL", f"c{i}", check=False)
            return state in ("STOPPED", None)

        wait_until(settled, what=f"c{i} settled")
        v.ctr("tasks", "rm", f"c{i}", check=False)
        v.ctr("containers", "rm", f"c{i}", check=False)
        assert not bundle(v, f"c{i}").exists(), v.log_text()[-3000:]
    forget_fifos()
