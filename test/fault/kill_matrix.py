#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Kills the daemon, and shims, at every system call that changes something during the life of a container.

    kill_matrix.py [--every N] [--runtime v2|v1] [--victim daemon|shim] [--verb VERB] [--point K] [--log PATH]

For each runtime, verb (create, start, exec, pause, resume, kill, delete) and victim a first run counts the points by tracing; then the
verb is carried out once for each point, and the victim killed there. After each:

    the daemon answers again, and containers that nobody touched still run and print;
    the verb can be repeated until it has succeeded or says that it had;
    the container's end has its true status, and is published once at most, never before its start;
    everything can be removed, and nothing of it is left on the machine;
    the same id can be used again.

Prints how many points there were and how many failed. WHERRY_BIN says where the programs are.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from fault.rig import V1, Bystander, Events, Rig, wait_until  # noqa: E402
from harness import daemons  # noqa: E402

VERBS = ("create", "start", "exec", "pause", "resume", "kill", "delete")
VICTIMS = ("daemon", "shim")
RUNTIMES = {"v2": "io.containerd.runc.v2", "v1": V1}
SHIMS = {"v2": "containerd-shim-wherry-v2", "v1": "containerd-shim"}
CODE = grpc.StatusCode
# What a call may end with when the process behind it is killed.
INTERRUPTED = (CODE.UNAVAILABLE, CODE.NOT_FOUND, CODE.CANCELLED, CODE.UNKNOWN, CODE.DEADLINE_EXCEEDED)


def build(directory):
    """The tracer."""
    program = pathlib.Path(directory) / "killpoint"
    subprocess.run(["cc", "-O1", "-o", program, pathlib.Path(__file__).parent / "killpoint.c"], check=True)
    return program


class Failure(Exception):
    """What was not as it must be after a kill."""


class Killer:
    """The tracer at work on one process."""

    def __init__(self, program, pid, point, child=None):
        self.process = subprocess.Popen([program, str(pid), str(point), *([child] if child else [])],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if line != "ready\n":
            raise RuntimeError(f"the tracer does not start: {line} {self.process.stderr.read()}")
        self.lines = []
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line.strip())

    @property
    def has_killed(self):
        return bool(self.lines) and self.lines[-1] == "killed"

    def stop(self):
        """The lines of the calls."""
        self.process.kill()
        self.process.wait()
        self.thread.join(5)
        return [line for line in self.lines if line[:1].isdigit()]


