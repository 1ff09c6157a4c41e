# SPDX-License-Identifier: Apache-2.0
"""The model of the shim's life cycle, checked by spin: in full, and with each of its rules left out."""
import pathlib
import shutil
import subprocess

import pytest

MODEL = pathlib.Path(__file__).with_name("shim.pml")

pytestmark = pytest.mark.skipif(not shutil.which("spin"), reason="spin is not installed")


def check(directory, defines, *options):
    """pan's report."""
    subprocess.run(["spin", *(f"-D{define}" for define in defines), "-a", MODEL], cwd=directory, check=True,
                   capture_output=True)
    # Six processes and the claim; pan.c is spin's code, its warnings are not ours.
    subprocess.run(["gcc", "-w", "-O2", "-DNFAIR=6", "-o", "pan", "pan.c"], cwd=directory, check=True)
    return subprocess.run(["./pan", "-m1000000", *options], cwd=directory, check=True, capture_output=True,
                          text=True).stdout


@pytest.mark.parametrize("defines", [(), ("HOST_PIDS",)], ids=["private", "host"])
def test_rules_hold(tmp_path, defines):
    report = check(tmp_path, defines, "-a", "-f")
    assert "errors: 0" in report, report
    assert "depth reached" in report and "unreached" in report


@pytest.mark.parametrize("defines, failure", [
    (("BREAK_START",), "assertion violated"),
    (("BREAK_ORDER",), "assertion violated"),
    (("BREAK_LOST",), "acceptance cycle"),
    (("HOST_PIDS", "BREAK_REFUSE"), "assertion violated"),
    (("HOST_PIDS", "BREAK_KILL"), "acceptance cycle"),
    (("HOST_PIDS", "BREAK_LATE"), "acceptance cycle"),
], ids=lambda value: value[-1] if isinstance(value, tuple) else "")
def test_each_rule_is_needed(tmp_path, defines, failure):
    report = check(tmp_path, defines, "-a", "-f")
    assert "errors: 1" in report and failure in report, report
