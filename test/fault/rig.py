# SPDX-License-Identifier: Apache-2.0
"""Containers driven through the API alone, without images: what fault tests need to be quick and exact.

A Rig has a namespace of its own, so that what it leaves on the machine can be told from what others leave.
"""
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import grpc

from harness import ledger
from harness.api import any_of, message_class

TASKS = "containerd.services.tasks.v1.Tasks/"
CONTAINERS = "containerd.services.containers.v1.Containers/"
STATES = {0: "UNKNOWN", 1: "CREATED", 2: "RUNNING", 3: "STOPPED", 4: "PAUSED", 5: "PAUSING"}
SPEC_URL = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
PROCESS_URL = "types.containerd.io/opencontainers/runtime-spec/1/Process"
BUSYBOX = "/bin/busybox"
V1 = "io.containerd.runtime.v1.linux"
# Ends with 7 when it is asked to, within a few milliseconds.
OBEDIENT = ("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 1000 & wait; done")
numbers = itertools.count()


class Gone(Exception):
    """The daemon went away during the call."""


def scaled(n):
    """As much of it as is asked for: the tests are small, what they try can be made large."""
    return n * int(os.environ.get("WHERRY_FAULT_SCALE", "1"))


def any_json(url, document):
    result = message_class("google.protobuf.Any")()
    result.type_url = url
    result.value = json.dumps(document).encode()
    return result


def wait_until(condition, seconds=10, what="condition"):
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds} s"
        time.sleep(0.01)


