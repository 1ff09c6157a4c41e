# SPDX-License-Identifier: Apache-2.0
"""Our shim under containerd's CRI plugin, driven as a kubelet drives it: pods of several containers, in one shim each.

Of 2.0 to 2.2 the `shim` sandbox controller is left out: there the plugin hands it no configuration for the sandbox, and
containerd ends in a panic, before any shim is started.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading

import grpc
import pytest

from compat import cri
from compat import test_shim_under_containerd as under
from compat.test_generations import unpacked  # noqa: F401  a fixture
from conftest import running
from fault.rig import OBEDIENT, has_ended, wait_until
from harness import daemons

SHIM_MODE = ('sandbox_mode = "shim"',)
VARIANTS = {"1.6": (None, (), {}), "1.7": ("trixie", (), {}),
            "1.7 shim": ("trixie", SHIM_MODE, {"ENABLE_CRI_SANDBOXES": "1"}),
            "2.1": ("sid", ('sandboxer = "podsandbox"',), {})}


# From 1.7 on the shim is told of this table under its own name, too.
OPTIONS = """
      [plugins."io.containerd.{plugin}".containerd.runtimes.wherry.options]
        BinaryName = "runc"
        CriuPath = "/no/criu"
"""


@pytest.fixture(scope="session")
def archives(archive, tmp_path_factory):
    """What containers are made of, and pods."""
    path = tmp_path_factory.mktemp("pause") / "pause.tar"
    command = [word for part in ("sleep", "1000000") for word in ("--command", part)]
    subprocess.run([daemons.SOURCE / "tools" / "busybox-image", "--name", cri.PAUSE, *command, path], check=True)
    return archive, path


@pytest.fixture(scope="module", params=VARIANTS)
def daemon(request, unpacked, archives):  # noqa: F811
    suite, lines, environment = VARIANTS[request.param]
    if not suite and not shutil.which("containerd"):
        pytest.skip("containerd is not installed")
    options = OPTIONS.format(plugin="cri.v1.runtime" if suite == "sid" else "grpc.v1.cri")
    made = cri.Cri(unpacked(suite) if suite else None, (*lines, options.strip()), environment)
    made.network()
    for c in running(made):
        assert c.version.startswith(request.param.split()[0])
        c.variant = request.param
        c.import_images(*archives)
        yield c


@pytest.fixture
def c(daemon, balanced):
    """One containerd for all tests of a variant: it takes longer to start than any of them."""
    yield daemon
    daemon.remove_everything()


def init_pid(c, container):
    """In the host's numbers."""
    line = next(line.split() for line in c.ctr("tasks", "ls", namespace="k8s.io").stdout.splitlines()
                if line.startswith(container))
    return int(line[1])


class Events:
    """The plugin's own events, which it makes of ours, as (id, type)."""

    def __init__(self, c):
        self.seen = []
        self.stream = c.api.stream("runtime.v1.RuntimeService/GetContainerEvents", {}, namespace=False, timeout=600)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        try:
            for event in self.stream:
                self.seen.append((event.id, event.type))
        except grpc.RpcError:
            pass

    def of(self, name):
        return [kind for who, kind in list(self.seen) if who == name]

    def stop(self):
        self.stream.cancel()
        self.thread.join(5)


def test_life(c):
    """Two containers in one shim, with all that a kubelet asks of them."""
    events = Events(c) if c.variant != "1.6" else None
    pod = c.pod()
    shim = under.shims(c)
    assert set(shim) == {pod.id} and pod.is_ready()
    a = pod.create("a", "sh", "-c", "echo out; echo err >&2; " + OBEDIENT[2])
    assert pod.state(a) == "CREATED"
    c.by_id("StartContainer", a)
    b = pod.run("b", "sleep", "1000", limit=100 << 20)
    assert under.shims(c) == shim and pod.state(a) == pod.state(b) == "RUNNING"
    if c.variant != "1.6":
        options = c.state / "io.containerd.runtime.v2.task" / "k8s.io" / a / "options.json"
        assert json.loads(options.read_text()) == {"binary_name": "runc", "criu_path": "/no/criu"}
    assert pod.execute(a, "sh", "-c", "echo o; echo e >&2; exit 5") == (5, "o\n", "e\n")
    with pytest.raises(grpc.RpcError) as error:
        pod.execute(a, "/no/such/program")
    assert "no such file" in error.value.details().lower()
    with pytest.raises(grpc.RpcError) as error:
        pod.execute(a, "sleep", "1000", timeout=1)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED or "timeout" in error.value.details()
    stream = cri.Stream(c, a, "sh", "-c", "echo hi; read x; echo got $x >&2; exit 3", stdin=True)
    stream.send(b"word\n")
    out, err, answer = stream.finish()
    assert (out, err) == (b"hi\n", b"got word\n") and answer["details"]["causes"][0]["message"] == "3"

    stats = c.by_id("ContainerStats", b).stats
    assert stats.attributes.id == b and stats.cpu.usage_core_nano_seconds.value > 0
    assert 0 < stats.memory.working_set_bytes.value <= stats.memory.usage_bytes.value < 100 << 20
    if events:  # 1.6 has no statistics of pods
        stats = c.by_id("PodSandboxStats", pod.id).stats.linux
        assert {s.attributes.id for s in stats.containers} == {a, b} and stats.process.process_count.value >= 2
    c.by_id("UpdateContainerResources", b, linux={"memory_limit_in_bytes": 50 << 20})
    limit = f"/sys/fs/cgroup/memory{cri.PARENT}/{b}/memory.limit_in_bytes"
    if os.path.exists(limit):
        assert int(pathlib.Path(limit).read_text()) == 50 << 20

    c.by_id("StopContainer", a, timeout=20)
    c.by_id("StopContainer", b, timeout=0)
    wait_until(lambda: pod.state(a) == pod.state(b) == "EXITED", what="both ended")
    assert (pod.status(a).exit_code, pod.status(b).exit_code) == (7, 137)
    assert sorted(pod.log("a")) == ["err", "out"]
    c.by_id("RemoveContainer", a)
    if events:
        wait_until(lambda: events.of(a) == [0, 1, 2, 3] and events.of(b) == [0, 1, 2], what="the events of both")
        events.stop()
    pod.remove()
    wait_until(lambda: has_ended(shim[pod.id]), what="shim gone")


