# SPDX-License-Identifier: Apache-2.0
"""Fixtures of every test of running programs.

daemon      a private wherryd, removed afterwards; the ledger must balance
containerd  a private containerd of the distribution, likewise
both        one after the other: for tests that hold for both
api         harness.api.Api of `daemon`
busybox     name of an image that `daemon` has
archive     path of that image as an OCI archive
"""
import pathlib
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from harness import daemons, hierarchies, ledger, memory, sanitizers  # noqa: E402

IMAGE = "docker.io/library/busybox:latest"


def pytest_configure(config):
    config.addinivalue_line("markers", "leaves(*parts): what the ledger may find, with the reason in the test")


def pytest_sessionstart(session):
    sanitizers.begin()
    missing = [p for p in ("wherryd", "wherry", "wherry-worker", "containerd-shim-wherry-v2")
               if not (daemons.BIN / p).exists()]
    if missing:
        pytest.exit(f"{daemons.BIN} has no {', '.join(missing)}: run make first, or set WHERRY_BIN", 2)
    session.hierarchies = [h for h in map(hierarchies.mount, hierarchies.for_crun()) if h]


@pytest.fixture
def balanced(request):
    """Nothing may be left behind, by whatever the test started."""
    before = ledger.snapshot()
    yield
    marker = request.node.get_closest_marker("leaves")
    left = ledger.left_behind(before, marker.args if marker else ())
    assert not left, "left behind:\n" + "\n".join(left)
    reports = sanitizers.reports()
    assert not reports, reports


def pytest_sessionfinish(session):
    """Of what was started for several tests."""
    for hierarchy in getattr(session, "hierarchies", ()):
        hierarchies.unmount(hierarchy)
    reports = sanitizers.reports()
    if reports:
        print(reports, file=sys.stderr)
        session.exitstatus = session.exitstatus or 1


def pytest_terminal_summary(terminalreporter):
    if memory.is_sanitized():
        terminalreporter.line("not checked: how much memory is used, since the programs have a sanitizer")


def running(daemon):
    daemon.start()
    yield daemon
    try:
        if daemon.process and daemon.process.poll() is not None:
            raise AssertionError(f"{daemon.name} ended by itself, status {daemon.process.returncode}:\n"
                                 + daemon.log_text()[-4000:])
        if not daemon.process:
            daemon.start()
        daemon.remove_everything()
        status = daemon.stop()
        assert status == 0, f"{daemon.name} ended with status {status}:\n" + daemon.log_text()[-4000:]
    finally:
        if daemon.process:
            daemon.process.kill()
            daemon.process.wait()
        daemon.remove()


@pytest.fixture
def daemon(balanced):
    yield from running(daemons.Daemon())


@pytest.fixture
def containerd(balanced):
    if not shutil.which("containerd"):
        pytest.skip("containerd is not installed")
    yield from running(daemons.Containerd())


@pytest.fixture(params=["wherryd", "containerd"])
def both(request, balanced):
    if request.param == "containerd" and not shutil.which("containerd"):
        pytest.skip("containerd is not installed")
    yield from running(daemons.Daemon() if request.param == "wherryd" else daemons.Containerd())


@pytest.fixture
def api(daemon):
    return daemon.api


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "busybox.tar"
    subprocess.run([daemons.SOURCE / "tools" / "busybox-image", "--name", IMAGE, path], check=True)
    return path


@pytest.fixture
def busybox(daemon, archive):
    daemon.import_image(archive)
    return IMAGE
