"""Objects on disk: names, torn files, and what is removed first."""

import hashlib
import os

import pytest

from schemas.limits import MAX_INLINE_BYTES, MIN_CHUNK_BYTES
from transport.objects import ObjectSizeError, ObjectStore, describe, read_block


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def store(tmp_path):
    return ObjectStore(tmp_path / "store")


def test_bytes_and_file_are_described_alike(tmp_path):
    data = os.urandom(2 * MIN_CHUNK_BYTES + 5)
    path = tmp_path / "object"
    path.write_bytes(data)
    assert describe(data, MIN_CHUNK_BYTES) == describe(path, MIN_CHUNK_BYTES)


def test_the_tail_is_the_digest_of_each_chunk():
    data = os.urandom(2 * MIN_CHUNK_BYTES + 5)
    manifest, tail = describe(data, MIN_CHUNK_BYTES)
    assert (manifest.sha256, manifest.size, manifest.chunks) == (sha(data), len(data), 3)
    assert not manifest.inline
    expected = [
        data[start : start + MIN_CHUNK_BYTES] for start in range(0, len(data), MIN_CHUNK_BYTES)
    ]
    assert tail == b"".join(hashlib.sha256(chunk).digest() for chunk in expected)
    assert len(tail) == manifest.tail_bytes()


def test_a_small_object_is_its_own_tail_only_when_asked(tmp_path):
    path = tmp_path / "object"
    path.write_bytes(b"small")
    manifest, tail = describe(path, inline=True)
    assert manifest.inline
    assert tail == b"small"
    assert not describe(b"small")[0].inline
    assert not describe(bytes(MAX_INLINE_BYTES + 1), inline=True)[0].inline


def test_an_empty_object_is_refused():
    with pytest.raises(ObjectSizeError, match="size: 0"):
        describe(b"")


def test_an_object_is_found_under_its_digest(store):
    name = store.put(b"content", durable=True)
    assert name == sha(b"content")
    assert store.has(name)
    assert store.intact(name)
    assert store.read(name) == b"content"
    assert store.read_chunk(name, 1, 4) == b"ent"
    assert store.read_chunk(name, 2, 4) == b""
    assert read_block(store.path(name), 0, 4) == b"cont"


@pytest.mark.parametrize("name", ["../" + "a" * 61, "A" * 64, "a" * 63, "a" * 64 + "\n", ""])
def test_only_a_digest_becomes_a_path(store, name):
    with pytest.raises(ValueError, match="hex digits"):
        store.path(name)


def test_a_torn_file_is_found_and_removed_after_a_restart(store):
    name = store.put(b"content", durable=False)
    store.path(name).write_bytes(b"cont")
    again = ObjectStore(store.root)
    assert again.has(name)
    assert not again.intact(name)
    assert not again.has(name)


def test_a_missing_object_is_not_intact(store):
    assert not store.intact("0" * 64)
    assert not store.verify("0" * 64)
    store.remove("0" * 64)


def test_a_failed_write_leaves_no_file(store, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        store.put(b"content", durable=True)
    assert [path.name for path in store.root.rglob("*") if path.is_file()] == []


def test_what_a_crash_left_half_written_is_gone_after_a_restart(store):
    (store.root / "parts" / "half.tmp").write_bytes(b"x")
    (store.root / "parts" / "pull.part").write_bytes(b"x")
    ObjectStore(store.root)
    assert [path.name for path in (store.root / "parts").iterdir()] == ["pull.part"]


def three_objects(store):
    names = [store.put(bytes([number]) * 100, durable=False) for number in range(3)]
    for age, name in enumerate(names):
        os.utime(store.path(name), (1000 + age, 1000 + age))
    return names


def test_the_oldest_objects_go_first(store):
    names = three_objects(store)
    assert list(store.sizes().items()) == [(name, 100) for name in names]
    assert store.trim(250) == names[:1]
    assert store.trim(250) == []
    assert store.trim(0, keep={names[1]}) == names[2:]
    assert list(store.sizes()) == names[1:2]


def test_only_what_is_kept_stays(store):
    names = three_objects(store)
    assert store.keep_only({names[2]}) == names[:2]
    assert list(store.sizes()) == names[2:]


def test_part_files_are_removed_by_age(store):
    old, new = store.part_path("a", "0" * 64), store.part_path("b", "0" * 64)
    assert old != new
    for path, age_s in ((old, 100.0), (new, 200.0)):
        path.touch()
        os.utime(path, (age_s, age_s))
    assert store.remove_parts(150.0) == 1
    assert not old.exists()
    assert new.exists()
