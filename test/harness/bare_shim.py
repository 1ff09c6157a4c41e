# SPDX-License-Identifier: Apache-2.0
"""Our shim without a daemon: bundles, the actions of its binary, and calls made by hand.

    shims = BareShims(tmp_path)
    bundle = shims.bundle("c1")
    result = shims.start("c1")                       # subprocess.CompletedProcess, output as bytes
    with shims.connect(result.stdout.decode()) as shim:
        reply = shim.task("Connect", id="c1")        # a message, or CallFailed
"""
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess

from fault.rig import wait_until
from harness import daemons
from harness.api import message_class, pool
from integration import ttrpc_rude

BINARY = daemons.BIN / "containerd-shim-wherry-v2"
SANDBOX = "containerd.runtime.sandbox.v1.Sandbox"
TASK = "containerd.task.v2.Task"
numbers = itertools.count()


class CallFailed(Exception):
    def __init__(self, answer):
        super().__init__(f"code {answer.code}: {answer.message}")
        self.code, self.message = answer.code, answer.message


class Connected:
    def __init__(self, address, version=2):
        self.connection = ttrpc_rude.connect(address.removeprefix("unix://"))
        self.version = version
        self.started = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def begin(self, service, method, **fields):
        """A call that is answered later: see finish()."""
        kind = pool().FindServiceByName(service).FindMethodByName(method)
        name = service.replace("task.v2", f"task.v{self.version}")
        payload = message_class(kind.input_type.full_name)(**fields).SerializeToString()
        stream = self.connection.start(name, method, payload)
        self.started[stream] = message_class(kind.output_type.full_name)
        return stream

    def finish(self, stream, timeout=20):
        answer = self.connection.wait(stream, timeout)
        if answer.code:
            raise CallFailed(answer)
        return self.started.pop(stream).FromString(answer.payload)

    def call(self, service, method, **fields):
        return self.finish(self.begin(service, method, **fields))

    def task(self, method, **fields):
        return self.call(TASK, method, **fields)

    def sandbox(self, method, **fields):
        return self.call(SANDBOX, method, **fields)


class BareShims:
    """A namespace of shims in a directory of its own. end() kills what is left."""

    def __init__(self, base):
        self.base = pathlib.Path(base)
        self.ns = f"b{os.getpid()}-{next(numbers)}"
        self.address = str(self.base / "d.sock")

    def bundle(self, name, config=None):
        path = self.base / name
        path.mkdir()
        os.mkfifo(path / "log")
        if config is not None:
            (path / "config.json").write_bytes(config if isinstance(config, bytes) else json.dumps(config).encode())
        return path

    def command(self, name, *flags, action="start"):
        return [str(BINARY), "-namespace", self.ns, "-id", name, "-address", self.address, *flags, action]

    def start(self, name, *flags, stdin=b"", env=None, cwd=None, **options):
        # Closed by hand, so that an early end of the program is no error here.
        process = self.popen(name, *flags, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env=env, cwd=cwd, **options)
        try:
            out, err = process.communicate(stdin, timeout=20)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def popen(self, name, *flags, env=None, cwd=None, **options):
        return subprocess.Popen(self.command(name, *flags), env={"PATH": os.environ["PATH"], **(env or {})},
                                cwd=cwd or self.base / name, **options)

    def delete(self, name, bundle=None):
        bundle = bundle or self.base / name
        result = subprocess.run(self.command(name, "-bundle", str(bundle), action="delete"), capture_output=True,
                                cwd=bundle, timeout=20, check=True)
        return message_class("containerd.task.v2.DeleteResponse").FromString(result.stdout)

    def connect(self, answer, version=2):
        return Connected(answer, version)

    def processes(self):
        """{pid: command line} of shims of ours that run."""
        found = {}
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                try:
                    words = pathlib.Path(entry.path, "cmdline").read_bytes().decode(errors="replace").split("\0")
                    state = pathlib.Path(entry.path, "stat").read_text().rpartition(")")[2].split()[0]
                except OSError:
                    continue
                if self.ns in words and state not in "ZX":
                    found[int(entry.name)] = words
        return found

    def server(self):
        """The only process: (pid, command line), which comes into sight a moment after its birth."""
        found = wait_until(self.processes, 5, "a process")
        assert len(found) == 1, found
        return next(iter(found.items()))

    def end(self):
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.processes(), 5, "the end of all shims")
        for bundle in self.base.iterdir():
            address = bundle / "address"
            if address.is_file() and not address.is_symlink():
                try:
                    os.unlink(address.read_text().removeprefix("unix://"))
                except OSError:
                    pass
        for path in pathlib.Path("/sys/fs/cgroup").glob(f"*/{self.ns}"):
            path.rmdir()
        shutil.rmtree(f"/run/containerd/runc/{self.ns}", ignore_errors=True)
