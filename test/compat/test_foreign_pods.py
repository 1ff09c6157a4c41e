# SPDX-License-Identifier: Apache-2.0
"""wherryd and pods of other people's shims: several containers in one process that is not ours."""
import os
import signal

import grpc
import pytest

from compat.test_generations import SHIMS, foreign, unpacked  # noqa: F401  fixtures
from fault.rig import Rig, has_ended, wait_until
from harness import daemons

POD = {"io.kubernetes.cri.sandbox-id": "pod"}
GROUPING = [name for name in SHIMS if "runc-v2" in name]


@pytest.fixture
def pod(foreign):  # noqa: F811
    """A rig with containers `pod` and `a`, both in the shim of the first: (rig, their pids, the shim's)."""
    rig = foreign
    pids = [rig.run(name, annotations=POD) for name in ("pod", "a")]
    shim = rig.shim("pod")
    assert shim and rig.shim("a") is None
    yield rig, pids, shim


@pytest.mark.parametrize("foreign", GROUPING, indirect=True)
def test_life_of_a_pod(pod):
    """Its containers are ended and removed one by one, the shim goes with the last; a restart in between."""
    rig, pids, shim = pod
    assert rig.execute("a", "e1", ("true",)) > 0 and rig.wait("a", "e1") == 0
    assert rig.end("pod") == 7 and rig.delete("pod") == 7
    assert rig.state("a") == "RUNNING" and not has_ended(shim)
    rig.d.kill()
    rig.d.start()
    assert rig.process("a").pid == pids[1] and rig.end("a") == 7 and rig.delete("a") == 7
    wait_until(lambda: has_ended(shim), what="shim gone")
    for name in ("pod", "a"):
        rig.forget_record(name)
    assert rig.left_behind() == []


@pytest.mark.parametrize("away", [False, True], ids=["daemon there", "daemon away"])
@pytest.mark.parametrize("foreign", GROUPING, indirect=True)
def test_death_of_a_pods_shim(pod, away):
    """kill -9: both containers end, each is told once, and nothing is left."""
    rig, pids, shim = pod
    events = rig.events()
    if away:
        events.stop()
        rig.d.kill()
    os.kill(shim, signal.SIGKILL)
    if away:
        rig.d.start()
    wait_until(lambda: all(has_ended(pid) for pid in pids), 8, "the end of the containers")
    for name in ("pod", "a"):
        wait_until(lambda name=name: rig.process(name) is None, 8, f"the end of the task of {name}")
        if not away:
            wait_until(lambda name=name: "/tasks/delete" in events.topics(name), 5, "the event of its removal")
            assert [m.exit_status for m in events.exits(name)] == [137]
        rig.forget_record(name)
    if not away:
        events.stop()
    assert rig.left_behind() == []


@pytest.mark.parametrize("asked", ["JSON", "parameters"])
def test_other_protocols(daemon, asked):
    """A shim that would speak gRPC is refused in one sentence, and its process does not stay."""
    rig = Rig(daemon)
    path = daemon.base / "containerd-shim-other-v1"
    ours = daemons.BIN / "containerd-shim-wherry-v2"
    answer, refusal = """echo '{"version":3,"address":"unix:///run/x","protocol":"grpc"}'""", ""
    if asked == "parameters":  # and without those, which come at the second try, it does not start
        answer, refusal = r"printf '\010\003\022\015unix:///run/x\032\004grpc'", '[ "$(head -c 1 | wc -c)" = 1 ] || exit 1'
    path.write_text(f"""#!/bin/sh
case "$*" in *delete) exec {ours} "$@";; esac
{refusal}
{ours} "$@" </dev/null >/dev/null && {answer}
""")
    path.chmod(0o755)
    rig.container("c1", runtime=str(path))
    with pytest.raises(grpc.RpcError) as error:
        rig.create("c1")
    said = error.value.details()
    assert "unsupported shim protocol grpc" in said and "\n" not in said, said
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert rig.shim("c1") is None and rig.process("c1") is None
    rig.forget_record("c1")
    assert rig.left_behind() == []
    rig.forget()
