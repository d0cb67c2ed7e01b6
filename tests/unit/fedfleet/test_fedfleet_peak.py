"""The peak of memory that a measured process tells is its own."""

import subprocess
import sys

import numpy as np

from fedfleet.peak import peak_bytes

MIB = 1 << 20
TOLD = "import fedfleet.peak; print(fedfleet.peak.peak_bytes())"


def test_a_child_does_not_count_the_memory_of_who_started_it():
    held = np.ones(300 * MIB, np.uint8)
    done = subprocess.run([sys.executable, "-c", TOLD], capture_output=True, check=True, text=True)
    assert peak_bytes() >= held.nbytes
    assert 5 * MIB < int(done.stdout) < 150 * MIB
