"""Part files: only right chunks get in, and a restart finds what is there."""

import hashlib
import random

import pytest

from schemas.errors import PayloadError
from schemas.limits import MIN_CHUNK_BYTES
from transport.assembly import Assembly, ObjectMismatchError
from transport.objects import ObjectStore, describe

DATA = random.Random(77).randbytes(3 * MIN_CHUNK_BYTES + 77)
MANIFEST, TAIL = describe(DATA, MIN_CHUNK_BYTES)
CHUNKS = [DATA[start : start + MIN_CHUNK_BYTES] for start in range(0, len(DATA), MIN_CHUNK_BYTES)]


@pytest.fixture
def store(tmp_path):
    return ObjectStore(tmp_path)


def assembly(store):
    return Assembly(store.part_path("key", MANIFEST.sha256), MANIFEST, TAIL)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
@pytest.mark.parametrize("durable", [True, False])
def test_chunks_in_any_order_make_the_object(store, order, durable):
    part = assembly(store)
    for k in order:
        assert part.write(k, CHUNKS[k])
        assert not part.write(k, CHUNKS[k])
    path = part.finish(store, durable=durable)
    assert path.read_bytes() == DATA
    assert store.intact(MANIFEST.sha256)
    assert not store.part_path("key", MANIFEST.sha256).exists()


@pytest.mark.parametrize(
    ("k", "data"),
    [
        (0, CHUNKS[1]),
        (0, CHUNKS[0][:-1]),
        (3, CHUNKS[0]),
        (4, b""),
        (-1, CHUNKS[3]),
        (0, b""),
    ],
)
def test_a_wrong_chunk_is_refused_and_not_written(store, k, data):
    part = assembly(store)
    with pytest.raises(PayloadError):
        part.write(k, data)
    assert part.have == frozenset()
    assert store.part_path("key", MANIFEST.sha256).stat().st_size == 0


@pytest.mark.parametrize("before", [(), (0,), (1, 3), (3, 2, 1, 0)])
def test_a_restart_goes_on_with_the_chunks_that_are_there(store, before):
    first = assembly(store)
    for k in before:
        first.write(k, CHUNKS[k])
    second = assembly(store)
    assert second.have == set(before)
    for k in set(range(4)) - set(before):
        second.write(k, CHUNKS[k])
    assert second.finish(store, durable=False).read_bytes() == DATA


def test_a_torn_chunk_counts_as_missing_after_a_restart(store):
    first = assembly(store)
    for k in (0, 1, 3):
        first.write(k, CHUNKS[k])
    path = store.part_path("key", MANIFEST.sha256)
    data = bytearray(path.read_bytes())
    data[MIN_CHUNK_BYTES + 9] ^= 1
    path.write_bytes(bytes(data[:-5]))
    assert assembly(store).have == {0}


def test_a_part_file_that_is_too_long_is_cut(store):
    path = store.part_path("key", MANIFEST.sha256)
    path.write_bytes(DATA + b"more")
    part = assembly(store)
    assert part.finish(store, durable=False).read_bytes() == DATA


def test_an_unfinished_object_does_not_finish(store):
    part = assembly(store)
    part.write(0, CHUNKS[0])
    with pytest.raises(PayloadError, match="1 of 4"):
        part.finish(store, durable=False)


def test_a_manifest_that_lies_about_the_whole_is_found_out(store):
    lie = MANIFEST.model_copy(update={"sha256": hashlib.sha256(b"other").hexdigest()})
    path = store.part_path("key", lie.sha256)
    part = Assembly(path, lie, TAIL)
    for k, chunk in enumerate(CHUNKS):
        part.write(k, chunk)
    with pytest.raises(ObjectMismatchError, match="sha256"):
        part.finish(store, durable=True)
    assert not path.exists()
    assert not store.has(lie.sha256)


def test_a_tail_of_another_length_is_refused(store):
    with pytest.raises(PayloadError, match="tail"):
        Assembly(store.part_path("key", MANIFEST.sha256), MANIFEST, TAIL[:-1])
