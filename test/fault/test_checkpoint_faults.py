# SPDX-License-Identifier: Apache-2.0
"""The contract of checkpoint and restore, for both runtimes, with a stand-in for the OCI runtime: what it is
asked for, word by word, and what becomes of failures, hangs and deaths. No CRIU is needed: a checkpoint is
what the stand-in writes, a restore is a create and a start by the real runtime.
"""
import os
import pathlib
import shutil
import signal
import subprocess
import threading

import grpc
import pytest

from fault.rig import Reader, Rig, wait_until
from harness.api import any_of, message_class

CODE = grpc.StatusCode
REAL = shutil.which("runc") or shutil.which("crun")
V1 = "io.containerd.runtime.v1.linux"
TAR = "application/vnd.containerd.container.criu.checkpoint.criu.tar"
SPEC = "application/vnd.containerd.container.checkpoint.config.v1+proto"
CONTENT = "containerd.services.content.v1.Content/"
LEASES = "containerd.services.leases.v1.Leases/"

# The globals end at the command. $BASE/<command> is run in the command's place where it is there.
STAND_IN = r'''#!/bin/sh
BASE=%s REAL=%s COMMAND= GLOBALS= ID= PREVIOUS= IMAGES= WORK= BUNDLE= PID_FILE= CONSOLE= CRIU=
for a in "$@"; do
    case $PREVIOUS in
    --image-path) IMAGES=$a ;; --work-path) WORK=$a ;; --bundle) BUNDLE=$a ;; --pid-file) PID_FILE=$a ;;
    --console-socket) CONSOLE="--console-socket $a" ;; --log) LOG=$a ;;
    esac
    case $a in create|start|exec|kill|delete|state|pause|resume|update|ps|checkpoint|restore)
        [ -z "$COMMAND" ] && COMMAND=$a ;; esac
    if [ "$a" = --criu ]; then :; elif [ "$PREVIOUS" = --criu ]; then CRIU=$a
    else [ -z "$COMMAND" ] && GLOBALS="$GLOBALS $a"; fi
    PREVIOUS=$a ID=$a
done
for a in "$@"; do printf '%%s\n' "$a"; done > $BASE/said.$COMMAND.new
mv $BASE/said.$COMMAND.new $BASE/said.$COMMAND
[ -e $BASE/$COMMAND ] && . $BASE/$COMMAND
case $COMMAND in
checkpoint)
    mkdir $IMAGES 2>/dev/null; mkdir -p $WORK; echo images > $IMAGES/inventory.img; echo dumped > $WORK/dump.log
    case " $* " in *" --leave-running "*) ;; *) $REAL $GLOBALS kill $ID KILL ;; esac
    exit 0 ;;
restore)
    [ -e $IMAGES/inventory.img ] || { printf '{"level":"error","msg":"no images"}\n' >> $LOG; exit 1; }
    mkdir -p $WORK; echo restored > $WORK/restore.log
    $REAL $GLOBALS create --bundle $BUNDLE --pid-file $PID_FILE $CONSOLE $ID && exec $REAL $GLOBALS start $ID
    exit 1 ;;
esac
[ -z "$CRIU" ] && exec $REAL "$@"
R=; for a in "$@"; do [ "$a" = --criu ] || [ "$a" = "$CRIU" ] || R="$R $a"; done
exec $REAL $R
'''


