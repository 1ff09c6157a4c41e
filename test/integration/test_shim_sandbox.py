# SPDX-License-Identifier: Apache-2.0
"""The sandbox service of a shim, called as containerd's sandbox controllers call it."""
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

from fault.rig import OBEDIENT, Rig, has_ended, make_root, wait_until
from harness.bare_shim import BareShims, CallFailed

NOT_FOUND, EXISTS, PRECONDITION, INVALID = 5, 6, 9, 3


@pytest.fixture
def shims(balanced, tmp_path):
    shims = BareShims(tmp_path)
    yield shims
    shims.end()


@pytest.fixture
def pod(shims):
    """A shim with nothing in it yet."""
    shims.bundle("pod", {"linux": {"cgroupsPath": f"/{shims.ns}"}})
    result = shims.start("pod")
    assert result.returncode == 0, result.stderr
    with shims.connect(result.stdout.decode()) as shim:
        shim.pid = shim.task("Connect", id="pod").shim_pid
        yield shim


def create(shims, pod, **fields):
    pod.sandbox("CreateSandbox", sandbox_id="pod", bundle_path=str(shims.base / "pod"), **fields)


def fails(code, call, *args, **fields):
    with pytest.raises(CallFailed) as error:
        call(*args, **fields)
    assert error.value.code == code, error.value
    return error.value.message


def add_container(shims, pod, name, args=OBEDIENT, **spec):
    """Created and started in the sandbox's shim; its pid."""
    bundle = shims.bundle(name, {**Rig.spec(shims, name, args), **spec})
    make_root(bundle / "rootfs")
    pod.task("Create", id=name, bundle=str(bundle))
    return pod.task("Start", id=name).pid


def is_over(pod):
    """It waits for its clients to leave, which have its last answer then."""
    assert not has_ended(pod.pid)
    pod.connection.close()
    # Events of containers, which nobody takes here, are waited for as well: 5 s.
    wait_until(lambda: has_ended(pod.pid), 15, "the end of the shim")


def test_life(shims, pod):
    create(shims, pod)
    assert pod.sandbox("SandboxStatus", sandbox_id="pod").state == "SANDBOX_NOTREADY"
    started = pod.sandbox("StartSandbox", sandbox_id="pod")
    assert started.pid == pod.pid and started.created_at.seconds > 0
    status = pod.sandbox("SandboxStatus", sandbox_id="pod", verbose=True)
    assert (status.state, status.pid, status.sandbox_id) == ("SANDBOX_READY", pod.pid, "pod")
    assert status.created_at == started.created_at and status.exited_at.seconds < 0
    platform = pod.sandbox("Platform", sandbox_id="pod").platform
    assert (platform.os, platform.architecture) == ("linux", {"x86_64": "amd64", "aarch64": "arm64"}.get(
        os.uname().machine, os.uname().machine))
    pod.sandbox("PingSandbox", sandbox_id="pod")
    waits = [pod.begin("containerd.runtime.sandbox.v1.Sandbox", "WaitSandbox", sandbox_id="pod") for _ in range(3)]
    pod.sandbox("StopSandbox", sandbox_id="pod", timeout_secs=1)
    ends = [pod.finish(w) for w in waits] + [pod.sandbox("WaitSandbox", sandbox_id="pod")]
    assert {(e.exit_status, e.exited_at.seconds > 0) for e in ends} == {(0, True)}
    status = pod.sandbox("SandboxStatus", sandbox_id="pod")
    assert status.state == "SANDBOX_NOTREADY" and status.exited_at == ends[0].exited_at
    pod.sandbox("ShutdownSandbox", sandbox_id="pod")
    is_over(pod)


