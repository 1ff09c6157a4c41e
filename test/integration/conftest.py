# SPDX-License-Identifier: Apache-2.0
"""Fixtures of more than one file here.

target      directory for a layer, beside a file that must stay as it is
"""
import os

import pytest

from integration.layers import snapshot_of


@pytest.fixture
def target(tmp_path):
    """A directory to unpack into, with canaries around it that must stay as they are."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("alive")
    root = tmp_path / "root"
    root.mkdir()
    before = snapshot_of(outside), sorted(os.listdir(tmp_path))
    yield root
    assert (snapshot_of(outside), sorted(os.listdir(tmp_path))) == before
    assert (outside / "canary").read_text() == "alive"
