# SPDX-License-Identifier: Apache-2.0
"""The state directory is wiped under living shims, with the daemon up and with it down."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import grpc
import pytest

from conftest import running
from fault.rig import OBEDIENT, V1, Held, Rig, has_ended, wait_until
from harness import daemons
from harness.api import message_class

CODE = grpc.StatusCode
POD = {"io.kubernetes.cri.sandbox-id": "pod"}


@pytest.fixture
def impatient(balanced):
    """A daemon that gives up soon on a shim that does not end."""
    for daemon in running(daemons.Daemon(extra_config='[timeouts]\n"io.containerd.timeout.shim.cleanup" = "1s"\n')):
        rig = Rig(daemon)
        yield rig
        rig.forget()


def bring(rig, name, state, **options):
    """The container in that state; pids of its processes."""
    rig.container(name, ("sh", "-c", "exit 9") if state == "stopped" else OBEDIENT, **options)
    pids = [rig.create(name)]
    if state != "created":
        rig.start(name)
    if state == "stopped":
        assert rig.wait(name) == 9
    if state == "paused":
        rig.task("Pause", container_id=name)
    if state == "exec":
        pids.append(rig.execute(name, "e1", ("sleep", "1000")))
    return pids


def wipe(rig, names=None):
    """As an administrator would: bundles out of their mounts, then away with everything."""
    for bundle in rig.d.state.glob(f"io.containerd.runtime.*/{rig.ns}/*"):
        if names is None or bundle.name in names:
            subprocess.run(["umount", "-l", bundle / "rootfs"], check=False, stderr=subprocess.DEVNULL)
            shutil.rmtree(bundle)
    if names is None:
        shutil.rmtree(rig.d.state)


def is_clean(rig, *names):
    """Nothing of the containers is left, and their ids can be used."""
    for name in names:
        assert not rig.processes_of(name)
        rig.forget_record(name)
    assert rig.left_behind() == []
    for name in names:
        rig.run(name)
        assert rig.end(name) == 7
        rig.remove(name)
    assert rig.left_behind() == []


@pytest.mark.parametrize("state", ["created", "running", "paused", "exec", "stopped"])
def test_while_the_daemon_is_away(rig, state):
    """The next daemon finds the shim without a bundle, and has it end its container and itself."""
    pids = bring(rig, "c1", state, host_pid=state == "exec")
    shim = rig.shim("c1")
    rig.d.kill()
    wipe(rig)
    rig.d.start()
    wait_until(lambda: has_ended(shim), 10, "the end of the shim")
    assert all(has_ended(pid) for pid in pids)
    wait_until(lambda: rig.process("c1") is None, 5, "the end of the task")
    assert "killing it" not in rig.d.log_text()
    is_clean(rig, "c1")


def test_its_end_is_told_once(rig):
    """Who listens when the orphans end hears of each end, as if somebody had killed them. Until they have ended their
    name is taken, and who asks for them waits."""
    pids = bring(rig, "c1", "exec")
    shim = rig.shim("c1")
    rig.d.kill()
    wipe(rig)
    held = Held(shim)
    rig.d.start()
    events = rig.events()
    with pytest.raises(grpc.RpcError) as error:
        rig.create("c1")
    assert error.value.code() == CODE.ALREADY_EXISTS
    with pytest.raises(grpc.RpcError) as error:
        rig.task("Get", container_id="c1", timeout=0.3)
    assert error.value.code() == CODE.DEADLINE_EXCEEDED
    held.let_go()
    wait_until(lambda: has_ended(shim) and all(has_ended(pid) for pid in pids), 10, "the end of the shim")
    wait_until(lambda: rig.process("c1") is None, 5, "the end of the task")
    wait_until(lambda: "/tasks/delete" in events.topics("c1"), 5, "the event of its removal")
    assert [m.exit_status for m in events.exits("c1")] == [137]
    assert [m.exit_status for m in events.exits("c1", "e1")] == [137]
    assert events.topics("c1")[-1] == "/tasks/delete"
    events.stop()
    is_clean(rig, "c1")


@pytest.mark.parametrize("state", ["created", "running", "paused", "exec", "stopped"])
@pytest.mark.parametrize("oci_runtime", [r for r in ("crun", "runc") if shutil.which(r)])
def test_of_the_oci_runtime(rig, state, oci_runtime):
    """Then it does not know the container: it can be killed and deleted all the same."""
    options = message_class("containerd.runc.v1.Options")(binary_name=oci_runtime)
    pids = bring(rig, "c1", state, options=options)
    shutil.rmtree(f"/run/containerd/runc/{rig.ns}/c1")
    if state != "stopped":
        rig.kill("c1")
        assert rig.wait("c1") == 137
    assert rig.delete("c1") == (9 if state == "stopped" else 137)
    assert all(has_ended(pid) for pid in pids)
    is_clean(rig, "c1")


def test_pod(rig):
    """All containers of a shim end; one bundle that is left keeps it, with all that it has."""
    names = ["pod", "a", "b"]
    pids = {name: rig.run(name, annotations=POD) for name in names}
    shim = rig.shim("pod")
    rig.d.kill()
    wipe(rig, ["pod", "b"])
    rig.d.start()
    assert rig.state("a") == "RUNNING" and rig.process("a").pid == pids["a"]
    assert not has_ended(shim) and not has_ended(pids["pod"])
    rig.d.kill()
    wipe(rig)
    rig.d.start()
    wait_until(lambda: has_ended(shim) and all(has_ended(pid) for pid in pids.values()), 10, "the end of all")
    wait_until(lambda: rig.process("pod") is None, 5, "the end of the task")
    is_clean(rig, *names)


def test_stopped_shim(rig):
    """Nobody else could ever let it go on."""
    pid = rig.run("c1")
    shim = rig.shim("c1")
    rig.d.kill()
    wipe(rig)
    os.kill(shim, signal.SIGSTOP)
    rig.d.start()
    wait_until(lambda: has_ended(shim) and has_ended(pid), 10, "the end of the shim")
    wait_until(lambda: rig.process("c1") is None, 5, "the end of the task")
    assert "killing it" not in rig.d.log_text()
    is_clean(rig, "c1")


@pytest.mark.parametrize("runtime", ["io.containerd.runc.v2", V1])
def test_deaf_shim(impatient, runtime):
    """One that does not listen is killed, after its container, whose end is told for it."""
    rig = impatient
    rig.runtime = runtime
    pids = bring(rig, "c1", "exec")
    shim = rig.shim("c1")
    rig.d.kill()
    wipe(rig)
    Held(shim)
    rig.d.start()
    events = rig.events()
    wait_until(lambda: has_ended(shim), 10, "the end of the shim")
    wait_until(lambda: all(has_ended(pid) for pid in pids), 5, "the end of its container")
    wait_until(lambda: rig.process("c1") is None, 5, "the end of the task")
    wait_until(lambda: events.exits("c1"), 5, "the event of its end")
    assert [m.exit_status for m in events.exits("c1")] == [137]
    events.stop()
    is_clean(rig, "c1")


@pytest.mark.parametrize("state", ["created", "running", "stopped"])
def test_runtime_v1(rig, state):
    rig.runtime = V1
    pids = bring(rig, "c1", state)
    shim = rig.shim("c1")
    rig.d.kill()
    wipe(rig)
    rig.d.start()
    wait_until(lambda: has_ended(shim), 10, "the end of the shim")
    assert all(has_ended(pid) for pid in pids)
    wait_until(lambda: rig.process("c1") is None, 5, "the end of the task")
    is_clean(rig, "c1")


def test_file_system_goes(balanced, tmp_path):
    """What state lay on is unmounted under it."""
    place = pathlib.Path("/tmp/w-place")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "place", place], check=True)
    daemon = daemons.Daemon()
    daemon.state = place / "state"
    rig = None
    try:
        daemon.start()
        rig = Rig(daemon)
        pid = rig.run("c1")
        shim = rig.shim("c1")
        daemon.kill()
        subprocess.run(["umount", "-l", place], check=True)
        daemon.start()
        wait_until(lambda: has_ended(shim) and has_ended(pid), 10, "the end of the shim")
        wait_until(lambda: rig.process("c1") is None, 5, "the end of the task")
        is_clean(rig, "c1")
        assert daemon.stop() == 0
    finally:
        if rig:
            rig.remove_namespace_cgroups()
        if daemon.process:
            daemon.process.kill()
        daemon.remove()
        shutil.rmtree(place, ignore_errors=True)


def decoy(program, address, ns, name, cwd):
    """A process that calls itself a shim."""
    flags = ["-namespace", ns, "-id", name, "-address", address]
    process = subprocess.Popen([program, "-c", "import time; print('ready', flush=True); time.sleep(1000)", *flags],
                               executable=sys.executable, cwd=cwd, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_what_is_not_ours_lives(rig, tmp_path):
    """A shim of another address, one of a bundle elsewhere, one whose bundle is there, one of other namespaces, one
    of another user: each has one thing that speaks against it."""
    def bundle_of(state, name="c1"):
        path = pathlib.Path(state) / "io.containerd.runtime.v2.task" / rig.ns / name
        path.mkdir(parents=True)
        return path

    ours = "containerd-shim-wherry-v2"
    state = rig.d.state
    decoys = [
        decoy(ours, rig.d.address + ".other", rig.ns, "c1", bundle_of(state, "c1")),
        decoy(ours, rig.d.address, rig.ns, "another", bundle_of(state, "c2")),
        decoy(ours, rig.d.address, "another", "c3", bundle_of(state, "c3")),
        decoy("sleeper", rig.d.address, rig.ns, "c4", bundle_of(state, "c4")),
        decoy(ours, rig.d.address, rig.ns, "c5", bundle_of(tmp_path / "elsewhere", "c5")),
    ]
    there = decoy(ours, rig.d.address, rig.ns, "c6", bundle_of(tmp_path / "there", "c6"))
    inside = subprocess.Popen(
        ["unshare", "--mount", sys.executable, "-c", f"""
