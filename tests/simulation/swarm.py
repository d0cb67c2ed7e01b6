"""What kind of bad luck a seed brings: swarm testing, after Groce et al., ISSTA 2012.

Every seed leaves most faults out, so that those that are left can be plenty.
"""

import random
from dataclasses import dataclass, replace

YEAR_S = 365.25 * 86_400.0


@dataclass(frozen=True, slots=True)
class Swarm:
    """The size of a world, and how often what goes wrong in it; probabilities are 0 to 1."""

    regions: int = 1
    devices: int = 3
    tasks: int = 1
    rounds: int = 2
    #: How long faults go on, simulated seconds; then the world heals.
    faulty_s: float = 150.0
    loss: float = 0.0
    duplicate: float = 0.0
    #: Longest delay of a message, seconds; different ones reorder.
    delay_s: float = 0.02
    #: Of each effect of a program (statement, commit, publish, ack, fsync): it is killed there.
    crash: float = 0.0
    #: A crash is a power cut: what was not synced is torn or gone.
    power_cut: float = 0.0
    #: A second: somebody's connection breaks / one direction of it goes dumb.
    cut: float = 0.0
    dumb: float = 0.0
    #: A second: a broker is killed; whether it forgets its sessions.
    broker_kill: float = 0.0
    broker_forgets: float = 1.0
    #: A second: a program's disk is full for a while.
    full_disk: float = 0.0
    #: A second: a device leaves for long, without a word.
    leave: float = 0.0
    #: At a start: the clock has jumped by up to ten years either way.
    clock_jump: float = 0.0
    #: A second: central or a gateway is backed up, or begins from its last backup.
    restore: float = 0.0
    #: Programs that speak with fields that the others do not know.
    newer: float = 0.0
    #: Updates and models above what rides inline.
    large: bool = False
    #: A second: a person pauses, resumes or cancels.
    meddle: float = 0.0
    #: The update of a device is not finite, of another layout, or too long.
    poison: float = 0.0
    on_shortfall: str = "extend"
    unlike_brokers: bool = False
    #: Whether devices need a second object, a training graph.
    graphs: bool = True
    #: What devices keep from round to round: ``none``, ``feedback`` or ``lazy``.
    memory: str = "none"
    #: Whether new models travel as deltas; then there are rounds enough for some.
    compressed: bool = False
    #: Whether a last task is asked for when all is well again, which every device must take part in.
    probe: bool = True


def swarm_of(seed: int) -> Swarm:
    """Return the bad luck of a seed."""
    rng = random.Random(f"swarm-{seed}")
    pick = rng.choice

    def sometimes(probability: float, *values: float) -> float:
        return pick(values) if rng.random() < probability else 0.0

    is_large = rng.random() < 0.02
    memory = random.Random(f"memory-{seed}").choice(("none", "none", "feedback", "lazy"))
    more = 0 if memory == "none" else 2  # rounds, in which a memory may be in force
    drawn = Swarm(
        regions=pick((1, 2, 2)) if is_large else pick((1,) * 9 + (2,)),
        devices=pick((3, 4)) if is_large else pick((1, 1, 1, 1, 2, 2, 2, 3)),
        tasks=pick((1, 2)) if is_large else 1,
        rounds=more + (pick((2, 3)) if is_large else pick((1, 1, 1, 1, 1, 1, 2))),
        memory=memory,
        faulty_s=pick((60.0, 90.0)) if is_large else pick((8.0, 15.0, 25.0)),
        loss=sometimes(0.6, 0.02, 0.1, 0.25, 0.5),
        duplicate=sometimes(0.5, 0.05, 0.1, 0.3),
        delay_s=pick((0.02, 0.2, 0.2, 2.0, 5.0)),
        crash=sometimes(0.6, 0.001, 0.004, 0.01),
        power_cut=pick((0.0, 0.5, 1.0)),
        cut=sometimes(0.4, 0.01, 0.05),
        dumb=sometimes(0.3, 0.01, 0.03),
        broker_kill=sometimes(0.3, 0.005, 0.02),
        broker_forgets=pick((1.0, 1.0, 0.0)),
        full_disk=sometimes(0.25, 0.005, 0.02),
        leave=sometimes(0.3, 0.005, 0.02),
        clock_jump=sometimes(0.3, 0.2, 0.6),
        restore=sometimes(0.2, 0.02, 0.06),
        newer=sometimes(0.2, 0.5, 1.0),
        large=rng.random() < 0.03,
        meddle=sometimes(0.15, 0.01, 0.03),
        poison=sometimes(0.15, 0.05, 0.2),
        on_shortfall=pick(("extend", "abandon")),
        probe=rng.random() < 0.07,
        unlike_brokers=rng.random() < 0.2,
        graphs=rng.random() < 0.25,
        compressed=rng.random() < 0.15,
    )
    return replace(drawn, rounds=drawn.rounds + 2) if drawn.compressed else drawn
