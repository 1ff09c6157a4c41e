# SPDX-License-Identifier: Apache-2.0
"""The tasks service by itself: states, order, and what is refused, on both OCI runtimes."""
import json
import os
import pathlib
import shutil
import threading
import time

import grpc
import pytest

from compat.test_ctr import has_ended, wait_until

T = "containerd.services.tasks.v1.Tasks/"
CREATED, RUNNING, STOPPED, PAUSED = 1, 2, 3, 4


class Task:
    """A container of ours and the calls on its task."""

    def __init__(self, daemon, image, runtime, name, *command):
        self.daemon, self.name = daemon, name
        daemon.ctr("containers", "create", image, name, "sleep", "1000")
        api = daemon.api
        if command:
            # ctr would take a command's flags for its own.
            self.change_spec(lambda spec: spec["process"].update(args=list(command)))
        self.request = api.message("containerd.services.tasks.v1.CreateTaskRequest", container_id=name)
        mounts = api.call("containerd.services.snapshots.v1.Snapshots/Mounts", {"snapshotter": "overlayfs", "key": name})
        for mount in mounts.mounts:
            self.request.rootfs.add().CopyFrom(mount)
        options = api.message("containerd.runc.v1.Options", binary_name=runtime)
        self.request.options.type_url = "containerd.runc.v1.Options"
        self.request.options.value = options.SerializeToString()

    def change_spec(self, change):
        spec = json.loads(self.daemon.ctr("containers", "info", "--spec", self.name).stdout)
        change(spec)
        update = self.daemon.api.message("containerd.services.containers.v1.UpdateContainerRequest")
        update.container.id = self.name
        update.container.spec.type_url = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
        update.container.spec.value = json.dumps(spec).encode()
        update.update_mask.paths.append("spec")
        self.daemon.api.call("containerd.services.containers.v1.Containers/Update", update)

    def call(self, method, timeout=20, **fields):
        return self.daemon.api.call(T + method, {"container_id": self.name, **fields}, timeout=timeout)

    def create(self):
        return self.daemon.api.call(T + "Create", self.request, timeout=60)

    def run(self):
        self.create()
        return self.call("Start").pid

    def status(self, **fields):
        return self.call("Get", **fields).process.status

    def end(self):
        self.call("Kill", signal=9)
        return self.call("Wait").exit_status

    def exec(self, exec_id, *args):
        process = {"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
        request = self.daemon.api.message("containerd.services.tasks.v1.ExecProcessRequest", container_id=self.name,
                                          exec_id=exec_id)
        request.spec.type_url = "types.containerd.io/opencontainers/runtime-spec/1/Process"
        request.spec.value = json.dumps(process).encode()
        self.daemon.api.call(T + "Exec", request)

    def remove(self):
        self.call("Delete")
        self.daemon.ctr("containers", "rm", self.name)


@pytest.fixture(params=["runc", "crun"])
def new(request, daemon, busybox):
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    return lambda name, *command: Task(daemon, busybox, request.param, name, *command)


def refused(call, *args, **fields):
    with pytest.raises(grpc.RpcError) as error:
        call(*args, **fields)
    return error.value.code(), error.value.details()


def test_life(new):
    t = new("c1", "sh", "-c", "exit 5")
    assert refused(t.call, "Get") == (grpc.StatusCode.NOT_FOUND, "task c1 not found")
    pid = t.create().pid
    assert pid > 1 and t.status() == CREATED
    assert t.call("Start").pid == pid
    reply = t.call("Wait")
    assert reply.exit_status == 5 and reply.exited_at.seconds > 1700000000
    assert t.status() == STOPPED
    again = t.call("Wait")
    assert again == reply
    assert t.call("Delete").exit_status == 5
    assert refused(t.call, "Get") == (grpc.StatusCode.NOT_FOUND, "task c1 not found")
    t.daemon.ctr("containers", "rm", "c1")
    code, text = refused(t.call, "Get")
    assert (code, text) == (grpc.StatusCode.NOT_FOUND, 'container "c1" in namespace "default": not found')


def test_delete_of_a_task_that_never_started(new):
    t = new("c1")
    pid = t.create().pid
    assert t.call("Delete").exit_status == 137
    assert has_ended(pid)
    t.daemon.ctr("containers", "rm", "c1")


def test_kill_before_start(new):
    t = new("c1")
    t.create()
    t.call("Kill", signal=9)
    assert t.call("Wait").exit_status == 137
    t.remove()


def test_running_task_is_not_deleted(new):
    t = new("c1")
    pid = t.run()
    code, text = refused(t.call, "Delete")
    assert "cannot delete a running process" in text
    assert t.status() == RUNNING and not has_ended(pid)
    assert refused(t.create) == (grpc.StatusCode.ALREADY_EXISTS, "task c1: already exists")
    assert t.end() == 137
    t.remove()


def test_start_twice(new):
    t = new("c1")
    t.run()
    assert "cannot start a running process" in refused(t.call, "Start")[1]
    t.end()
    assert "cannot start a stopped process" in refused(t.call, "Start")[1]
    t.remove()


def test_pause(new):
    t = new("c1")
    assert t.create()
    assert "cannot pause task in created state" in refused(t.call, "Pause")[1]
    t.call("Start")
    t.call("Pause")
    assert t.status() == PAUSED
    assert "cannot exec in a paused state" in refused(t.exec, "e1", "true")[1]
    t.call("Resume")
    assert "cannot resume a running process" in refused(t.call, "Resume")[1]
    t.call("Pause")
    # A frozen process dies when it is thawed; some runtimes thaw it to kill it.
    t.call("Kill", signal=9)
    try:
        t.call("Resume")
    except grpc.RpcError as error:
        # The shim's words, or the OCI runtime's when the process died behind the shim's look at it.
        assert any(words in error.details() for words in ("cannot resume", "not paused", "not running")), error
    assert t.call("Wait").exit_status == 137
    t.remove()


def test_exec(new):
    t = new("c1")
    t.run()
    t.exec("e1", "sh", "-c", "exit 3")
    assert t.status(exec_id="e1") == CREATED
    assert refused(t.exec, "e1", "true")[0] == grpc.StatusCode.ALREADY_EXISTS
    assert t.call("Start", exec_id="e1").pid > 1
    assert t.call("Wait", exec_id="e1").exit_status == 3
    deleted = t.call("DeleteProcess", exec_id="e1")
    assert deleted.id == "e1" and deleted.exit_status == 3
    assert refused(t.call, "Wait", exec_id="e1")[0] == grpc.StatusCode.NOT_FOUND
    assert refused(t.call, "DeleteProcess", exec_id="")[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert refused(t.exec, "a b", "true")[0] == grpc.StatusCode.INVALID_ARGUMENT
    t.end()
    t.remove()


def test_exec_before_start(new):
    """The container's namespaces are there as soon as it is created."""
    t = new("c1")
    t.create()
    t.exec("e1", "sh", "-c", "exit 4")
    assert t.call("Start", exec_id="e1").pid > 1
    assert t.call("Wait", exec_id="e1").exit_status == 4
    t.call("DeleteProcess", exec_id="e1")
    t.exec("e2", "sleep", "1000")
    t.call("Start", exec_id="e2")
    assert t.status() == CREATED and t.status(exec_id="e2") == RUNNING
    t.call("Start")
    assert t.status() == t.status(exec_id="e2") == RUNNING
    t.end()
    assert t.call("Wait", exec_id="e2").exit_status == 137
    t.call("DeleteProcess", exec_id="e2")
    t.remove()


def test_exec_in_a_container_that_is_deleted_unstarted(new):
    t = new("c1")
    t.create()
    t.exec("e1", "sleep", "1000")
    pid = t.call("Start", exec_id="e1").pid
    assert t.call("Delete").exit_status == 137
    assert has_ended(pid)
    t.daemon.ctr("containers", "rm", "c1")


def test_execs_of_a_paused_container(new):
    t = new("c1")
    t.run()
    for exec_id in "e1", "e2":
        t.exec(exec_id, "sleep", "1000")
    t.call("Start", exec_id="e1")
    t.call("Pause")
    assert t.status(exec_id="e1") == PAUSED and t.status(exec_id="e2") == CREATED
    assert "cannot exec in a paused state" in refused(t.call, "Start", exec_id="e2")[1]
    t.call("Resume")
    assert t.status(exec_id="e1") == RUNNING
    t.end()
    for exec_id in "e1", "e2":
        t.call("DeleteProcess", exec_id=exec_id)
    t.remove()


def test_resize_of_a_task_that_has_ended(new):
    t = new("c1")
    t.run()
    t.exec("e1", "true")
    t.call("Start", exec_id="e1")
    t.call("Wait", exec_id="e1")
    assert "cannot resize a stopped container" in refused(t.call, "ResizePty", exec_id="e1", width=80, height=24)[1]
    t.call("DeleteProcess", exec_id="e1")
    t.end()
    t.call("ResizePty", width=80, height=24)
    t.remove()


def test_exec_that_cannot_start(new):
    t = new("c1")
    t.run()
    t.exec("e1", "/no/such/program")
    assert "OCI runtime exec failed" in refused(t.call, "Start", exec_id="e1")[1]
    # It stays until it is deleted, and a Wait on it answers at once.
    assert t.call("Wait", exec_id="e1", timeout=5).exit_status == 0
    t.call("DeleteProcess", exec_id="e1")
    t.end()
    t.remove()


def test_waits_are_all_answered(new):
    t = new("c1")
    t.run()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(t.call("Wait").exit_status)) for _ in range(50)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    t.call("Kill", signal=15)
    time.sleep(0.1)
    t.call("Kill", signal=9)
    for thread in threads:
        thread.join(10)
    assert answers == [137] * 50
    t.remove()


def test_list_pids_and_metrics(new):
    t = new("c1")
    pid = t.run()
    assert [p.id for p in t.daemon.api.call(T + "List").tasks] == ["c1"]
    assert not t.daemon.api.call(T + "List", namespace="other").tasks
    t.exec("e1", "sleep", "1000")
    exec_pid = t.call("Start", exec_id="e1").pid
    pids = {p.pid: p.info.type_url for p in t.call("ListPids").processes}
    assert pids == {pid: "", exec_pid: "containerd.runc.v1.ProcessDetails"}
    metrics = t.daemon.api.call(T + "Metrics", {"filters": ["id==c1"]}).metrics
    assert len(metrics) == 1 and metrics[0].data.type_url.startswith("io.containerd.cgroups.v")
    assert not t.daemon.api.call(T + "Metrics", {"filters": ["id==other"]}).metrics
    t.end()
    wait_until(lambda: has_ended(exec_pid), what="exec ended with its container")
    t.remove()


def test_update(new):
    t = new("c1")
    pid = t.run()
    request = t.daemon.api.message("containerd.services.tasks.v1.UpdateTaskRequest", container_id="c1")
    request.resources.type_url = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
    request.resources.value = json.dumps({"memory": {"limit": 48 << 20}}).encode()
    t.daemon.api.call(T + "Update", request)
    groups = dict(line.split(":", 2)[1:] for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    if "memory" in groups:
        limit = pathlib.Path(f"/sys/fs/cgroup/memory{groups['memory']}/memory.limit_in_bytes")
    else:
        limit = pathlib.Path(f"/sys/fs/cgroup{groups['']}/memory.max")
    assert int(limit.read_text()) == 48 << 20
    t.end()
    t.remove()


def test_out_of_memory_is_told(new):
    t = new("c1", "sh", "-c", "tail /dev/zero")
    limits = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    t.change_spec(lambda spec: spec["linux"].update(resources={**spec["linux"].get("resources", {}), **limits}))
    events = t.daemon.api.stream("containerd.services.events.v1.Events/Subscribe", {"filters": ["topic~=|^/tasks/|"]},
                                 timeout=30)
    seen = []

    def watch():
        for event in events:
            seen.append(event.topic)
            if event.topic == "/tasks/exit":
                break

    watcher = threading.Thread(target=watch)
    watcher.start()
    time.sleep(0.3)
    t.run()
    assert t.call("Wait").exit_status == 137
    watcher.join(10)
    assert "/tasks/oom" in seen, seen
    t.remove()


def test_runtime_of_another_name(daemon, busybox):
    result = daemon.ctr("run", "--rm", "--runc-binary", "/no/such/runtime", busybox, "c1", "true", check=False)
    assert result.returncode == 1 and "/no/such/runtime" in result.stderr
    assert not os.path.exists(daemon.state / "io.containerd.runtime.v2.task/default/c1")
    daemon.ctr("containers", "rm", "c1", check=False)
