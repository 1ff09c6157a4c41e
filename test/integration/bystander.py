# SPDX-License-Identifier: Apache-2.0
"""What bad input may not do: disturb others, or stay in memory.

    with unharmed(daemon):          # others are answered meanwhile, fds and memory come back
        ...rude things...
"""
import contextlib
import threading
import time

import grpc

from harness import ledger
from harness.api import Api
from harness.memory import private_kb

ANSWER_SECONDS = 2.0
SETTLE_SECONDS = 15


def comes_true(condition, seconds=SETTLE_SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Bystander:
    """A polite client that asks all the time, on the loop and on the pool."""

    def __init__(self, address, period=0.05):
        self.address = address
        self.period = period
        self.slowest = 0.0
        self.calls = 0
        self.failure = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self):
        api = Api(self.address)
        while not self.over.is_set():
            for path in ("version.v1.Version/Version", "namespaces.v1.Namespaces/List"):
                start = time.monotonic()
                try:
                    api.call("containerd.services." + path, timeout=30)
                except grpc.RpcError as error:
                    self.failure = self.failure or f"{path}: {error.code()}: {error.details()}"
                self.slowest = max(self.slowest, time.monotonic() - start)
                self.calls += 1
            self.over.wait(self.period)
        api.close()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


@contextlib.contextmanager
def unharmed(daemon, grow_kb=4096, answer_seconds=ANSWER_SECONDS):
    """The block is run; the daemon answers others within answer_seconds all the while, and has its fds and
    its memory (but for grow_kb, for what an allocator keeps) back soon afterwards."""
    daemon.api.call("containerd.services.namespaces.v1.Namespaces/List")
    fds, memory = ledger.open_fds(daemon.pid), private_kb(daemon.pid)
    with Bystander(daemon.address) as other:
        yield other
    daemon.api.call("containerd.services.version.v1.Version/Version")
    assert other.failure is None, other.failure
    assert other.calls > 0 and other.slowest < answer_seconds, f"others waited {other.slowest:.2f} s"
    assert comes_true(lambda: ledger.open_fds(daemon.pid) <= fds), (
        f"{ledger.open_fds(daemon.pid)} fds, {fds} before")
    assert comes_true(lambda: private_kb(daemon.pid) <= memory + grow_kb), (
        f"{private_kb(daemon.pid)} kB, {memory} kB before")
