# SPDX-License-Identifier: Apache-2.0
"""spawn: a shim from nothing to the answer of its first call."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from harness import daemons
from integration import ttrpc_rude

from . import usage
from .pair import ratio, table

NAMESPACE = "bench"


class Place:
    """A bundle as far as a shim looks at it before Create."""

    def __init__(self, pair):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="s-", dir=pair.ours.state.parent))
        self.address = str(self.path / "d.sock")
        (self.path / "config.json").write_text('{"ociVersion":"1.0.2","annotations":{}}')
        os.mkfifo(self.path / "log")
        self.log = os.open(self.path / "log", os.O_RDWR | os.O_NONBLOCK)
        self.environment = {**pair.ours.environment(), "TTRPC_ADDRESS": self.address + ".ttrpc", "GRPC_ADDRESS": self.address,
                            "NAMESPACE": NAMESPACE, "GOMAXPROCS": "2", "MAX_SHIM_VERSION": "2"}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.log)
        shutil.rmtree(self.path)

    def flags(self):
        return ["-namespace", NAMESPACE, "-id", "s", "-address", self.address]


def by_start(pair, binary):
    """As containerd does it: the `start` action prints the address of the shim that it leaves behind."""
    with Place(pair) as place:
        started = time.perf_counter()
        result = subprocess.run([binary, *place.flags(), "-publish-binary", "/bin/true", "start"], cwd=place.path,
                                env=place.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        answer = result.stdout.strip()
        path = (json.loads(answer)["address"] if answer.startswith("{") else answer).removeprefix("unix://")
        with contextlib.closing(ttrpc_rude.connect(path)) as connection:
            connection.call("containerd.task.v2.Task", "Connect", b"", namespace=NAMESPACE)
            elapsed = (time.perf_counter() - started) * 1000
            for pid in usage.shims(place.address):
                os.kill(pid, signal.SIGKILL)
        usage.settle()
        pathlib.Path(path).unlink(missing_ok=True)
        return elapsed


def by_socket(pair):
    """As wherryd does it: the socket is there before the shim, which has it as fd 3."""
    with Place(pair) as place, socket.socket(socket.AF_UNIX) as listener:
        path = str(place.path / "shim.sock")
        binary = str(daemons.BIN / "containerd-shim-wherry-v2")
        back = os.getcwd()
        os.chdir(place.path)
        try:
            started = time.perf_counter()
            listener.bind(path)
            listener.listen(64)
            pid = os.posix_spawn(binary, [binary, *place.flags()], place.environment,
                                 file_actions=[(os.POSIX_SPAWN_DUP2, listener.fileno(), 3)])
        finally:
            os.chdir(back)
        with contextlib.closing(ttrpc_rude.connect(path)) as connection:
            connection.call("containerd.task.v2.Task", "Connect", b"", namespace=NAMESPACE)
            elapsed = (time.perf_counter() - started) * 1000
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return elapsed


def show(pair):
    go = shutil.which("containerd-shim-runc-v2")
    own = str(daemons.BIN / "containerd-shim-wherry-v2")
    by_start_go, by_start_own, by_fd = pair.alternate(
        (lambda _: by_start(pair, go), lambda _: by_start(pair, own), lambda _: by_socket(pair)))
    rows = [("", "containerd", "wherry", "ratio", "to reach"),
            ("as its own daemon starts it", f"{by_start_go:.1f} ms", f"{by_fd:.1f} ms", ratio(by_start_go, by_fd), "2.0 ms"),
            ("by its start action", f"{by_start_go:.1f} ms", f"{by_start_own:.1f} ms", ratio(by_start_go, by_start_own), "")]
    table(f"A shim from spawn to its first answer: median of {pair.runs}", rows)
