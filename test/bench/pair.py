# SPDX-License-Identifier: Apache-2.0
"""Two daemons at the same time, each on a root of its own, and samples that alternate between them, so that whatever
else the machine does falls on both."""
import contextlib
import os
import pathlib
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from harness import daemons

from . import usage
from .disk import FreshDisk

IDLE_SECONDS = 0.15
IMAGE = "docker.io/library/busybox:latest"
NOISE_SECONDS = 0.5


def timed(command, env):
    """Milliseconds of a command that must succeed."""
    started = time.perf_counter()
    result = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True)
    elapsed = (time.perf_counter() - started) * 1000
    if result.returncode != 0:
        sys.exit(f"bench: {' '.join(command)}: {result.stderr.decode(errors='replace')}")
    return elapsed


def first_line(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return f"{command[0]}: none"


def busy_cpus():
    """How many processors are at work, by themselves, before we begin."""
    def read():
        numbers = [int(n) for n in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(numbers), numbers[3] + numbers[4]

    total, idle = read()
    time.sleep(NOISE_SECONDS)
    total2, idle2 = read()
    return (1 - (idle2 - idle) / max(total2 - total, 1)) * os.cpu_count()


def machine():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    yield f"machine: {os.cpu_count()} x {model}, {memory} GiB, Linux {platform.release()}"
    versions = [first_line(daemons.BIN / "wherryd", "--version"), first_line("containerd", "--version")]
    yield "versions: " + "; ".join(versions + [first_line(name, "--version") for name in ("runc", "crun")])


def table(title, rows, *notes):
    print(f"\n{title}")
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip())
    for note in notes:
        print(f"  ({note})")
    sys.stdout.flush()


def ratio(theirs, ours):
    return f"{ours / theirs:.2f}" if theirs else "-"


class Pair:
    """Containerd and wherryd, with the image imported into both. Leaves nothing behind, however it ends."""

    def __init__(self, quick, execs, output_mib):
        self.quick, self.execs, self.output_mib = quick, execs, output_mib
        self.runs = 5 if quick else 25
        self.runtimes = [name for name in ("runc", "crun") if shutil.which(name)]
        self.undo = contextlib.ExitStack()
        self.both = ()

    def __enter__(self):
        try:
            self.scratch = self.directory("/var/tmp")
            self.start_both(self.undo.enter_context(FreshDisk(self.directory("/var/tmp"))))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # Whoever is impatient would leave containers behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self.undo.close()

    def directory(self, parent):
        path = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
        self.undo.callback(shutil.rmtree, path, ignore_errors=True)
        return path

    def start_both(self, place):
        archive = place / "busybox.tar"
        run = self.directory("/run")
        subprocess.run([daemons.SOURCE / "tools" / "busybox-image", "--name", IMAGE, archive], check=True)
        self.theirs = daemons.Containerd(place=place)
        self.undo.callback(self.end, self.theirs)
        self.ours = daemons.Daemon(log_level="info", place=place)
        self.undo.callback(self.end, self.ours)
        self.both = (self.theirs, self.ours)
        for daemon in self.both:
            daemon.state = run / daemon.name  # where both have it by default: in memory
            daemon.start()
            daemon.import_image(archive)

    def end(self, daemon):
        if not daemon.process or daemon.process.poll() is not None:
            daemon.start()  # interrupted while it was to be restarted: its containers are still there
        daemon.remove_everything()
        usage.settle()
        daemon.stop()
        daemon.remove()

    def ctr(self, daemon, *args):
        return ["ctr", "--address", daemon.address, *args]

    def alternate(self, samples, runs=None, idle=0):
        """Medians of calls that each return a number; the first round is not counted."""
        taken = [[] for _ in samples]
        for number in range((runs or self.runs) + 1):
            for at, sample in enumerate(samples):
                time.sleep(idle)
                value = sample(number)
                if number:
                    taken[at].append(value)
        return [statistics.median(values) for values in taken]

    def compare(self, name, theirs, ours, wanted, wanted_back_to_back=""):
        """Rows of two commands (lists of words, {} is a fresh id), back to back and after 150 ms of idle."""
        env = self.ours.environment()
        for idle in (0, IDLE_SECONDS):
            def sample(command, side):
                return lambda number: timed([word.replace("{}", f"b{number}-{side}") for word in command], env)

            a, b = self.alternate((sample(theirs, 0), sample(ours, 1)), idle=idle)
            yield (name, "150 ms idle" if idle else "back to back", f"{a:.1f} ms", f"{b:.1f} ms", ratio(a, b),
                   wanted if idle else wanted_back_to_back)
