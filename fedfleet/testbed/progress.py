"""What is known of a run while it goes on, and how it is told."""

import time
from dataclasses import dataclass, field

from fedfleet.client import Message
from fedfleet.fleet import Fleet
from fedfleet.statuses import read_status, state_line
from fedfleet.testbed.plan import Plan
from schemas.envelope import decode_frame
from schemas.errors import WireError
from schemas.messages import JobStatus
from schemas.tasks import CentralState, RoundSummary, TaskStatus
from schemas.topics import Kind

_BAR_WIDTH = 30
_PERCENT = 100


@dataclass(slots=True)
class Progress:
    """The run as far as its messages tell.

    Attributes:
        plan: What was started.
        fleet: States of gateways and devices.
        central_is_online: As central's retained state says.
        jobs: Device -> its latest job status.
        status: The task's latest status.
        rounds: Round number -> how it ended; a status lists only the newest.
    """

    plan: Plan
    fleet: Fleet = field(default_factory=Fleet)
    central_is_online: bool = False
    jobs: dict[str, JobStatus] = field(default_factory=dict)
    status: TaskStatus | None = None
    rounds: dict[int, RoundSummary] = field(default_factory=dict)

    def take(self, message: Message) -> tuple[RoundSummary, ...]:
        """Note one message.

        Returns:
            The rounds that it told for the first time.
        """
        self.fleet.take(message)
        self._take_central(message)
        self._take_job(message)
        status = read_status(message)
        if status is None:
            return ()
        self.status = status
        new = tuple(item for item in status.history if item.round not in self.rounds)
        self.rounds.update({item.round: item for item in new})
        return new

    def missing(self) -> tuple[str, ...]:
        """Return who has not been born yet: process names, in the order of the plan."""
        gateways = (
            f"gateway-{region}"
            for region in self.plan.regions
            if (gateway := self.fleet.gateways.get(region)) is None or gateway.status != "online"
        )
        devices = (
            member.device
            for member in self.plan.members
            if (state := self.fleet.devices.get((member.region, member.device))) is None
            or state.status != "online"
        )
        central = () if self.central_is_online else ("central",)
        return (*central, *gateways, *devices)

    def start_block(self) -> str:
        """Return how far the start is, for the changing part of a screen."""
        missing = self.missing()
        total = 1 + len(self.plan.regions) + len(self.plan.members)
        share = (total - len(missing)) / total
        return f"{bar(share)} {total - len(missing)} of {total} up; waiting for {name(missing)}"

    def block(self) -> str:
        """Return where the run stands, for the changing part of a screen."""
        lines = [] if self.status is None else [self._task_line(self.status)]
        for member in self.plan.members:
            job = self.jobs.get(member.device)
            lines.append(f"  {member.region}  {member.device:<14} {_job_text(job)}")
        return "\n".join(lines)

    def _task_line(self, status: TaskStatus) -> str:
        share = status.committed / status.rounds if status.rounds else 0.0
        return f"{bar(share)} {state_line(status)}"

    def _take_central(self, message: Message) -> None:
        if message.topic.kind is not Kind.CENTRAL_STATE or not message.payload:
            return
        try:
            state = CentralState.model_validate_json(message.payload)
        except ValueError:
            return
        self.central_is_online = state.status == "online"

    def _take_job(self, message: Message) -> None:
        address = message.topic.address
        if message.topic.kind is not Kind.JOB_STATUS or address is None:
            return
        try:
            self.jobs[address.node] = decode_frame(message.payload).body(JobStatus)
        except WireError:
            return


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Elapsed time."""
        return time.monotonic() - self._start


def bar(share: float) -> str:
    """Return a progress bar for a share from 0 to 1."""
    done = round(share * _BAR_WIDTH)
    return "[" + "#" * done + "." * (_BAR_WIDTH - done) + "]"


def name(names: tuple[str, ...], limit: int = 4) -> str:
    """Return some names and how many more there are."""
    shown = ", ".join(names[:limit])
    more = len(names) - limit
    return f"{shown} and {more} more" if more > 0 else shown or "nobody"


def _job_text(job: JobStatus | None) -> str:
    if job is None:
        return "idle"
    share = f" {job.progress * _PERCENT:.0f} %" if job.progress is not None else ""
    reason = f": {job.reason or job.code}" if job.reason or job.code else ""
    return f"round {job.round} {job.state}{share}{reason}"