class Checkpoints(Rig):
    def __init__(self, daemon, generation):
        super().__init__(daemon, V1 if generation == "v1" else "io.containerd.runc.v2")
        self.v1 = generation == "v1"
        self.stand_in = daemon.base / "stand-in"
        self.stand_in.write_text(STAND_IN % (daemon.base, REAL))
        self.stand_in.chmod(0o755)
        self.place = V1 if self.v1 else "io.containerd.runtime.v2.task"
        self.scratch = daemon.root / "tmpcheckpoints"

    def bundle(self, name):
        return self.d.state / self.place / self.ns / name

    def work(self, name):
        return self.d.root / self.place / self.ns / name

    def instead(self, command, text):
        path = self.d.base / command
        if text is None:
            path.unlink()
        else:
            path.write_text(text + "\n")

    def said(self, command):
        """The words of the last such call, globals and all."""
        return (self.d.base / f"said.{command}").read_text().splitlines()

    def forget_said(self):
        for path in self.d.base.glob("said.*"):
            path.unlink()

    def runtime_options(self, **more):
        if self.v1:
            return message_class("containerd.linux.runc.RuncOptions")(runtime=str(self.stand_in), **more)
        return message_class("containerd.runc.v1.Options")(binary_name=str(self.stand_in), **more)

    def made(self, name, options=None, **how):
        self.container(name, options=options or self.runtime_options(), **how)

    def running(self, name, **how):
        self.made(name, **how)
        self.create(name)
        return self.start(name)

    def checkpoint(self, name, timeout=20, lease=None, parent=None, **options):
        kind = "containerd.linux.runc.CheckpointOptions" if self.v1 else "containerd.runc.v1.CheckpointOptions"
        if parent:
            options["parent_path"] = parent
        request = message_class("containerd.services.tasks.v1.CheckpointTaskRequest")(container_id=name)
        if options:
            request.options.CopyFrom(any_of(message_class(kind)(**options)))
        return list(self.d.api.call("containerd.services.tasks.v1.Tasks/Checkpoint", request, namespace=self.ns,
                                    timeout=timeout, lease=lease).descriptors)

    def saved(self, name):
        """A stored checkpoint under a lease: its descriptor as Create takes it."""
        lease = self.d.api.call(LEASES + "Create", {"id": f"keep-{name}"}, namespace=self.ns).lease.id
        tar, _ = self.checkpoint(name, lease=lease)
        return {"media_type": tar.media_type, "digest": tar.digest, "size": tar.size}

    def create_from(self, name, images, criu_work_path="", **io):
        """Create with the images in a directory of the client's."""
        kind = "containerd.linux.runc.CreateOptions" if self.v1 else "containerd.runc.v1.Options"
        options = message_class(kind)(criu_image_path=str(images), criu_work_path=criu_work_path)
        if not self.v1:
            options.binary_name = str(self.stand_in)
        request = message_class("containerd.services.tasks.v1.CreateTaskRequest")(
            container_id=name, rootfs=[message_class("containerd.types.Mount")(**m) for m in self.rootfs(name)], **io)
        request.options.CopyFrom(any_of(options))
        return self.task("Create", request).pid

    def no_scratch(self):
        return not self.scratch.exists() or not list(self.scratch.iterdir())


@pytest.fixture(params=["v2", "v1"])
def rig(request, daemon):
    if request.param == "v1" and not pathlib.Path("/sys/fs/cgroup/memory").is_dir():
        pytest.skip("runtime v1 is for cgroup v1")
    rig = Checkpoints(daemon, request.param)
    yield rig
    rig.forget()
    assert rig.no_scratch()


def globals_of(rig, name, *more):
    bundle = str(rig.bundle(name))
    return ["--root", f"/run/containerd/runc/{rig.ns}", "--log", bundle + "/log.json", "--log-format", "json", *more]


def without_debug(words):
    return [w for w in words if w != "--debug"]


def test_words_of_checkpoint(rig):
    """Every option, and none."""
    rig.running("c1")
    images, work = rig.d.base / "images", rig.d.base / "work"
    parent = [] if rig.v1 else ["--parent-path", "/parent"]
    assert rig.checkpoint("c1", image_path=str(images), work_path=str(work), open_tcp=True, external_unix_sockets=True,
                          terminal=True, file_locks=True, empty_namespaces=["network", "ipc"], cgroups_mode="soft",
                          parent=None if rig.v1 else "/parent") == []
    start = globals_of(rig, "c1")
    assert without_debug(rig.said("checkpoint")) == start + [
        "checkpoint", "--image-path", str(images), "--work-path", str(work), *parent, "--tcp-established", "--ext-unix-sk",
        "--shell-job", "--file-locks", "--empty-ns", "network", "--empty-ns", "ipc", "--leave-running", "c1"]
    assert (images / "inventory.img").exists() and (work / "dump.log").exists()

    events = rig.events()
    found = rig.checkpoint("c1", exit=True)
    said = without_debug(rig.said("checkpoint"))
    path = said[said.index("--image-path") + 1]
    assert said == start + ["checkpoint", "--image-path", path, "--work-path", str(rig.bundle("c1") / "criu-work"), "c1"]
    assert pathlib.Path(path).is_relative_to(rig.scratch) and not (rig.bundle("c1") / "criu-work").exists()
    assert [d.media_type for d in found] == [TAR, SPEC]
    assert rig.wait("c1") == 137 and rig.delete("c1") == 137
    wait_until(lambda: "/tasks/delete" in events.topics("c1"), what="the delete event")
    assert len(events.exits("c1")) == 1 and events.exits("c1")[0].exit_status == 137
    assert events.topics("c1").count("/tasks/checkpointed") == (1 if rig.v1 else 0)
    events.stop()
    rig.forget_record("c1")
    assert rig.left_behind() == []


