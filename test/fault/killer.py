# SPDX-License-Identifier: Apache-2.0
"""The tracer that kills a process at a chosen call, and tables of what came of it: what the matrices have in common."""
import pathlib
import subprocess
import threading
import time
import traceback

import grpc

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

    @classmethod
    def after(cls, calls, reached, verb, outcome, error):
        """calls: those up to the one that was not made; outcome: how the verb ended for its caller."""
        why = f"{error.code()} {error.details()}" if isinstance(error, grpc.RpcError) else repr(error)
        return cls(f"killed at {calls[-1] if calls and reached else 'no call'}, {verb} ended with {outcome}; "
                   f"then {why}")


class Killer:
    """The tracer at work on one process."""

    def __init__(self, program, pid, point, *child):
        self.process = subprocess.Popen([program, str(pid), str(point), *child],
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


class Rows:
    """A verb and a victim are a row, of as many points as a run without a death has calls. once() tries one point and
    says whether it was reached; recover() makes a clean start after a failure."""

    def __init__(self, daemon, tracer, kind):
        self.d = daemon
        self.tracer = tracer
        self.kind = kind
        self.points = 0
        self.failures = []

    def once(self, verb, victim, point):
        raise NotImplementedError

    def recover(self, verb, victim):
        raise NotImplementedError

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
                self.failures.append(f"{self.kind} {victim} {verb} point {point} of {len(calls)}: {error} [{where}]")
                print("FAILED", self.failures[-1], flush=True)
                self.recover(verb, victim)
        self.points += tried - missed
        print(f"{self.kind:4}{victim:8}{verb:8}{len(calls):5} points,{tried:5} tried,{missed:4} not reached,{failed:4} failed",
              flush=True)
