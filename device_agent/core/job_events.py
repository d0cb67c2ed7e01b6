"""What may happen to a job, and what must then be done."""

from dataclasses import dataclass

from device_agent.core.job import Refusal


@dataclass(frozen=True, slots=True)
class ModelAwaited:
    """The global model is not here and was asked for."""


@dataclass(frozen=True, slots=True)
class ModelArrived:
    """The global model is here, whole and checked."""


@dataclass(frozen=True, slots=True)
class ModelLost:
    """What was to lead to the model does not; it must be found anew."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """A share of the training is done, 0 to 1."""

    share: float


@dataclass(frozen=True, slots=True)
class UpdateStored:
    """The encoded update is on disk under this transfer id."""

    xfer: str


@dataclass(frozen=True, slots=True)
class WorkFailed:
    """The job cannot be done."""

    cause: Refusal


@dataclass(frozen=True, slots=True)
class Receipted:
    """The update has its final receipt."""


@dataclass(frozen=True, slots=True)
class Overtaken:
    """A newer round of the task is there, or nobody wants this one any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """The update, which has no receipt, had to go: the outbox was over its quota."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The task has ended: it was cancelled, or it has all its rounds."""


@dataclass(frozen=True, slots=True)
class AssignedAgain:
    """The same assignment came once more: whoever sent it does not know our answer."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """The program began anew and found this job in its database.

    Attributes:
        was_clean: Whether it had ended in order: then its end was not the job's fault.
    """

    was_clean: bool = False


#: What matters only while the update does not exist yet.
WorkEvent = (
    ModelAwaited
    | ModelArrived
    | ModelLost
    | Progressed
    | UpdateStored
    | WorkFailed
    | Overtaken
    | Restarted
)
JobEvent = WorkEvent | Receipted | Cancelled | Dropped | AssignedAgain


@dataclass(frozen=True, slots=True)
class Report:
    """Tell how far the job is.

    Attributes:
        progress: Share of the training that is done, where it is known.
    """

    progress: float | None = None


@dataclass(frozen=True, slots=True)
class FindModel:
    """Look for the global model here, else ask for it."""


@dataclass(frozen=True, slots=True)
class StartTraining:
    """Begin to train, after the commit."""


@dataclass(frozen=True, slots=True)
class StopWork:
    """Stop what runs for this job: its download or its training."""


@dataclass(frozen=True, slots=True)
class OfferAgain:
    """Offer the stored update at once."""


Instruction = Report | FindModel | StartTraining | StopWork | OfferAgain