def test_words_of_restore(rig):
    """Create runs nothing and tells no process; Start restores, with the streams connected; the end is told."""
    rig.running("c1")
    saved = rig.saved("c1")
    rig.remove("c1")
    rig.forget_said()
    rig.made("c2", args=("sh", "-c", "echo hello; read x; exit 9"))
    out = rig.fifo("out")
    reader = Reader(out)
    reader.keep = True
    reader.start()
    stdin = rig.fifo("in")
    assert rig.create("c2", checkpoint=saved, stdin=str(stdin), stdout=str(out),
                      stderr="/dev/null") == 0
    assert rig.state("c2") == "CREATED" and not list(rig.d.base.glob("said.*"))
    images = rig.work("c2") / "images"
    assert (images / "inventory.img").read_text() == "images\n" and images.stat().st_mode & 0o7777 == 0o700
    with pytest.raises(grpc.RpcError) as refused:
        rig.checkpoint("c2", image_path="/nowhere")
    assert refused.value.details() == "cannot checkpoint a task in created state"

    pid = rig.start("c2")
    bundle = rig.bundle("c2")
    assert without_debug(rig.said("restore")) == globals_of(rig, "c2") + [
        "restore", "--image-path", str(images), "--work-path", str(bundle / "criu-work"), "--detach", "--pid-file",
        str(bundle / "init.pid"), "--no-subreaper", "--bundle", str(bundle), "c2"]
    assert rig.process("c2").pid == pid and rig.state("c2") == "RUNNING"
    wait_until(lambda: not images.exists(), what="images removed after the start")
    assert not (bundle / "criu-work").exists()
    with open(stdin, "w") as file:
        file.write("go\n")
    assert rig.wait("c2") == 9
    assert rig.delete("c2") == 9
    reader.join(5)
    assert b"".join(reader.kept) == b"hello\n"
    rig.forget_record("c2")
    rig.d.api.call(LEASES + "Delete", {"id": "keep-c1"}, namespace=rig.ns)
    assert rig.left_behind() == []


def test_terminal(rig):
    rig.running("c1")
    images = rig.d.base / "images"
    rig.checkpoint("c1", image_path=str(images))
    rig.remove("c1")
    rig.container("c2", ("sh", "-c", "tty; read x"), options=rig.runtime_options(), terminal=True)
    out, stdin = rig.fifo("out"), rig.fifo("in")
    reader = Reader(out)
    reader.start()
    assert rig.create_from("c2", images, criu_work_path=str(rig.d.base / "work"), terminal=True, stdin=str(stdin),
                           stdout=str(out)) == 0
    rig.start("c2")
    said = rig.said("restore")
    assert "--console-socket" in said and said[said.index("--work-path") + 1] == str(rig.d.base / "work")
    assert said[said.index("--image-path") + 1] == str(images)
    wait_until(lambda: b"/dev/" in reader.tail, what="the terminal's name")
    rig.task("ResizePty", container_id="c2", width=100, height=40)
    with open(stdin, "w") as file:
        file.write("\n")
    assert rig.wait("c2") == 0
    rig.remove("c2")
    assert images.exists() and rig.left_behind() == []


def test_deleted_before_its_start(rig):
    """Also by another daemon, which must not take it for one in the making."""
    rig.running("c1")
    saved = rig.saved("c1")
    own = rig.d.base / "own"
    rig.checkpoint("c1", image_path=str(own))
    rig.remove("c1")
    for restart, path in ((False, None), (True, None), (False, own), (True, own)):
        rig.made("c2")
        if path:
            rig.create_from("c2", path)
        else:
            rig.create("c2", checkpoint=saved)
        assert (rig.work("c2") / "images").exists()
        if restart:
            rig.d.kill()
            rig.d.start()
            assert rig.state("c2") == "CREATED"
        assert rig.delete("c2") == 0
        assert not rig.work("c2").exists()
        rig.forget_record("c2")
    assert (own / "inventory.img").exists()
    assert rig.left_behind() == []