import os, sys, time
os.execv(sys.executable, ["{ours}", "-c", "import time; print('ready', flush=True); time.sleep(1000)",
         "-namespace", "{rig.ns}", "-id", "c7", "-address", "{rig.d.address}"])
"""], cwd=bundle_of(state, "c7"), stdout=subprocess.PIPE, text=True)
    assert inside.stdout.readline() == "ready\n"
    stranger = subprocess.Popen(
        [ours, "-c", "import os, time; os.setuid(65534); print('ready', flush=True); time.sleep(1000)", "-namespace",
         rig.ns, "-id", "c8", "-address", rig.d.address], executable=sys.executable, cwd=bundle_of(state, "c8"),
        stdout=subprocess.PIPE, text=True)
    assert stranger.stdout.readline() == "ready\n"
    # And one that all of it fits: the others are not spared for want of looking.
    fits = decoy(ours, rig.d.address, rig.ns, "c9", bundle_of(state, "c9"))
    rig.d.kill()
    shutil.rmtree(state)
    shutil.rmtree(tmp_path / "elsewhere")
    rig.d.start()
    assert fits.wait(10) == -signal.SIGTERM
    for process in [*decoys, there, inside, stranger]:
        assert process.poll() is None, process.args
        process.kill()
        process.wait()
    assert rig.left_behind() == []


@pytest.mark.parametrize("state", ["created", "running", "paused", "exec", "stopped"])
def test_while_the_daemon_is_up(rig, state):
    """Nobody notices until the container is ended and deleted, which works as ever."""
    events = rig.events()
    pids = bring(rig, "c1", state)
    wipe(rig, ["c1"])
    assert rig.state("c1") == {"exec": "running"}.get(state, state).upper()
    with pytest.raises(grpc.RpcError):
        rig.create("c1")
    rig.remove("c1")
    assert all(has_ended(pid) for pid in pids)
    wait_until(lambda: "/tasks/delete" in events.topics("c1"), 5, "the event of its removal")
    assert len(events.exits("c1")) == 1
    events.stop()
    is_clean(rig, "c1")


def test_its_shim_dies(rig):
    """The bundle is gone, and then the shim is killed under the daemon's eyes."""
    events = rig.events()
    pid = rig.run("c1")
    wipe(rig, ["c1"])
    os.kill(rig.shim("c1"), signal.SIGKILL)
    wait_until(lambda: rig.process("c1") is None, 5, "the end of the task")
    wait_until(lambda: has_ended(pid), 5, "the end of its container")
    wait_until(lambda: events.exits("c1"), 5, "the event of its end")
    assert [m.exit_status for m in events.exits("c1")] == [137]
    events.stop()
    is_clean(rig, "c1")


