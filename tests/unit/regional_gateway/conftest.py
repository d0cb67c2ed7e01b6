"""Fixtures of the gateway's tests."""

import pytest
from gateway_rig import Rig


@pytest.fixture
def make_rig(tmp_path):
    made = []

    def make(**settings):
        rig = Rig(tmp_path / "state", **settings)
        made.append(rig)
        return rig

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def rig(make_rig):
    return make_rig().connect()