class Matrix:
    def __init__(self, daemon, tracer, runtime="v2"):
        self.d = daemon
        self.tracer = tracer
        self.runtime = runtime
        self.rig = Rig(daemon, RUNTIMES[runtime])
        self.bystander = Bystander(self.rig)
        self.rig.before = self.rig.ledger()
        self.status = None  # what the verb "kill" was told
        self.points = 0
        self.failures = []

    # one verb

    def prepare(self, verb, name):
        """The state from which the verb is carried out."""
        self.rig.container(name)
        if verb == "create":
            return
        self.rig.create(name)
        if verb == "start":
            return
        self.rig.start(name)
        if verb == "resume":
            self.rig.task("Pause", container_id=name)
        if verb == "delete":
            self.rig.kill(name)
            self.rig.wait(name)

    def carry_out(self, verb, name):
        if verb == "create":
            self.rig.create(name)
        elif verb == "start":
            self.rig.start(name)
        elif verb == "exec":
            self.rig.add_exec(name, "e1", ("sh", "-c", "exit 9"))
            self.rig.start(name, "e1")
            assert self.rig.wait(name, "e1") == 9
            assert self.rig.delete_exec(name, "e1") == 9
        elif verb in ("pause", "resume"):
            self.rig.task(verb.capitalize(), container_id=name)
        elif verb == "kill":
            self.status = self.rig.end(name)
        elif verb == "delete":
            self.rig.delete(name)

    def settle(self, name):
        """The state once whoever cleans up has done so."""
        def known():
            try:
                state = self.rig.state(name)
            except grpc.RpcError as error:
                assert error.code() == CODE.UNAVAILABLE, f"Get: {error.code()} {error.details()}"
                return None
            return state if state not in ("UNKNOWN", "PAUSING") else None if state else "NONE"

        def state():
            found = known()
            return found or ("NONE" if self.rig.process(name) is None else None)

        return wait_until(state, 15, f"a known state of {name}")

    def repeat(self, verb, name, victim):
        """The verb again, to its end: it succeeds or says that it was done."""
        state = self.settle(name)
        if victim == "shim" and state != "NONE" and not self.rig.shim(name):
            state = wait_until(lambda: self.rig.process(name) is None and "NONE", 15, "the end of the lost task")
        if verb == "create":
            if state == "NONE":
                self.rig.create(name)
            assert self.rig.state(name) == "CREATED", self.rig.state(name)
            self.rig.start(name)
        elif verb == "start":
            if state == "CREATED":
                self.rig.start(name)
        elif verb == "pause" and state == "RUNNING":
            self.rig.task("Pause", container_id=name)
            state = "PAUSED"
        elif verb == "exec" and state == "RUNNING":
            # The exec may have got anywhere, or nowhere.
            exec_state = self.rig.state(name, "e1")
            if exec_state == "CREATED":
                self.rig.start(name, "e1")
            if exec_state:
                assert self.rig.wait(name, "e1") == 9
                assert self.rig.delete_exec(name, "e1") == 9
            self.rig.execute(name, "e1", ("sh", "-c", "exit 9"))
            assert self.rig.wait(name, "e1") == 9
            assert self.rig.delete_exec(name, "e1") == 9
        if state == "PAUSED":
            assert self.rig.state(name) == "PAUSED"
            self.rig.task("Resume", container_id=name)
        return self.settle(name)

    def finish(self, verb, name, state, events):
        """To the end of the container, whose status is known."""
        if state == "RUNNING":
            assert self.rig.end(name) == 7
            state = "STOPPED"
            wait_until(lambda: events.exits(name), 10, "the event of its end")
            assert events.exits(name)[-1].exit_status == 7
        if state == "STOPPED":
            expected = 137 if verb == "delete" else 7
            assert self.rig.process(name).exit_status == expected, self.rig.process(name)
            assert self.rig.delete(name) == expected
        elif state == "CREATED":
            self.rig.delete(name)
        assert self.rig.process(name) is None

    def check_status(self, calls, victim, reached):
        """Of a container that ended with 7: a shim that dies before it has written that down takes it along."""
        recorded = any("rename" in call for call in calls[:-1] if call)
        unknown = victim == "shim" and reached and not recorded
        assert self.status in ((7, 137) if unknown else (7,)), f"the status is said to be {self.status}"

    @staticmethod
    def check_events(name, seen, verb, victim):
        """seen: the streams of before and after a restart."""
        told = [(topic, m) for events in seen for topic, m in list(events.seen) if m.container_id == name]
        topics = [topic for topic, _ in told]
        ends = [m.pid for topic, m in told if topic == "/tasks/exit" and m.id == name]
        starts = [m.pid for topic, m in told if topic == "/tasks/start"]
        assert len(set(ends)) == len(ends), f"an end was told twice: {topics}"
        # A daemon that dies may take the word of a start with it that the shim has handed over.
        if (victim, verb) != ("daemon", "start"):
            assert set(ends) <= set(starts), f"an end was told of what never started: {topics}"

    def once(self, verb, victim, point):
        """Carries the verb out and kills at this point; True if the point was reached."""
        name = f"{victim}-{verb}-{self.runtime}"
        events = self.rig.events()
        seen = [events]
        self.status = None
        self.prepare(verb, name)
        if verb == "delete":
            wait_until(lambda: events.exits(name), 5, "the event of its end")
        if victim == "daemon":
            killer = Killer(self.tracer, self.d.pid, point)
        elif verb == "create":
            killer = Killer(self.tracer, self.d.pid, point, SHIMS[self.runtime])
        else:
            killer = Killer(self.tracer, self.rig.shim(name), point)
        outcome = "OK"
        try:
            self.carry_out(verb, name)
            time.sleep(0.05)  # what comes after the answer
        except grpc.RpcError as error:
            outcome = f"{error.code().name} {error.details()}"
            if error.code() not in INTERRUPTED:
                raise
        if outcome != "OK":
            killer.process.wait(10)
        reached = wait_until(lambda: killer.has_killed, 2) if outcome != "OK" else killer.has_killed
        calls = killer.stop()
        try:
            if reached and victim == "daemon":
                events.stop()
                self.d.kill()
                self.d.start()
                events = self.rig.events()
                seen.append(events)
            state = self.repeat(verb, name, victim)
            self.finish(verb, name, state, events)
            if self.status is not None:
                self.check_status(calls, victim, reached)
            if victim == "shim" and "/tasks/start" in events.topics(name):
                wait_until(lambda: events.exits(name), 5, "the event of its end")
                assert self.status in (None, events.exits(name)[0].exit_status), events.exits(name)
            assert not self.rig.processes_of(name), "processes are left"
            self.check_events(name, seen, verb, victim)
            self.rig.forget_record(name)
            left = self.rig.left_behind()
            assert not left, "left behind: " + "; ".join(left)
            self.bystander.check()
        except Exception as error:
            why = f"{error.code()} {error.details()}" if isinstance(error, grpc.RpcError) else repr(error)
            raise Failure(f"killed at {calls[-1] if calls and reached else 'no call'}, {verb} ended with {outcome}; "
                          f"then {why}") from error
        finally:
            events.stop()
        return reached, calls

    def recover(self, name):
        """After a failure: a clean start for the next point."""
        if self.d.process and self.d.process.poll() is not None:
            self.d.kill()
        if not self.d.process:
            self.d.start()
        try:
            self.rig.remove(name)
            self.rig.before |= self.rig.ledger()
        except Exception as error:  # noqa: BLE001
            self.failures.append(f"{name} cannot be removed: {error}")

    def row(self, verb, victim, every=1, only=None, deadline=None):
        """All points of a verb and a victim."""
        _, calls = self.once(verb, victim, 0)
        points = [only] if only else range(1, len(calls) + 1, every)
        tried = failed = missed = 0
        for point in points:
            if deadline and time.monotonic() > deadline:
                break
            tried += 1
            try:
                reached, _ = self.once(verb, victim, point)
                missed += not reached
            except Exception as error:  # noqa: BLE001
                failed += 1
                frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
                where = " ".join(f"{f.name}:{f.lineno}" for f in frames if "fault" in f.filename)
                self.failures.append(f"{self.runtime} {victim} {verb} point {point} of {len(calls)}: {error} [{where}]")
                print("FAILED", self.failures[-1], flush=True)
                self.recover(f"{victim}-{verb}-{self.runtime}")
        self.points += tried - missed
        print(f"{self.runtime:4}{victim:8}{verb:8}{len(calls):5} points,{tried:5} tried,{missed:4} not reached,{failed:4} failed",
              flush=True)

    def end(self):
        try:
            self.bystander.end()
        except Exception as error:  # noqa: BLE001
            self.failures.append(f"bystander: {error}")
        self.rig.forget()