def test_calls_out_of_turn(shims, pod):
    for method in ("StartSandbox", "StopSandbox", "WaitSandbox", "SandboxStatus", "PingSandbox", "Platform",
                   "SandboxMetrics"):
        assert "sandbox pod: not found" in fails(NOT_FOUND, pod.sandbox, method, sandbox_id="pod")
    for fields in ({"bundle_path": "pod"}, {"bundle_path": ""}):
        fails(INVALID, pod.sandbox, "CreateSandbox", sandbox_id="pod", **fields)
    for name in ("", "a/b", "..", "x" * 100):
        fails(INVALID, pod.sandbox, "CreateSandbox", sandbox_id=name, bundle_path=str(shims.base / "pod"))
    create(shims, pod)
    assert "already exists" in fails(EXISTS, create, shims, pod)
    assert "sandbox pod" in fails(PRECONDITION, pod.sandbox, "CreateSandbox", sandbox_id="other",
                                  bundle_path=str(shims.base / "pod"))
    fails(NOT_FOUND, pod.sandbox, "ShutdownSandbox", sandbox_id="other")
    assert pod.sandbox("StartSandbox", sandbox_id="pod") == pod.sandbox("StartSandbox", sandbox_id="pod")
    pod.sandbox("StopSandbox", sandbox_id="pod")
    pod.sandbox("StopSandbox", sandbox_id="pod")
    assert "a stopped sandbox" in fails(PRECONDITION, pod.sandbox, "StartSandbox", sandbox_id="pod")
    bundle = shims.bundle("late", Rig.spec(shims, "late", OBEDIENT))
    assert "a stopped sandbox" in fails(PRECONDITION, pod.task, "Create", id="late", bundle=str(bundle))
    pod.sandbox("ShutdownSandbox", sandbox_id="pod")
    is_over(pod)


def test_shutdown_after_a_create_that_failed(shims, pod):
    """What containerd does with a sandbox that could not be made: the shim must not stay."""
    mount = {"type": "tmpfs", "source": "tmpfs"}
    broken = {"type": "no-such-filesystem", "source": "x"}
    with pytest.raises(CallFailed) as error:
        create(shims, pod, rootfs=[mount, broken])
    assert "failed to mount rootfs component" in error.value.message
    message = fails(PRECONDITION, create, shims, pod, rootfs=[mount], netns_path="/no/such/namespace")
    assert "/no/such/namespace" in message
    os.mkfifo(shims.base / "fifo")
    for path in (shims.base / "fifo", "/proc/self/ns/uts", "/dev/null"):
        fails(PRECONDITION, create, shims, pod, netns_path=str(path))
    assert not os.path.ismount(shims.base / "pod" / "rootfs")
    pod.sandbox("ShutdownSandbox", sandbox_id="pod")
    is_over(pod)


def test_rootfs(shims, pod):
    create(shims, pod, rootfs=[{"type": "tmpfs", "source": "tmpfs"}])
    assert os.path.ismount(shims.base / "pod" / "rootfs")
    pod.sandbox("ShutdownSandbox", sandbox_id="pod")
    is_over(pod)
    assert not os.path.ismount(shims.base / "pod" / "rootfs")


def test_containers(shims, pod):
    """They come and go; the shim stays for the sandbox. Stop ends those that run, also a paused one."""
    create(shims, pod)
    pod.sandbox("StartSandbox", sandbox_id="pod")
    add_container(shims, pod, "a")
    pod.task("Kill", id="a", signal=9)
    assert pod.task("Wait", id="a").exit_status == 137
    pod.task("Delete", id="a")
    pod.task("Shutdown", id="a")
    pod.sandbox("PingSandbox", sandbox_id="pod")

    pids = [add_container(shims, pod, name) for name in ("b", "c")]
    metrics = pod.sandbox("SandboxMetrics", sandbox_id="pod").metrics
    assert metrics.id == "pod" and metrics.timestamp.seconds > 0
    pod.task("Pause", id="c")
    wait = pod.begin("containerd.task.v2.Task", "Wait", id="b")
    pod.sandbox("StopSandbox", sandbox_id="pod")
    assert all(has_ended(pid) for pid in pids)
    assert pod.finish(wait).exit_status == 137
    # Shut down with containers left: it leaves with the last of them.
    pod.sandbox("ShutdownSandbox", sandbox_id="pod")
    for name in ("b", "c"):
        assert not has_ended(pod.pid)
        assert pod.task("Delete", id=name).exit_status == 137
    is_over(pod)


