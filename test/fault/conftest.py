# SPDX-License-Identifier: Apache-2.0
"""rig   a fault.rig.Rig on a private daemon; a file whose rig is another kind has a fixture of its own."""
import pytest

from fault.rig import Rig


@pytest.fixture
def rig(daemon):
    rig = Rig(daemon)
    yield rig
    rig.forget()
