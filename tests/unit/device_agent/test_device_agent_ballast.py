"""Memory that is taken for nothing really is taken."""

import subprocess
import sys

import psutil
import pytest

from device_agent.adapters.ballast import Ballast
from schemas.limits import MIB

SIZE_MB = 64


def test_the_ballast_is_resident_until_it_is_given_back():
    process = psutil.Process()
    before = process.memory_info().rss
    ballast = Ballast(SIZE_MB)
    grown = process.memory_info().rss - before
    assert ballast.size_bytes == SIZE_MB * MIB
    assert SIZE_MB * MIB * 0.95 < grown < SIZE_MB * MIB * 1.2
    ballast.close()
    assert process.memory_info().rss - before < SIZE_MB * MIB * 0.2


def test_no_two_pages_are_alike():
    ballast = Ballast(1)
    pages = ballast._pages[:]
    assert len({pages[place : place + 4096] for place in range(0, MIB, 4096)}) == MIB // 4096
    ballast.close()


def test_no_ballast_takes_nothing():
    ballast = Ballast(0)
    assert ballast.size_bytes == 0
    ballast.close()


@pytest.mark.parametrize("megabytes", [1 << 30])
def test_more_than_there_is_fails_at_once(megabytes):
    with pytest.raises((OSError, OverflowError)):
        Ballast(megabytes)


def test_an_agent_carries_the_ballast_that_the_environment_names():
    code = (
        "import psutil; from device_agent.settings import DeviceSettings;"
        "from device_agent.adapters.ballast import Ballast;"
        "settings = DeviceSettings.load(region='r1', id='d1');"
        "before = psutil.Process().memory_info().rss;"
        "kept = Ballast(settings.mem_ballast_mb);"
        "print((psutil.Process().memory_info().rss - before) >> 20)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"FEDFLEET_MEM_BALLAST_MB": "32", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert 30 <= int(done.stdout) <= 40