def test_metrics_of_its_control_group(shims, pod):
    create(shims, pod)
    assert not pod.sandbox("SandboxMetrics", sandbox_id="pod").metrics.HasField("data")
    add_container(shims, pod, "a")
    data = pod.sandbox("SandboxMetrics", sandbox_id="pod").metrics.data
    assert data.type_url.startswith("io.containerd.cgroups.v") and data.value
    pod.sandbox("StopSandbox", sandbox_id="pod")
    pod.task("Delete", id="a")
    pod.sandbox("ShutdownSandbox", sandbox_id="pod")
    is_over(pod)


def test_network_namespace(shims, pod):
    """Whoever joins the namespaces of the sandbox's pid is in the pod's network, not in the host's."""
    path = shims.base / "netns"
    path.touch()
    subprocess.run(["unshare", f"--net={path}", "true"], check=True)
    try:
        create(shims, pod, netns_path=str(path))
        started = pod.sandbox("StartSandbox", sandbox_id="pod")
        inode = os.stat(path).st_ino
        assert os.stat(f"/proc/{started.pid}/ns/net").st_ino == inode
        for name in ("ipc", "uts"):
            assert os.readlink(f"/proc/{started.pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")
        assert pod.sandbox("SandboxStatus", sandbox_id="pod", verbose=True).info == {"netns": str(path)}
        pod.sandbox("ShutdownSandbox", sandbox_id="pod")
        is_over(pod)
    finally:
        subprocess.run(["umount", path], check=True)


def test_unknown_to_its_daemon(shims, pod):
    """A daemon without a record of the sandbox deletes it like a task."""
    create(shims, pod)
    assert "not found" in fails(NOT_FOUND, pod.task, "Delete", id="pod")
    pod.task("Shutdown", id="other")
    pod.sandbox("PingSandbox", sandbox_id="pod")
    pod.task("Shutdown", id="pod")
    is_over(pod)


def test_killed(shims, pod):
    """`delete` for the sandbox finds its containers, which their daemon would leave running."""
    create(shims, pod, rootfs=[{"type": "tmpfs", "source": "tmpfs"}])
    pod.sandbox("StartSandbox", sandbox_id="pod")
    pids = [add_container(shims, pod, name) for name in ("a", "b")]
    pod.task("Kill", id="b", signal=9)
    pod.task("Wait", id="b")
    pod.task("Delete", id="b")
    links = shims.base / "pod" / "containers"
    wait_until(lambda: [p.name for p in links.iterdir()] == ["a"], what="b is forgotten")
    os.kill(pod.pid, signal.SIGKILL)
    wait_until(lambda: has_ended(pod.pid), what="the end of the shim")
    assert not has_ended(pids[0])
    assert shims.delete("pod").exit_status == 137
    wait_until(lambda: has_ended(pids[0]), what="the end of the container")
    assert not os.path.ismount(shims.base / "pod" / "rootfs")
    # And again, with nothing left to do.
    shims.delete("pod")


def test_killed_and_bundles_removed(shims, pod):
    """Some daemons hear of the shim's end and remove the containers' bundles before `delete` runs."""
    (shims.base / "pod" / "config.json").unlink()  # of some daemons a sandbox has none
    create(shims, pod)
    # With a version that is run by runc: what is not recorded would be taken for crun's.
    pids = [add_container(shims, pod, name, ociVersion="1.1.0") for name in ("a", "b")]
    os.kill(pod.pid, signal.SIGKILL)
    wait_until(lambda: has_ended(pod.pid), what="the end of the shim")
    assert not any(has_ended(pid) for pid in pids)
    for name in ("a", "b"):
        assert (shims.base / name / "runtime").read_text().endswith("/runc")
        shutil.rmtree(shims.base / name)
    assert shims.delete("pod").exit_status == 137
    wait_until(lambda: all(has_ended(pid) for pid in pids), what="the end of the containers")
    assert not list(pathlib.Path("/run/containerd/runc", shims.ns).iterdir())


def test_terminated(shims, pod):
    """SIGTERM: the container runs on, and `delete` still finds it."""
    create(shims, pod)
    pid = add_container(shims, pod, "a")
    os.kill(pod.pid, signal.SIGTERM)
    wait_until(lambda: has_ended(pod.pid), 5, "the end of the shim")
    assert not has_ended(pid)
    shims.delete("pod")
    wait_until(lambda: has_ended(pid), what="the end of the container")
