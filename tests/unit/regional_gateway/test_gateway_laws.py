"""Laws of custody under any order of events, crashes included."""

import hashlib
import tempfile
from pathlib import Path

from gateway_rig import Device, Rig, body, large, sha, take
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.limits import MIN_CHUNK_BYTES
from schemas.messages import Need, Receipt
from schemas.topics import Kind

SMALL = b"small"
LARGE = large(2 * MIN_CHUNK_BYTES + 1)
OBJECTS = {False: LARGE, True: SMALL}
DEVICES = ("a", "b")
STATUSES = ("held", "accepted", "duplicate", "late", "rejected")

who = st.sampled_from(DEVICES)
is_inline = st.booleans()
STEPS = st.one_of(
    st.tuples(st.just("offer"), who, is_inline),
    st.tuples(
        st.just("receipt"),
        who,
        is_inline,
        st.sampled_from(STATUSES),
        st.sampled_from(["right", "right", "wrong", "later"]),
    ),
    st.tuples(st.just("need"), who, is_inline),
    st.tuples(st.just("chunks"), who),
    st.tuples(st.just("upload"), who, is_inline),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 2.0, 40.0])),
    st.tuples(st.just("restart"), st.booleans()),
    st.tuples(st.just("uplink"), st.booleans()),
)
#: From an empty gateway, with offers open, and with both devices' same update in custody.
STARTS = (
    (),
    (("offer", "a", False), ("offer", "b", True)),
    (("upload", "a", False), ("upload", "b", False)),
)


class World:
    """A rig, what central has said, and what devices were promised."""

    def __init__(self, root):
        self.rig = Rig(root).connect()
        self.devices = {name: Device(name) for name in DEVICES}
        self.final = set()
        self.promised = set()

    def step(self, step):
        before = set(self.rig.rows())
        getattr(self, step[0])(*step[1:])
        after = self.rig.rows()
        self.check(before, after)

    def check(self, before, after):
        assert len({xfer for xfer, _ in after}) == len(after)
        assert before - set(after) <= self.final
        for message in take(self.rig.down, Kind.RECEIPT):
            receipt = body(message, Receipt)
            if receipt.status == "held":
                self.promised.add((receipt.xfer, receipt.sha256))
            else:
                assert (receipt.xfer, receipt.sha256) in self.final
        assert self.promised <= set(after) | self.final
        folder = self.rig.settings.state_dir / "custody" / "objects"
        if any(sha256 == sha(LARGE) for _, sha256 in after):
            assert hashlib.sha256((folder / sha(LARGE)).read_bytes()).hexdigest() == sha(LARGE)

    def offer(self, name, inline):
        self.rig.offer(self.devices[name], OBJECTS[inline], inline=inline)

    def upload(self, name, inline):
        self.offer(name, inline)
        self.need(name, inline)
        self.chunks(name)
        self.chunks(name)

    def receipt(self, name, inline, status, kind):
        xfer = self.devices[name].xfer(OBJECTS[inline])
        sha256 = sha(b"wrong") if kind == "wrong" else sha(OBJECTS[inline])
        retry_after_s = 1.0 if kind == "later" else None
        payload = self.rig.central.receipt(xfer, sha256, status, retry_after_s=retry_after_s)
        if kind == "right" and status != "held":
            self.final.add((xfer, sha256))
        self.rig.from_central(Kind.RECEIPT, payload, xfer=xfer)

    def need(self, name, inline):
        xfer = self.devices[name].xfer(OBJECTS[inline])
        self.rig.from_central(Kind.NEED, self.rig.central.need(xfer, (0, 1, 2)), xfer=xfer)
        for message in take(self.rig.up, Kind.CHUNK):
            start = message.topic.k * MIN_CHUNK_BYTES
            assert message.payload == LARGE[start : start + MIN_CHUNK_BYTES]

    def chunks(self, name):
        device = self.devices[name]
        needs = [m for m in self.rig.down.sent if m.topic.kind is Kind.NEED]
        for message in [m for m in needs if m.topic.address == device.address]:
            for k in body(message, Need).want:
                data = LARGE[k * MIN_CHUNK_BYTES : (k + 1) * MIN_CHUNK_BYTES]
                self.rig.from_device(device, Kind.CHUNK, data, xfer=message.topic.xfer, k=k)

    def wait(self, seconds):
        self.rig.pass_time(seconds, step_s=max(1.0, seconds / 4))

    def restart(self, connect):
        self.rig.restart(connect=connect)

    def uplink(self, is_up):
        if is_up:
            self.rig.connect("uplink")
        else:
            self.rig.disconnect("uplink")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(st.sampled_from(STARTS), st.lists(STEPS, min_size=4, max_size=14))
def test_no_order_of_events_doubles_a_row_or_loses_one_without_a_final_receipt(start, steps):
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        try:
            for step in (*start, *steps):
                world.step(step)
        finally:
            world.rig.close()