def test_refused(rig):
    with pytest.raises(grpc.RpcError) as missing:
        rig.checkpoint("none", image_path="/x")
    assert missing.value.code() == CODE.NOT_FOUND
    rig.made("c1")
    with pytest.raises(grpc.RpcError) as missing:
        rig.checkpoint("c1")
    assert missing.value.code() == CODE.NOT_FOUND and "task c1 not found" in missing.value.details()
    for descriptor, words in (({"media_type": "text/plain", "digest": "sha256:" + "0" * 64}, 'unsupported checkpoint type "text/plain"'),
                              ({"media_type": TAR, "digest": "sha256:" + "0" * 64}, "not found")):
        with pytest.raises(grpc.RpcError) as refused:
            rig.create("c1", checkpoint=descriptor)
        assert words in refused.value.details()
        assert rig.state("c1") is None and not rig.work("c1").exists() and not rig.bundle("c1").exists()
    rig.create("c1")
    with pytest.raises(grpc.RpcError) as created:
        rig.checkpoint("c1")
    assert created.value.details() == "cannot checkpoint a task in created state"
    rig.start("c1")
    rig.kill("c1")
    rig.wait("c1")
    with pytest.raises(grpc.RpcError) as stopped:
        rig.checkpoint("c1")
    assert stopped.value.details() == "cannot checkpoint a stopped container"
    rig.remove("c1")


def test_criu_fails(rig):
    """The first line and where CRIU's log is, of which the end is kept however long it is."""
    rig.running("c1")
    rig.instead("checkpoint", r"""mkdir -p $WORK; head -c 3000000 /dev/zero | tr '\0' x > $WORK/dump.log; echo the end >> $WORK/dump.log
printf '{"level":"error","msg":"criu failed: type NOTIFY errno 0\\nlog file: %s/dump.log"}\n' $WORK >> $LOG; exit 1""")
    for options in ({}, {"exit": True}):
        with pytest.raises(grpc.RpcError) as failed:
            rig.checkpoint("c1", **options)
        log = rig.bundle("c1") / "criu-dump.log"
        assert failed.value.details() == f"criu failed: type NOTIFY errno 0 path= {log}"
        assert log.read_text().endswith("the end\n") and log.stat().st_size == 1 << 20
        assert rig.state("c1") == "RUNNING" and rig.no_scratch() and not (rig.bundle("c1") / "criu-work").exists()
    rig.instead("checkpoint", None)
    assert len(rig.checkpoint("c1")) == 2
    rig.remove("c1")
    assert rig.left_behind() == []


def hanging(rig, name="c1", **options):
    """A checkpoint in the background whose runtime does not come back, and a child of it."""
    rig.instead("checkpoint", f"sleep 1000 & echo $! > {rig.d.base}/child; sleep 1000")
    result = []

    def call():
        try:
            result.append(rig.checkpoint(name, timeout=60, **options))
        except grpc.RpcError as error:
            result.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    wait_until(lambda: (rig.d.base / "child").exists() and (rig.d.base / "child").read_text(), what="the runtime is called")
    return thread, result


def hanging_child(rig):
    return int((rig.d.base / "child").read_text())


def gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_built_without_criu(rig):
    """As Debian's crun is."""
    rig.running("c1")
    rig.instead("checkpoint", "echo unknown command checkpoint >&2; exit 1")
    with pytest.raises(grpc.RpcError) as failed:
        rig.checkpoint("c1")
    assert failed.value.code() == CODE.UNIMPLEMENTED and "is built without CRIU" in failed.value.details()
    rig.remove("c1")


@pytest.mark.parametrize("rig", ["v2"], indirect=True)  # the shim waits ten seconds, in the same code for both
def test_criu_hangs(rig):
    """Others are answered, the container can be killed and deleted, and what hung ends with it."""
    rig.running("c1")
    thread, result = hanging(rig)
    assert rig.state("c1") == "RUNNING"
    rig.task("ListPids", container_id="c1")
    rig.running("c2")
    rig.remove("c2")
    rig.kill("c1")
    assert rig.wait("c1") == 137
    assert rig.delete("c1", timeout=40) == 137
    thread.join(20)
    assert isinstance(result[0], grpc.RpcError) and "did not end in" in result[0].details()
    wait_until(lambda: gone(hanging_child(rig)), what="the end of the runtime's child")
    rig.forget_record("c1")
    assert rig.left_behind() == []


def test_client_goes_away(rig):
    """The checkpoint is ended and thrown away."""
    rig.running("c1")
    rig.instead("checkpoint", f"touch {rig.d.base}/called; while [ ! -e {rig.d.base}/go ]; do sleep 0.02; done")
    with pytest.raises(grpc.RpcError) as late:
        rig.checkpoint("c1", timeout=1)
    assert late.value.code() == CODE.DEADLINE_EXCEEDED and (rig.d.base / "called").exists()
    (rig.d.base / "go").touch()
    wait_until(rig.no_scratch, what="an empty directory of checkpoints")
    assert rig.state("c1") == "RUNNING"
    rig.remove("c1")
    assert rig.left_behind() == []


