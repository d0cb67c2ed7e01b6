"""What a job that is offered is measured against: the owner's policy, the data, the hardware."""

from collections.abc import Callable
from dataclasses import dataclass

from device_agent.core import policy as owner
from device_agent.core.admission import Situation, refusal
from device_agent.core.backend import choose
from device_agent.core.job import Refusal
from device_agent.core.policy import LocalPolicy
from device_agent.service.ports import Machine, Vitals, Worker
from schemas.messages import Assignment, DataDescription, TrainingPlan


@dataclass(slots=True)
class Surroundings:
    """This device, as far as it decides whether a job is taken.

    Attributes:
        policy: What its owner allows.
        data: Its data sources.
        models: Names of the models that it can build.
        machine: Its hardware.
        worker: Its training thread.
        local_minutes: Unix seconds -> minutes since local midnight.
        is_draining: Whether it was told to take no new work until a restart.
    """

    policy: LocalPolicy
    data: tuple[DataDescription, ...]
    models: frozenset[str]
    machine: Machine
    worker: Worker
    local_minutes: Callable[[float], int]
    is_draining: bool = False

    def refusal(
        self, assignment: Assignment, busy_with: str | None, now_s: float
    ) -> Refusal | None:
        """Return why a job is not taken now, or None.

        Args:
            assignment: The job.
            busy_with: Task that the device works for, if any.
            now_s: Now, unix seconds.
        """
        vitals = self._vitals(assignment.plan)
        situation = Situation(
            policy=self.policy,
            data=self.data,
            models=self.models,
            backends=self.machine.capabilities().backends,
            memory_free_bytes=self.machine.memory_free_bytes(),
            is_warm=self.worker.is_warm,
            local_minutes=self.local_minutes(now_s),
            busy_with=busy_with,
            is_draining=self.is_draining,
            battery_percent=vitals.battery_percent if vitals else None,
            is_plugged=vitals is not None and vitals.is_plugged,
        )
        graph_bytes = None if assignment.graph is None else assignment.graph.size
        return refusal(assignment.task, assignment.plan, situation, graph_bytes)

    def _vitals(self, plan: TrainingPlan) -> Vitals | None:
        """Read the sensors where the battery matters; else that would only cost."""
        floors = (self.policy.limits.battery_floor_percent, plan.requires.battery_percent)
        return self.machine.vitals() if any(floors) else None

    def backend(self, plan: TrainingPlan, *, has_graph: bool) -> str | None:
        """Return what this device does a job with; None: with nothing that it has."""
        return choose(plan, self.machine.capabilities().backends, has_graph=has_graph)

    def cut(self, plan: TrainingPlan) -> TrainingPlan:
        """Return the plan with no more epochs than the owner allows."""
        examples = sum(one.examples for one in self.data if one.name == plan.data)
        return owner.cut(self.policy, plan, examples)