def has_ended(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def start_time(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[19]


def code_of(error):
    return error.code()


def make_root(directory):
    """A root filesystem of the static busybox."""
    directory = pathlib.Path(directory)
    if directory.exists():
        return directory
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    shutil.copy2(BUSYBOX, directory / "bin" / "busybox")
    for applet in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (directory / "bin" / applet).symlink_to("busybox")
    return directory


class Events:
    """All events of a namespace from now on, in order, as (topic, message)."""

    TYPES = {"/tasks/exit": "TaskExit", "/tasks/start": "TaskStart", "/tasks/delete": "TaskDelete",
             "/tasks/create": "TaskCreate", "/tasks/exec-added": "TaskExecAdded",
             "/tasks/exec-started": "TaskExecStarted", "/tasks/oom": "TaskOOM", "/tasks/paused": "TaskPaused",
             "/tasks/resumed": "TaskResumed", "/tasks/checkpointed": "TaskCheckpointed"}

    def __init__(self, api, namespace):
        self.seen = []
        self.stream = api.stream("containerd.services.events.v1.Events/Subscribe",
                                 {"filters": [f'namespace=="{namespace}",topic~="^/tasks/"']}, timeout=600)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        try:
            for envelope in self.stream:
                message = message_class("containerd.events." + self.TYPES[envelope.topic])()
                message.ParseFromString(envelope.event.value)
                self.seen.append((envelope.topic, message))
        except grpc.RpcError:
            pass

    def exits(self, name, exec_id=None):
        return [m for topic, m in list(self.seen)
                if topic == "/tasks/exit" and m.container_id == name and m.id == (exec_id or name)]

    def topics(self, name):
        return [topic for topic, m in list(self.seen) if m.container_id == name]

    def stop(self):
        self.stream.cancel()
        self.thread.join(5)


class Rig:
    def __init__(self, daemon, runtime="io.containerd.runc.v2"):
        self.d = daemon
        self.runtime = runtime
        self.ns = f"f{os.getpid()}-{next(numbers)}"
        self.lower = daemon.base / "lower"
        if not self.lower.exists():
            make_root(self.lower)
        self.names = set()
        # Made once, before threads would make one each.
        for name in ("google.protobuf.Any", "containerd.services.containers.v1.CreateContainerRequest",
                     "containerd.services.tasks.v1.ExecProcessRequest"):
            message_class(name)
        self.before = self.ledger()

    # what is there

    def ledger(self):
        """What is on the machine that bears our names."""
        daemon = f"process {self.d.pid} " if self.d.process else "\0"
        found = {item for item in ledger.snapshot()
                 if (self.ns in item or str(self.d.base) in item) and not item.startswith(daemon)}
        for place in (self.d.state, self.d.root):
            found.update(f"bundle {p}" for p in place.glob(f"io.containerd.runtime.*/{self.ns}/*"))
        found.update(f"socket of {name}" for name in self.names if self.socket(name).exists())
        return found

    def left_behind(self, seconds=6):
        """Of our names, what a removed container leaves; waits until there is nothing."""
        deadline = time.monotonic() + seconds
        while True:
            left = sorted(item for item in self.ledger() - self.before
                          if not ledger.is_kept_directory(item) and not self.is_namespace_cgroup(item))
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.02)

    def is_namespace_cgroup(self, item):
        """The cgroup that holds those of all containers of the namespace stays."""
        kind, _, path = item.partition(" ")
        return kind == "cgroup" and os.path.basename(path) == self.ns

    def remove_namespace_cgroups(self):
        for item in ledger.cgroups():
            path = item.partition(" ")[2]
            if os.path.basename(path) == self.ns:
                try:
                    os.rmdir(path)
                except OSError:
                    pass

    def forget(self):
        """At the end: what a failed test has left, and what the namespace itself has made."""
        if not self.d.process:
            self.d.start()  # who may end them; without the OCI runtime's state, below, that is harder
        for name in self.names if self.d.process.poll() is None else ():
            try:
                self.remove(name)
            except (grpc.RpcError, AssertionError):
                pass  # the test has failed already, and the ledger says what is left
        self.remove_namespace_cgroups()
        shutil.rmtree(f"/run/containerd/runc/{self.ns}", ignore_errors=True)

    def bundle(self, name):
        kind = V1 if self.runtime == V1 else "io.containerd.runtime.v2.task"
        return self.d.state / kind / self.ns / name

    def socket(self, group):
        """Where the shim of a group listens."""
        joined = os.path.normpath(f"{self.d.address}/{self.ns}/{group}")
        return pathlib.Path("/run/containerd/s", hashlib.sha256(joined.encode()).hexdigest())

    def shim(self, name):
        """Pid of the shim that was started for this container, or None."""
        if self.runtime == V1:
            return self.shim_v1(name)
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                try:
                    words = pathlib.Path(entry.path, "cmdline").read_bytes().decode(errors="replace").split("\0")
                except OSError:
                    continue
                if os.path.basename(words[0]).startswith("containerd-shim") and self.ns in words and "-id" in words:
                    if words[words.index("-id") + 1] == name and "delete" not in words:
                        return int(entry.name)
        return None

    def shim_v1(self, name):
        """That of a task of runtime v1, which its bundle knows."""
        try:
            pid = int((self.d.state / V1 / self.ns / name / "shim.pid").read_text())
        except (OSError, ValueError):
            return None
        return None if has_ended(pid) else pid

    def processes_of(self, name):
        """Pids in the container's cgroup, whatever hierarchy."""
        pids = set()
        for base in pathlib.Path("/sys/fs/cgroup").glob("*"):
            try:
                pids.update(int(p) for p in (base / self.ns / name / "cgroup.procs").read_text().split())
            except OSError:
                pass
        return pids

    # calls

    def call(self, method, request, timeout=20):
        return self.d.api.call(method, request, namespace=self.ns, timeout=timeout)

    def task(self, method, request=None, timeout=20, **fields):
        return self.call(TASKS + method, request or fields, timeout)

    def spec(self, name, args, terminal=False, host_pid=False, annotations=None, hooks=None, extra_mounts=()):
        namespaces = [{"type": t} for t in ("ipc", "uts", "mount", "network") + (() if host_pid else ("pid",))]
        spec = {
            "ociVersion": "1.0.2",
            "process": {"terminal": terminal, "user": {"uid": 0, "gid": 0}, "args": list(args), "cwd": "/",
                        "env": ["PATH=/bin", "TERM=xterm"],
                        "capabilities": {k: ["CAP_KILL", "CAP_SYS_ADMIN"]
                                         for k in ("bounding", "effective", "permitted")}},
            "root": {"path": "rootfs"},
            "hostname": name[:60],
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                       {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                        "options": ["nosuid", "mode=755", "size=65536k"]},
                       {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                        "options": ["newinstance", "ptmxmode=0666", "mode=0620"]}, *extra_mounts],
            "annotations": annotations or {},
            "linux": {"cgroupsPath": f"/{self.ns}/{name}", "namespaces": namespaces,
                      "resources": {"devices": [{"allow": True, "access": "rwm"}]}},
        }
        if hooks:
            spec["hooks"] = hooks
        return spec

    def container(self, name, args=OBEDIENT, runtime=None, options=None, spec=None, **spec_options):
        message = message_class("containerd.services.containers.v1.CreateContainerRequest")()
        self.names.add(name)
        message.container.id = name
        message.container.runtime.name = runtime or self.runtime
        if options:
            message.container.runtime.options.CopyFrom(any_of(options))
        message.container.spec.CopyFrom(any_json(SPEC_URL, spec or self.spec(name, args, **spec_options)))
        self.call(CONTAINERS + "Create", message)

    def rootfs(self, name):
        upper, work = self.d.base / "c" / name / "upper", self.d.base / "c" / name / "work"
        upper.mkdir(parents=True, exist_ok=True)
        work.mkdir(parents=True, exist_ok=True)
        return [{"type": "overlay", "source": "overlay", "options": [
            f"lowerdir={self.lower}", f"upperdir={upper}", f"workdir={work}"]}]

    def create(self, name, timeout=20, **io):
        return self.task("Create", container_id=name, rootfs=self.rootfs(name), timeout=timeout, **io).pid

    def start(self, name, exec_id="", timeout=20):
        return self.task("Start", container_id=name, exec_id=exec_id, timeout=timeout).pid

    def run(self, name, args=OBEDIENT, io=None, **options):
        """Record, task, start; the pid."""
        self.container(name, args, **options)
        self.create(name, **(io or {}))
        return self.start(name)

    def add_exec(self, name, exec_id, args, timeout=20, terminal=False, **io):
        message = message_class("containerd.services.tasks.v1.ExecProcessRequest")(
            container_id=name, exec_id=exec_id, terminal=terminal, **io)
        message.spec.CopyFrom(any_json(PROCESS_URL, {
            "args": list(args), "cwd": "/", "env": ["PATH=/bin", "TERM=xterm"], "terminal": terminal,
            "user": {"uid": 0, "gid": 0}}))
        self.call(TASKS + "Exec", message, timeout)

    def execute(self, name, exec_id, args, **options):
        self.add_exec(name, exec_id, args, **options)
        return self.start(name, exec_id)

    def process(self, name, exec_id=""):
        """The task's process as the daemon tells it, None when there is no such task."""
        try:
            return self.task("Get", container_id=name, exec_id=exec_id).process
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return None
            raise

    def state(self, name, exec_id=""):
        process = self.process(name, exec_id)
        return STATES[process.status] if process else None

    def kill(self, name, number=signal.SIGKILL, exec_id="", everything=False):
        self.task("Kill", container_id=name, exec_id=exec_id, signal=int(number), all=everything)

    def wait(self, name, exec_id="", timeout=20):
        return self.task("Wait", container_id=name, exec_id=exec_id, timeout=timeout).exit_status

    def end(self, name):
        """Asks an OBEDIENT container to end, as often as it takes (the shell may not listen yet); its status."""
        for _ in range(30):
            try:
                self.kill(name, signal.SIGTERM)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.NOT_FOUND:
                    raise
            try:
                return self.wait(name, timeout=0.5)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise
        raise AssertionError(f"{name} does not end")

    def delete(self, name, timeout=20):
        return self.task("Delete", container_id=name, timeout=timeout).exit_status

    def delete_exec(self, name, exec_id):
        return self.task("DeleteProcess", container_id=name, exec_id=exec_id).exit_status

    def remove(self, name, seconds=15):
        """Whatever state it is in: gone, and its record too."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                state = self.state(name)
                if state is None:
                    break
                if state in ("RUNNING", "PAUSED", "PAUSING"):
                    if state != "RUNNING":
                        self.task("Resume", container_id=name)
                    self.kill(name)
                    self.wait(name)
                self.delete(name)
            except grpc.RpcError as error:
                if time.monotonic() > deadline:
                    raise
                if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE,
                                        grpc.StatusCode.UNKNOWN, grpc.StatusCode.FAILED_PRECONDITION):
                    raise
            assert time.monotonic() < deadline, f"{name} cannot be removed: {self.state(name)}"
            time.sleep(0.01)
        self.forget_record(name)

    def forget_record(self, name):
        try:
            self.call(CONTAINERS + "Delete", {"id": name})
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
        shutil.rmtree(self.d.base / "c" / name, ignore_errors=True)

    def events(self):
        events = Events(self.d.api, self.ns)
        time.sleep(0.05)
        return events

    def fifo(self, name):
        path = self.d.base / f"fifo-{name}"
        os.mkfifo(path)
        return path


class Reader(threading.Thread):
    """Reads a fifo to its end."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(self.fd, True)
        self.hash = hashlib.sha256()
        self.n = 0
        self.tail = b""
        self.kept = []
        self.keep = False

    def run(self):
        # Without a writer yet a read would say that this is the end.
        import select
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        poll.poll()
        while True:
            piece = os.read(self.fd, 1 << 20)
            if not piece:
                break
            self.hash.update(piece)
            self.n += len(piece)
            self.tail = (self.tail + piece)[-65536:]
            if self.keep:
                self.kept.append(piece)
        os.close(self.fd)


