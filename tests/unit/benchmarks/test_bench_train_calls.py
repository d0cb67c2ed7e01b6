"""The ways to call a training graph that ``make bench-train`` compares give the same bits."""

import pytest

from benchmarks.training.calls import row


def test_single_calls_bound_buffers_and_one_scan_are_compared_on_the_same_steps(tmp_path):
    cells = row("mlp", tmp_path, batch=4, budget_s=0.2)  # raises if one comes to other parameters
    assert cells[0] == "MLP"
    single, bound, bound_ratio, scan, scan_ratio = map(float, cells[1:])
    assert bound_ratio == pytest.approx(bound / single, abs=0.02)
    assert scan_ratio == pytest.approx(scan / single, abs=0.02)