def test_socket_of_a_dead_shim(rig):
    """State is wiped and the shim killed while the daemon is away: its work directory leads to the socket."""
    pid = rig.run("c1")
    shim = rig.shim("c1")
    rig.d.kill()
    wipe(rig)
    os.kill(shim, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: has_ended(pid) and has_ended(shim), what="the end of both")
    assert rig.socket("c1").exists()
    rig.d.start()
    wait_until(lambda: not rig.socket("c1").exists(), what="the end of its socket")
    subprocess.run(["crun", "--root", f"/run/containerd/runc/{rig.ns}", "delete", "--force", "c1"], check=False)
    is_clean(rig, "c1")


def test_sockets_of_the_dead(rig):
    """Of daemons that never come back: removed when they are old and nobody listens, and nothing else is."""
    place = pathlib.Path("/run/containerd/s")
    old = time.time() - 3600
    listeners = []

    def make(letter, age, listens, name=None):
        path = place / (name or letter * 64)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        if listens:
            listener.listen()
            listeners.append(listener)
        else:
            listener.close()
        os.utime(path, (age, age))
        return path

    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    dead = make("a", old, False)
    alive = make("b", old, True)
    fresh = make("c", time.time(), False)
    named = make("d", old, False, name="d.sock")
    strangers = make("e", old, False)
    os.chown(strangers, 65534, 65534)
    file = place / ("f" * 64)
    file.touch()
    os.utime(file, (old, old))
    try:
        rig.d.restart()
        wait_until(lambda: not dead.exists(), what="the end of the dead socket")
        assert all(path.exists() for path in (alive, fresh, named, strangers, file))
    finally:
        for listener in listeners:
            listener.close()
        for path in (dead, alive, fresh, named, strangers, file):
            path.unlink(missing_ok=True)
