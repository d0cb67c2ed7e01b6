"""A device agent whose every message is seen."""

import pytest
from device_agent_bench import Bench


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)
