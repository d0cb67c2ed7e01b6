"""The person in a simulated world: submits tasks until they are heard of, and meddles."""

import json
import random
from functools import partial
from typing import TYPE_CHECKING

from schemas.tasks import FINAL_STATES
from schemas.topics import Kind, Topic
from tests.simulation.network import Letter
from tests.simulation.tiny import DOWNLINK

if TYPE_CHECKING:
    from tests.simulation.world import World

_AGAIN_S = 25.0
#: Of an update as raw-f32.
_HEADER_BYTES = 12
#: Submitted when all is well again, for every device: it must be completed.
PROBE = "probe"
#: What central has forgotten, the person does not know: a final status may be an older one.
_INSISTS_S = 60.0

#: What a task asks for, by what its devices are to keep.
CODECS = {
    "none": {"codec": "raw-f32"},
    "feedback": {"codec": "topk", "codec_params": {"fraction": 0.4}},
    "lazy": {"codec": "laq"},
}


class Person:
    """Submits the seed's tasks; a message may be lost, so it is repeated."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._messages = {
            f"t{number + 1}": self._message(f"t{number + 1}")
            for number in range(world.swarm.tasks)
        }

    def begin(self) -> None:
        for name in self._messages:
            first_s = self._world.work.between(0.0, 0.3 * self._world.swarm.faulty_s)
            self._world.work.after(first_s, partial(self._submit, name))

    def heal(self) -> None:
        """Let what was paused go on, and ask for a last task that nothing may keep from ending."""
        for name in self._messages:
            self._world.work.after(1.0, partial(self._say, name, "resume"))
            self._world.work.after(1.0, partial(self._submit, name))
        if self._world.swarm.probe:
            self._messages[PROBE] = self._message(PROBE)
            self._world.work.after(2.0, partial(self._submit, PROBE))

    def meddle(self) -> None:
        name = self._world.work.rng.choice(list(self._messages))
        action = self._world.work.rng.choice(("pause", "resume", "pause", "resume", "cancel"))
        self._say(name, action)

    def unheard(self) -> list[str]:
        """Return the tasks whose retained status is not what it must come to."""
        return [
            f"{name} ({self._state(name)})"
            for name in self._messages
            if self._state(name) not in ({"completed"} if name == PROBE else FINAL_STATES)
        ]

    def _submit(self, name: str) -> None:
        state = self._state(name)
        is_enough = state in FINAL_STATES if self._world.is_healed else state is not None
        if is_enough and not self._world.work.chance(0.1):
            return
        self._publish(Topic(Kind.TASK_SUBMIT).name, self._messages[name])
        self._world.work.after(_AGAIN_S, partial(self._submit, name))

    def _say(self, name: str, action: str) -> None:
        self._world.note(None, f"the person says {action} to {name}")
        topic = Topic(Kind.TASK_CONTROL, task=name)
        self._publish(topic.name, json.dumps({"action": action}).encode())
        is_new = self._world.work.now_s < self._world.healed_s + _INSISTS_S
        if self._world.is_healed and (is_new or self._state(name) not in FINAL_STATES):
            self._world.work.after(_AGAIN_S, partial(self._say, name, action))

    def _publish(self, topic_name: str, payload: bytes) -> None:
        broker = self._world.broker_of(None)
        broker._route(Letter(topic_name, payload, 1), False, broker._life)

    def _state(self, name: str) -> str | None:
        payload = self._world.broker_of(None).retained.get(Topic(Kind.TASK_STATUS, task=name).name)
        return json.loads(payload)["state"] if payload else None

    def _message(self, name: str) -> bytes:
        world = self._world
        rng, swarm = world.work.rng, world.swarm
        is_probe = name == PROBE
        min_clients = swarm.devices if is_probe else rng.randint(1, swarm.devices)
        # Drawn apart from the world's luck, which stays what it was in seeds without a budget.
        luck = random.Random(f"budget-{world.seed}-{name}")
        update_bits = 8 * (4 * world.layout.size + _HEADER_BYTES)
        budget = luck.choice((None, None, update_bits, 2 * update_bits))
        fields = {
            "task": name,
            "model": "mlp",
            "data": "digits",
            "rounds": 1 if is_probe else swarm.rounds,
            "min_clients": min_clients,
            "cohort": rng.randint(min_clients, swarm.devices),
            "deadline_s": 40 if is_probe else rng.choice((20, 40, 90)),
            "selection_timeout_s": 3000 if is_probe else 60,
            "on_shortfall": "extend" if is_probe else swarm.on_shortfall,
            **CODECS[swarm.memory],
            **({"downlink": DOWNLINK.model_dump()} if swarm.compressed else {}),
            "requires": {"backend": world.backend},
            "strategy": "fedavg",
            "selection": rng.choice(("all", "random")),
            "seed": rng.randrange(1000),
            "uplink_budget_bits": None if is_probe or swarm.memory == "lazy" else budget,
            "budget_max_clock": luck.randint(1, 3),
            "budget_bid_share": luck.choice((0.0, 0.5, 1.0)),
        }
        return json.dumps(fields).encode()
