# SPDX-License-Identifier: Apache-2.0
"""containerd with its CRI plugin, our shim as the runtime of all pods, and a kubelet's side of the conversation.

Debian has no crictl, so the calls are made from cri.proto, which has the fields that are used here.
"""
import base64
import itertools
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import tempfile
import urllib.parse

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool

from fault.rig import wait_until
from harness import api, daemons

PAUSE = "localhost/pause:1"
IMAGE = "docker.io/library/busybox:latest"
CNI_BIN = "/usr/lib/cni"
PARENT = "/wherry-test-pods"
numbers = itertools.count()

CONFIG_2 = """
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  disable_apparmor = true
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_bin}"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "wherry"
    snapshotter = "{snapshotter}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.wherry]
      {runtime}
"""
CONFIG_3 = """
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{cni_bin}"]
    conf_dir = "{cni}"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "wherry"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.wherry]
      {runtime}
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
"""


def make_pool():
    folder = pathlib.Path(__file__).parent
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["protoc", f"-I{folder}", f"--descriptor_set_out={out.name}", "cri.proto"], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(out.name).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


class Cri(daemons.Containerd):
    """folder: of the release's unpacked package, None: what is installed."""

    def __init__(self, folder, lines=(), environment=()):
        super().__init__(log_level="debug")
        self.lines = ['runtime_type = "io.containerd.wherry.v2"', *lines]
        self.more_environment = dict(environment)
        self.shims = self.base / "shims"
        self.shims.mkdir()
        (self.shims / "containerd-shim-wherry-v2").symlink_to(daemons.BIN / "containerd-shim-wherry-v2")
        for name in ("containerd", "ctr"):
            (self.shims / name).symlink_to(folder / "usr" / "bin" / name if folder else shutil.which(name))
        self.version = self.run(self.shims / "containerd", "--version").stdout.split()[2].removeprefix("v")
        (self.base / "cni").mkdir()

    def environment(self):
        return {**super().environment(), **self.more_environment}

    def answers(self):
        """The plugin is ready later than the socket."""
        if not super().answers():
            return False
        probe = CriApi(self.address)
        try:
            return bool(probe.call("runtime.v1.RuntimeService/Status", {}, namespace=False))
        except grpc.RpcError:
            return False
        finally:
            probe.close()

    def command(self):
        third = self.version.startswith("2.")
        text = (CONFIG_3 if third else CONFIG_2).format(
            pause=PAUSE, cni=self.base / "cni", cni_bin=CNI_BIN, snapshotter="overlayfs",
            runtime="\n      ".join(self.lines))
        config = self.base / "config.toml"
        disabled = ["io.containerd.internal.v1.opt", *(f"io.containerd.snapshotter.v1.{name}" for name in (
            "aufs", "btrfs", "devmapper", "zfs", "blockfile", "erofs"))]
        config.write_text(f'version = {3 if third else 2}\nroot = "{self.root}"\nstate = "{self.state}"\n'
                          f'disabled_plugins = {json.dumps(disabled)}\n[grpc]\n  address = "{self.address}"\n' + text)
        return [str(self.shims / "containerd"), "--config", str(config), "--log-level", self.log_level]

    def network(self):
        """A bridge, with addresses that nobody else here has."""
        (self.base / "cni" / "10-test.conflist").write_text(json.dumps({
            "cniVersion": "0.4.0", "name": "wherry-test", "plugins": [
                {"type": "bridge", "bridge": "wherry-test0", "isGateway": True, "ipMasq": False,
                 "ipam": {"type": "host-local", "dataDir": str(self.base / "ipam"),
                          "ranges": [[{"subnet": "10.213.77.0/24"}]]}}]}))

    def import_images(self, *archives):
        for archive in archives:
            self.import_image(archive, namespace="k8s.io")
        for name in (PAUSE, IMAGE):
            wait_until(lambda name=name: self.image("ImageStatus", {"image": {"image": name}}).HasField("image"),
                       what=f"image {name} in the CRI plugin")

    # calls

    @property
    def api(self):
        if not self._api:
            self._api = CriApi(self.address)
        return self._api

    def image(self, method, request):
        return self.api.call(f"runtime.v1.ImageService/{method}", request, namespace=False)

    def cri(self, method, request=None, timeout=30):
        return self.api.call(f"runtime.v1.RuntimeService/{method}", request or {}, namespace=False, timeout=timeout)

    def by_id(self, method, name, **more):
        return self.cri(method, {"id": name, **more})

    # pods

    def pod(self, host=True, shared_pids=False):
        name = f"pod{next(numbers)}"
        pids = "POD" if shared_pids else "CONTAINER"
        pod = Pod(self, {
            "metadata": {"name": name, "uid": name, "namespace": "default"},
            "log_directory": str(self.base / "logs" / name),
            "linux": {"cgroup_parent": PARENT, "security_context": {"namespace_options": {
                "network": "NODE" if host else "POD", "pid": pids}}}})
        pod.pids = pids
        return pod

    def remove_everything(self):
        for item in self.cri("ListContainers").containers:
            self.by_id("RemoveContainer", item.id)
        for item in self.cri("ListPodSandbox").items:
            self.by_id("StopPodSandbox", item.id)
            self.by_id("RemovePodSandbox", item.id)
        for directory in pathlib.Path("/sys/fs/cgroup").glob("*" + PARENT):
            directory.rmdir()  # a kubelet's: it would have made it, too


