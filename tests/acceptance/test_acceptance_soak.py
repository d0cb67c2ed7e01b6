"""A short soak: nothing grows over some rounds, and the books are in order. `make soak` is long."""

import json
import subprocess
import sys

from tests.support.brokers import REPOSITORY

ROUNDS = 30


def test_memory_is_flat_and_the_books_are_in_order_after_a_short_soak(tmp_path):
    command = (
        *(sys.executable, "-m", "benchmarks.soak", "--json", "--rounds", str(ROUNDS)),
        *("--devices", "6", "--warm-up", "0.4", "--tolerance", "0.1"),
        *("--out", str(tmp_path / "soak")),
    )
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=150, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["faults"] == []
    names = [course["process"] for course in told["courses"]]
    assert names == ["central", "gateway-region-1", "gateway-region-2"]
    assert all(abs(course["deviation"]) <= 0.1 for course in told["courses"])
    assert not (tmp_path / "soak").exists()
