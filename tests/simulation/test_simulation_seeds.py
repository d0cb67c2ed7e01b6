"""Some seeds in every run of the tests; ``make simulate`` runs ten thousand."""

import subprocess
import sys

import pytest

from tests.simulation.__main__ import play, run_many
from tests.simulation.mutate import MUTANTS, hunt
from tests.simulation.observed import ViolationError
from tests.simulation.swarm import Swarm, swarm_of
from tests.simulation.world import World, silence_logs
from tests.support.brokers import REPOSITORY

SEEDS = 150
TRACED = (7, 38, 163)
#: Planted bugs that few seeds find; ``make mutants`` plants all.
QUICK = (
    "a device forgets its update once it is published",
    "what was due when central stopped is not taken up again",
    "updates are deduplicated by the id of their frame, not by task, round and device",
    "the number of examples is left out of the mean",
    "a late update is refused, and the refusal not written",
)


@pytest.fixture(autouse=True)
def _quiet():
    silence_logs()


@pytest.mark.slow
def test_no_promise_is_broken_in_some_hundred_worlds(capsys):
    assert run_many(0, SEEDS, processes=2) == 0
    said = capsys.readouterr().out
    assert f"{SEEDS} seeds" in said
    assert "0 violations" in said


@pytest.mark.parametrize("seed", TRACED)
def test_the_trace_of_a_seed_is_the_same_in_two_runs(seed, tmp_path):
    first, again = (play(seed, tmp_path, keep_trace=True)[1].work.trace for _ in range(2))
    assert len(first.lines) > 50
    assert first.lines == again.lines


def test_the_trace_of_a_seed_is_the_same_in_another_process_with_other_hashes():
    def trace(hash_seed):
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", str(TRACED[0])],
            capture_output=True,
            text=True,
            check=True,
            cwd=REPOSITORY,
            env={"PYTHONHASHSEED": hash_seed, "PATH": ""},
        )
        return done.stdout

    first = trace("1")
    assert "every promise was kept" in first
    assert first == trace("2")


def test_a_seed_does_not_depend_on_the_seeds_before_it(tmp_path):
    alone = play(11, tmp_path, keep_trace=True)[1].work.trace.digest()
    for seed in (1, 2, 3):
        play(seed, tmp_path)
    assert play(11, tmp_path, keep_trace=True)[1].work.trace.digest() == alone


def test_a_violation_is_told_with_its_seed(monkeypatch, capsys):
    def break_it(self):
        rule = "double"
        raise ViolationError(rule, "on purpose")

    monkeypatch.setattr(World, "settle", break_it)
    assert run_many(5, 1, processes=1) == 1
    told = capsys.readouterr().err
    assert "seed 5: double: on purpose" in told
    assert "make simulate SEED=5" in told


def test_seeds_bring_every_kind_of_bad_luck():
    seen = [swarm_of(seed) for seed in range(2000)]
    for name in Swarm.__dataclass_fields__:
        assert len({getattr(swarm, name) for swarm in seen}) > 1, name
    assert max(swarm.loss for swarm in seen) == 0.5
    assert max(swarm.duplicate for swarm in seen) == 0.3


def test_there_are_at_least_twenty_planted_bugs_and_no_two_of_one_name():
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) >= 20
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_found(name):
    (mutant,) = [one for one in MUTANTS if one.name == name]
    kill = hunt(mutant, limit=120)
    assert kill.seeds is not None
