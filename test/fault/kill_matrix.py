#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Kills the daemon, shims and workers at every system call that changes something during the life of a container, and
while images come and go.

    kill_matrix.py [--every N] [--of v2|v1|images] [--victim daemon|shim|worker] [--verb VERB] [--point K] [--log PATH]

For each runtime, verb (create, start, exec, pause, resume, kill, delete) and victim a first run counts the points by tracing; then the
verb is carried out once for each point, and the victim killed there. After each:

    the daemon answers again, and containers that nobody touched still run and print;
    the verb can be repeated until it has succeeded or says that it had;
    the container's end has its true status, and is published once at most, never before its start;
    everything can be removed, and nothing of it is left on the machine;
    the same id can be used again.

The verbs of images, and what is looked at after them, are in image_matrix.py.

Prints how many points there were and how many failed. WHERRY_BIN says where the programs are.
"""
import argparse
import itertools
import pathlib
import sys
import tempfile
import time

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from fault import image_matrix  # noqa: E402
from fault.image_matrix import ImageMatrix  # noqa: E402
from fault.killer import CODE, INTERRUPTED, Failure, Killer, Rows, build  # noqa: E402
from fault.rig import V1, Bystander, Rig, wait_until  # noqa: E402
from harness import daemons  # noqa: E402

VERBS = ("create", "start", "exec", "pause", "resume", "kill", "delete")
VICTIMS = ("daemon", "shim")
RUNTIMES = {"v2": "io.containerd.runc.v2", "v1": V1}
SHIMS = {"v2": "containerd-shim-wherry-v2", "v1": "containerd-shim"}


class Matrix(Rows):
    def __init__(self, daemon, tracer, runtime="v2"):
        super().__init__(daemon, tracer, runtime)
        self.rig = Rig(daemon, RUNTIMES[runtime])
        self.bystander = Bystander(self.rig)
        self.rig.before = self.rig.ledger()
        self.status = None  # what the verb "kill" was told
        self.names = itertools.count()
        self.name = ""

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

    def use_again(self, name):
        self.rig.forget_record(name)
        self.rig.run(name, ("true",))
        assert self.rig.wait(name) == 0
        self.rig.remove(name)

    def once(self, verb, victim, point):
        """Carries the verb out and kills at this point; True if the point was reached."""
        # A name of its own: a young daemon tells the ends of what it has found to every subscriber for a while.
        self.name = name = f"{victim}-{verb}-{self.kind}-{next(self.names)}"
        events = self.rig.events()
        seen = [events]
        self.status = None
        self.prepare(verb, name)
        if verb == "delete":
            wait_until(lambda: events.exits(name), 5, "the event of its end")
        if victim == "daemon":
            killer = Killer(self.tracer, self.d.pid, point)
        elif verb == "create":
            killer = Killer(self.tracer, self.d.pid, point, SHIMS[self.kind])
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
            self.use_again(name)
            left = self.rig.left_behind()
            assert not left, "left behind: " + "; ".join(left)
            self.bystander.check()
        except Exception as error:
            raise Failure.after(calls, reached, verb, outcome, error) from error
        finally:
            events.stop()
        return reached, calls

    def recover(self, verb, victim):
        if self.d.process and self.d.process.poll() is not None:
            self.d.kill()
        if not self.d.process:
            self.d.start()
        try:
            self.rig.remove(self.name)
            self.rig.before |= self.rig.ledger()
        except Exception as error:  # noqa: BLE001
            self.failures.append(f"{self.name} cannot be removed: {error}")

    def end(self):
        try:
            self.bystander.end()
        except Exception as error:  # noqa: BLE001
            self.failures.append(f"bystander: {error}")
        self.rig.forget()


def matrices(daemon, tracer, kind):
    """Those that are asked for, one after the other, with the verbs of each victim."""
    for runtime in [kind] if kind in RUNTIMES else RUNTIMES if not kind else ():
        yield Matrix(daemon, tracer, runtime), {victim: VERBS for victim in VICTIMS}
    # Each point is tried twice, once for each of what may come after a death.
    for offset in (0, 1) if kind in (None, "images") else ():
        yield ImageMatrix(daemon, tracer, offset), image_matrix.VERBS


def main():
    parser = argparse.ArgumentParser(description="Kills daemon, shims and workers at every call that changes something.")
    parser.add_argument("--every", type=int, default=1, help="only every so many points")
    parser.add_argument("--of", choices=[*RUNTIMES, "images"], help="tasks of one runtime, or images")
    parser.add_argument("--victim", choices=[*VICTIMS, "worker"])
    parser.add_argument("--verb", choices=[*VERBS, *image_matrix.VERBS["daemon"]])
    parser.add_argument("--point", type=int)
    parser.add_argument("--log", help="where the daemon's log is copied to")
    arguments = parser.parse_args()
    points, failures = 0, []
    with tempfile.TemporaryDirectory() as tmp:
        tracer = build(tmp)
        daemon = daemons.Daemon().start()
        try:
            for matrix, table in matrices(daemon, tracer, arguments.of):
                for victim, verb in ((victim, verb) for victim, verbs in table.items() for verb in verbs):
                    if arguments.verb in (None, verb) and arguments.victim in (None, victim):
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
