# SPDX-License-Identifier: Apache-2.0
"""A CRIU that works on this machine.

Debian 12's fails on kernels of today; Debian 13's works there, started by the loader and with the libraries of
its own suite. directory() tries the system's, then that one, by dumping a process, and returns a directory
with a program `criu` for the front of PATH.
"""
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile

from .daemons import BIN, SOURCE

SUITES = BIN.parent / "suites"
SUITE = SUITES / "trixie"
LOADER = f"""#!/bin/sh
exec {SUITE}/usr/lib64/ld-linux-x86-64.so.2 --argv0 criu \\
    --library-path {SUITE}/usr/lib/x86_64-linux-gnu {SUITE}/usr/sbin/criu "$@"
"""
reasons = []


def works(program):
    """Dumps a process that does nothing."""
    with tempfile.TemporaryDirectory() as images:
        victim = subprocess.Popen(["/bin/sleep", "1000"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL, start_new_session=True, cwd="/")
        try:
            result = subprocess.run([program, "dump", "-t", str(victim.pid), "-D", images, "--leave-running"],
                                    capture_output=True, text=True, errors="replace", timeout=60)
            if result.returncode:
                reasons.append(f"{program}: " + (result.stderr.strip().splitlines() or ["failed"])[-1])
            return result.returncode == 0
        except (OSError, subprocess.TimeoutExpired) as error:
            reasons.append(f"{program}: {error}")
            return False
        finally:
            victim.kill()
            victim.wait()


def of_trixie():
    """Unpacks it unless that was done; the directory of its `criu`, or None."""
    done = subprocess.run([SOURCE / "tools" / "suite-packages", SUITES, "trixie", "criu"], capture_output=True, text=True,
                          check=False)
    if done.returncode:
        reasons.append("criu of trixie: " + (done.stderr.strip().splitlines() or ["not there"])[-1])
        return None
    directory = SUITES / "criu"
    directory.mkdir(exist_ok=True)
    program = directory / "criu"
    temporary = directory / f".criu.{os.getpid()}"
    temporary.write_text(LOADER)
    temporary.chmod(0o755)
    temporary.rename(program)
    return directory


@functools.lru_cache(maxsize=None)
def directory():
    """None where no CRIU works: why() says what was tried."""
    program = shutil.which("criu")
    if program and works(program):
        return pathlib.Path(program).parent
    trixie = of_trixie()
    return trixie if trixie and works(trixie / "criu") else None


def why():
    return "no CRIU works here: " + "; ".join(reasons)
