# SPDX-License-Identifier: Apache-2.0
"""`start` of our shim: its three generations, and everything that makes no sense."""
import hashlib
import json
import os
import pathlib
import shutil
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile

import pytest

from fault import kill_matrix
from fault.rig import has_ended, wait_until
from harness import sanitizers
from harness.api import any_of, message_class
from harness.bare_shim import BareShims

OPTIONS = "containerd.runc.v1.Options"
DIR = pathlib.Path("/run/containerd/s")


@pytest.fixture
def shims(balanced, tmp_path):
    shims = BareShims(tmp_path)
    yield shims
    shims.end()


def socket_of(shims, group, address=None, directory=DIR):
    text = os.path.normpath(f"{shims.address if address is None else address}/{shims.ns}/{group}")
    return f"{directory}/{hashlib.sha256(text.encode()).hexdigest()}"


def params(shims, name="c1", options=(), **fields):
    message = message_class("containerd.runtime.bootstrap.v1.BootstrapParams")(
        instance_id=name, namespace=shims.ns, containerd_version="2.3.0", **fields)
    for option in options:
        message.extensions.add().value.CopyFrom(any_of(option))
    return message.SerializeToString()


def result_of(stdout):
    return message_class("containerd.runtime.bootstrap.v1.BootstrapResult").FromString(stdout)


def options(**fields):
    return message_class(OPTIONS)(**fields)


def shut_down(shims, address, version=2, name="c1"):
    with shims.connect(address, version) as shim:
        pid = shim.task("Connect", id=name).shim_pid
        shim.task("Shutdown", id=name)
    wait_until(lambda: has_ended(pid), 5, "the end of the shim")
    assert not os.path.exists(address.removeprefix("unix://"))


def is_refused(result, *words):
    """One sentence, nothing else."""
    assert result.returncode == 1 and result.stdout == b""
    text = result.stderr.decode()
    assert text.startswith("io.containerd.wherry.v2: ") and text.count("\n") == 1 and text.endswith("\n"), text
    assert all(word in text for word in words), text


def nothing_runs(shims):
    wait_until(lambda: not shims.processes(), 5, "no process")


