# SPDX-License-Identifier: Apache-2.0
"""Every key of the configuration does what its manual page says, or is warned about by its name."""
import os
import pathlib
import signal
import subprocess
import time

import grpc
import pytest

from conftest import running
from harness import daemons

SNAPSHOTS = "containerd.services.snapshots.v1.Snapshots"
PLUGINS = "containerd.services.introspection.v1.Introspection/Plugins"
OVERLAY = "io.containerd.snapshotter.v1.overlayfs"
NATIVE = "io.containerd.snapshotter.v1.native"


@pytest.fixture
def configured(balanced):
    """configured(text) -> a daemon that runs with it, ended after the test."""
    started = []

    def start(text):
        life = running(daemons.Daemon(extra_config=text))
        daemon = next(life)
        started.append(life)
        return daemon

    yield start
    for life in started:
        with pytest.raises(StopIteration):
            next(life)


@pytest.fixture
def refused(balanced):
    """refused(text) -> what wherryd says when it does not start with it."""
    made = []

    def start(text):
        daemon = daemons.Daemon(extra_config=text)
        made.append(daemon)
        result = subprocess.run(daemon.command(), capture_output=True, text=True, timeout=15, stdin=subprocess.DEVNULL,
                                env=daemon.environment())
        assert result.returncode == 1
        assert not daemon.answers()
        return result.stderr.strip().splitlines()[-1]

    yield start
    for daemon in made:
        daemon.remove()


def plugins(daemon):
    return {f"{p.type}.{p.id}": p for p in daemon.api.call(PLUGINS, {}, namespace=False).plugins}


def refusal(daemon, path, request):
    with pytest.raises(grpc.RpcError) as error:
        daemon.api.call(path, request)
    return error.value.code(), error.value.details()


def warnings(daemon, words):
    return [line for line in daemon.log_text().splitlines() if words in line and "warn" in line.lower()]


def prepare(daemon, key, parent="", snapshotter="overlayfs"):
    return daemon.api.call(f"{SNAPSHOTS}/Prepare", {"snapshotter": snapshotter, "key": key, "parent": parent}).mounts


def commit(daemon, name, key, snapshotter="overlayfs"):
    daemon.api.call(f"{SNAPSHOTS}/Commit", {"snapshotter": snapshotter, "name": name, "key": key})


def remove(daemon, key, snapshotter="overlayfs"):
    daemon.api.call(f"{SNAPSHOTS}/Remove", {"snapshotter": snapshotter, "key": key})


def test_everything_runs_by_default(daemon):
    assert [name for name, p in plugins(daemon).items() if p.HasField("init_err")] == []
    assert not warnings(daemon, "config")


# disabled_plugins

def test_disabled_snapshotter(configured):
    daemon = configured(f'disabled_plugins = ["{NATIVE}"]\n')
    found = plugins(daemon)
    assert found[NATIVE].init_err.message == "disabled by the configuration: skip plugin"
    assert not found[OVERLAY].HasField("init_err")
    code, words = refusal(daemon, f"{SNAPSHOTS}/Prepare", {"snapshotter": "native", "key": "a"})
    assert code == grpc.StatusCode.INVALID_ARGUMENT and words == "snapshotter not loaded: native: invalid argument"
    assert not (daemon.root / NATIVE).exists()
    rows = [line.split() for line in daemon.ctr("plugins", "ls").stdout.splitlines()]
    assert next(row for row in rows if row[1:2] == ["native"])[-1] == "skip"


@pytest.mark.parametrize("name", ["io.containerd.grpc.v1.images", "io.containerd.service.v1.images-service"])
def test_disabled_service(configured, name):
    daemon = configured(f'disabled_plugins = ["{name}"]\n')
    code, words = refusal(daemon, "containerd.services.images.v1.Images/List", {})
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert words == "unknown service containerd.services.images.v1.Images"
    found = plugins(daemon)
    assert "skip plugin" in found["io.containerd.grpc.v1.images"].init_err.message
    assert not found["io.containerd.grpc.v1.leases"].HasField("init_err")
    daemon.api.call("containerd.services.containers.v1.Containers/List", {})


def test_disabled_runtime_takes_its_service_along(configured):
    daemon = configured('disabled_plugins = ["io.containerd.runtime.v2.task"]\n')
    assert refusal(daemon, "containerd.services.tasks.v1.Tasks/List", {})[0] == grpc.StatusCode.UNIMPLEMENTED
    skipped = [name for name, p in plugins(daemon).items() if p.HasField("init_err")]
    assert skipped == ["io.containerd.runtime.v2.task", "io.containerd.service.v1.tasks-service",
                       "io.containerd.grpc.v1.tasks"]
    # What removes the leftovers of a test asks for tasks.
    daemon.remove_everything = lambda: None


def test_what_cannot_be_left_out_is_named(configured):
    daemon = configured('disabled_plugins = ["io.containerd.metadata.v1.bolt", "io.containerd.grpc.v1.cri"]\n')
    assert len(warnings(daemon, "io.containerd.metadata.v1.bolt cannot be left out")) == 1
    assert not warnings(daemon, "cri"), "not having it is what was asked for"
    assert not plugins(daemon)["io.containerd.metadata.v1.bolt"].HasField("init_err")


# required_plugins

def test_required_and_there(configured):
    configured(f'required_plugins = ["{OVERLAY}", "io.containerd.grpc.v1.tasks"]\n')


