"""A memory is in force only if it is that of the very update which central has counted."""

import pytest
from device_agent_bench import SMALL, Bench
from test_device_agent_memories import assign, both_modes, play, rounds, trained

from schemas.errors import PayloadError
from schemas.ids import MARK_LENGTH, contribution_mark


def marks(manifest):
    return contribution_mark(manifest.xfer, manifest.reference) + "0" * MARK_LENGTH


@both_modes
def test_a_memory_of_the_update_that_was_counted_is_built_on(tmp_path, mode):
    bench = Bench(tmp_path)
    first, _ = play(bench, mode, 1, 0)
    second, _ = play(bench, mode, 2, 1, marks=marks(first))
    assert second.reference == 1
    third, _ = play(bench, mode, 3, 2, marks=marks(second))
    assert third.reference == 2


@both_modes
def test_after_its_store_was_lost_a_device_does_not_build_on_an_update_that_never_counted(
    tmp_path, mode
):
    """Its update of round 2 was accepted; without its store it makes another one for the round."""
    whole, emptied = Bench(tmp_path / "whole"), Bench(tmp_path / "emptied")
    first, _ = play(whole, mode, 1, 0)
    counted, _ = play(whole, mode, 2, 1, marks=marks(first))
    other, _ = play(emptied, mode, 2, 1, marks=marks(first))
    assert (counted.reference, other.reference) == (1, 0)
    assert other.object.sha256 != counted.object.sha256
    emptied.receipt(other, "duplicate")
    third, _ = play(emptied, mode, 3, 2, marks=marks(counted))
    assert third.reference == 0
    assert rounds(emptied) == [3]


def test_the_same_bytes_on_another_reference_are_another_update(tmp_path):
    bench = Bench(tmp_path)
    first, _ = play(bench, "lazy", 1, 0)
    there = contribution_mark(first.xfer, 7) + "0" * MARK_LENGTH
    second, _ = play(bench, "lazy", 2, 1, marks=there)
    assert second.reference == 0


def test_a_central_that_tells_no_marks_is_believed(tmp_path):
    bench = Bench(tmp_path)
    play(bench, "feedback", 1, 0)
    assign(bench, "feedback", 2, 1)
    manifest, _ = trained(bench, 2)
    assert manifest.reference == 1


def test_marks_that_do_not_fit_the_references_are_refused(tmp_path):
    with pytest.raises(PayloadError, match="marks: 6 digits, 6 for each of the references"):
        assign(Bench(tmp_path), "lazy", 1, 0, SMALL, marks="0" * MARK_LENGTH)
