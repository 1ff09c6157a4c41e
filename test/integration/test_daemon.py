# SPDX-License-Identifier: Apache-2.0
"""wherryd as a program: flags, configuration, sockets, locks, signals, what it says when something is wrong."""
import os
import pathlib
import signal
import socket
import stat
import subprocess
import time

import grpc
import pytest

from fault.rig import Rig
from harness import daemons
from harness.api import pool

WHERRYD = daemons.BIN / "wherryd"


def wherryd(*args, timeout=15):
    return subprocess.run([str(WHERRYD), *map(str, args)], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL)


def test_version_and_help():
    assert wherryd("--version").stdout.startswith("wherryd ")
    assert wherryd("-v").returncode == 0
    assert "--address" in wherryd("--help").stdout


@pytest.mark.parametrize("args, words", [
    (["--nonsense"], "unknown flag --nonsense"),
    (["nonsense"], "unknown command nonsense"),
    (["--root"], "flag --root wants a value"),
    (["config"], "config wants"),
    (["--log-level", "loud"], "unknown log level loud"),
    (["--config", "/no/such/file"], "/no/such/file"),
    (["publish"], "publish wants --topic and --namespace"),
])
def test_mistakes_get_a_sentence(args, words):
    result = wherryd(*args)
    assert result.returncode == 1
    assert result.stderr.startswith("wherryd: ") and words in result.stderr and result.stderr.count("\n") == 1


def test_config_default_loads_again(tmp_path):
    text = wherryd("config", "default").stdout
    assert "version = 2" in text
    path = tmp_path / "config.toml"
    path.write_text(text)
    assert wherryd("--config", path, "config", "dump").stdout == text


def test_config_errors_name_the_place(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('version = 2\nroot = "/a"\nstate = 5\n')
    result = wherryd("--config", path, "config", "dump")
    assert result.returncode == 1 and f"{path}:3" in result.stderr
    path.write_text("version = 2\nroot = \n")
    assert f"{path}:2" in wherryd("--config", path, "config", "dump").stderr


def test_same_root_and_state(tmp_path):
    result = wherryd("--root", tmp_path, "--state", tmp_path, "--address", tmp_path / "s")
    assert "root and state must be different paths" in result.stderr


def test_modes(daemon):
    def mode(path):
        return stat.S_IMODE(os.lstat(path).st_mode)
    assert mode(daemon.root) == 0o700 and mode(daemon.state) == 0o711
    assert mode(daemon.address) == 0o660 and mode(daemon.address + ".ttrpc") == 0o660
    assert mode(next(daemon.root.glob("io.containerd.metadata.v1.bolt/meta.sqlite"))) == 0o600
    assert "@" not in "".join(line.split()[-1] for line in pathlib.Path("/proc/net/unix").read_text().splitlines()
                              if "wherry" in line)


def test_directories_are_tightened(balanced):
    d = daemons.Daemon()
    d.root.mkdir()
    d.root.chmod(0o777)
    with d:
        assert stat.S_IMODE(d.root.stat().st_mode) == 0o700


def test_second_daemon_is_refused(daemon):
    for args in (["--root", daemon.root, "--state", str(daemon.state) + "2", "--address", daemon.address + "2"],
                 ["--root", str(daemon.root) + "2", "--state", daemon.state, "--address", daemon.address + "2"],
                 ["--root", str(daemon.root) + "2", "--state", str(daemon.state) + "2", "--address", daemon.address]):
        result = wherryd("--config", daemon.base / "config.toml", *args)
        assert result.returncode == 1
        assert f"(pid {daemon.pid})" in result.stderr or "another process serves there" in result.stderr, result.stderr
    assert daemon.answers()
    daemon.ctr("version")


def test_socket_of_a_dead_daemon_is_replaced(daemon):
    daemon.kill()
    assert os.path.exists(daemon.address)
    daemon.start()
    daemon.ctr("version")


def test_signals_that_end_it(balanced):
    for number in (signal.SIGTERM, signal.SIGINT):
        d = daemons.Daemon()
        d.start()
        d.process.send_signal(number)
        assert d.process.wait(10) == 0
        assert not os.path.exists(d.address)
        d.remove()


def test_signals_that_do_not(daemon):
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGALRM, signal.SIGCHLD,
                   signal.SIGWINCH):
        for _ in range(100):
            os.kill(daemon.pid, number)
    time.sleep(0.1)
    daemon.ctr("version")


def test_unknown_service_and_method(daemon):
    channel = daemon.api.channel
    for path in ("/containerd.services.transfer.v1.Transfer/Transfer", "/containerd.services.tasks.v1.Tasks/Nonsense"):
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(path, lambda b: b, lambda b: b)(b"", timeout=5)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert path.split("/")[1] in error.value.details()


def methods():
    for service in ("containers", "content", "images", "leases", "snapshots", "tasks", "diff"):
        name = f"containerd.services.{service}.v1.{service.capitalize()}"
        for method in pool().FindServiceByName(name).methods:
            yield f"{name}/{method.name}"


def call(api, path, **how):
    """The code of the first answer to an empty request."""
    streams = path.endswith(("/List", "/ListStream", "/Read", "/Write")) and not path.endswith(
        ("Tasks/List", "Images/List", "Leases/List", "Containers/List"))
    try:
        if path.endswith("/Write"):
            next(iter(api.bidi(path, [{}], **how)))
        elif streams:
            next(iter(api.stream(path, {}, **how)), None)
        else:
            api.call(path, {}, **how)
    except grpc.RpcError as error:
        return error.code(), error.details()
    except StopIteration:
        pass
    return grpc.StatusCode.OK, ""


@pytest.mark.parametrize("path", methods())
def test_namespace_is_required_and_checked(daemon_of_module, path):
    api = daemon_of_module.api
    code, text = call(api, path, namespace=False)
    assert (code, text) == (grpc.StatusCode.FAILED_PRECONDITION, "namespace is required: failed precondition") or (
        code == grpc.StatusCode.UNIMPLEMENTED)
    for bad in ("../x", "a b", "x" * 77):
        code, text = call(api, path, namespace=bad)
        assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED), (path, bad, code, text)


@pytest.mark.parametrize("path", methods())
def test_empty_requests_are_answered(daemon_of_module, path):
    code, text = call(daemon_of_module.api, path)
    assert code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE), text


@pytest.fixture(scope="module")
def daemon_of_module():
    with daemons.Daemon() as d:
        yield d


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00", os.urandom(4096),
                                  b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64])
def test_junk_on_the_sockets(daemon_of_module, junk):
    d = daemon_of_module
    for path in (d.address, d.address + ".ttrpc"):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(12)
            s.connect(path)
            try:
                s.sendall(junk)
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
            except (BrokenPipeError, ConnectionResetError):
                pass
    d.ctr("version")


def soft_limit_of_files(pid):
    line = next(l for l in pathlib.Path(f"/proc/{pid}/limits").read_text().splitlines() if l.startswith("Max open files"))
    return int(line.split()[3])


def test_open_files_are_raised_for_the_daemon_alone(balanced):
    """A task takes several descriptors of the daemon; its shims keep what it was started with."""
    with daemons.Daemon(wrapper=["prlimit", "--nofile=1000:4000"]) as d:
        rig = Rig(d)
        rig.run("c1")
        assert soft_limit_of_files(d.pid) >= 4000
        assert soft_limit_of_files(rig.shim("c1")) == 1000
        rig.remove("c1")
        rig.forget()
