"""What a fleet is put through while a failpoint is armed, so that its victim comes by there.

An act is a list of steps; the steps of one life of the victim end when the victim does.
"""

from collections.abc import Iterator

from tests.support.failpoint_play import DEVICES, ROUNDS, SMALL, Play, Step, is_done, one_task

TIMES = 3
_TRAINED = {"epochs": 1, "batch_size": 32}
#: An update of 0.76 MB: three chunks.
_MLP = {"model": "mlp", "model_params": {"hidden": [400, 400]}}
_LARGE = {**_MLP, "codec": "raw-f32"}

small = one_task(**SMALL)
trained = one_task(**SMALL, training=_TRAINED)
long_drill = one_task(**SMALL, rounds=4 * ROUNDS)
long_trained = one_task(**SMALL, rounds=4 * ROUNDS, training=_TRAINED)
compressed = one_task(**SMALL, training=_TRAINED, downlink={"codec": "topk"})
stateful = one_task(**SMALL, training={**_TRAINED, "keep_state": True})
remembering = one_task(**SMALL, codec="laq")
remembering_much = one_task(**_MLP, codec="topk", training=_TRAINED)
large = one_task(**_LARGE, training=_TRAINED)
#: Two of three updates of 2.6 KB fit.
budgeted = one_task(**SMALL, training=_TRAINED, codec="raw-f32", uplink_budget_bits=44_000)
late = one_task(**SMALL, training=_TRAINED, min_clients=2, cohort=3)
late_large = one_task(**_LARGE, training=_TRAINED, min_clients=2, cohort=3, rounds=12)


def many(play: Play) -> Iterator[Step]:
    """Three tasks of one round in each life."""
    for _ in range(TIMES):
        yield lambda: play.submit(**SMALL, rounds=1)
    names = list(play.tasks)
    yield lambda: play.until(lambda: all(is_done(play, name) for name in names))


def many_trained(play: Play) -> Iterator[Step]:
    """Three tasks of one round in each life, one after another: building a graph takes a while."""
    for _ in range(TIMES):
        yield lambda: play.submit(**SMALL, rounds=1, training=_TRAINED)
        yield lambda: play.until(lambda: all(is_done(play, name) for name in play.tasks))


def three(play: Play) -> Iterator[Step]:
    """Three tasks side by side, over all lives of the victim."""
    if not play.tasks:
        for _ in range(TIMES):
            yield lambda: play.submit(**SMALL)


def cancels(play: Play) -> Iterator[Step]:
    """Tasks that are cancelled in the middle, three in each life."""
    for _ in range(TIMES):
        name = play.submit(**SMALL, rounds=100_000)
        play.cancelled.add(name)
        yield lambda name=name: play.until(play.committed(name, 1))
        yield lambda name=name: play.fleet.control(name, "cancel")
        yield lambda name=name: play.until(lambda: is_done(play, name))


def pauses(play: Play) -> Iterator[Step]:
    """A task that is paused and resumed twice in each life."""
    if not play.tasks:
        yield lambda: play.submit(**SMALL, rounds=30)
    for action in ("pause", "resume", "pause", "resume"):
        yield lambda action=action: play.fleet.control(next(iter(play.tasks)), action)


def abandons(play: Play) -> Iterator[Step]:
    """A device dies in three rounds of each life, which cannot end without it."""
    task = {**SMALL, "rounds": 100_000, "on_shortfall": "abandon"}
    fleet, last = play.fleet, DEVICES[-1]
    name = play.submit(**task)
    play.cancelled.add(name)
    yield lambda: play.until(play.committed(name, 1))
    for _ in range(TIMES):
        before = play.newest(name).get("abandoned", 0)
        yield lambda: fleet.freeze(last)
        yield lambda: play.until(lambda: play.newest(name).get("reported", 0) >= len(DEVICES) - 1)
        yield lambda: fleet.kill(last)
        fleet.program(last).start()
        yield lambda before=before: play.until(
            lambda: play.newest(name).get("abandoned", 0) > before
        )
        rounds = play.newest(name).get("committed", 0) + 1
        yield lambda rounds=rounds: play.until(play.committed(name, rounds))
    fleet.control(name, "cancel")


def leftovers(play: Play) -> Iterator[Step]:
    """Tasks that are under way when the victim starts."""
    if not play.life:
        for _ in range(TIMES):
            play.submit(**SMALL, rounds=40)
        for name in play.tasks:
            play.until(play.committed(name, 1))
    yield lambda: None
