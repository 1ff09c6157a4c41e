# SPDX-License-Identifier: Apache-2.0
"""Private daemons: ours, and Debian's containerd to compare with. Each has its own root, state and socket."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from .api import Api

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("WHERRY_BIN", SOURCE / "build" / "bin"))
START_SECONDS = 15
STOP_SECONDS = 15


class Daemon:
    """A daemon and the clients that talk to it. `with Daemon() as d:` or the fixtures."""

    name = "wherryd"
    poll_seconds = 0.01

    def __init__(self, extra_config="", wrapper=(), log_level="debug", place="/tmp"):
        # Short: a socket's path may have 107 bytes.
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="w-", dir=place))
        self.root = self.base / "root"
        self.state = self.base / "state"
        self.address = str(self.base / "d.sock")
        self.log = self.base / "log"
        self.extra_config = extra_config
        self.wrapper = list(wrapper)
        self.log_level = log_level
        self.process = None
        self._api = None

    # life

    def command(self):
        command = [str(BIN / "wherryd"), "--root", str(self.root), "--state", str(self.state),
                   "--address", self.address, "--log-level", self.log_level]
        config = self.base / "config.toml"
        config.write_text("version = 2\n" + self.extra_config)
        return command + ["--config", str(config)]

    def environment(self):
        return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}

    def start(self):
        with open(self.log, "ab") as log:
            # A session of its own: Ctrl-C is for the tests, which then end what they started.
            self.process = subprocess.Popen(self.wrapper + self.command(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=self.environment(), start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not start:\n{self.log_text()[-4000:]}")
            time.sleep(self.poll_seconds)
        self._close_api()  # a channel that somebody made while nobody listened would wait before it tries again
        return self

    def answers(self):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.address)
                return True
            except OSError:
                return False

    def stop(self):
        """SIGTERM; returns the exit status."""
        self._close_api()
        if not self.process:
            return None
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = "did not stop"
        self.process = None
        return status

    def kill(self):
        """kill -9."""
        self._close_api()
        self.process.kill()
        self.process.wait()
        self.process = None

    def restart(self):
        self.stop()
        return self.start()

    def remove(self):
        shutil.rmtree(self.base, ignore_errors=True)

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def pid(self):
        return self.process.pid

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
        self.remove()

    # clients

    @property
    def api(self):
        if not self._api:
            self._api = Api(self.address)
        return self._api

    def _close_api(self):
        if self._api:
            self._api.close()
            self._api = None

    def run(self, *command, check=True, input=None, timeout=60, text=True, env=None):
        """Any program; (status, stdout, stderr)."""
        result = subprocess.run([str(c) for c in command], input=input, capture_output=True, text=text, timeout=timeout,
                                env={**self.environment(), **(env or {})}, errors="replace" if text else None)
        if check and result.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, command))}: status {result.returncode}\n{result.stdout}\n"
                                 f"{result.stderr}\n--- daemon:\n{self.log_text()[-3000:]}")
        return result

    def ctr(self, *args, namespace="default", **options):
        return self.run("ctr", "--address", self.address, "--namespace", namespace, *args, **options)

    def wherry(self, *args, namespace="default", **options):
        return self.run(BIN / "wherry", "--address", self.address, "--namespace", namespace, *args, **options)

    def popen(self, *command, **options):
        return subprocess.Popen([str(c) for c in command], env=self.environment(), **options)

    def import_image(self, archive, namespace="default"):
        self.ctr("images", "import", archive, namespace=namespace)

    def remove_everything(self):
        """All containers, tasks and images of all namespaces, so that the ledger can be balanced."""
        for namespace in self.ctr("namespaces", "ls", "-q").stdout.split():
            for task in self.ctr("tasks", "ls", "-q", namespace=namespace).stdout.split():
                self.ctr("tasks", "kill", "-s", "SIGKILL", "--all", task, namespace=namespace, check=False)
                self.ctr("tasks", "rm", "-f", task, namespace=namespace, check=False)
            for container in self.ctr("containers", "ls", "-q", namespace=namespace).stdout.split():
                self.ctr("containers", "rm", container, namespace=namespace, check=False)


class Containerd(Daemon):
    """Debian's containerd. shim_dir is put first on its PATH, so that it can run our shim."""

    name = "containerd"
    shims = None

    def put_shim_first(self):
        """From the next start on our shim is what io.containerd.runc.v2 resolves to."""
        self.shims = self.base / "shims"
        self.shims.mkdir()
        shutil.copy2(BIN / "containerd-shim-wherry-v2", self.shims / "containerd-shim-runc-v2")

    def environment(self):
        environment = super().environment()
        if self.shims:
            environment["PATH"] = f"{self.shims}:{environment['PATH']}"
        return environment

    def command(self):
        config = self.base / "config.toml"
        config.write_text(
            "version = 2\n"
            f'root = "{self.root}"\nstate = "{self.state}"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", '
            '"io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", '
            '"io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt"]\n'
            f'[grpc]\n  address = "{self.address}"\n' + self.extra_config)
        return ["containerd", "--config", str(config), "--log-level", "info"]