def test_network(c):
    """A namespace that is joined by the sandbox and by its containers, with an address of its own."""
    if not os.path.exists(f"{cri.CNI_BIN}/bridge"):
        pytest.skip(f"{cri.CNI_BIN}/bridge is not installed (package containernetworking-plugins)")
    pod = c.pod(host=False)
    address = c.by_id("PodSandboxStatus", pod.id).status.network.ip
    assert address.startswith("10.213.77.")
    a = pod.run("a", "sleep", "1000")
    b = pod.run("b", "sh", "-c", "ip -4 -o addr show eth0; hostname")
    assert f" {address}/24 " in pod.execute(a, "ip", "-4", "-o", "addr", "show", "eth0")[1]
    wait_until(lambda: pod.state(b) == "EXITED", what="b ended")
    assert f" {address}/24 " in pod.log("b")[0]
    pod.remove()
    subprocess.run(["ip", "link", "delete", "wherry-test0"], check=True)


def test_shared_pids(c):
    """One pid namespace for a pod: its containers see each other, and one that ends takes nobody along."""
    if c.variant == "1.7 shim":
        pytest.skip("a sandbox without a process of its own has no pid namespace to share")
    pod = c.pod(shared_pids=True)
    a = pod.run("a", "sleep", "1111")
    b = pod.run("b", *OBEDIENT)
    listing = pod.execute(b, "ps")[1]
    assert "sleep 1111" in listing and "sleep 1000000" in listing and "containerd" not in listing
    c.by_id("StopContainer", b, timeout=20)
    assert pod.status(b).exit_code == 7 and pod.state(a) == "RUNNING"
    # With the pod's first process all of them end.
    pod.stop()
    assert pod.state(a) == "EXITED" and not pod.is_ready()
    pod.remove()


def test_restart_of_containerd(c):
    """kill -9 of containerd: the next one finds pod and containers, and what has ended meanwhile."""
    pod = c.pod()
    shim = under.shims(c)
    a, b = (pod.run(name, *OBEDIENT) for name in "ab")
    pid = init_pid(c, b)
    c.kill()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: has_ended(pid), what="b ended")
    c.start()
    assert under.shims(c) == shim and pod.is_ready()
    wait_until(lambda: pod.state(b) == "EXITED", what="the end of b known")
    # Newer ones take a task without a process for one that was never made, and remove it, whoever's shim it is.
    assert pod.status(b).exit_code == (7 if c.variant == "1.6" else 255) and pod.state(a) == "RUNNING"
    assert pod.execute(a, "echo", "hi") == (0, "hi\n", "")
    d = pod.run("d", "true")
    wait_until(lambda: pod.state(d) == "EXITED", what="d ended")
    pod.remove()
    wait_until(lambda: not under.shims(c), what="shim gone")


def test_death_of_the_shim(c):
    """kill -9 of the shim: its pod and all its containers end, and all of it can be removed."""
    pod = c.pod()
    a, b = (pod.run(name, *OBEDIENT) for name in "ab")
    pids = [init_pid(c, name) for name in (a, b)]
    os.kill(under.shims(c)[pod.id], signal.SIGKILL)
    wait_until(lambda: all(has_ended(pid) for pid in pids), what="the end of the containers")
    wait_until(lambda: pod.state(a) == pod.state(b) == "EXITED", what="their end known")
    assert pod.status(a).exit_code in (137, 255)
    wait_until(lambda: not pod.is_ready(), what="the end of the pod known")
    # The kubelet makes the pod anew.
    pod.remove()
    pod = c.pod()
    assert pod.execute(pod.run("a", *OBEDIENT), "echo", "hi") == (0, "hi\n", "")
    pod.remove()
