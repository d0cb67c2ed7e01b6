"""Write the golden vectors of the wire format; run by ``make vectors``, by nothing else.

A vector is ``TYPE-N.json``. A file that is there is never changed: when the encoding of a type
differs from its newest vector, the next number is written, and the older ones must still decode.
"""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.base import PersonMessage, WireMessage
from schemas.bids import Bid
from schemas.envelope import Header, encode_frame
from schemas.ids import transfer_id
from schemas.limits import DEFAULT_CHUNK_BYTES
from schemas.messages import (
    Assignment,
    Capabilities,
    ControlNote,
    DataDescription,
    DeviceState,
    GatewayState,
    Get,
    Heartbeat,
    JobRef,
    JobStatus,
    LazyTerms,
    ModelDelta,
    Need,
    Next,
    NoJob,
    ObjectManifest,
    Receipt,
    Settlement,
    TrainingPlan,
    UpdateManifest,
)
from schemas.profiles import Limits
from schemas.tasks import (
    CentralState,
    Downlink,
    ParkedNote,
    Privacy,
    Requirements,
    RoundSummary,
    Target,
    TaskControl,
    TaskStatus,
    TaskSubmission,
    Training,
)

FOLDER = Path(__file__).resolve().parent / "schemas"

TASK = "t-digits"
DEVICE = "dev-1"
INLINE = bytes(range(64))
INLINE_SHA = hashlib.sha256(INLINE).hexdigest()
MODEL_SHA = "ab" * 32
LAYOUT_SHA = "cd" * 32
GRAPH_SHA = "ef" * 32
XFER = transfer_id(DEVICE, TASK, 3, INLINE_SHA)
DIGESTS = b"\x11" * 32 + b"\x22" * 32


@dataclass(frozen=True)
class Example:
    """One frame of a fixed header."""

    body: WireMessage
    src: str = DEVICE
    tail: bytes = b""
    signature: bytes = b""
    header: tuple[tuple[str, Any], ...] = ()

    def encode(self) -> bytes:
        """Return the frame's bytes."""
        return encode_frame(self.build_header(), self.body, self.tail, self.signature)

    def build_header(self) -> Header:
        """Return the header as given to ``encode_frame``."""
        return Header(
            type=type(self.body).TYPE,  # type: ignore[attr-defined]
            id="0123456789abcdef0123456789abcdef",
            ts=1760000000.25,
            src=self.src,
            boot=1760000001,
            seq=42,
            **dict(self.header),
        )


PLAN = TrainingPlan(
    model="lenet5",
    model_params={"width": 8, "dropout": 0.25, "norm": True, "act": "relu", "hidden": (64, 32)},
    input_shape=(1, 28, 28),
    classes=10,
    parameters=61706,
    layout_sha256=LAYOUT_SHA,
    data="mnist",
    training=Training(
        epochs=2,
        batch_size=16,
        learning_rate=0.1,
        nesterov=True,
        weight_decay=0.001,
        loss="huber",
        frozen=("features.*",),
        proximal_mu=0.01,
        keep_state=True,
        seed=7,
    ),
    codec="int8",
    codec_params={"block": 1024},
    memory="lazy",
    privacy=Privacy(clip_norm=1.5),
    requires=Requirements(
        memory_mb=256,
        backend="torch",
        battery_percent=20,
        profiles=("raspberry-pi-4", "raspberry-pi-5"),
    ),
    downlink=Downlink(codec="topk", codec_params={"fraction": 0.25}),
)
SETTLED = Settlement(
    task=TASK, round=2, counted=(DEVICE,), discarded=("dev-2",), reason="late by 3 s"
)