class CriApi(api.Api):
    pool = None

    def _method(self, path):
        if not CriApi.pool:
            CriApi.pool = make_pool()
        service, name = path.rsplit("/", 1)
        method = self.pool.FindServiceByName(service).FindMethodByName(name)
        make = api.message_factory.GetMessageClass if hasattr(api.message_factory, "GetMessageClass") else (
            api.message_factory.MessageFactory(self.pool).GetPrototype)
        return method, make(method.input_type), make(method.output_type)


class Pod:
    def __init__(self, c, config):
        self.c, self.config = c, config
        self.logs = pathlib.Path(config["log_directory"])
        self.logs.mkdir(parents=True, exist_ok=True)
        self.id = c.cri("RunPodSandbox", {"config": config, "runtime_handler": "wherry"}).id

    def create(self, name, *command, stdin=False, tty=False, limit=0):
        return self.c.cri("CreateContainer", {"pod": self.id, "sandbox_config": self.config, "config": {
            "metadata": {"name": name}, "image": {"image": IMAGE}, "command": list(command), "log_path": f"{name}.log",
            "stdin": stdin, "tty": tty,
            "linux": {"resources": {"memory_limit_in_bytes": limit}, "security_context": {"namespace_options": {
                "network": self.config["linux"]["security_context"]["namespace_options"]["network"],
                "pid": self.pids}}}}}).id

    def run(self, name, *command, **how):
        container = self.create(name, *command, **how)
        self.c.by_id("StartContainer", container)
        return container

    def status(self, container):
        return self.c.by_id("ContainerStatus", container).status

    def state(self, container):
        return ("CREATED", "RUNNING", "EXITED", "UNKNOWN")[self.status(container).state]

    def is_ready(self):
        return self.c.by_id("PodSandboxStatus", self.id).status.state == 0

    def execute(self, container, *command, timeout=10):
        """(status, stdout, stderr)"""
        answer = self.c.cri("ExecSync", {"id": container, "cmd": list(command), "timeout": timeout})
        return answer.exit_code, answer.stdout.decode(), answer.stderr.decode()

    def log(self, name):
        """Its lines, without time and stream."""
        text = (self.logs / f"{name}.log").read_text()
        return [line.split(" ", 3)[3] for line in text.splitlines()]

    def stop(self):
        self.c.by_id("StopPodSandbox", self.id)

    def remove(self):
        self.stop()
        self.c.by_id("RemovePodSandbox", self.id)


class Stream:
    """An Exec by the plugin's streaming server, as kubectl would make it: a websocket of channels."""

    def __init__(self, c, container, *command, stdin=False, tty=False):
        url = urllib.parse.urlsplit(c.cri("Exec", {"id": container, "cmd": list(command), "stdin": stdin, "tty": tty,
                                                   "stdout": True, "stderr": not tty}).url)
        self.socket = socket.create_connection((url.hostname, url.port), timeout=20)
        self.socket.sendall((f"GET {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nUpgrade: websocket\r\n"
                             "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: "
                             "v4.channel.k8s.io\r\nSec-WebSocket-Key: "
                             f"{base64.b64encode(os.urandom(16)).decode()}\r\n\r\n").encode())
        self.bytes = self.socket.makefile("rb")
        first = self.bytes.readline()
        assert b" 101 " in first, first
        while self.bytes.readline().strip():
            pass
        self.output = {1: b"", 2: b"", 3: b""}

    def send(self, data):
        data = b"\0" + data  # channel 0
        mask = os.urandom(4)
        self.socket.sendall(bytes((0x82, 0x80 | len(data))) + mask +
                            bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)))

    def finish(self):
        """(stdout, stderr, the answer's words)"""
        while True:
            head = self.bytes.read(2)
            if len(head) < 2 or head[0] & 15 == 8:
                break
            n = head[1]
            if n == 126:
                n, = struct.unpack("!H", self.bytes.read(2))
            elif n == 127:
                n, = struct.unpack("!Q", self.bytes.read(8))
            data = self.bytes.read(n)
            if data:
                self.output[data[0]] += data[1:]
        self.socket.close()
        return self.output[1], self.output[2], json.loads(self.output[3] or "{}")