def test_daemon_killed(rig):
    """In the middle of a checkpoint: the container runs on, and the next daemon throws away what was begun."""
    pid = rig.running("c1")
    rig.instead("checkpoint", f"touch {rig.d.base}/called; while [ ! -e {rig.d.base}/go ]; do sleep 0.02; done")
    thread = threading.Thread(target=lambda: pytest.raises(grpc.RpcError, rig.checkpoint, "c1"), daemon=True)
    thread.start()
    wait_until(lambda: (rig.d.base / "called").exists(), what="the runtime is called")
    assert list(rig.scratch.iterdir())
    rig.d.kill()
    thread.join(20)
    rig.d.start()
    assert rig.no_scratch()
    (rig.d.base / "go").touch()
    assert rig.state("c1") == "RUNNING" and rig.process("c1").pid == pid
    rig.instead("checkpoint", None)
    assert len(rig.checkpoint("c1")) == 2
    rig.remove("c1")
    assert rig.left_behind() == []


def test_shim_killed(rig):
    """In the middle of a checkpoint: the container's end is told, and the call is answered."""
    rig.running("c1")
    thread, result = hanging(rig)
    events = rig.events()
    if rig.v1:
        shim = int((rig.bundle("c1") / "shim.pid").read_text())
    else:
        shim = rig.shim("c1")
    os.kill(shim, signal.SIGKILL)
    thread.join(20)
    assert isinstance(result[0], grpc.RpcError)
    wait_until(lambda: rig.state("c1") is None, what="the cleanup")
    assert len(events.exits("c1")) == 1
    events.stop()
    os.kill(hanging_child(rig), signal.SIGKILL)  # CRIU itself ends when the runtime's end of its socket is closed
    assert rig.no_scratch()
    rig.forget_record("c1")
    assert rig.left_behind() == []


def test_restore_fails(rig):
    """Whatever it has made is undone; it can be tried again, and deleted."""
    rig.running("c1")
    saved = rig.saved("c1")
    rig.remove("c1")
    rig.made("c2")
    rig.create("c2", checkpoint=saved)
    rig.instead("restore", """$REAL $GLOBALS create --bundle $BUNDLE --pid-file $PID_FILE $ID </dev/null >/dev/null 2>&1
printf '{"level":"error","msg":"criu failed: type RESTORE errno 0"}\\n' >> $LOG; exit 1""")
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as failed:
            rig.start("c2")
        assert failed.value.details() == "OCI runtime restore failed: criu failed: type RESTORE errno 0"
        assert rig.state("c2") == "CREATED" and not rig.processes_of("c2")
        assert not pathlib.Path(f"/run/containerd/runc/{rig.ns}/c2").exists()
    rig.instead("restore", None)
    rig.start("c2")
    assert rig.state("c2") == "RUNNING"
    rig.remove("c2")
    rig.made("c3")
    rig.create("c3", checkpoint=saved)
    shutil.rmtree(rig.work("c3") / "images")
    with pytest.raises(grpc.RpcError) as failed:
        rig.start("c3")
    assert failed.value.details() == "OCI runtime restore failed: no images"
    rig.delete("c3")
    rig.forget_record("c3")
    assert rig.left_behind() == []


def test_full_disk(rig):
    """The images do not fit: an error, the container runs on, and nothing is left of them."""
    rig.running("c1")
    rig.scratch.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", rig.scratch], check=True)
    try:
        rig.instead("checkpoint", "head -c 1000000 /dev/zero > $IMAGES/pages-1.img || exit 1")
        with pytest.raises(grpc.RpcError) as full:
            rig.checkpoint("c1")
        assert "No space left" in full.value.details(), full.value.details()
        assert rig.no_scratch() and rig.state("c1") == "RUNNING"
    finally:
        subprocess.run(["umount", rig.scratch], check=True)
    rig.instead("checkpoint", None)
    assert len(rig.checkpoint("c1")) == 2
    rig.remove("c1")


def test_criu_path(rig):
    """The criu program of the options, as the runtime's flag."""
    rig.running("c1", options=rig.runtime_options(criu_path="/opt/criu"))
    rig.checkpoint("c1", image_path=str(rig.d.base / "images"))
    expected = globals_of(rig, "c1", "--criu", "/opt/criu") + ["checkpoint"]
    assert without_debug(rig.said("checkpoint"))[:len(expected)] == expected
    rig.remove("c1")
