# SPDX-License-Identifier: Apache-2.0
"""Debian's ctr, unmodified, against wherryd and against containerd: the same commands, the same answers.

Every test that takes `both` runs twice, once on each daemon, with one set of expectations.
"""
import json
import os
import pty
import re
import select
import shutil
import subprocess
import time

import pytest

IMAGE = "docker.io/library/busybox:latest"

pytestmark = pytest.mark.skipif(not shutil.which("ctr"), reason="ctr is not installed (package containerd)")


@pytest.fixture
def d(both, archive):
    both.import_image(archive)
    return both


def lines(result):
    """Rows of a table as words (a size is two of them)."""
    return [line.split() for line in result.stdout.splitlines()]


def wait_until(condition, seconds=10, what="condition"):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds} s"
        time.sleep(0.02)


def status(d, task):
    for row in d.ctr("tasks", "ls").stdout.splitlines()[1:]:
        if row.split()[0] == task:
            return row.split()[2]
    return None


def detached(d, name, *command, options=()):
    d.ctr("run", "-d", *options, IMAGE, name, *(command or ("sleep", "1000")))
    wait_until(lambda: status(d, name) == "RUNNING", what=f"{name} running")


def remove(d, *names):
    for name in names:
        d.ctr("tasks", "kill", "-s", "SIGKILL", name, check=False)
        wait_until(lambda: status(d, name) in ("STOPPED", None), what=f"{name} stopped")
        d.ctr("tasks", "rm", name, check=False)
        d.ctr("containers", "rm", name)