def main():
    parser = argparse.ArgumentParser(description="Kills daemon and shims at every call that changes something.")
    parser.add_argument("--every", type=int, default=1, help="only every so many points")
    parser.add_argument("--runtime", choices=RUNTIMES)
    parser.add_argument("--victim", choices=VICTIMS)
    parser.add_argument("--verb", choices=VERBS)
    parser.add_argument("--point", type=int)
    parser.add_argument("--log", help="where the daemon's log is copied to")
    arguments = parser.parse_args()
    points, failures = 0, []
    with tempfile.TemporaryDirectory() as tmp:
        tracer = build(tmp)
        daemon = daemons.Daemon().start()
        try:
            for runtime in [arguments.runtime] if arguments.runtime else RUNTIMES:
                matrix = Matrix(daemon, tracer, runtime)
                for victim in [arguments.victim] if arguments.victim else VICTIMS:
                    for verb in [arguments.verb] if arguments.verb else VERBS:
                        matrix.row(verb, victim, arguments.every, arguments.point)
                matrix.end()
                points += matrix.points
                failures += matrix.failures
        finally:
            status = daemon.stop()
            if arguments.log:
                pathlib.Path(arguments.log).write_text(daemon.log_text())
            daemon.remove()
        if status != 0:
            failures.append(f"the daemon ended with status {status}")
    print(f"{points} points of death tried, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
