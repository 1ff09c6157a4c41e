# SPDX-License-Identifier: Apache-2.0
"""What a process has of memory that nobody else shares.

Programs with a sanitizer keep what they free, and a shadow of everything: there is nothing to measure. They
count as 0, and may have more where a test limits it, so that the other half of such a test is not lost; the
summary says so.
"""
import functools
import re

from . import daemons


@functools.lru_cache(maxsize=None)
def is_sanitized():
    """Whether the programs of this build are: they link a sanitizer's library."""
    return re.search(rb"lib[at]san\.so", (daemons.BIN / "wherryd").read_bytes()) is not None


def room(size):
    """So many bytes are enough for what a program has to do: what to limit it to."""
    return size * 16 if is_sanitized() else size


def private_kb(pid, kind=r"\w+"):
    if is_sanitized():
        return 0
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(n) for n in re.findall(rf"^Private_{kind}: +(\d+) kB", file.read(), re.M))


def written_kb(pid):
    """Without pages of programs and libraries, which are private only while nobody else happens to run them."""
    return private_kb(pid, "Dirty")
