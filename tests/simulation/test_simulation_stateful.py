"""The same fleet under Hypothesis: it chooses the faults, and a failure shrinks to the fewest.

``FEDFLEET_STATEFUL_EXAMPLES=2000 pytest tests/simulation/test_simulation_stateful.py`` looks for
longer.
"""

import os
from dataclasses import replace

import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.simulation.swarm import YEAR_S, Swarm
from tests.simulation.world import World, silence_logs

EXAMPLES = int(os.environ.get("FEDFLEET_STATEFUL_EXAMPLES", "60"))
picks = st.integers(0, 7)


class FleetUnderFaults(RuleBasedStateMachine):
    """Faults one by one, time in between; in the end all heals and must come to its end."""

    world: World | None = None

    @initialize(
        seed=st.integers(0, 1 << 20),
        devices=st.integers(1, 3),
        regions=st.integers(1, 2),
        loss=st.sampled_from([0.0, 0.0, 0.2]),
        duplicate=st.sampled_from([0.0, 0.3]),
        delay_s=st.sampled_from([0.02, 2.0]),
        power_cut=st.sampled_from([0.0, 1.0]),
    )
    def begin(self, seed, devices, regions, **bad_luck):
        self.logs = structlog.get_config()
        silence_logs()
        swarm = replace(Swarm(), devices=devices, regions=regions, **bad_luck)
        self.world = World(seed, swarm)
        self.world.begin()
        self.world.run_for(4.0)

    def program(self, pick):
        programs = self.world.programs
        return programs[pick % len(programs)]

    def session(self, pick):
        sessions = [s for program in self.world.programs for s in program.sessions.values()]
        return sessions[pick % len(sessions)]

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 20.0, 70.0]))
    def let_time_pass(self, seconds):
        self.world.run_for(seconds)

    @rule(pick=picks)
    def kill(self, pick):
        self.program(pick).end("killed")

    @rule(pick=picks, effects=st.integers(1, 120))
    def kill_at_an_effect(self, pick, effects):
        self.program(pick).crash_in = effects

    @rule(pick=picks)
    def stop_in_order(self, pick):
        self.program(pick).leave()

    @rule(pick=picks, away_s=st.sampled_from([0.5, 10.0, 60.0]))
    def cut(self, pick, away_s):
        self.session(pick)._broker.cut(self.session(pick), away_s)

    @rule(pick=picks, seconds=st.sampled_from([2.0, 30.0]), up=st.booleans())
    def go_dumb(self, pick, seconds, up):
        until_s = self.world.work.now_s + seconds
        setattr(self.session(pick), "dumb_up_s" if up else "dumb_down_s", until_s)

    @rule(down_s=st.sampled_from([0.5, 20.0]), forgets=st.booleans())
    def kill_the_broker(self, down_s, forgets):
        self.world.broker_of(None).kill(down_s, forgets=forgets)

    @rule(pick=picks)
    def fill_a_disk(self, pick):
        self.world._fill_disk(self.program(pick))

    @rule(pick=picks, years=st.sampled_from([-10.0, -1.0, 0.0, 10.0]))
    def restart_with_another_clock(self, pick, years):
        program = self.program(pick)
        program.end("killed")
        program.clock_offset_s = years * YEAR_S

    @rule()
    def back_up_or_restore(self):
        self.world._back_up_or_restore()

    @rule()
    def meddle(self):
        self.world.person.meddle()

    @invariant()
    def no_promise_is_broken(self):
        if self.world is not None:
            self.world._raise_failure()

    def teardown(self):
        if self.world is None:
            return
        try:
            self.world.heal()
            self.world.settle()
        finally:
            self.world.close()
            structlog.configure(**self.logs)


TestFleetUnderFaults = FleetUnderFaults.TestCase
TestFleetUnderFaults.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
