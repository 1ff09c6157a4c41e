# SPDX-License-Identifier: Apache-2.0
"""Reports of sanitizers, from whatever program of a sanitized build and however deep below a test.

A shim's standard error is nobody's, and undefined behaviour alone ends no program: so reports go into
files, and the test after which there are any fails with them. Other builds write none.
"""
import os
import pathlib
import re
import tempfile

from .memory import is_sanitized

VARIABLES = ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS")

# What a program says in place of its leaks when it ends while it is traced, as those are that a test is to stop at
# one of their calls.
TRACED = re.compile(r"^==\d+==(LeakSanitizer has encountered a fatal error|HINT: .*LSAN_OPTIONS|HINT: .* under ptrace)"
                    r".*\n", re.MULTILINE)

# How much longer programs with a sanitizer may take.
SLOWER = 8

_directory = None


def patience(seconds):
    """What is long enough for programs without a sanitizer, for those of this build."""
    return seconds * SLOWER if is_sanitized() else seconds


def begin():
    """From now on programs that are started write their reports where reports() finds them."""
    global _directory
    _directory = tempfile.TemporaryDirectory(prefix="sanitizers-")
    os.chmod(_directory.name, 0o777)  # containers' users, too
    for name in VARIABLES:
        options = [os.environ[name]] if os.environ.get(name) else []
        os.environ[name] = ":".join([*options, f"log_path={_directory.name}/report"])


def for_traced(environment=os.environ):
    """In which a program that is traced to its end does not look for its leaks, which would fail."""
    options = environment.get("ASAN_OPTIONS", "")
    return {**environment, "ASAN_OPTIONS": f"{options}:detect_leaks=0".removeprefix(":")}


def reports():
    """What has come since the last call, "" in the good case."""
    found = []
    for path in sorted(pathlib.Path(_directory.name).iterdir()) if _directory else ():
        found.append(TRACED.sub("", path.read_text(errors="replace")))
        path.unlink()
    return "\n".join(text for text in found if text.strip())