def environment(pid):
    return dict(entry.split("=", 1) for entry in
                pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0") if "=" in entry)


@pytest.mark.parametrize("asked, version", [
    (None, 0), ("", 0), ("1", 0), ("-3", 0), ("three", 0), ("2", 2), ("3", 3), ("99", 3), ("99999999999999999999", 0)])
def test_answer_as_asked(shims, asked, version):
    """An address for who knows nothing else, JSON of a version that the daemon understands."""
    shims.bundle("c1")
    env = {} if asked is None else {"MAX_SHIM_VERSION": asked}
    result = shims.start("c1", env=env, stdin=any_of(options(binary_name="crun")).SerializeToString())
    address = "unix://" + socket_of(shims, "c1")
    assert (result.returncode, result.stderr) == (0, b"")
    if version:
        assert json.loads(result.stdout) == {"version": version, "address": address, "protocol": "ttrpc"}
    else:
        assert result.stdout.decode() == address
    assert (shims.base / "c1" / "address").read_text() == address
    assert os.stat(address.removeprefix("unix://")).st_mode & 0o7777 == 0o600
    shut_down(shims, address, version or 2)


@pytest.mark.parametrize("asked, plugin, version", [
    ("2", "io.containerd.sandbox.controller.v1.shim", 3), (None, "io.containerd.sandbox.controller.v1.shim", 0),
    ("2", "io.containerd.runtime.v2.task", 2)])
def test_answer_for_a_sandbox(shims, asked, plugin, version):
    """containerd 2.0 to 2.2 ask for 2 as 1.7 does, but no container joins a sandbox whose shim speaks less than 3."""
    bundle = shims.base / plugin / shims.ns / "s1"
    bundle.mkdir(parents=True)
    result = shims.start("s1", env={"MAX_SHIM_VERSION": asked} if asked else {}, cwd=bundle)
    assert (result.returncode, result.stderr) == (0, b"")
    assert (json.loads(result.stdout)["version"] if version else 0) == version
    shut_down(shims, "unix://" + socket_of(shims, "s1"), version or 2)


def test_bootstrap_parameters(shims, tmp_path):
    """What they say goes before flags and environment; the answer is of their kind."""
    bundle = shims.bundle("c1")
    log = os.open(bundle / "log", os.O_RDWR | os.O_NONBLOCK)
    other = tmp_path / "other.sock"
    stdin = params(shims, log_level="LOG_LEVEL_DEBUG", containerd_grpc_address=str(other),
                   containerd_ttrpc_address=f"{other}.ttrpc", containerd_binary="/bin/false",
                   options=[options(binary_name="no-such")])
    result = shims.start("c1", stdin=stdin, env={"TTRPC_ADDRESS": "/run/wrong", "MAX_SHIM_VERSION": "2"})
    assert (result.returncode, result.stderr) == (0, b"")
    answer = result_of(result.stdout)
    assert (answer.version, answer.protocol) == (3, "ttrpc")
    assert answer.address == "unix://" + socket_of(shims, "c1", str(other))
    pid, words = shims.server()
    assert words[words.index("-address") + 1] == str(other)
    assert words[words.index("-publish-binary") + 1] == "/bin/false"
    assert "-debug" in words and environment(pid)["TTRPC_ADDRESS"] == f"{other}.ttrpc"
    with shims.connect(answer.address, 3) as shim:
        shim.sandbox("CreateSandbox", sandbox_id="c1", bundle_path=str(bundle))
    assert b"level=debug" in os.read(log, 65536)
    os.close(log)
    shut_down(shims, answer.address, 3)


def test_without_debug_the_log_is_quiet(shims):
    bundle = shims.bundle("c1")
    log = os.open(bundle / "log", os.O_RDWR | os.O_NONBLOCK)
    address = result_of(shims.start("c1", stdin=params(shims)).stdout).address
    with shims.connect(address, 3) as shim:
        shim.sandbox("CreateSandbox", sandbox_id="c1", bundle_path=str(bundle))
    with pytest.raises(BlockingIOError):
        os.read(log, 65536)
    os.close(log)
    shut_down(shims, address)


def test_socket_dir(shims):
    shims.bundle("c1")
    directory = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))  # 42 bytes are all that a hash leaves it
    directory.chmod(0o750)
    result = shims.start("c1", stdin=params(shims, socket_dir=str(directory)))
    address = result_of(result.stdout).address
    assert address == "unix://" + socket_of(shims, "c1", directory=directory)
    assert directory.stat().st_mode & 0o7777 == 0o750, "a directory of others' choice was changed"
    # Killed: `delete` finds the socket there.
    os.kill(shims.server()[0], signal.SIGKILL)
    nothing_runs(shims)
    shims.delete("c1")
    directory.rmdir()


@pytest.mark.parametrize("where, words", [
    ("relative/path", ("not absolute",)), ("/" + "x" * 60, ("too long", "107")), ("/dev/null", ("/dev/null",)),
    ("/tmp", ("others may write",)), ("LINK", ())])
def test_socket_dir_that_is_none(shims, tmp_path, where, words):
    shims.bundle("c1")
    if where == "LINK":
        where = str(tmp_path / "link")
        os.symlink("/run", where)
    is_refused(shims.start("c1", stdin=params(shims, socket_dir=where)), *words)
    nothing_runs(shims)
    if where.startswith("/xx"):
        os.rmdir(where)


@pytest.mark.parametrize("fields", [{"name": "c2"}, {"namespace": "other"}, {"name": ""}])
def test_parameters_of_another(shims, fields):
    shims.bundle("c1")
    message = message_class("containerd.runtime.bootstrap.v1.BootstrapParams")(
        instance_id=fields.get("name", "c1"), namespace=fields.get("namespace", shims.ns), containerd_version="2.3.0")
    is_refused(shims.start("c1", stdin=message.SerializeToString()), "bootstrap parameters", "c1")
    nothing_runs(shims)


