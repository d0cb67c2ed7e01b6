"""Deltas of an assignment: one chain that ends at the model, within the frame."""

import json

import pytest

from schemas.envelope import Header, decode_frame, encode_frame
from schemas.errors import MessageError
from schemas.ids import MARK_LENGTH
from schemas.limits import (
    MAX_COHORT,
    MAX_DELTA_TAIL_BYTES,
    MAX_DELTAS,
    MAX_GRAPH_BYTES,
    MAX_HEADER_BYTES,
    MAX_INLINE_DELTA_BYTES,
    MAX_OBJECT_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_SIGNATURE_BYTES,
    MIB,
)
from schemas.messages import (
    Assignment,
    LazyTerms,
    ModelDelta,
    ObjectManifest,
    Settlement,
    TrainingPlan,
)
from schemas.tasks import Downlink, Training, parse_submission

PLAN = TrainingPlan(
    model="mlp",
    input_shape=(4,),
    classes=2,
    parameters=9,
    layout_sha256="cd" * 32,
    data="d",
    codec="int8",
    downlink=Downlink(codec="topk"),
)


def sha(number):
    return f"{number:064x}"


def delta(number, **more):
    """Return the step from model ``number`` to the next."""
    fields = {"sha256": sha(100 + number), "size": 1000, **more}
    return ModelDelta(base=sha(number), result=sha(number + 1), object=ObjectManifest(**fields))


def assignment(*deltas, model=None, plan=PLAN, **more):
    return Assignment(
        task="t",
        round=3,
        region="north",
        cohort=("a",),
        deadline=1.0,
        plan=plan,
        model=model or ObjectManifest(sha256=sha(9), size=500_000),
        deltas=deltas,
        **more,
    )


def test_the_tail_is_the_models_the_graphs_and_then_each_deltas():
    graph = ObjectManifest(sha256=sha(50), size=10)
    job = assignment(delta(7), delta(8, size=4, inline=True), graph=graph)
    tail = b"m" * 64 + b"g" * 32 + b"o" * 32 + b"new!"
    assert job.fault(len(tail)) is None
    assert job.split(tail) == (b"m" * 64, b"g" * 32)
    assert job.delta_tails(tail) == (b"o" * 32, b"new!")
    assert job.fault(len(tail) - 1) == "tail: 131 bytes, must be 132"


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (assignment(delta(6), delta(8)), "each must give the base of the next"),
        (assignment(delta(7)), "the last one the model"),
        (assignment(delta(8), delta(7)), "each must give the base of the next"),
        (assignment(delta(7, inline=True), delta(8)), "only the newest may be inline"),
        (
            assignment(delta(8, size=MAX_INLINE_DELTA_BYTES + 1, inline=True)),
            "65537 bytes inline, at most 65536",
        ),
        (
            assignment(delta(7, size=2049 * MIB), delta(8)),
            f"of the tail, at most {MAX_DELTA_TAIL_BYTES}",
        ),
        (
            assignment(delta(8), model=ObjectManifest(sha256=sha(9), size=4, inline=True)),
            "model: inline beside deltas, it must be pulled",
        ),
        (
            assignment(delta(8), plan=PLAN.model_copy(update={"downlink": None})),
            "the plan has no downlink",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_chain_to_the_model_is_refused(job, text):
    tail = sum(one.tail_bytes() for one in job.objects)
    assert text in (job.fault(tail) or "")


def test_at_most_eight_deltas_are_read():
    deltas = [delta(number).model_dump() for number in range(MAX_DELTAS + 1)]
    text = assignment().model_dump() | {"deltas": deltas}
    with pytest.raises(ValueError, match="deltas"):
        Assignment.model_validate_json(json.dumps(text))


def test_the_digests_of_the_largest_model_and_graph_and_all_deltas_fit_one_frame():
    model = ObjectManifest(sha256=sha(1), size=MAX_OBJECT_BYTES)
    graph = ObjectManifest(sha256=sha(2), size=MAX_GRAPH_BYTES)
    tail = model.tail_bytes() + graph.tail_bytes() + MAX_DELTA_TAIL_BYTES
    assert tail + MAX_HEADER_BYTES + MAX_SIGNATURE_BYTES < MAX_PAYLOAD_BYTES


def test_the_longest_chain_and_the_longest_cohort_fit_a_header():
    steps = tuple(delta(number, size=MAX_OBJECT_BYTES // 8) for number in range(1, 9))
    settings = {f"{number:064d}": "x" * 60 for number in range(8)}
    plan = PLAN.model_copy(update={"downlink": Downlink(codec="topk", codec_params=settings)})
    ids = tuple(f"{number:032d}" for number in range(MAX_COHORT))
    settled = Settlement(task="t" * 32, round=2, counted=ids, reason="x" * 200)
    job = assignment(*steps, plan=plan).model_copy(update={"cohort": ids, "settled": (settled,)})
    assert len(steps) == MAX_DELTAS
    assert len(job.model_dump_json(exclude_none=True)) < MAX_HEADER_BYTES - 1024


def test_a_lazy_task_of_the_longest_cohort_with_all_that_it_may_have_fits_a_frame():
    steps = tuple(delta(number, size=MAX_OBJECT_BYTES // 16) for number in range(1, 9))
    settings = {f"{number:064d}": "x" * 60 for number in range(8)}
    changes = {
        "model_params": {f"{number:064d}": "\x01" * 60 for number in range(32)},
        "codec_params": dict(list(settings.items())[:4]),
        "training": Training(frozen=("x" * 100,) * 32),
        "downlink": Downlink(codec="topk", codec_params=settings),
        "memory": "lazy",
    }
    more = {
        "cohort": tuple(f"{number:032d}" for number in range(MAX_COHORT)),
        "references": ((1 << 31) - 1,) * MAX_COHORT,
        "marks": "f" * MARK_LENGTH * MAX_COHORT,
        "lazy": LazyTerms(threshold=1.2345678901234567e-300, examples=800 << 40),
        "graph": ObjectManifest(sha256=sha(50), size=MAX_GRAPH_BYTES),
        "task": "t" * 32,
        "round": (1 << 31) - 1,
    }
    job = assignment(*steps, plan=PLAN.model_copy(update=changes)).model_copy(update=more)
    tail = b"m" * sum(one.tail_bytes() for one in job.objects)
    assert job.fault(len(tail)) is None
    header = Header(
        type="task.assign",
        id="f" * 64,
        ts=1760000000.123,
        src="central",
        aud="gw/" + "r" * 32,
        boot=(1 << 53) - 1,
        seq=(1 << 53) - 1,
        task="t" * 32,
        round=(1 << 31) - 1,
        corr="c" * 64,
        reply="r" * 256,
    )
    assert decode_frame(encode_frame(header, job, tail)).body(Assignment) == job


def test_a_person_names_the_downlinks_codec_and_nothing_that_is_not_known():
    task = parse_submission(b'{"model":"mlp","downlink":{"codec":"topk"}}')
    assert task.downlink == Downlink(codec="topk", codec_params={})
    with pytest.raises(
        MessageError, match=r"downlink\.codek: unknown field; did you mean 'codec'"
    ):
        parse_submission(b'{"model":"mlp","downlink":{"codek":"topk"}}')
    with pytest.raises(MessageError, match=r"downlink\.codec: required"):
        parse_submission(b'{"model":"mlp","downlink":{}}')