def has_ended(pid):
    """Gone, or a zombie that whoever is its parent now has not looked at yet."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def forget_fifos():
    """A ctr that leaves before the process ends leaves its fifos to whoever comes after it."""
    shutil.rmtree("/run/containerd/fifo", ignore_errors=True)


class Terminal:
    """A program on a pty of ours."""

    def __init__(self, d, *command):
        self.master, slave = pty.openpty()
        self.process = d.popen(*command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        self.text = ""

    def expect(self, text, seconds=15):
        deadline = time.monotonic() + seconds
        while text not in self.text:
            assert time.monotonic() < deadline, f"no {text!r} in {self.text!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.master, 65536).decode(errors="replace")
                except OSError:
                    assert text in self.text, f"ended without {text!r}: {self.text!r}"

    def send(self, text):
        os.write(self.master, text.encode())

    def wait(self, seconds=15):
        status = self.process.wait(seconds)
        os.close(self.master)
        return status


def test_version(both):
    out = both.ctr("version").stdout
    server = out[out.index("Server:"):]
    assert re.search(r"Version:\s+\S+", server)
    assert re.search(r"UUID:\s+[0-9a-f]{8}-[0-9a-f-]{27}", server)


def test_plugins(both):
    rows = {(row[0], row[1]): row[-1] for row in lines(both.ctr("plugins", "ls"))[1:]}
    for plugin in [("io.containerd.content.v1", "content"), ("io.containerd.snapshotter.v1", "overlayfs"),
                   ("io.containerd.snapshotter.v1", "native"), ("io.containerd.metadata.v1", "bolt"),
                   ("io.containerd.runtime.v2", "task"), ("io.containerd.grpc.v1", "tasks"),
                   ("io.containerd.service.v1", "diff-service"), ("io.containerd.gc.v1", "scheduler")]:
        assert rows.get(plugin) == "ok", (plugin, rows)


def test_namespaces(both):
    both.ctr("namespaces", "create", "ns-a", "color=blue")
    assert "ns-a" in both.ctr("namespaces", "ls", "-q").stdout.split()
    assert "color=blue" in both.ctr("namespaces", "ls").stdout
    both.ctr("namespaces", "label", "ns-a", "color=red", "size=big")
    assert "color=red" in both.ctr("namespaces", "ls").stdout
    again = both.ctr("namespaces", "create", "ns-a", check=False)
    assert again.returncode == 1 and 'namespace "ns-a": already exists' in again.stderr
    both.ctr("namespaces", "rm", "ns-a")
    assert "ns-a" not in both.ctr("namespaces", "ls", "-q").stdout.split()
    # A namespace that is not there is removed well enough for ctr.
    both.ctr("namespaces", "rm", "ns-a")
    bad = both.ctr("namespaces", "create", "a b", check=False)
    assert 'identifier "a b" must match' in bad.stderr


def test_images(d):
    row = [r for r in lines(d.ctr("images", "ls"))[1:] if r[0] == IMAGE][0]
    assert row[1].startswith("application/vnd.oci.image.") and row[2].startswith("sha256:")
    d.ctr("images", "tag", IMAGE, "docker.io/library/other:1")
    again = d.ctr("images", "tag", IMAGE, "docker.io/library/other:1", check=False)
    assert 'image "docker.io/library/other:1": already exists' in again.stderr
    d.ctr("images", "label", "docker.io/library/other:1", "a=b")
    assert "a=b" in d.ctr("images", "ls", "name==docker.io/library/other:1").stdout
    check = d.ctr("images", "check").stdout
    assert re.search(r"complete \((\d)/\1\)", check) and "true" in check
    d.ctr("images", "rm", "docker.io/library/other:1")
    assert "other" not in d.ctr("images", "ls", "-q").stdout
    assert "not found" in d.ctr("images", "rm", "nonsense", check=False).stderr


def test_content(d):
    digests = d.ctr("content", "ls", "-q").stdout.split()
    assert len(digests) >= 3
    target = [r for r in lines(d.ctr("images", "ls"))[1:] if r[0] == IMAGE][0][2]
    assert "schemaVersion" in d.ctr("content", "get", target).stdout
    text = "some bytes of content\n"
    digest = "sha256:" + __import__("hashlib").sha256(text.encode()).hexdigest()
    # Unreferenced content is the next collection's; a lease header is not ctr's to give, so it is fast.
    d.ctr("content", "ingest", "--expected-digest", digest, "--expected-size", str(len(text)), "ref-1", input=text)
    wrong = d.ctr("content", "ingest", "--expected-digest", "sha256:" + "0" * 64, "ref-2", input=text, check=False)
    assert "unexpected commit digest" in wrong.stderr
    d.ctr("content", "rm", digest, check=False)
    assert digest not in d.ctr("content", "ls", "-q").stdout
    assert "not found" in d.ctr("content", "get", digest, check=False).stderr


def test_snapshots(d):
    chain = d.ctr("snapshots", "ls").stdout.splitlines()[1].split()[0]
    assert chain.startswith("sha256:")
    info = json.loads(d.ctr("snapshots", "info", chain).stdout)
    assert info["Kind"] == "Committed" and info["Name"] == chain
    assert chain in d.ctr("snapshots", "tree").stdout
    d.ctr("snapshots", "prepare", "work", chain)
    mounts = d.ctr("snapshots", "mounts", "/target", "work").stdout
    assert mounts.startswith("mount -t overlay overlay /target -o ") and "lowerdir=" in mounts
    assert re.search(r"\bwork\b.*Active", d.ctr("snapshots", "ls").stdout)
    child = d.ctr("snapshots", "rm", chain, check=False)
    assert "cannot remove snapshot with child" in child.stderr
    d.ctr("snapshots", "commit", "done", "work")
    assert re.search(r"\bdone\b.*Committed", d.ctr("snapshots", "ls").stdout)
    d.ctr("snapshots", "view", "look", "done")
    for name in ("look", "done"):
        removed = d.ctr("snapshots", "rm", name, check=False)
        # Nobody refers to it, so a collection may come first; nothing else may be wrong.
        assert removed.returncode == 0 or f"snapshot {name} does not exist" in removed.stderr, removed.stderr
        assert not re.search(rf"^{name}\b", d.ctr("snapshots", "ls").stdout, re.M)
    assert "does not exist" in d.ctr("snapshots", "info", "done", check=False).stderr


def test_leases(both):
    made = both.ctr("leases", "create", "--id", "keep", "--expires", "1h", "a=b").stdout
    assert "keep" in made
    assert "keep" in both.ctr("leases", "ls").stdout
    assert 'lease "keep": already exists' in both.ctr("leases", "create", "--id", "keep", check=False).stderr
    both.ctr("leases", "delete", "keep")
    assert "keep" not in both.ctr("leases", "ls").stdout


def test_run_prints_and_exits(d):
    result = d.ctr("run", "--rm", IMAGE, "c1", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (result.returncode, result.stdout, result.stderr) == (7, "out\n", "err\n")
    assert d.ctr("containers", "ls", "-q").stdout == "" and d.ctr("snapshots", "ls").stdout.count("\n") == 2


def test_run_reads_standard_input(d):
    # ctr forgets to close the container's input when its own ends before the task has started.
    run = d.popen("ctr", "--address", d.address, "run", "--rm", IMAGE, "c1", "cat", stdin=subprocess.PIPE,
                  stdout=subprocess.PIPE, text=True)
    run.stdin.write("one\ntwo\n")
    run.stdin.flush()
    assert [run.stdout.readline(), run.stdout.readline()] == ["one\n", "two\n"]
    run.stdin.close()
    assert run.wait(20) == 0


def test_run_loses_no_byte(d):
    result = d.ctr("run", "--rm", IMAGE, "c1", "sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x")
    assert len(result.stdout) == 5000000


def test_run_on_terminal(d):
    t = Terminal(d, "ctr", "--address", d.address, "run", "--rm", "-t", IMAGE, "c1", "sh")
    t.expect("#")
    t.send("tty; exit 3\n")
    t.expect("/dev/pts/0")
    assert t.wait() == 3


def test_run_same_name_twice(d):
    detached(d, "c1")
    again = d.ctr("run", "-d", IMAGE, "c1", "true", check=False)
    assert again.returncode == 1 and "already exists" in again.stderr
    remove(d, "c1")


def test_run_without_command(d):
    result = d.ctr("run", "--rm", IMAGE, "c1", "/no/such/program", check=False)
    assert result.returncode == 1
    # runc and crun differ in case and in words.
    assert "no such file or directory" in result.stderr.lower() or "executable file not found" in result.stderr
    d.ctr("containers", "rm", "c1", check=False)


def test_run_environment_and_directory(d):
    out = d.ctr("run", "--rm", "--env", "A=b c", "--cwd", "/tmp", IMAGE, "c1", "sh", "-c", 'echo "$A"; pwd').stdout
    assert out == "b c\n/tmp\n"


def test_run_mount(d, tmp_path):
    (tmp_path / "file").write_text("from outside")
    out = d.ctr("run", "--rm", "--mount", f"type=bind,src={tmp_path},dst=/mnt,options=rbind:ro", IMAGE, "c1", "sh", "-c",
                "cat /mnt/file; touch /mnt/new || echo refused").stdout
    assert out == "from outsiderefused\n"


def test_run_read_only(d):
    out = d.ctr("run", "--rm", "--read-only", IMAGE, "c1", "sh", "-c", "touch /x 2>/dev/null || echo refused").stdout
    assert out == "refused\n"


def test_run_limits(d):
    detached(d, "c1", options=("--memory-limit", str(64 << 20), "--cpus", "0.5"))
    spec = json.loads(d.ctr("containers", "info", "--spec", "c1").stdout)
    assert spec["linux"]["resources"]["memory"]["limit"] == 64 << 20
    pid = d.ctr("tasks", "ls").stdout.splitlines()[1].split()[1]
    paths = dict(line.split(":", 2)[1:] for line in open(f"/proc/{pid}/cgroup").read().splitlines())
    if "memory" in paths:
        with open(f"/sys/fs/cgroup/memory{paths['memory']}/memory.limit_in_bytes") as file:
            assert int(file.read()) == 64 << 20
    remove(d, "c1")


def test_run_privileged(d):
    out = d.ctr("run", "--rm", "--privileged", IMAGE, "c1", "sh", "-c", "grep CapEff /proc/self/status").stdout
    plain = d.ctr("run", "--rm", IMAGE, "c2", "sh", "-c", "grep CapEff /proc/self/status").stdout
    assert int(out.split()[1], 16) > int(plain.split()[1], 16)
    assert plain.split()[1] == "00000000a80425fb"


def test_run_host_network(d):
    out = d.ctr("run", "--rm", "--net-host", IMAGE, "c1", "readlink", "/proc/self/ns/net").stdout
    assert out.strip() == os.readlink("/proc/self/ns/net")
    out = d.ctr("run", "--rm", IMAGE, "c1", "readlink", "/proc/self/ns/net").stdout
    assert out.strip() != os.readlink("/proc/self/ns/net")


def test_run_null_io(d):
    result = d.ctr("run", "--rm", "--null-io", IMAGE, "c1", "true")
    assert result.stdout == ""


def test_run_log_uri(d, tmp_path):
    log = tmp_path / "dir" / "log"
    d.ctr("run", "-d", "--log-uri", f"file://{log}", IMAGE, "c1", "sh", "-c", "echo one; echo two >&2")
    wait_until(lambda: status(d, "c1") == "STOPPED", what="c1 stopped")
    assert sorted(log.read_text().split()) == ["one", "two"]
    remove(d, "c1")


def test_containers(d):
    d.ctr("containers", "create", "--label", "a=b", IMAGE, "c1", "sleep", "1000")
    rows = lines(d.ctr("containers", "ls"))
    assert rows[1] == ["c1", IMAGE, "io.containerd.runc.v2"]
    info = json.loads(d.ctr("containers", "info", "c1").stdout)
    assert info["ID"] == "c1" and info["Labels"]["a"] == "b" and info["Spec"]["process"]["args"] == ["sleep", "1000"]
    d.ctr("containers", "label", "c1", "a=", "x=y")
    labels = json.loads(d.ctr("containers", "info", "c1").stdout)["Labels"]
    assert labels.get("x") == "y" and not labels.get("a")
    assert d.ctr("containers", "ls", "-q", 'labels.x==y').stdout.split() == ["c1"]
    assert d.ctr("containers", "ls", "-q", 'labels.x==z').stdout.split() == []
    bad = d.ctr("containers", "ls", "-q", "labels.x=", check=False)
    assert "parse error" in bad.stderr
    missing = d.ctr("containers", "info", "none", check=False)
    assert 'container "none" in namespace "default": not found' in missing.stderr
    d.ctr("containers", "rm", "c1")
    assert d.ctr("containers", "ls", "-q").stdout == ""


def test_task_start_after_create(d):
    d.ctr("containers", "create", IMAGE, "c1", "echo", "started")
    assert d.ctr("tasks", "start", "c1").stdout == "started\n"
    d.ctr("containers", "rm", "c1")


def test_tasks(d):
    detached(d, "c1")
    row = d.ctr("tasks", "ls").stdout.splitlines()[1].split()
    assert row[0] == "c1" and row[2] == "RUNNING" and os.path.exists(f"/proc/{row[1]}")
    ps = d.ctr("tasks", "ps", "c1").stdout.splitlines()
    assert ps[0].split() == ["PID", "INFO"] and ps[1].split()[0] == row[1]
    running = d.ctr("containers", "rm", "c1", check=False)
    assert "cannot delete a non stopped container" in running.stderr
    d.ctr("tasks", "kill", "-s", "SIGTERM", "c1")
    time.sleep(0.2)
    # sleep is pid 1 of its namespace: a signal without a handler does not end it.
    assert status(d, "c1") == "RUNNING"
    d.ctr("tasks", "kill", "-s", "SIGKILL", "c1")
    wait_until(lambda: status(d, "c1") == "STOPPED", what="c1 stopped")
    again = d.ctr("tasks", "kill", "c1", check=False)
    assert "process already finished: not found" in again.stderr
    gone = d.ctr("tasks", "rm", "c1", check=False)
    assert gone.returncode in (0, 137)
    assert status(d, "c1") is None
    d.ctr("containers", "rm", "c1")


def test_exec(d):
    detached(d, "c1")
    result = d.ctr("tasks", "exec", "--exec-id", "e1", "c1", "sh", "-c", "echo out; echo err >&2; exit 5", check=False)
    assert (result.returncode, result.stdout, result.stderr) == (5, "out\n", "err\n")
    assert d.ctr("tasks", "exec", "--exec-id", "e1", "c1", "cat", input="text").stdout == "text"
    assert d.ctr("tasks", "exec", "--exec-id", "e1", "--cwd", "/tmp", "c1", "pwd").stdout == "/tmp\n"
    bad = d.ctr("tasks", "exec", "--exec-id", "e2", "c1", "/no/such/program", check=False)
    assert bad.returncode == 1 and "no such file or directory" in bad.stderr.lower()
    remove(d, "c1")


def test_exec_on_terminal(d):
    detached(d, "c1")
    t = Terminal(d, "ctr", "--address", d.address, "tasks", "exec", "-t", "--exec-id", "e1", "c1", "sh")
    t.expect("#")
    t.send("tty; exit 4\n")
    t.expect("/dev/pts/")
    assert t.wait() == 4
    remove(d, "c1")


def test_exec_detached_is_listed(d):
    detached(d, "c1")
    d.ctr("tasks", "exec", "-d", "--exec-id", "e1", "c1", "sleep", "1000")
    wait_until(lambda: "e1" in d.ctr("tasks", "ps", "c1").stdout, what="exec listed")
    d.ctr("tasks", "kill", "-s", "SIGKILL", "--exec-id", "e1", "c1")
    wait_until(lambda: "e1" not in d.ctr("tasks", "ps", "c1").stdout, what="exec gone")
    d.ctr("tasks", "rm", "--exec-id", "e1", "c1", check=False)
    remove(d, "c1")
    forget_fifos()


def test_attach(d):
    run = d.popen("ctr", "--address", d.address, "run", IMAGE, "c1", "sh", "-c",
                  "while [ ! -e /go ]; do sleep 0.1; done; echo late; exit 6", stdin=subprocess.DEVNULL,
                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: status(d, "c1") == "RUNNING", what="c1 running")
    run.kill()
    run.wait()
    attached = d.popen("ctr", "--address", d.address, "tasks", "attach", "c1", stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    d.ctr("tasks", "exec", "--exec-id", "e1", "c1", "touch", "/go")
    out, _ = attached.communicate(timeout=20)
    assert out == "late\n" and attached.returncode == 6
    d.ctr("tasks", "rm", "c1", check=False)
    d.ctr("containers", "rm", "c1")
    forget_fifos()


def test_pause_and_resume(d):
    detached(d, "c1")
    d.ctr("tasks", "pause", "c1")
    assert status(d, "c1") == "PAUSED"
    refused = d.ctr("tasks", "exec", "--exec-id", "e1", "c1", "true", check=False)
    assert refused.returncode == 1
    d.ctr("tasks", "resume", "c1")
    assert status(d, "c1") == "RUNNING"
    remove(d, "c1")


def test_metrics(d):
    detached(d, "c1")
    table = d.ctr("tasks", "metrics", "c1").stdout
    assert "memory" in table and "cpu" in table
    data = json.loads(d.ctr("tasks", "metrics", "--format", "json", "c1").stdout)
    assert int(data["pids"]["current"]) >= 1
    remove(d, "c1")


def test_events(d):
    watcher = d.popen("ctr", "--address", d.address, "events", stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    d.ctr("run", "--rm", IMAGE, "c1", "sh", "-c", "exit 9", check=False)
    time.sleep(0.5)
    watcher.terminate()
    out, _ = watcher.communicate(timeout=10)
    topics = [line.split()[5] for line in out.splitlines()]
    order = ["/snapshot/prepare", "/containers/create", "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete",
             "/containers/delete"]
    positions = [topics.index(topic) for topic in order]
    assert positions == sorted(positions), topics
    assert topics.count("/tasks/exit") == 1 and topics.count("/tasks/start") == 1
    exit_event = json.loads(next(line for line in out.splitlines() if "/tasks/exit" in line).split(None, 6)[6])
    assert exit_event["container_id"] == "c1" and exit_event["id"] == "c1" and exit_event["exit_status"] == 9


def test_unknown_runtime(d):
    result = d.ctr("run", "--rm", "--runtime", "io.containerd.nothing.v9", IMAGE, "c1", "true", check=False)
    assert result.returncode == 1 and "containerd-shim-nothing-v9" in result.stderr
    d.ctr("containers", "rm", "c1", check=False)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_named_runtime(d, runtime):
    if not shutil.which(runtime):
        pytest.skip(f"{runtime} is not installed")
    out = d.ctr("run", "--rm", "--runc-binary", runtime, IMAGE, "c1", "echo", "hello").stdout
    assert out == "hello\n"