EXAMPLES: tuple[Example, ...] = (
    Example(
        DeviceState(
            status="online",
            boot=1760000001,
            profile="raspberry-pi-4",
            capabilities=Capabilities(
                backends=("torch", "onnx"),
                memory_bytes=1 << 32,
                cores=4,
                accelerator="none",
                battery_percent=80,
                providers=("tensorrt", "cpu"),
                fallback="cuda: not in this onnxruntime",
                precision="float16",
                limits=Limits(
                    memory_bytes=1 << 29,
                    threads=4,
                    batch_size=256,
                    model_bytes=1 << 26,
                    temperature_ceiling_celsius=80.0,
                    temperature_resume_celsius=70.5,
                    battery_floor_percent=30,
                    power_mode="MODE_15W",
                ),
            ),
            data=(DataDescription(name="mnist", shape=(1, 28, 28), classes=10, examples=600),),
            versions={"fedfleet": "0.1.0"},
            parked=1,
        )
    ),
    Example(Heartbeat(load=0.5, memory_free_bytes=123456789, temperature_c=51.5)),
    Example(
        GatewayState(
            status="offline",
            boot=1760000001,
            why="stopped",
            devices_known=3,
            devices_online=2,
            silent=("dev-3",),
            versions={"fedfleet": "0.1.0"},
            parked=2,
        ),
        src="gw/north",
    ),
    Example(
        Assignment(
            task=TASK,
            round=3,
            region="north",
            cohort=(DEVICE, "dev-2"),
            deadline=1760000600.0,
            plan=PLAN,
            model=ObjectManifest(sha256=MODEL_SHA, size=DEFAULT_CHUNK_BYTES + 1),
            settled=(SETTLED,),
            graph=ObjectManifest(sha256=GRAPH_SHA, size=DEFAULT_CHUNK_BYTES),
            references=(2, 0),
            marks="5f1c09000000",
            lazy=LazyTerms(threshold=0.125, examples=1200, clients=2),
            deltas=(
                ModelDelta(
                    base=GRAPH_SHA,
                    result=LAYOUT_SHA,
                    object=ObjectManifest(sha256=XFER * 2, size=DEFAULT_CHUNK_BYTES),
                ),
                ModelDelta(
                    base=LAYOUT_SHA,
                    result=MODEL_SHA,
                    object=ObjectManifest(sha256=INLINE_SHA, size=len(INLINE), inline=True),
                ),
            ),
        ),
        src="central",
        tail=DIGESTS + b"\x33" * 32 + b"\x44" * 32 + INLINE,
        header=(("aud", "gw/north"), ("task", TASK), ("round", 3), ("corr", "f" * 32)),
    ),
    Example(
        NoJob(keep=(JobRef(task=TASK, round=3),), settled=(SETTLED,)),
        src="gw/north",
        header=(("corr", "f" * 32),),
    ),
    Example(
        Next(
            holding=(JobRef(task=TASK, round=3), JobRef(task=TASK, round=4)),
            unsettled=(JobRef(task=TASK, round=2),),
        ),
        header=(("reply", "fl/v1/north/dev-1/dn/task"),),
    ),
    Example(
        JobStatus(
            task=TASK, round=3, state="failed", code="training", reason="diverged", progress=0.5
        ),
        header=(("task", TASK), ("round", 3)),
    ),
    Example(
        UpdateManifest(
            xfer=XFER,
            task=TASK,
            round=3,
            device=DEVICE,
            object=ObjectManifest(sha256=INLINE_SHA, size=len(INLINE)),
            codec="ecsq",
            codec_params={"bits": 1.0},
            layout_sha256=LAYOUT_SHA,
            base_model_sha256=MODEL_SHA,
            num_examples=600,
            metrics={"loss": 0.125, "accuracy": 0.9375},
            train_s=2.5,
            wire_bytes=(2345, 67890),
            reference=2,
            bid=Bid(gain=1.5, clock=3, size_bytes=len(INLINE)).encode(),
        ),
        tail=bytes.fromhex(INLINE_SHA),
        signature=b"signature",
        header=(("task", TASK), ("round", 3)),
    ),
    Example(Need(xfer=XFER, want=(0, 1, 16383), credit=4), src="central"),
    Example(
        Receipt(
            xfer=XFER,
            status="rejected",
            sha256=INLINE_SHA,
            code="E_QUOTA",
            detail="custody is full",
            retry_after_s=30.0,
        ),
        src="gw/north",
    ),
    Example(Get(sha256=MODEL_SHA, want=(1,))),
    Example(ControlNote(action="rebirth", task=TASK, boot=1760000009), src="gw/north"),
)