@pytest.mark.parametrize("generation", ["any", "parameters"])
def test_shim_cgroup(shims, generation):
    shims.bundle("c1")
    chosen = options(shim_cgroup=f"/{shims.ns}")
    stdin = any_of(chosen).SerializeToString() if generation == "any" else params(shims, options=[chosen])
    result = shims.start("c1", stdin=stdin)
    address = result.stdout.decode() if generation == "any" else result_of(result.stdout).address
    pid, _ = shims.server()
    assert f"/{shims.ns}\n" in pathlib.Path(f"/proc/{pid}/cgroup").read_text()
    shut_down(shims, address)


@pytest.mark.skipif(not os.path.ismount("/sys/fs/cgroup/memory"), reason="cgroup v1 hierarchies only")
def test_shim_cgroup_beside_a_plain_directory(shims):
    """Not everything below /sys/fs/cgroup is a hierarchy: somebody's directory is left alone."""
    plain = pathlib.Path("/sys/fs/cgroup", shims.ns)
    plain.mkdir()
    try:
        test_shim_cgroup(shims, "any")
        assert not list(plain.iterdir())
    finally:
        shutil.rmtree(plain)


def test_shim_cgroup_that_is_none(shims):
    """Nothing may be left of a start that failed late."""
    shims.bundle("c1")
    stdin = any_of(options(shim_cgroup="/../../x\0y")).SerializeToString()
    is_refused(shims.start("c1", stdin=stdin), "control group")
    nothing_runs(shims)
    assert not os.path.exists(socket_of(shims, "c1"))


STDIN = {
    "empty": b"", "one byte": b"\0", "garbage": bytes(range(256)) * 16, "text": b"hello\n",
    "another type": any_of(message_class("containerd.task.v2.StateRequest")(id="x")).SerializeToString(),
    "options that do not parse": b"\x0a\x1acontainerd.runc.v1.Options\x12\x02\xff\xff",
    "an Any that is cut": b"\x0a\x1acontainerd.runc",
    "a huge length": b"\x0a\xff\xff\xff\xff\x0f",
}


@pytest.mark.parametrize("stdin", STDIN.values(), ids=STDIN)
def test_stdin_that_says_nothing(shims, stdin):
    shims.bundle("c1")
    result = shims.start("c1", stdin=stdin)
    assert (result.returncode, result.stderr) == (0, b"")
    shut_down(shims, result.stdout.decode())


def test_stdin_without_end(shims):
    shims.bundle("c1")
    process = shims.popen("c1", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with pytest.raises(BrokenPipeError):
        for _ in range(12):
            process.stdin.write(bytes(1 << 20))
    process.stdin = None
    out, err = process.communicate(timeout=10)
    is_refused(subprocess.CompletedProcess([], process.returncode, out, err), "stdin", "too large")
    nothing_runs(shims)


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 2), (0, 1, 2)], ids=str)
def test_closed_descriptors(shims, closed):
    """Without an output there is nobody to answer; any other is done without."""
    shims.bundle("c1")
    read_end, write_end = os.pipe()

    def arrange():
        os.dup2(write_end, 1)
        os.dup2(write_end, 2)
        for fd in closed:
            os.close(fd)

    process = shims.popen("c1", preexec_fn=arrange)
    os.close(write_end)
    assert process.wait(10) == (1 if 1 in closed else 0)
    with open(read_end) as file:
        text = file.read()
    if 1 in closed:
        assert 2 in closed or "standard output is closed" in text
        nothing_runs(shims)
        assert not os.path.exists(socket_of(shims, "c1"))
    else:
        shut_down(shims, text)


@pytest.mark.parametrize("where", ["full", "gone"])
def test_nobody_takes_the_answer(shims, where):
    shims.bundle("c1")
    if where == "full":
        out = os.open("/dev/full", os.O_WRONLY)
    else:
        read_end, out = os.pipe()
        os.close(read_end)
    process = shims.popen("c1", stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE)
    os.close(out)
    assert b"print the address" in process.communicate(timeout=10)[1] and process.returncode == 1
    nothing_runs(shims)
    assert not os.path.exists(socket_of(shims, "c1"))


def test_inherited_descriptors(shims, tmp_path):
    """None of them reaches the shim that serves."""
    shims.bundle("c1")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(tmp_path / "secret", "w+") as secret:
        def arrange():
            for fd in range(3, min(soft, 300)):
                if fd != secret.fileno():
                    os.dup2(secret.fileno(), fd)

        process = shims.popen("c1", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=arrange, close_fds=False)
        address = process.communicate(timeout=10)[0].decode()
    pid, _ = shims.server()
    held = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert not any("secret" in name for name in held), held
    shut_down(shims, address)


