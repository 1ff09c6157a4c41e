# SPDX-License-Identifier: Apache-2.0
"""Reports of sanitizers, from whatever program of a sanitized build and however deep below a test.

A shim's standard error is nobody's, and undefined behaviour alone ends no program: so reports go into
files, and the test after which there are any fails with them. Other builds write none.
"""
import os
import pathlib
import tempfile

VARIABLES = ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS")

_directory = None


def begin():
    """From now on programs that are started write their reports where reports() finds them."""
    global _directory
    _directory = tempfile.TemporaryDirectory(prefix="sanitizers-")
    os.chmod(_directory.name, 0o777)  # containers' users, too
    for name in VARIABLES:
        options = [os.environ[name]] if os.environ.get(name) else []
        os.environ[name] = ":".join([*options, f"log_path={_directory.name}/report"])


def reports():
    """What has come since the last call, "" in the good case."""
    found = []
    for path in sorted(pathlib.Path(_directory.name).iterdir()) if _directory else ():
        found.append(path.read_text(errors="replace"))
        path.unlink()
    return "\n".join(found)
