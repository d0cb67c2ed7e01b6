"""A central with scripted devices, as most tests of its service begin with."""

import pytest

from tests.support.central_fixture import CentralRig


@pytest.fixture
def rig(tmp_path):
    made = CentralRig(tmp_path)
    yield made
    made.connection.close()
