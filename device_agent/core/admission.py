"""Whether this device takes a job: what is known here against what central asks.

Checked in this order, the first misfit is the answer: busy, policy, battery, memory, data, model.
"""

from dataclasses import dataclass

from device_agent.core.backend import ONNX, choose
from device_agent.core.job import Refusal
from device_agent.core.memory import needed_bytes
from device_agent.core.policy import LocalPolicy, refuse
from schemas.limits import MIB
from schemas.messages import DataDescription, TrainingPlan


@dataclass(frozen=True, slots=True)
class Situation:
    """The device at the moment a job is offered.

    Attributes:
        policy: What its owner allows.
        data: Its data sources.
        models: Names of the models that it can build.
        backends: Its trainers' names, best first.
        memory_free_bytes: What a job could use now.
        is_warm: Whether the training library is loaded already.
        local_minutes: Minutes since local midnight.
        busy_with: Task that it works for, if any.
        is_draining: Whether it was told to take no new work.
        battery_percent: How full its battery is; None: it has none.
        is_plugged: Whether that is being charged.
    """

    policy: LocalPolicy
    data: tuple[DataDescription, ...]
    models: frozenset[str]
    backends: tuple[str, ...]
    memory_free_bytes: int
    is_warm: bool
    local_minutes: int
    busy_with: str | None = None
    is_draining: bool = False
    battery_percent: int | None = None
    is_plugged: bool = False


def refusal(
    task: str, plan: TrainingPlan, situation: Situation, graph_bytes: int | None = None
) -> Refusal | None:
    """Return why the device does not take a job, or None when it does.

    Args:
        task: Whose job it is.
        plan: What is asked.
        situation: The device now.
        graph_bytes: Size of the job's training graph; None: it has none.
    """
    backend = choose(plan, situation.backends, has_graph=graph_bytes is not None)
    examples = sum(source.examples for source in situation.data if source.name == plan.data)
    return (
        _busy(task, situation)
        or refuse(situation.policy, task, plan, examples, situation.local_minutes)
        or _battery(plan, situation)
        or _memory(plan, situation, backend, graph_bytes or 0)
        or _data(plan, situation)
        or _model(plan, situation, backend)
    )


def _busy(task: str, situation: Situation) -> Refusal | None:
    if situation.is_draining:
        return Refusal("busy", "draining: no new jobs until a restart")
    if situation.busy_with not in {None, task}:
        return Refusal("busy", f"at work for task {situation.busy_with}")
    return None


def _battery(plan: TrainingPlan, situation: Situation) -> Refusal | None:
    own, asked = situation.policy.limits.battery_floor_percent, plan.requires.battery_percent
    floor, found = max(own or 0, asked or 0), situation.battery_percent
    if found is None or situation.is_plugged or found >= floor:
        return None
    return Refusal("battery", f"{found} %, at least {floor} are needed while it is not charged")


def _memory(
    plan: TrainingPlan, situation: Situation, backend: str | None, graph_bytes: int
) -> Refusal | None:
    asked = (plan.requires.memory_mb or 0) * MIB
    needed = (
        max(needed_bytes(plan, backend, graph_bytes, is_warm=situation.is_warm), asked)
        + situation.policy.min_free_memory_mb * MIB
    )
    most = situation.policy.limits.memory_bytes
    if most is not None and needed - situation.policy.min_free_memory_mb * MIB > most:
        return Refusal(
            "memory", f"limits.memory_bytes: {needed // MIB} MiB needed, {most // MIB} allowed"
        )
    if needed <= situation.memory_free_bytes:
        return None
    return Refusal(
        "memory", f"{needed // MIB} MiB needed, {situation.memory_free_bytes // MIB} MiB free"
    )


def _data(plan: TrainingPlan, situation: Situation) -> Refusal | None:
    source = next((one for one in situation.data if one.name == plan.data), None)
    if source is None:
        return Refusal("data", f"data: no source {plan.data!r} on this device")
    if source.shape != plan.input_shape:
        return Refusal("data", f"input_shape: {plan.input_shape} asked, here {source.shape}")
    if source.classes != plan.classes:
        return Refusal("data", f"classes: {plan.classes} asked, here {source.classes}")
    if source.examples == 0:
        return Refusal("data", f"data: source {plan.data!r} holds no example")
    return None


def _model(plan: TrainingPlan, situation: Situation, backend: str | None) -> Refusal | None:
    # A training graph brings all of its model; any other backend must know how to build it.
    if backend != ONNX and plan.model not in situation.models:
        return Refusal("model", f"model: {plan.model!r} is not known on this device")
    if not situation.backends and not plan.training.is_drill:
        return Refusal("model", "no training library is installed: only drills")
    if plan.requires.backend is not None and plan.requires.backend not in situation.backends:
        return Refusal("model", f"backend: {plan.requires.backend!r} is not on this device")
    if backend is None:
        return Refusal("model", f"backend: {situation.backends[0]} needs a training graph")
    return None
