# SPDX-License-Identifier: Apache-2.0
"""wherry, the command line, against wherryd; what needs nothing but containerd's services also against containerd."""
import fcntl
import json
import os
import pathlib
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

from harness import daemons
from harness.sanitizers import patience

WHERRY = str(daemons.BIN / "wherry")
BUSYBOX = "docker.io/library/busybox:latest"


def command(daemon, *args):
    return [WHERRY, "--address", daemon.address, *args]


@pytest.fixture
def host(both, archive):
    """wherryd and containerd, each with an image."""
    both.wherry("import", archive)
    return both


def terminal(daemon, *args, size=(24, 80)):
    """The command on a terminal of its own: its process, and the fd of our side."""
    fd, theirs = pty.openpty()
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    process = daemon.popen("setsid", "--ctty", *command(daemon, *args), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    return process, fd


def read_until(fd, words, timeout=15):
    out, deadline = b"", time.monotonic() + timeout
    while words not in out:
        left = deadline - time.monotonic()
        assert left > 0, f"{words!r} did not come: {out!r}"
        if select.select([fd], [], [], left)[0]:
            try:
                data = os.read(fd, 4096)
            except OSError:
                data = b""
            assert data, f"{words!r} did not come: {out!r}"
            out += data
    return out


def read_rest(fd):
    out = b""
    while True:
        try:
            data = os.read(fd, 4096)
        except OSError:
            return out
        if not data:
            return out
        out += data


def test_run_foreground(host):
    result = host.wherry("run", "--rm", BUSYBOX, "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (result.returncode, result.stdout, result.stderr) == (7, "out\n", "err\n")
    assert host.wherry("ps", "-aq").stdout == ""


def test_stdin_is_null_unless_asked_for(host):
    assert host.wherry("run", "--rm", BUSYBOX, "cat", input="lost").stdout == ""
    assert host.wherry("run", "--rm", "-i", BUSYBOX, "cat", input="kept").stdout == "kept"


def test_much_data_both_ways(host):
    data = os.urandom(3 << 20)
    result = host.wherry("run", "--rm", "-i", BUSYBOX, "cat", input=data, text=False)
    assert result.stdout == data


def test_reader_that_goes_away(host):
    with host.popen(*command(host, "run", "--rm", BUSYBOX, "yes"), stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(20) in (128 + signal.SIGKILL, 128 + signal.SIGPIPE)
    assert host.wherry("ps", "-aq").stdout == ""


def test_environment_user_and_directory(host, tmp_path):
    (tmp_path / "env").write_text("# comment\nA=file\nB=file\n")
    result = host.wherry("run", "--rm", "-e", "A=flag", "-e", "FROM_HERE", "--env-file", tmp_path / "env", "-w", "/etc",
                         "-u", "1000:1001", "--hostname", "boat", BUSYBOX, "sh", "-c",
                         "echo $A $B $FROM_HERE; pwd; id -u; id -g; hostname", env={"FROM_HERE": "here"})
    assert result.stdout.split() == ["flag", "file", "here", "/etc", "1000", "1001", "boat"]


@pytest.mark.parametrize("user, code", [("2147483648", 125), ("4294967296:0", 125), ("-1", 125), ("nobody-there", 125),
                                        ("0", 0), ("12345", 0)])
def test_users_are_numbers_in_range_or_names_that_exist(daemon, busybox, user, code):
    result = daemon.wherry("run", "--rm", f"--user={user}", BUSYBOX, "true", check=False)
    assert result.returncode == code, result.stderr
    assert daemon.wherry("ps", "-aq").stdout == ""


def test_mounts(host, tmp_path):
    (tmp_path / "file").write_text("from the host")
    result = host.wherry("run", "--rm", "-v", f"{tmp_path}:/in:ro", "--mount", "type=tmpfs,destination=/scratch,tmpfs-size=1m",
                         "--read-only", BUSYBOX, "sh", "-c",
                         "cat /in/file; touch /in/x || echo refused; touch /scratch/x && echo fine; touch /x || echo refused")
    assert result.stdout.split("\n")[0] == "from the hostrefused"
    assert result.stdout.split()[-2:] == ["fine", "refused"]


def test_capabilities_and_limits(daemon, busybox):
    status = ["grep", "-h", "Cap", "/proc/self/status"]
    sets = dict(line.split(":\t") for line in daemon.wherry("run", "--rm", BUSYBOX, *status).stdout.splitlines())
    assert sets["CapEff"] == sets["CapBnd"] == "00000000a80425fb"
    assert int(sets["CapInh"], 16) == int(sets["CapAmb"], 16) == 0
    sets = dict(line.split(":\t") for line in daemon.wherry(
        "run", "--rm", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", BUSYBOX, *status).stdout.splitlines())
    assert int(sets["CapEff"], 16) == 1 << 12
    daemon.wherry("run", "-d", "--name", "limited", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "50", BUSYBOX, "sleep",
                  "1000")
    resources = json.loads(daemon.wherry("inspect", "limited").stdout)[0]["spec"]["linux"]["resources"]
    assert resources["memory"]["limit"] == 64 << 20
    assert resources["cpu"] == {"quota": 50000, "period": 100000}
    assert resources["pids"]["limit"] == 50
    daemon.wherry("rm", "-f", "limited")


def test_program_that_cannot_be_run(host):
    for args, code in ((["nosuch"], 127), (["/etc/passwd"], 126)):
        result = host.wherry("run", "--rm", BUSYBOX, *args, check=False)
        assert result.returncode == code, result.stderr
        assert result.stderr.startswith("wherry: ") and result.stderr.count("\n") == 1
    assert host.wherry("ps", "-aq").stdout == ""
    assert "committed" in host.wherry("snapshots", "ls").stdout and "active" not in host.wherry("snapshots", "ls").stdout


def test_life_of_a_detached_container(host):
    assert host.wherry("run", "-d", "--name", "box", "-e", "X=1", BUSYBOX, "sh", "-c",
                       "echo started; trap 'echo bye; exit 5' TERM; while :; do sleep 0.1; done").stdout == "box\n"
    row = json.loads(host.wherry("--json", "ps").stdout)[0]
    assert (row["name"], row["status"], row["image"]) == ("box", "running", BUSYBOX)
    result = host.wherry("exec", "-e", "Y=2", "box", "sh", "-c", "echo $X $Y; exit 3", check=False)
    assert (result.returncode, result.stdout) == (3, "1 2\n")
    assert host.wherry("exec", "-i", "box", "cat", input="typed").stdout == "typed"
    assert host.wherry("exec", "box", "nosuch", check=False).returncode == 127
    host.wherry("pause", "box")
    assert json.loads(host.wherry("ps", "--json").stdout)[0]["status"] == "paused"
    host.wherry("unpause", "box")
    assert "running" in host.wherry("rm", "box", check=False).stderr
    host.wherry("stop", "box")
    row = json.loads(host.wherry("ps", "-a", "--json").stdout)[0]
    assert (row["status"], row["exitStatus"]) == ("ended", 5)
    assert host.wherry("logs", "box").stdout == "started\nbye\n"
    assert host.wherry("logs", "--tail", "1", "box").stdout == "bye\n"
    log = json.loads(host.wherry("inspect", "box").stdout)[0]["labels"]["wherry/log-path"]
    assert host.wherry("rm", "box").stdout == "box\n"
    assert not pathlib.Path(log).exists()
    assert host.wherry("ps", "-aq").stdout == ""


def test_logs_follow_until_the_end(daemon, busybox):
    daemon.wherry("run", "-d", "--name", "count", BUSYBOX, "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done")
    assert daemon.wherry("logs", "-f", "count", timeout=20).stdout == "1\n2\n3\n"
    daemon.wherry("rm", "count")


def test_exit_code_is_kept_without_rm(daemon, busybox):
    assert daemon.wherry("run", "--name", "kept", BUSYBOX, "sh", "-c", "exit 9", check=False).returncode == 9
    row = json.loads(daemon.wherry("ps", "-a", "--json").stdout)[0]
    assert (row["name"], row["status"], row["exitStatus"]) == ("kept", "ended", 9)
    assert "already" in daemon.wherry("run", "--name", "kept", BUSYBOX, "true", check=False).stderr
    assert len(json.loads(daemon.wherry("ps", "-a", "--json").stdout)) == 1
    daemon.wherry("rm", "kept")


def test_terminal_size_resize_and_exit_code(host):
    process, fd = terminal(host, "run", "--rm", "-it", BUSYBOX, "sh", size=(33, 111))
    read_until(fd, b"# ")
    os.write(fd, b"stty size\n")
    read_until(fd, b"33 111")
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 99, 0, 0))
    os.write(fd, b"sleep 0.5; stty size\n")
    read_until(fd, b"44 99")
    os.write(fd, b"exit 4\n")
    read_rest(fd)
    assert process.wait(15) == 4
    os.close(fd)


def test_detach_and_attach(host):
    process, fd = terminal(host, "run", "-it", "--name", "away", BUSYBOX, "sh")
    read_until(fd, b"# ")
    os.write(fd, b"\x10\x11")
    read_rest(fd)
    assert process.wait(15) == 0
    os.close(fd)
    assert json.loads(host.wherry("ps", "--json").stdout)[0]["name"] == "away"
    process, fd = terminal(host, "attach", "away")
    os.write(fd, b"echo again$((1+1))\n")
    read_until(fd, b"again2")
    os.write(fd, b"exit 6\n")
    read_rest(fd)
    assert process.wait(15) == 6
    os.close(fd)
    host.wherry("rm", "away")


def test_signals_reach_the_container(host):
    with host.popen(*command(host, "run", "--rm", BUSYBOX, "sh", "-c",
                             "trap 'echo got; exit 11' USR1; echo ready; while :; do sleep 0.1; done"),
                    stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == b"got\n"
        assert process.wait(15) == 11


@pytest.mark.parametrize("delay", [0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.15])
def test_ctrl_c_at_any_moment_leaves_nothing(daemon, busybox, delay):
    process = daemon.popen(*command(daemon, "run", "--rm", BUSYBOX, "sleep", "1000"), stderr=subprocess.PIPE)
    time.sleep(delay)
    deadline = time.monotonic() + 20
    while process.poll() is None:
        assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        time.sleep(patience(0.05))  # five while one call is under way would be an order to leave everything as it is
    process.stderr.close()
    assert process.returncode != 0
    assert daemon.wherry("ps", "-aq").stdout == ""
    assert "active" not in daemon.wherry("snapshots", "ls").stdout
    assert daemon.wherry("leases", "ls", "--json").stdout.strip() == "[]"


def test_daemon_restarts_under_a_foreground_container(daemon, busybox):
    with daemon.popen(*command(daemon, "run", "--rm", "--name", "on", BUSYBOX, "sh", "-c",
                               "echo one; sleep 3; echo two; exit 8"), stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"one\n"
        daemon.kill()
        daemon.start()
        assert process.stdout.readline() == b"two\n"
        assert process.wait(20) == 8
    assert daemon.wherry("ps", "-aq").stdout == ""


def test_import_forms(daemon, archive, tmp_path):
    assert daemon.wherry("import", archive).stdout.startswith("imported and unpacked busybox:latest, 1 layer")
    with open(archive, "rb") as file:
        result = daemon.popen(*command(daemon, "import", "--name", "other:1", "-"), stdin=file, stdout=subprocess.PIPE)
        assert b"other:1" in result.communicate(timeout=30)[0]
    names = {image["name"] for image in json.loads(daemon.wherry("images", "--json").stdout)}
    assert names == {BUSYBOX, "docker.io/library/other:1"}
    assert daemon.wherry("run", "--rm", "other:1", "echo", "works").stdout == "works\n"
    assert daemon.wherry("rmi", "--sync", "other:1", "busybox").stdout == "other:1\nbusybox\n"
    assert daemon.wherry("content", "ls", "--json").stdout.strip() == "[]"
    (tmp_path / "no.tar").write_bytes(b"no archive" * 1000)
    result = daemon.wherry("import", tmp_path / "no.tar", check=False)
    assert result.returncode == 1 and "no.tar" in result.stderr
    assert daemon.wherry("leases", "ls", "--json").stdout.strip() == "[]"


def test_first_run_unpacks(daemon, archive):
    daemon.wherry("import", "--no-unpack", archive)
    assert json.loads(daemon.wherry("snapshots", "ls", "--json").stdout) == []
    assert daemon.wherry("run", "--rm", BUSYBOX, "echo", "unpacked").stdout == "unpacked\n"


def test_events(daemon, busybox):
    with daemon.popen(*command(daemon, "events", "--json"), stdout=subprocess.PIPE) as process:
        time.sleep(0.5)
        daemon.wherry("run", "--rm", "--name", "seen", BUSYBOX, "true")
        topics = []
        while "/containers/delete" not in topics:
            event = json.loads(process.stdout.readline())
            topics.append(event["topic"])
            if event["topic"] == "/tasks/exit":
                assert event["event"]["container_id"] == "seen"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    wanted = ["/containers/create", "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete", "/containers/delete"]
    assert [t for t in topics if t in wanted] == wanted


def test_facts(host):
    assert json.loads(host.wherry("version", "--json").stdout)["daemon"]
    assert "overlayfs" in json.loads(host.wherry("info", "--json").stdout)["snapshotters"]
    assert json.loads(host.wherry("inspect", "busybox").stdout)[0]["kind"] == "image"
    for noun in ("content", "leases", "namespaces", "plugins", "snapshots", "tasks"):
        assert isinstance(json.loads(host.wherry(noun, "ls", "--json").stdout), list)
        host.wherry(noun)


@pytest.mark.parametrize("args, code, words", [
    (["frobnicate"], 1, "unknown command"),
    (["imagse"], 1, 'did you mean "wherry images"'),
    (["run", "--memroy", "1g", "busybox"], 125, "did you mean --memory"),
    (["run"], 125, "needs an argument"),
    (["run", "-d", "--rm", "busybox"], 125, "wherry rm"),
    (["run", "-v", "data:/x", "busybox"], 125, "no named volumes"),
    (["run", "-v", "/tmp:/../x", "busybox"], 125, ".."),
    (["run", "--net", "bridge", "busybox"], 125, "host"),
    (["run", "-it", "busybox"], 125, "terminal"),
    (["kill", "-s", "NOSUCH", "x"], 1, "is no signal"),
    (["stop", "-t", "soon", "x"], 1, "number of seconds"),
    (["import", "/no/such/file"], 1, "no such file"),
    (["leases", "frob"], 1, "wherry leases ls"),
])
def test_mistakes_need_no_daemon(args, code, words):
    result = subprocess.run([WHERRY, "--address", "/no/such.sock", *args], capture_output=True, text=True, timeout=10,
                            stdin=subprocess.DEVNULL)
    assert result.returncode == code
    assert result.stderr.startswith("wherry: ") and words in result.stderr and result.stderr.count("\n") == 1


def test_sentences_about_what_is_not_there(daemon):
    assert "wherry import" in daemon.wherry("run", "--rm", "nosuch", check=False).stderr
    assert "wherry ps -a" in daemon.wherry("rm", "nosuch", check=False).stderr
    result = subprocess.run([WHERRY, "--address", "/no/such.sock", "ps"], capture_output=True, text=True, timeout=10)
    assert result.returncode == 1 and "start wherryd" in result.stderr


def test_help_names_every_command_and_flag():
    text = subprocess.run([WHERRY, "--help"], capture_output=True, text=True, timeout=10).stdout
    for word in ("run", "ps", "exec", "logs", "stop", "kill", "pause", "unpause", "rm", "inspect", "images", "import", "rmi",
                 "events", "version", "info", "--address", "--namespace", "--json"):
        assert word in text
    assert "--pids-limit" in subprocess.run([WHERRY, "run", "--help"], capture_output=True, text=True, timeout=10).stdout
