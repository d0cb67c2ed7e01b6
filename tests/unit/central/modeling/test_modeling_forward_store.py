"""The folder of graphs: what a power cut, another user or a full disk leaves is never believed."""

import os

import pytest

from central.modeling import forward_store
from central.modeling.forward_store import FORWARD, MAX_GRAPHS, STEP, ForwardStore


@pytest.mark.parametrize("kind", [FORWARD, STEP])
@pytest.mark.parametrize("left", [b"", b"a grap", b"a grapX"], ids=["empty", "short", "flipped"])
def test_a_torn_file_is_removed_and_as_if_missing(tmp_path, kind, left):
    path = ForwardStore(tmp_path).put("ab", b"a graph", kind)
    path.write_bytes(left)
    store = ForwardStore(tmp_path)
    assert store.find("ab", kind) is None
    assert not path.exists()
    assert store.put("ab", b"a graph", kind) == ForwardStore(tmp_path).find("ab", kind)


def test_a_file_and_its_folder_are_synced_before_it_is_believed(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        forward_store, "sync", lambda path: synced.append((path.suffix, path.exists()))
    )
    ForwardStore(tmp_path).put("ab", b"a graph")
    assert synced == [(".draft", True), (tmp_path.suffix, True)]


def test_the_files_of_one_key_are_not_those_of_another(tmp_path):
    store = ForwardStore(tmp_path)
    path = store.put("ab", b"a graph")
    assert store.find("ab") == path
    assert store.find("ab", STEP) is None
    assert store.find("a") is None


def test_a_file_of_another_user_is_used_without_noting_it(tmp_path, monkeypatch):
    path = ForwardStore(tmp_path).put("ab", b"a graph")

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    assert ForwardStore(tmp_path).find("ab") == path


def test_a_file_that_cannot_be_read_is_as_if_missing_and_stays(tmp_path, monkeypatch):
    path = ForwardStore(tmp_path).put("ab", b"a graph")

    def refuse(*_, **__):
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.open", refuse)
        assert ForwardStore(tmp_path).find("ab") is None
    assert path.exists()


def test_the_store_forgets_what_was_used_longest_ago(tmp_path):
    store = ForwardStore(tmp_path / "graphs")
    for number in range(MAX_GRAPHS + 3):
        path = store.put(f"{number:04}", b"x", STEP if number % 2 else FORWARD)
        os.utime(path, ns=(number, number))
    assert len(list(store.folder.iterdir())) == MAX_GRAPHS
    assert store.find("0000") is None
    assert store.folder.stat().st_mode & 0o077 == 0


def test_a_graph_that_cannot_be_stored_leaves_nothing(tmp_path, monkeypatch):
    store = ForwardStore(tmp_path / "graphs")
    first = store.put("a", b"x")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        store.put("b", b"y")
    assert list(store.folder.iterdir()) == [first]
