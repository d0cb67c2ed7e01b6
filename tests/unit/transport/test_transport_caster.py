"""The caster: every block once, a window at a time, whatever becomes of the PUBACKs."""

import numpy as np
import pytest

from schemas.limits import MIN_CHUNK_BYTES
from schemas.topics import Address
from transport.caster import Caster, blocks

DATA = np.random.default_rng(5).bytes(9 * MIN_CHUNK_BYTES + 1)
EVERYONE = Address.of_everyone("eu")
SHA = "b" * 64


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "object"
    file.write_bytes(DATA)
    return file


def cast(path, **options):
    caster = Caster("downlink", **options)
    caster.start(SHA, path, MIN_CHUNK_BYTES, EVERYONE)
    return caster


def test_every_block_is_published_once_and_in_order(path):
    caster = cast(path)
    sent = caster.due(0.0)
    waiting = list(sent)
    while waiting:
        new = caster.on_published(waiting.pop(0).token, 0.0)
        sent += new
        waiting += new
        assert len(waiting) <= 4
    assert [message.topic.k for message in sent] == list(range(10))
    assert b"".join(message.payload for message in sent) == DATA
    assert sent[0].topic.name == f"fl/v1/eu/all/dn/b/{SHA[:16]}/0"
    assert not caster.is_casting(SHA)
    assert caster.next_due_s() is None


def test_a_lost_puback_only_costs_time(path):
    caster = cast(path)
    assert len(caster.due(0.0)) == 4
    assert caster.due(4.9) == []
    assert caster.next_due_s() == 5.0
    assert [message.topic.k for message in caster.due(5.0)] == [4, 5, 6, 7]
    assert [message.topic.k for message in caster.due(10.0)] == [8, 9]
    assert caster.due(15.0) == []


def test_a_token_of_others_or_a_late_one_changes_nothing(path):
    caster = cast(path)
    first = caster.due(0.0)
    assert caster.on_published(999, 0.0) == []
    caster.due(5.0)
    assert caster.on_published(first[0].token, 5.0) == []


def test_the_same_cast_is_not_started_twice(path):
    caster = cast(path, window=64)
    caster.start(SHA, path, MIN_CHUNK_BYTES, EVERYONE)
    assert len(caster.due(0.0)) == 10
    caster.start(SHA, path, MIN_CHUNK_BYTES, EVERYONE)
    assert len(caster.due(0.0)) == 10


def test_two_casts_share_one_window(path):
    caster = cast(path)
    caster.start("c" * 64, path, MIN_CHUNK_BYTES, EVERYONE)
    assert len(caster.due(0.0)) == 4
    assert len(caster.due(0.0)) == 0


def test_a_cancelled_cast_ends(path):
    caster = cast(path)
    caster.due(0.0)
    caster.cancel(SHA)
    assert not caster.is_casting(SHA)
    assert caster.due(100.0) == []


def test_an_object_that_was_removed_ends_its_cast_and_not_the_next(path, tmp_path):
    caster = cast(path)
    gone = tmp_path / "gone"
    gone.write_bytes(DATA)
    caster = Caster("downlink")
    caster.start("c" * 64, gone, MIN_CHUNK_BYTES, EVERYONE)
    caster.start(SHA, path, MIN_CHUNK_BYTES, EVERYONE)
    gone.unlink()
    assert [message.topic.sha16 for message in caster.due(0.0)] == [SHA[:16]] * 4


def test_a_get_is_answered_with_the_blocks_that_exist(path):
    device = Address("eu", "dev-a")
    sent = blocks("downlink", device, SHA, path, MIN_CHUNK_BYTES, [9, 0, 10, -1])
    assert [message.topic.k for message in sent] == [9, 0]
    assert sent[0].payload == DATA[-1:]
    assert sent[0].topic.name == f"fl/v1/eu/dev-a/dn/b/{SHA[:16]}/9"
    assert len(blocks("downlink", device, SHA, path, MIN_CHUNK_BYTES, list(range(10)))) == 8
