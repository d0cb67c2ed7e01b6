"""Records as rows of central's tables and back: the columns, and how each is written."""

import json
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from central.core.rounds import RoundState
from central.core.tasks import TaskProgress
from central.service.records import (
    ContributionRecord,
    DeviceRecord,
    GatewayRecord,
    ResolvedPlan,
    RoundRecord,
    TaskRecord,
    Totals,
)
from schemas.messages import DeviceState, GatewayState, LazyTerms
from schemas.tasks import Parameter, RoundSummary, TaskSubmission

_ROUND_STATE = TypeAdapter(RoundState)
_PROGRESS = TypeAdapter(TaskProgress)
_LAZY = lru_cache(256)(LazyTerms.model_validate_json)
_TOTALS = lru_cache(256)(Totals.model_validate_json)
#: Rows are read far more often than they change; what is read is frozen, so it may be shared.
_DEVICE = lru_cache(1024)(DeviceState.model_validate_json)
_GATEWAY = lru_cache(256)(GatewayState.model_validate_json)
_SUBMISSION = lru_cache(256)(TaskSubmission.model_validate_json)
_PLAN = lru_cache(256)(ResolvedPlan.model_validate_json)
_SUMMARY = lru_cache(256)(RoundSummary.model_validate_json)
_METRICS = TypeAdapter(dict[str, float])
_read_progress = lru_cache(256)(_PROGRESS.validate_json)
_read_round_state = lru_cache(256)(_ROUND_STATE.validate_json)
_PARAMS = TypeAdapter(dict[str, Parameter])
_NAMES = TypeAdapter(tuple[str, ...])

TASK_COLUMNS = (
    "task, submission, min_clients, created_s, progress, ended_s, plan, model_sha256, "
    "metrics, totals, lazy"
)
ROUND_COLUMNS = (
    "task, state, base_model_sha256, base_model_bytes, opened_s, ended_s, contributors, "
    "model_sha256, summary, delta_sha256, delta_bytes"
)
CONTRIBUTION_COLUMNS = (
    "task, round, device, region, xfer, sha256, size, num_examples, accepted_s, metrics, "
    "settled, reason, uplink_wire_bytes, downlink_wire_bytes, reference, "
    "codec, codec_params"
)


def task_of(row: tuple[str, ...]) -> TaskRecord:
    """Return the record of ``TASK_COLUMNS``."""
    task, submission, min_clients, created_s, progress, ended_s, plan, sha, *rest = row
    metrics, totals, lazy = rest
    return TaskRecord(
        task=task,
        submission=_SUBMISSION(submission),
        min_clients=int(min_clients),
        created_s=float(created_s),
        progress=_read_progress(progress),
        ended_s=None if ended_s is None else float(ended_s),
        plan=_PLAN(plan) if plan else None,
        model_sha256=sha,
        metrics=_METRICS.validate_json(metrics),
        totals=_TOTALS(totals),
        lazy=_LAZY(lazy) if lazy else None,
    )


def task_row(record: TaskRecord) -> tuple[object, ...]:
    """Return the values of ``TASK_COLUMNS``."""
    return (
        record.task,
        record.submission.model_dump_json(exclude_unset=True),
        record.min_clients,
        record.created_s,
        _PROGRESS.dump_json(record.progress).decode(),
        record.ended_s,
        record.plan.model_dump_json() if record.plan else None,
        record.model_sha256,
        _METRICS.dump_json(record.metrics).decode(),
        record.totals.model_dump_json(),
        record.lazy.model_dump_json() if record.lazy else None,
    )


def round_of(row: tuple[str, ...]) -> RoundRecord:
    """Return the record of ``ROUND_COLUMNS``."""
    task, state, base, base_bytes, opened_s, ended_s, contributors, sha, summary, *delta = row
    return RoundRecord(
        task=task,
        state=_read_round_state(state),
        base_model_sha256=base,
        base_model_bytes=int(base_bytes),
        opened_s=float(opened_s),
        ended_s=None if ended_s is None else float(ended_s),
        contributors=_NAMES.validate_json(contributors) if contributors else None,
        model_sha256=sha,
        summary=_SUMMARY(summary) if summary else None,
        delta_sha256=delta[0],
        delta_bytes=int(delta[1]),
    )


def round_row(record: RoundRecord) -> tuple[object, ...]:
    """Return the values of ``ROUND_COLUMNS``."""
    names = record.contributors
    return (
        record.task,
        _ROUND_STATE.dump_json(record.state).decode(),
        record.base_model_sha256,
        record.base_model_bytes,
        record.opened_s,
        record.ended_s,
        None if names is None else _NAMES.dump_json(names).decode(),
        record.model_sha256,
        record.summary.model_dump_json() if record.summary else None,
        record.delta_sha256,
        record.delta_bytes,
    )


def contribution_of(row: tuple[str, ...]) -> ContributionRecord:
    """Return the record of ``CONTRIBUTION_COLUMNS``."""
    head, (accepted_s, metrics, settled, reason, *told) = row[:8], row[8:]
    uplink, downlink, reference, codec, codec_params = told
    task, number, device, region, xfer, sha256, size, num_examples = head
    return ContributionRecord(
        task=task,
        round=int(number),
        device=device,
        region=region,
        xfer=xfer,
        sha256=sha256,
        size=int(size),
        num_examples=int(num_examples),
        accepted_s=float(accepted_s),
        metrics=json.loads(metrics),
        settled=settled,
        reason=reason,
        uplink_wire_bytes=int(uplink),
        downlink_wire_bytes=int(downlink),
        reference=int(reference),
        codec=codec,
        codec_params={} if codec_params is None else _PARAMS.validate_json(codec_params),
    )


def contribution_row(record: ContributionRecord) -> tuple[object, ...]:
    """Return the values of ``CONTRIBUTION_COLUMNS``."""
    return (
        record.task,
        record.round,
        record.device,
        record.region,
        record.xfer,
        record.sha256,
        record.size,
        record.num_examples,
        record.accepted_s,
        _METRICS.dump_json(record.metrics).decode(),
        record.settled,
        record.reason,
        record.uplink_wire_bytes,
        record.downlink_wire_bytes,
        record.reference,
        record.codec,
        None if record.codec is None else _PARAMS.dump_json(record.codec_params).decode(),
    )


def device_of(row: tuple[Any, ...]) -> DeviceRecord:
    """Return the record of a whole row of ``devices``."""
    device, region, boot, seq, online, text, at_s = row
    return DeviceRecord(device, region, boot, seq, bool(online), _DEVICE(text), at_s)


def gateway_of(row: tuple[Any, ...]) -> GatewayRecord:
    """Return the record of a whole row of ``gateways``."""
    region, boot, seq, online, text, at_s = row
    return GatewayRecord(region, boot, seq, bool(online), _GATEWAY(text), at_s)
