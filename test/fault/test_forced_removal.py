# SPDX-License-Identifier: Apache-2.0
"""Removal by force succeeds from every state, whoever asks for it, and leaves nothing."""
import concurrent.futures
import contextlib
import os
import shutil
import signal
import threading

import grpc
import pytest

from fault.rig import OBEDIENT, V1, has_ended, wait_until
from fault.test_wiped_state import wipe
from harness.api import message_class

CODE = grpc.StatusCode
REAL = shutil.which("crun") or shutil.which("runc")
RUNTIMES = {"v2": "io.containerd.runc.v2", "v1": V1}


# Who removes.

def by_ctr(rig, name):
    result = rig.d.ctr("tasks", "rm", "-f", name, namespace=rig.ns, check=False)
    # A task whose shim has died is removed by the daemon, whose answer then is what ctr repeats.
    assert result.returncode == 0 or result.stderr.endswith(f"task {name} not found: not found\n"), result.stderr


def by_wherry(rig, name):
    rig.d.wherry("rm", "-f", name, namespace=rig.ns)


def by_api(rig, name):
    """Kill, Wait, Delete, as dockerd does."""
    try:
        rig.task("Kill", container_id=name, signal=9, all=True)
        rig.wait(name)
    except grpc.RpcError as error:
        if error.code() not in (CODE.NOT_FOUND, CODE.FAILED_PRECONDITION):
            raise
    try:
        rig.delete(name)
    except grpc.RpcError as error:
        if error.code() != CODE.NOT_FOUND:
            raise


WAYS = {"ctr": by_ctr, "wherry": by_wherry, "api": by_api}
# Each state is tried with all of these at once; the names say what they are.
CASES = [f"{version}-{way}" for version in RUNTIMES for way in WAYS]


# What state it is in. Each takes the rig and the container's name, and returns what is to be done afterwards.

def runtime(rig, name, text=""):
    """An OCI runtime of this container's own, that runs this shell text first; $1... are its arguments."""
    path = rig.d.base / f"runtime-{name}"
    path.write_text(f"#!/bin/sh\n{text}\nexec {REAL} \"$@\"\n")
    path.chmod(0o755)
    return path


def is_v1(name):
    return name.startswith("v1-")


def container(rig, name, args=OBEDIENT, path=None):
    options = None
    if path and is_v1(name):
        options = message_class("containerd.linux.runc.RuncOptions")(runtime=str(path))
    elif path:
        options = message_class("containerd.runc.v1.Options")(binary_name=str(path))
    rig.container(name, args, runtime=RUNTIMES[name[:2]], options=options)


def running(rig, name, path=None):
    container(rig, name, path=path)
    rig.create(name)
    rig.start(name)


def shim_of(rig, name):
    return rig.shim_v1(name) if is_v1(name) else rig.shim(name)


def creating(rig, name):
    """Until it has been made there is no task to remove; then there is one, or there never will be."""
    path = runtime(rig, name, f'case " $* " in *" create "*) touch {rig.d.base}/begun-{name}; sleep 0.4;; esac')
    container(rig, name, path=path)
    thread = threading.Thread(target=rig.create, args=(name,))
    thread.start()
    wait_until(lambda: (rig.d.base / f"begun-{name}").exists(), what="the call of the runtime")
    with pytest.raises(grpc.RpcError) as error:
        rig.task("Kill", container_id=name, signal=9)
    assert error.value.code() == CODE.NOT_FOUND
    thread.join()


def created(rig, name):
    container(rig, name)
    rig.create(name)


def paused(rig, name):
    running(rig, name)
    rig.task("Pause", container_id=name)
    assert rig.state(name) == "PAUSED"


def pausing(rig, name):
    path = runtime(rig, name, f'case " $* " in *" pause "*) touch {rig.d.base}/begun-{name}; sleep 0.4;; esac')
    running(rig, name, path)

    def pause():
        with contextlib.suppress(grpc.RpcError):  # it ends meanwhile
            rig.task("Pause", container_id=name)

    threading.Thread(target=pause).start()
    wait_until(lambda: (rig.d.base / f"begun-{name}").exists(), what="the call of the runtime")


def exec_running(rig, name):
    running(rig, name)
    rig.execute(name, "e1", ("sleep", "1000"))


def stopped(rig, name):
    container(rig, name, ("sh", "-c", "exit 9"))
    rig.create(name)
    rig.start(name)
    assert rig.wait(name) == 9


def exec_not_deleted(rig, name):
    running(rig, name)
    rig.execute(name, "e1", ("true",))
    rig.add_exec(name, "e2", ("true",))
    assert rig.wait(name, "e1") == 0
    assert rig.end(name) == 7


def shim_killed(rig, name):
    running(rig, name)
    os.kill(shim_of(rig, name), signal.SIGKILL)


def runtime_missing(rig, name):
    path = runtime(rig, name)
    running(rig, name, path)
    path.unlink()


def runtime_missing_created(rig, name):
    path = runtime(rig, name)
    container(rig, name, path=path)
    rig.create(name)
    path.unlink()


def runtime_missing_paused(rig, name):
    path = runtime(rig, name)
    running(rig, name, path)
    rig.task("Pause", container_id=name)
    path.unlink()


def forget_state(rig, name):
    """What the OCI runtime keeps of it is removed by somebody."""
    shutil.rmtree(f"/run/containerd/runc/{rig.ns}/{name}")


def state_removed(rig, name):
    running(rig, name)
    forget_state(rig, name)


def state_removed_created(rig, name):
    created(rig, name)
    forget_state(rig, name)


def state_removed_paused(rig, name):
    paused(rig, name)
    forget_state(rig, name)


def rootfs_busy(rig, name):
    running(rig, name)
    bundle = next(rig.d.state.glob(f"io.containerd.runtime.*/{rig.ns}/{name}"))
    fd = os.open(bundle / "rootfs" / "etc", os.O_RDONLY)
    return lambda: os.close(fd)


def bundle_removed(rig, name):
    running(rig, name)
    wipe(rig, [name])


STATES = [creating, created, running, paused, pausing, exec_running, stopped, exec_not_deleted, shim_killed,
          runtime_missing, runtime_missing_created, runtime_missing_paused, state_removed,
          state_removed_created, state_removed_paused, rootfs_busy, bundle_removed]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_from(rig, state):
    def bring_and_remove(name):
        undo = state(rig, name)
        try:
            WAYS[name[3:]](rig, name)
            wait_until(lambda: rig.process(name) is None, 5, f"the end of the task {name}")
        finally:
            if undo:
                undo()
        assert not rig.processes_of(name), name
        rig.forget_record(name)

    with concurrent.futures.ThreadPoolExecutor(len(CASES)) as pool:
        for job in [pool.submit(bring_and_remove, name) for name in CASES]:
            job.result()
    assert rig.left_behind() == []
    for name in ("v1-api", "v2-api"):  # the names can be used
        running(rig, name)
        rig.remove(name)
    assert rig.left_behind() == []


def test_from_stopped_shim(rig):
    """All at once: each takes as long as a shim is waited for."""
    for name in CASES:
        running(rig, name)
    shims = {name: shim_of(rig, name) for name in CASES}
    for shim in shims.values():
        os.kill(shim, signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(len(CASES)) as pool:
        for job in [pool.submit(WAYS[name[3:]], rig, name) for name in CASES]:
            job.result()
    for name, shim in shims.items():
        assert has_ended(shim) and rig.process(name) is None, name
        rig.forget_record(name)
    assert rig.left_behind() == []