@pytest.mark.parametrize("mask", [0o000, 0o777], ids=oct)
def test_umask(shims, mask):
    bundle = shims.bundle("c1")
    result = shims.start("c1", umask=mask)
    path = result.stdout.decode().removeprefix("unix://")
    assert os.stat(path).st_mode & 0o7777 == 0o600 and DIR.stat().st_mode & 0o7777 == 0o700
    assert (bundle / "address").stat().st_mode & 0o7777 == 0o644
    with shims.connect(path) as shim:  # which answers when it has set itself up
        pid = shim.task("Connect", id="c1").shim_pid
    assert "Umask:\t0022" in pathlib.Path(f"/proc/{pid}/status").read_text()
    shut_down(shims, path)


def test_current_directory_is_gone(shims):
    bundle = shims.bundle("c1")

    def arrange():
        os.unlink("log")
        os.rmdir(bundle)

    process = shims.popen("c1", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          preexec_fn=arrange)
    out, err = process.communicate(timeout=10)
    is_refused(subprocess.CompletedProcess([], process.returncode, out, err), "bundle")
    nothing_runs(shims)
    assert not os.path.exists(socket_of(shims, "c1"))


@pytest.mark.parametrize("address, words", [
    ("relative.sock", ("TTRPC_ADDRESS", "relative.sock")), ("@abstract", ("TTRPC_ADDRESS",)),
    ("unix://", None), ("", None), ("/" + "x" * 200, ("too long",)), ("vsock://3:1024", ("TTRPC_ADDRESS",)),
    ("unix:///run/nobody.listens", None)])
def test_ttrpc_address(shims, address, words):
    shims.bundle("c1")
    result = shims.start("c1", env={"TTRPC_ADDRESS": address})
    if words:
        is_refused(result, *words)
        nothing_runs(shims)
    else:
        shut_down(shims, result.stdout.decode())


@pytest.mark.parametrize("flags", [
    ("-namespace", ""), ("-namespace", "a/b"), ("-namespace", "x" * 200), ("-id", ""), ("-id", "../x"), ("-id", "."),
    ("-id", "x" * 77), ("-no-such-flag",), ("-debug=perhaps",), ("stop",), ("-id",)], ids=str)
def test_flags(shims, flags):
    shims.bundle("c1")
    is_refused(shims.start("c1", *flags))
    nothing_runs(shims)


def test_long_flags_and_environment(shims):
    """A daemon's address is hashed, and may have any length; so may what else is around."""
    shims.bundle("c1")
    shims.address = "/" + "very-long/" * 300 + "sock"
    result = shims.start("c1", "-publish-binary", "x" * 5000, env={f"VARIABLE_{n}": "x" * 1000 for n in range(500)})
    assert result.returncode == 0, result.stderr
    shut_down(shims, result.stdout.decode())
    result = subprocess.run(shims.command("c1"), env={}, cwd=shims.base / "c1", stdin=subprocess.DEVNULL,
                            capture_output=True)
    shut_down(shims, result.stdout.decode())


def deep(n):
    return b'{"a":' * n + b"1" + b"}" * n


