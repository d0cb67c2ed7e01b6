"""Pulls: every object arrives intact through a bad network, within the budget."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import PayloadError
from schemas.limits import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES
from schemas.topics import Address, Kind, Topic
from transport.assembly import ObjectMismatchError
from transport.events import Outgoing
from transport.objects import ObjectStore, describe
from transport.puller import Puller, PullRefusedError

CHUNK = MIN_CHUNK_BYTES
XFER = "0" * 32


def some_object(seed, chunks=3, extra=5):
    data = np.random.default_rng(seed).bytes((chunks - 1) * CHUNK + extra)
    return data, *describe(data, CHUNK)


def ask_for(key, want, credit):
    """Ask in a way that the tests can read back: the key and the chunks are the payload."""
    assert 1 <= len(want) <= credit
    topic = Topic(Kind.NEED, Address("eu", "dev"), xfer=XFER)
    return Outgoing(topic, f"{key}:{','.join(map(str, want))}".encode())


def asked(outgoing):
    """Return (key, chunk) of everything that some messages ask for."""
    found = []
    for message in outgoing:
        key, _, want = message.payload.decode().partition(":")
        found.extend((key, int(k)) for k in want.split(","))
    return found


def start(puller, key, described, now_s=0.0, **options):
    _, manifest, tail = described
    return puller.start(key, manifest, tail, partial(ask_for, key), now_s, **options)


def cut(described, k):
    return described[0][k * CHUNK : (k + 1) * CHUNK]


@pytest.fixture
def store(tmp_path):
    return ObjectStore(tmp_path)


@pytest.fixture
def puller(store):
    return Puller(store, credit=2)


def test_each_chunk_that_arrives_is_followed_by_the_next_request(puller, store):
    described = some_object(1, chunks=4)
    progress = start(puller, "a", described)
    assert asked(progress.outgoing) == [("a", 0), ("a", 1)]
    progress = puller.chunk("a", 0, cut(described, 0), 0.1)
    assert asked(progress.outgoing) == [("a", 2)]
    assert progress.completed is None
    for k in (1, 2, 3):
        progress = puller.chunk("a", k, cut(described, k), 0.1)
    assert progress.completed == described[1].sha256
    assert store.read(described[1].sha256) == described[0]


def test_completion_is_told_again_until_it_is_forgotten(puller, store):
    described = some_object(1, chunks=1)
    start(puller, "a", described)
    for _ in range(2):
        assert puller.chunk("a", 0, cut(described, 0), 0.1).completed == described[1].sha256
    assert start(puller, "a", described).completed == described[1].sha256
    puller.forget("a")
    assert puller.chunk("a", 0, cut(described, 0), 0.1).completed is None
    assert store.has(described[1].sha256)


def test_an_object_that_is_already_there_is_not_fetched(puller, store):
    described = some_object(1)
    store.put(described[0], durable=False)
    progress = start(puller, "a", described)
    assert (progress.completed, progress.outgoing) == (described[1].sha256, ())
    assert puller.keys() == ()


def test_an_inline_object_completes_at_once(puller, store):
    manifest, tail = describe(b"small", inline=True)
    progress = start(puller, "a", (b"small", manifest, tail))
    assert store.read(progress.completed) == b"small"


def test_an_inline_object_with_another_digest_is_refused(puller, store):
    manifest, _ = describe(b"small", inline=True)
    with pytest.raises(PayloadError, match="sha256"):
        start(puller, "a", (b"", manifest, b"smaLl"))
    assert store.sizes() == {}


def test_a_damaged_chunk_is_asked_for_again(puller):
    described = some_object(1, chunks=1)
    start(puller, "a", described)
    with pytest.raises(PayloadError):
        puller.chunk("a", 0, b"x" * len(described[0]), 0.1)
    assert puller.due(0.5) == []
    assert asked(puller.due(1.0)) == [("a", 0)]


def test_a_manifest_that_lies_ends_the_pull(puller):
    data, manifest, tail = some_object(1, chunks=1)
    lie = manifest.model_copy(update={"sha256": "0" * 64})
    start(puller, "a", (data, lie, tail))
    with pytest.raises(ObjectMismatchError):
        puller.chunk("a", 0, data, 0.1)
    assert puller.keys() == ()


def test_a_restart_fetches_only_what_is_missing(store):
    described = some_object(1, chunks=4)
    first = Puller(store)
    start(first, "a", described)
    for k in (0, 2):
        first.chunk("a", k, cut(described, k), 0.1)
    second = Puller(store)
    assert asked(start(second, "a", described).outgoing) == [("a", 1), ("a", 3)]


def test_a_restart_after_the_last_chunk_completes_at_once(store):
    described = some_object(1, chunks=2)
    store.part_path("a", described[1].sha256).write_bytes(described[0])
    progress = start(Puller(store), "a", described)
    assert (progress.completed, progress.outgoing) == (described[1].sha256, ())


def test_a_full_disk_at_the_end_is_made_good_by_the_repeated_chunk(store, monkeypatch):
    described = some_object(1, chunks=2)
    puller = Puller(store)
    start(puller, "a", described)
    puller.chunk("a", 0, cut(described, 0), 0.1)

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "adopt", full)
        with pytest.raises(OSError, match="space"):
            puller.chunk("a", 1, cut(described, 1), 0.2)
    assert puller.chunk("a", 1, cut(described, 1), 0.3).completed == described[1].sha256
    assert store.verify(described[1].sha256)


def test_two_pulls_of_the_same_object_do_not_disturb_each_other(puller, store):
    described = some_object(1, chunks=2)
    for key in ("a", "b"):
        start(puller, key, described)
    for k in (0, 1):
        first = puller.chunk("a", k, cut(described, k), 0.1)
    second = [puller.chunk("b", k, cut(described, k), 0.1) for k in (1, 0)][-1]
    assert first.completed == second.completed == described[1].sha256
    assert store.verify(described[1].sha256)


def test_another_object_under_the_same_key_replaces_the_first(puller, store):
    first, second = some_object(1), some_object(2)
    start(puller, "a", first)
    puller.chunk("a", 0, cut(first, 0), 0.1)
    start(puller, "a", second)
    assert not store.part_path("a", first[1].sha256).exists()
    with pytest.raises(PayloadError):
        puller.chunk("a", 0, cut(first, 0), 0.1)


def test_a_forgotten_pull_leaves_no_part_file(puller, store):
    described = some_object(1)
    start(puller, "a", described)
    puller.forget("a")
    puller.forget("a")
    assert not store.part_path("a", described[1].sha256).exists()
    assert puller.due(100.0) == []


def test_too_many_pulls_are_refused_with_a_time(store):
    puller = Puller(store, max_pulls=2)
    for number in range(2):
        start(puller, str(number), some_object(number))
    with pytest.raises(PullRefusedError, match="2 are under way") as refusal:
        start(puller, "2", some_object(2))
    assert refusal.value.retry_after_s > 0
    start(puller, "1", some_object(1))


def test_a_budget_below_one_chunk_is_refused(store):
    with pytest.raises(ValueError, match="budget_bytes"):
        Puller(store, budget_bytes=MAX_CHUNK_BYTES - 1)


def test_pulls_that_wait_for_budget_go_on_when_others_free_it(store):
    puller = Puller(store, budget_bytes=MAX_CHUNK_BYTES, credit=64)
    full = MAX_CHUNK_BYTES // CHUNK
    first, second = some_object(1, chunks=full), some_object(2, chunks=2)
    assert len(asked(start(puller, "a", first).outgoing)) == full
    assert start(puller, "b", second).outgoing == ()
    assert asked(puller.chunk("a", 0, cut(first, 0), 0.1).outgoing) == [("b", 0)]


def test_dead_senders_do_not_use_up_the_budget(store):
    puller = Puller(store, budget_bytes=MAX_CHUNK_BYTES, credit=4)
    for number in range(40):
        start(puller, f"dead-{number}", some_object(number))
    for second in range(1, 100):
        puller.due(float(second))
    alive = some_object(99, chunks=3)
    start(puller, "alive", alive, 100.0)
    now_s, done, waiting = 100.0, False, []
    while not done and now_s < 130.0:
        now_s += 0.25
        waiting += [k for key, k in asked(puller.due(now_s)) if key == "alive"]
        for k in waiting:
            progress = puller.chunk("alive", k, cut(alive, k), now_s)
            done = done or progress.completed is not None
            waiting = [k for key, k in asked(progress.outgoing) if key == "alive"]
    assert done


def test_a_returning_counterpart_is_asked_at_once(puller):
    start(puller, "a", some_object(1))
    start(puller, "b", some_object(2))
    for second in range(1, 40):
        puller.due(float(second))
    assert puller.due(39.5) == []
    assert asked(puller.wake(39.5, {"b"})) == [("b", 0), ("b", 1)]
    assert asked(puller.wake(39.5)) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def test_a_repeated_manifest_wakes_a_silent_pull_but_not_a_lively_one(puller):
    described = some_object(1, chunks=4)
    start(puller, "a", described)
    puller.chunk("a", 0, cut(described, 0), 0.5)
    assert start(puller, "a", described, 0.6).outgoing == ()
    assert asked(start(puller, "a", described, 1.6).outgoing) == [("a", 1), ("a", 2)]


def test_a_listener_asks_only_when_the_multicast_falls_silent(puller):
    described = some_object(1, chunks=6)
    assert start(puller, "a", described, patience_s=2.0).outgoing == ()
    assert puller.next_due_s() == 2.0
    assert puller.chunk("a", 0, cut(described, 0), 1.5).outgoing == ()
    assert puller.due(3.4) == []
    assert asked(puller.due(3.5)) == [("a", 1), ("a", 2)]
    assert asked(puller.chunk("a", 1, cut(described, 1), 3.6).outgoing) == [("a", 3)]
    assert puller.chunk("a", 5, cut(described, 5), 3.7).outgoing == ()
    assert puller.due(5.6) == []
    assert asked(puller.due(5.7)) == [("a", 2)]


def test_a_multicast_that_begins_late_ends_the_asking(puller):
    described = some_object(1, chunks=6)
    start(puller, "a", described, patience_s=1.0)
    assert asked(puller.due(1.0)) == [("a", 0), ("a", 1)]
    for k in range(5):
        data = cut(described, k)
        assert puller.chunk("a", k, data, 2.0 + 0.1 * k, is_multicast=True).outgoing == ()
    assert puller.due(3.3) == []
    assert asked(puller.due(3.4)) == [("a", 5)]


def test_idle_pulls_expire_and_resume_from_their_part_file(puller):
    described = some_object(1, chunks=3)
    start(puller, "a", described)
    puller.chunk("a", 0, cut(described, 0), 50.0)
    assert puller.expire(600.0) == []
    assert puller.expire(650.0) == ["a"]
    assert asked(start(puller, "a", described, 700.0).outgoing) == [("a", 1), ("a", 2)]


def test_the_share_that_is_there_is_told(puller):
    described = some_object(1, chunks=4)
    start(puller, "a", described)
    puller.chunk("a", 2, cut(described, 2), 0.1)
    assert puller.share("a") == 0.25
    assert puller.share("b") is None


OBJECTS = [some_object(seed, chunks) for seed, chunks in ((1, 1), (2, 4), (3, 7), (3, 7), (4, 18))]
KEYS = {f"k{number}": described for number, described in enumerate(OBJECTS)}


class BadNetwork:
    """Senders that offer every 20 s, a receiver that restarts, and a network that does its worst.

    The third and the fourth object are the same.
    """

    budget_bytes = MAX_CHUNK_BYTES

    def __init__(self, root, seed, rates):
        self.root = root
        self.rng = np.random.default_rng(seed)
        self.rates = rates
        self.now_s = 0.0
        self.requests = []
        self.whole = {}
        self.restart()

    def restart(self):
        self.store = ObjectStore(self.root)
        self.puller = Puller(self.store, budget_bytes=self.budget_bytes)
        self.offered_s = dict.fromkeys(KEYS, self.now_s)

    def happens(self, what):
        return self.rng.random() < self.rates[what]

    def step(self):
        self.now_s += 0.2
        if self.happens("restart"):
            self.restart()
        for key, described in KEYS.items():
            if key not in self.whole and self.offered_s[key] <= self.now_s:
                self.offered_s[key] = self.now_s + 20.0
                self.note(key, start(self.puller, key, described, self.now_s))
        self.travel(self.puller.due(self.now_s))
        for _ in range(min(len(self.requests), 6)):
            self.deliver(*self.requests.pop(int(self.rng.integers(len(self.requests)))))

    def travel(self, outgoing):
        assert self.puller.in_flight_bytes <= self.budget_bytes
        for request in asked(outgoing):
            copies = (not self.happens("loss")) + self.happens("repeat")
            self.requests.extend([request] * copies)

    def deliver(self, key, k):
        data = cut(KEYS[key], k)
        if self.happens("damage"):
            data = data[:-1] + bytes([data[-1] ^ 1])
            if key in self.puller.keys():  # noqa: SIM118 - a method, not a dictionary
                with pytest.raises(PayloadError):
                    self.puller.chunk(key, k, data, self.now_s)
            return
        self.note(key, self.puller.chunk(key, k, data, self.now_s))

    def note(self, key, progress):
        self.travel(progress.outgoing)
        if progress.completed:
            self.whole[key] = progress.completed
            self.puller.forget(key)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    loss=st.floats(0.0, 0.4),
    repeat=st.floats(0.0, 0.4),
    damage=st.floats(0.0, 0.2),
    restart=st.floats(0.0, 0.03),
)
def test_every_object_arrives_intact_through_a_bad_network(seed, **rates):
    with tempfile.TemporaryDirectory() as root:
        network = BadNetwork(Path(root), seed, rates)
        while len(network.whole) < len(KEYS):
            network.step()
            assert network.now_s < 3000.0, "some object never arrived"
        for key, sha256 in network.whole.items():
            assert network.store.read(sha256) == KEYS[key][0]
        assert list(Path(root).glob("parts/*")) == []