#: What persons and central exchange without a frame; decoded only, their writers are free.
PLAIN: dict[str, PersonMessage | WireMessage] = {
    "plain.submission": TaskSubmission(
        model="lenet5",
        model_params={"hidden": (64, 32)},
        task=TASK,
        data="mnist",
        rounds=3,
        min_clients=2,
        cohort=3,
        deadline_s=60.0,
        selection_timeout_s=30.0,
        on_shortfall="abandon",
        regions=("north",),
        requires=Requirements(memory_mb=64),
        training=Training(steps=10, optimizer="adamw"),
        strategy="fedadam",
        strategy_params={"server_lr": 0.1},
        codec="topk",
        codec_params={"fraction": 0.01},
        error_feedback=True,
        downlink=Downlink(codec="fp16"),
        selection="all",
        target=Target(metric="accuracy", value=0.9),
        privacy=Privacy(clip_norm=2.0),
        seed=5,
        uplink_budget_bits=8_000_000,
        budget_max_clock=5,
        budget_bid_share=0.25,
        scale_exponent=0.5,
    ),
    "plain.control": TaskControl(action="pause"),
    "plain.status": TaskStatus(
        task=TASK,
        state="running",
        model="lenet5",
        round=3,
        phase="reporting",
        rounds=3,
        committed=2,
        cohort=3,
        reported=1,
        min_clients=2,
        metrics={"accuracy": 0.5},
        model_sha256=MODEL_SHA,
        history=(
            RoundSummary(
                round=2,
                outcome="committed",
                clients=2,
                seconds=1.5,
                uplink_wire_bytes=2345,
                codecs={"ecsq bits=1.0": 2},
                bids=5,
                granted=2,
            ),
        ),
        uplink_ratio=31.5,
        ts=1760000000.25,
    ),
    "plain.central": CentralState(
        status="online",
        boot=1760000001,
        ts=1760000000.25,
        parked=4,
        parked_newest=(
            ParkedNote(
                number=7,
                topic=f"fl/v1/ctl/task/{TASK}/control",
                error="KeyError: 'round'",
                tries=3,
                ts=1760000000.0,
            ),
        ),
    ),
}


def encoded(example: Example) -> dict[str, Any]:
    """Return the content of one framed vector."""
    return {
        "header": json.loads(example.build_header().model_dump_json(exclude_none=True)),
        "body": json.loads(example.body.model_dump_json(exclude_none=True)),
        "tail_hex": example.tail.hex(),
        "signature_hex": example.signature.hex(),
        "frame_hex": example.encode().hex(),
    }


def vectors() -> dict[str, dict[str, Any]]:
    """Return the content that the newest vector of every type has today."""
    framed = {type(example.body).TYPE: encoded(example) for example in EXAMPLES}  # type: ignore[attr-defined]
    plain = {
        name: {"body": json.loads(text), "payload_hex": text.encode().hex()}
        for name, text in (
            (name, message.model_dump_json(exclude_none=True)) for name, message in PLAIN.items()
        )
    }
    return framed | plain


def numbered(name: str) -> list[Path]:
    """Return the stored vectors of one type, oldest first."""
    return sorted(FOLDER.glob(f"{name}-*.json"), key=lambda path: int(path.stem.split("-")[-1]))


def main() -> None:
    """Write what is missing or has changed."""
    FOLDER.mkdir(exist_ok=True)
    for name, content in vectors().items():
        stored = numbered(name)
        if stored and json.loads(stored[-1].read_text()) == content:
            continue
        path = FOLDER / f"{name}-{len(stored) + 1}.json"
        path.write_text(json.dumps(content, indent=1) + "\n")
        sys.stdout.write(f"wrote {path.name}\n")


if __name__ == "__main__":
    main()