CONFIGS = {
    "missing": None, "empty": b"", "not JSON": b"hello", "an array": b"[]", "deep": deep(100000),
    "duplicate keys": b'{"annotations":{},"annotations":{}}', "wrong types": b'{"annotations":[1],"linux":"x"}',
    "group of a wrong type": b'{"annotations":{"io.kubernetes.cri.sandbox-id":7}}', "NUL": b'{"annotations":"\\u0000"}',
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_config(shims, config):
    """Without a configuration that can be read a container is its own group."""
    shims.bundle("c1", config)
    result = shims.start("c1")
    assert result.stdout.decode() == "unix://" + socket_of(shims, "c1"), result.stderr
    shut_down(shims, result.stdout.decode())


@pytest.mark.parametrize("kind", ["fifo", "directory", "100 MiB", "endless", "loop"])
def test_config_that_is_no_file(shims, kind):
    path = shims.bundle("c1") / "config.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "100 MiB":
        with open(path, "wb") as file:
            file.truncate(100 << 20)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        path.symlink_to("config.json")
    result = shims.start("c1")
    assert result.stdout.decode() == "unix://" + socket_of(shims, "c1"), result.stderr
    shut_down(shims, result.stdout.decode())


@pytest.mark.parametrize("group", ["/../../etc", "a\nb", "x" * 5000, "", "ünïcode"])
def test_group_is_only_hashed(shims, group):
    shims.bundle("c1", {"annotations": {"io.containerd.runc.v2.group": group}})
    result = shims.start("c1")
    assert result.stdout.decode() == "unix://" + socket_of(shims, group or "c1")
    shut_down(shims, result.stdout.decode())


@pytest.mark.parametrize("name", ["address", ".address", "options.json", "bootstrap.json", "runtime", "log"])
@pytest.mark.parametrize("kind", ["fifo", "directory", "link", "garbage"])
def test_bundle_with_something_in_place(shims, name, kind, tmp_path):
    """Nothing in a bundle is followed out of it, or waited for."""
    bundle = shims.bundle("c1")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if name == "log":
        (bundle / "log").unlink()
    if kind == "fifo":
        os.mkfifo(bundle / name)
    elif kind == "directory":
        (bundle / name / "x").mkdir(parents=True)
    elif kind == "link":
        (bundle / name).symlink_to(victim)
    else:
        (bundle / name).write_bytes(b'{"address":"unix:///x"\0\xff' * 100)
    result = shims.start("c1")
    if kind == "directory" and name == "address":
        is_refused(result, "address")
        nothing_runs(shims)
    else:
        shut_down(shims, result.stdout.decode())
    shims.delete("c1")
    assert victim.read_text() == "precious"


def test_delete_believes_no_address(shims, tmp_path):
    """Connecting to any file is refused like to a dead socket."""
    bundle = shims.bundle("c1")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (bundle / "address").write_text(f"unix://{victim}")
    shims.delete("c1")
    assert victim.exists()


def occupy(path, how):
    if how == "directory":
        os.mkdir(path)
    elif how == "file":
        pathlib.Path(path).write_text("x")
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "link":
        os.symlink("/dev/null", path)
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        if how == "full":
            listener.listen(0)
            for _ in range(3):
                client = socket.socket(socket.AF_UNIX)
                client.setblocking(False)
                client.connect_ex(path)
                occupied.append(client)
        if how != "dead":
            occupied.append(listener)


occupied = []


@pytest.mark.parametrize("how", ["directory", "file", "fifo", "link", "full"])
def test_socket_path_is_occupied(shims, how):
    shims.bundle("c1")
    path = socket_of(shims, "c1")
    occupy(path, how)
    try:
        is_refused(shims.start("c1"), path, "in use")
        nothing_runs(shims)
        assert os.path.lexists(path), "what is not ours was removed"
    finally:
        while occupied:
            occupied.pop().close()
        os.rmdir(path) if how == "directory" else os.unlink(path)


def test_dead_socket_is_replaced(shims):
    shims.bundle("c1")
    occupy(socket_of(shims, "c1"), "dead")
    shut_down(shims, shims.start("c1").stdout.decode())


def test_socket_of_another_user(shims):
    """Whoever listens there must be of our user, whatever the directory lets happen."""
    shims.bundle("c1")
    path = socket_of(shims, "c1")
    other = subprocess.Popen([sys.executable, "-c", f"""
import os, socket, time
s = socket.socket(socket.AF_UNIX)
s.bind({path!r})
os.setuid(65534)
s.listen()
print("ready", flush=True)
time.sleep(100)
"""], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"ready\n"
        is_refused(shims.start("c1"), path)
        nothing_runs(shims)
    finally:
        other.kill()
        other.wait()
        os.unlink(path)


def together(shims, names):
    starts = [shims.popen(name, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
              for name in names]
    return [p.communicate(timeout=20) for p in starts]


@pytest.mark.parametrize("what", ["same id", "same group"])
def test_twice_at_once(shims, what):
    """One server, and everybody is told where it is."""
    names = ["c1"] * 12 if what == "same id" else [f"c{n}" for n in range(12)]
    config = {"annotations": {"io.kubernetes.cri.sandbox-id": "pod"}} if what == "same group" else {}
    for name in set(names):
        shims.bundle(name, config)
    for _ in range(4):
        answers = together(shims, names)
        expected = "unix://" + socket_of(shims, "pod" if what == "same group" else "c1")
        assert {out.decode() for out, _ in answers} == {expected}, answers
        shims.server()
        shut_down(shims, expected)
        nothing_runs(shims)


def test_locked_for_ever(shims):
    """A start that was stopped in the middle is not waited for without end."""
    import fcntl
    shims.bundle("c1")
    fd = os.open(DIR, os.O_DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    is_refused(shims.start("c1"), "locked")
    os.close(fd)
    shut_down(shims, shims.start("c1").stdout.decode())


def test_killed_anywhere(shims):
    """SIGKILL at each system call that changes something: delete, or the next start, finds what is left."""
    killpoint = kill_matrix.build(tempfile.mkdtemp(dir=shims.base.parent))
    shims.bundle("c1")
    for number in range(1, 100):
        # It begins when the watcher is there.
        process = subprocess.Popen(["sh", "-c", 'read line; exec "$@"', "sh", *shims.command("c1")],
                                   cwd=shims.base / "c1", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   env=sanitizers.for_traced())
        watcher = subprocess.Popen([killpoint, str(process.pid), str(number)], stdout=subprocess.PIPE, text=True)
        assert watcher.stdout.readline() == "ready\n"
        out = process.communicate(b"\n", timeout=10)[0].decode()
        last = watcher.communicate(timeout=10)[0].splitlines()[-1]
        if process.returncode == 0:
            assert last == "ended" and number > 5
            break
        servers = shims.processes()
        assert len(servers) <= 1
        if not servers and number % 2:
            shims.delete("c1")
            assert not os.path.exists(socket_of(shims, "c1"))
        else:
            out = shims.start("c1").stdout.decode()
            assert not servers or list(shims.processes()) == list(servers)
            shut_down(shims, out)
        nothing_runs(shims)
    shut_down(shims, out)


def test_signals(shims):
    """SIGUSR1 and what else comes leave it alone; SIGTERM and SIGINT end it, and its socket."""
    bundle = shims.bundle("c1")
    for last in (signal.SIGTERM, signal.SIGINT):
        log = os.open(bundle / "log", os.O_RDWR | os.O_NONBLOCK)
        path = shims.start("c1").stdout.decode().removeprefix("unix://")
        pid, _ = shims.server()
        with shims.connect(path) as shim:
            shim.sandbox("CreateSandbox", sandbox_id="c1", bundle_path=str(bundle))
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGPIPE, signal.SIGALRM):
            os.kill(pid, number)
        with shims.connect(path) as shim:
            shim.task("Connect", id="c1")
        text = os.read(log, 65536).decode()
        assert "0 containers, in sandbox c1" in text, text
        os.kill(pid, last)
        wait_until(lambda: has_ended(pid), 5, "the end of the shim")
        assert not os.path.exists(path)
        os.close(log)


def test_start_goes_on_in_spite_of_signals(shims):
    shims.bundle("c1")
    process = shims.popen("c1", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    caught = 1 << signal.SIGTERM - 1 | 1 << signal.SIGINT - 1
    wait_until(lambda: caught & int(re.search(r"SigCgt:\s+(\w+)", pathlib.Path(f"/proc/{process.pid}/status").read_text())
                                    [1], 16) == caught, what="signals are caught")
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(process.pid, number)
    shut_down(shims, process.communicate(b"", timeout=10)[0].decode())


def test_served_without_a_socket(shims):
    """The serving form by itself: fd 3 is missing, or is no listening socket."""
    bundle = shims.bundle("c1")
    for fds in ({}, {3: "/dev/null"}):
        def arrange():
            for fd, path in fds.items():
                os.dup2(os.open(path, os.O_RDONLY), fd)

        process = subprocess.Popen(shims.command("c1")[:-1], cwd=bundle, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=arrange, close_fds=not fds)
        process.communicate(timeout=10)
        assert process.returncode == 1
