# SPDX-License-Identifier: Apache-2.0
"""What containers, execs, hooks and OCI runtimes inherit from the shim: three fds, a plain umask, no signal blocked
or ignored, nothing of its environment that is not theirs; and what a shim keeps after much work."""
import os
import pathlib
import re
import subprocess

import pytest

from fault.rig import OBEDIENT, Reader, wait_until
from fault.test_runtime_calls import runtime
from fault.test_runtime_faults import RUNTIMES
from harness import ledger
from harness.memory import private_kb

EXECS = int(os.environ.get("WHERRY_EXECS", "400"))
OUTPUT_MB = int(os.environ.get("WHERRY_OUTPUT_MB", "512"))


# The shell's own fds, and the status of a program it starts: busybox ignores SIGQUIT itself, and would hand that on
# to a last command, which it does not fork for.
LOOK = """for fd in /proc/self/fd/*; do [ -e $fd ] && echo fd ${fd##*/} $(readlink $fd); done
umask; grep -E '^(Sig(Blk|Ign)|Umask)' /proc/self/status; true"""
# A shell has these of itself: the directory that its pattern reads is closed by then, dash keeps a copy of a script as 10.
SIGNALS = re.compile(r"Sig(Blk|Ign):\s*(\w+)")


def check_look(text, fds=(0, 1, 2)):
    found = {int(line.split()[1]) for line in text.splitlines() if line.startswith("fd ")}
    assert found - {10, 255} == set(fds), text
    assert "0022" in text.split(), text
    masks = dict(SIGNALS.findall(text))
    assert int(masks["Blk"], 16) == 0 and int(masks["Ign"], 16) == 0, text


@pytest.mark.parametrize("real", RUNTIMES, ids=os.path.basename)
@pytest.mark.parametrize("terminal", [False, True], ids=["pipes", "terminal"])
def test_container_and_exec(rig, real, terminal):
    """Of init and of an exec, with pipes and with a terminal."""
    out, error = rig.fifo("out"), rig.fifo("error")
    readers = [Reader(out), Reader(error)]
    for reader in readers:
        reader.start()
    io = {"stdout": str(out), "terminal": terminal, **({} if terminal else {"stderr": str(error)})}
    if terminal:
        os.close(os.open(error, os.O_RDWR | os.O_NONBLOCK))
    rig.run("c1", ("sh", "-c", LOOK + "; sleep 1000"), terminal=terminal, io=io, options=runtime(rig, "", real))
    wait_until(lambda: b"SigIgn" in readers[0].tail, what="init's word")
    check_look(readers[0].tail.decode())
    again = rig.fifo("exec")
    reader = Reader(again)
    reader.start()
    rig.execute("c1", "e1", ("sh", "-c", LOOK), terminal=terminal, stdout=str(again),
                **({} if terminal else {"stderr": "/dev/null"}))
    assert rig.wait("c1", "e1") == 0
    rig.delete_exec("c1", "e1")
    reader.join(5)
    check_look(reader.tail.decode())
    rig.remove("c1")
    assert rig.left_behind() == []


def test_runtime_and_hook(rig):
    """The OCI runtime at each call, and a hook that it runs."""
    look = rig.d.base / "look"
    look.write_text("#!/bin/sh\n" + LOOK + "\n")
    look.chmod(0o755)
    options = runtime(rig, f"{look} >$BASE/seen-$COMMAND 3>&- </dev/null; env >$BASE/env-$COMMAND")
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"{look} >{rig.d.base}/seen-hook"], "env": ["PATH=/usr/bin:/bin"]}
    rig.run("c1", OBEDIENT, options=options, hooks={"prestart": [hook]})
    rig.execute("c1", "e1", ("true",))
    assert rig.wait("c1", "e1") == 0
    rig.delete_exec("c1", "e1")
    rig.task("ListPids", container_id="c1")
    rig.task("Pause", container_id="c1")
    rig.task("Resume", container_id="c1")
    assert rig.end("c1") == 7
    rig.delete("c1")
    seen = {path.name.removeprefix("seen-"): path.read_text() for path in rig.d.base.glob("seen-*")}
    assert set(seen) >= {"create", "start", "exec", "ps", "pause", "resume", "kill", "delete", "hook"}
    for text in seen.values():
        check_look(text)
    for path in rig.d.base.glob("env-*"):
        names = {line.partition("=")[0] for line in path.read_text().splitlines()}
        assert not names & {"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC"}, names
    rig.remove("c1")
    assert rig.left_behind() == []


def test_memory_of_a_shim(rig):
    """Many execs and much output leave nothing behind in it; how many: WHERRY_EXECS, WHERRY_OUTPUT_MB."""
    out = rig.fifo("out")
    reader = subprocess.Popen(["sh", "-c", f"exec cat {out} | wc -c"], stdout=subprocess.PIPE, text=True)
    rig.run("c1", ("sh", "-c", "while [ ! -e /go ]; do usleep 20000; done;"
                               f"head -c {OUTPUT_MB}000000 /dev/zero; touch /done; while :; do sleep 1000; done"),
            io={"stdout": str(out), "stderr": "/dev/null"})
    shim = rig.shim("c1")

    def execs(n):
        for number in range(n):
            name = f"e{number}"
            rig.execute("c1", name, ("true",), stdout="/dev/null", stderr="/dev/null")
            assert rig.wait("c1", name) == 0
            rig.delete_exec("c1", name)

    execs(50)  # what the first ones make once and for all is there before the count begins
    fds, before = ledger.open_fds(shim), private_kb(shim)
    execs(EXECS)
    root = pathlib.Path(f"/proc/{rig.process('c1').pid}/root")
    (root / "go").touch()
    wait_until((root / "done").exists, 30 + OUTPUT_MB // 50, "the end of the output")
    assert private_kb(shim) <= before + 16, (before, private_kb(shim))
    assert ledger.open_fds(shim) <= fds
    rig.remove("c1")
    assert int(reader.communicate(timeout=10)[0]) == OUTPUT_MB * 1000000
    assert rig.left_behind() == []
