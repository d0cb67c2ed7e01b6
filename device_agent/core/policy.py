"""What the device's owner allows; central cannot override it.

Epochs are cut down to what is allowed, because fewer of them still give a useful update; every
other breach refuses the job with a reason.
"""

import re
from fnmatch import fnmatchcase

from pydantic import Field, field_validator

from device_agent.core.job import Refusal
from schemas.base import PersonMessage
from schemas.messages import TrainingPlan
from schemas.profiles import Limits
from schemas.tasks import Training

_FLOAT_BYTES = 4
_QUIET = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


class LocalPolicy(PersonMessage):
    """The owner's limits; what is not set is not limited."""

    tasks: tuple[str, ...] = Field(default=("*",), description="patterns of task ids")
    models: tuple[str, ...] = Field(default=("*",), description="patterns of model names")
    max_epochs: int | None = Field(default=None, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    max_examples: int | None = Field(
        default=None, ge=1, description="examples seen in one job, each time counted"
    )
    quiet_hours: str | None = Field(default=None, description="HH:MM-HH:MM local: no new jobs")
    max_update_bytes: int | None = Field(
        default=None, ge=1, description="of one encoded update; auto picks a codec below it"
    )
    min_free_memory_mb: int = Field(default=0, ge=0, description="MiB left free beside a job")
    metered_uploads: bool = Field(default=False, description="send updates on a metered link too")
    limits: Limits = Field(
        default=Limits(), description="beside the profile's: the stricter of both counts"
    )

    @field_validator("quiet_hours")
    @classmethod
    def _is_a_span(cls, value: str | None) -> str | None:
        if value is not None and _QUIET.fullmatch(value) is None:
            message = "must be HH:MM-HH:MM, for instance 22:00-06:00"
            raise ValueError(message)
        return value

    def is_quiet(self, local_minutes: int) -> bool:
        """Tell whether no new job may begin now.

        Args:
            local_minutes: Minutes since local midnight, 0 to 1439.
        """
        match = _QUIET.fullmatch(self.quiet_hours or "")
        if match is None:
            return False
        hours = [int(part) for part in match.groups()]
        start, end = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
        if start <= end:
            return start <= local_minutes < end
        return local_minutes >= start or local_minutes < end


def refuse(
    policy: LocalPolicy, task: str, plan: TrainingPlan, examples: int, local_minutes: int
) -> Refusal | None:
    """Return why the owner does not allow a job, or None.

    Args:
        policy: The owner's limits.
        task: Task id.
        plan: What central asks.
        examples: Examples that the device would train on.
        local_minutes: Minutes since local midnight.
    """
    reason = (
        _refuse_name("task", task, policy.tasks)
        or _refuse_name("model", plan.model, policy.models)
        or _refuse_time(policy, local_minutes)
        or _refuse_size(policy.limits, plan)
        or _refuse_work(policy, plan.training, examples)
    )
    return Refusal("policy", reason) if reason else None


def cut(policy: LocalPolicy, plan: TrainingPlan, examples: int) -> TrainingPlan:
    """Return the plan with no more epochs than the owner allows; the rest is as it was.

    Args:
        policy: The owner's limits; the plan was not refused by them.
        plan: What central asks.
        examples: Examples that the device trains on in one epoch.
    """
    training = plan.training
    if training.steps is not None or training.is_drill:
        return plan
    allowed = min(training.epochs, _epochs_allowed(policy, training.epochs, examples))
    if allowed == training.epochs:
        return plan
    training = training.model_copy(update={"epochs": allowed})
    return plan.model_copy(update={"training": training})


def _refuse_name(field: str, name: str, patterns: tuple[str, ...]) -> str | None:
    if any(fnmatchcase(name, pattern) for pattern in patterns):
        return None
    return f"{field}: {name!r} is not among {', '.join(patterns) or 'none'}"


def _refuse_time(policy: LocalPolicy, local_minutes: int) -> str | None:
    if policy.is_quiet(local_minutes):
        return f"quiet_hours: no new jobs in {policy.quiet_hours}"
    return None


def _refuse_size(limits: Limits, plan: TrainingPlan) -> str | None:
    model_bytes, batch = plan.parameters * _FLOAT_BYTES, plan.training.batch_size
    if limits.model_bytes is not None and model_bytes > limits.model_bytes:
        return f"limits.model_bytes: the model has {model_bytes}, at most {limits.model_bytes}"
    is_large = limits.batch_size is not None and batch > limits.batch_size
    if is_large and not plan.training.is_drill:
        return f"limits.batch_size: {batch} are asked, at most {limits.batch_size}"
    return None


def _refuse_work(policy: LocalPolicy, training: Training, examples: int) -> str | None:
    if training.is_drill:
        return None
    if training.steps is None:
        if _epochs_allowed(policy, training.epochs, examples) == 0:
            return f"max_examples: one epoch sees {examples}, at most {policy.max_examples}"
        return None
    if policy.max_steps is not None and training.steps > policy.max_steps:
        return f"steps: {training.steps}, at most {policy.max_steps} are allowed"
    seen = training.steps * training.batch_size
    if policy.max_examples is not None and seen > policy.max_examples:
        return f"max_examples: {seen} would be seen, at most {policy.max_examples}"
    return None


def _epochs_allowed(policy: LocalPolicy, epochs: int, examples: int) -> int:
    allowed = epochs if policy.max_epochs is None else min(epochs, policy.max_epochs)
    if policy.max_examples is not None and examples > 0:
        allowed = min(allowed, policy.max_examples // examples)
    return allowed