class Held:
    """A process that is kept from running, and no signal but SIGKILL changes that: traced, and let lie."""

    PROGRAM = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid = int(sys.argv[1])
if libc.ptrace(16, pid, 0, 0) != 0:  # PTRACE_ATTACH
    sys.exit(os.strerror(ctypes.get_errno()))
os.waitpid(pid, 0x40000000)  # __WALL
print("held", flush=True)
sys.stdin.read()
"""

    def __init__(self, pid):
        self.process = subprocess.Popen([sys.executable, "-c", self.PROGRAM, str(pid)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "held\n"

    def let_go(self):
        """It goes on, with the signals that have come meanwhile."""
        self.process.communicate("", timeout=10)


class Bystander:
    """A container that numbers its lines: its process and its output must be untouched by what befalls others."""

    SCRIPT = "i=0; while :; do echo $i; i=$((i+1)); usleep 20000; done"

    def __init__(self, rig, name="bystander"):
        self.rig, self.name = rig, name
        self.path = rig.fifo(name)
        self.reader = Reader(self.path)
        self.reader.keep = True
        self.reader.start()
        self.pid = rig.run(name, ("sh", "-c", self.SCRIPT), io={"stdout": str(self.path), "stderr": "/dev/null"})
        self.born = start_time(self.pid)
        self.lines = 0

    def check(self):
        assert not has_ended(self.pid) and start_time(self.pid) == self.born, "the bystander has ended"
        process = self.rig.process(self.name)
        assert process and process.pid == self.pid and process.status == 2, f"the bystander is {process}"
        lines = b"".join(self.reader.kept).split(b"\n")[:-1]
        for at in range(self.lines, len(lines)):
            assert lines[at] == b"%d" % at, f"line {at} of the bystander is {lines[at]!r}"
        self.lines = len(lines)

    def end(self):
        before = len(b"".join(self.reader.kept).split(b"\n"))
        wait_until(lambda: len(b"".join(self.reader.kept).split(b"\n")) > before, what="more lines of the bystander")
        self.check()
        self.rig.remove(self.name)
        self.reader.join(5)
        assert not self.reader.is_alive(), "the bystander's output does not end"
        os.unlink(self.path)