def test_required_and_missing(refused):
    assert "required plugin io.containerd.grpc.v1.cri not included" in refused(
        'required_plugins = ["io.containerd.grpc.v1.cri"]\n')


@pytest.mark.parametrize("name", [NATIVE, "io.containerd.grpc.v1.images"])
def test_required_and_disabled(refused, name):
    assert f"load required plugin {name}: disabled by the configuration" in refused(
        f'required_plugins = ["{name}"]\ndisabled_plugins = ["{name}"]\n')


# snapshotters

def test_overlay_keys(configured):
    base = pathlib.Path(os.path.realpath("/tmp")) / f"w-overlay-{os.getpid()}"
    try:
        daemon = configured(f'[plugins."{OVERLAY}"]\n  root_path = "{base}"\n  upperdir_label = true\n'
                            '  sync_remove = true\n  mount_options = ["volatile"]\n')
        assert plugins(daemon)[OVERLAY].exports["root"] == str(base)
        assert not (daemon.root / OVERLAY).exists()
        prepare(daemon, "bottom")
        commit(daemon, "layer", "bottom")
        options = list(prepare(daemon, "top", "layer")[0].options)
        assert options[0] == "volatile"
        upper = next(o for o in options if o.startswith("upperdir=")).partition("=")[2]
        assert upper.startswith(f"{base}/snapshots/")
        label = {"containerd.io/snapshot/overlay.upperdir": upper}
        stat = daemon.api.call(f"{SNAPSHOTS}/Stat", {"snapshotter": "overlayfs", "key": "top"})
        assert dict(stat.info.labels) == label
        listed = {i.name: dict(i.labels) for m in daemon.api.stream(f"{SNAPSHOTS}/List", {"snapshotter": "overlayfs"})
                  for i in m.info}
        assert listed["top"] == label and listed["layer"] != label
        # The label is told, not kept.
        updated = daemon.api.call(f"{SNAPSHOTS}/Update", {
            "snapshotter": "overlayfs", "info": {"name": "top", "labels": {"a": "b"}}, "update_mask": "labels"})
        assert dict(updated.info.labels) == {"a": "b", **label}
        remove(daemon, "top")
        assert not os.path.exists(upper), "the directory goes before the answer comes"
        remove(daemon, "layer")
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", base], check=True)


def test_native_root_path(configured):
    base = pathlib.Path(os.path.realpath("/tmp")) / f"w-native-{os.getpid()}"
    try:
        daemon = configured(f'[plugins."{NATIVE}"]\n  root_path = "{base}"\n')
        assert prepare(daemon, "a", snapshotter="native")[0].source.startswith(f"{base}/snapshots/")
        remove(daemon, "a", snapshotter="native")
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", base], check=True)


@pytest.mark.parametrize("text, words", [
    (f'[plugins."{OVERLAY}"]\n  root_path = "relative"\n', "root_path of overlayfs relative must be an absolute path"),
    (f'[plugins."{OVERLAY}"]\n  root_path = "/a"\n[plugins."{NATIVE}"]\n  root_path = "/a"\n', "must be different"),
    ('[plugins."io.containerd.runtime.v2.task"]\n  platforms = ["linux/amd64/v1/x"]\n', "platforms"),
])
def test_values_that_cannot_be(refused, text, words):
    assert words in refused(text)


# the rest

def test_platforms(configured):
    daemon = configured('[plugins."io.containerd.runtime.v2.task"]\n  platforms = ["linux/amd64", "linux/386"]\n')
    told = plugins(daemon)["io.containerd.runtime.v2.task"].platforms
    assert [(p.os, p.architecture) for p in told] == [("linux", "amd64"), ("linux", "386")]


def test_differs(configured):
    text = '[plugins."io.containerd.service.v1.diff-service"]\n  default = [%s]\n'
    daemon = configured(text % '"windows", "walking"')
    assert len(warnings(daemon, "differ windows is not there and is ignored")) == 1
    assert not plugins(daemon)["io.containerd.service.v1.diff-service"].HasField("init_err")
    daemon = configured(text % '"windows"')
    assert len(warnings(daemon, "lacks walking")) == 1
    assert "skip plugin" in plugins(daemon)["io.containerd.service.v1.diff-service"].init_err.message
    assert refusal(daemon, "containerd.services.diff.v1.Diff/Apply", {})[0] == grpc.StatusCode.UNIMPLEMENTED


def test_time_for_a_state(configured, archive):
    daemon = configured('[timeouts]\n  "io.containerd.timeout.task.state" = "300ms"\n')
    daemon.import_image(archive)
    daemon.ctr("run", "-d", "docker.io/library/busybox:latest", "c", "sleep", "1000")
    task = daemon.api.call("containerd.services.tasks.v1.Tasks/Get", {"container_id": "c"}).process
    status = pathlib.Path(f"/proc/{task.pid}/status").read_text()
    shim = int(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:")))
    os.kill(shim, signal.SIGSTOP)
    try:
        for path, request in (("Get", {"container_id": "c"}), ("List", {})):
            started = time.monotonic()
            daemon.api.call(f"containerd.services.tasks.v1.Tasks/{path}", request)
            assert 0.25 < time.monotonic() - started < 1.5
    finally:
        os.kill(shim, signal.SIGCONT)
