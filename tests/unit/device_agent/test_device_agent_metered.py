"""A metered link: how it is known, and that updates wait for another one."""

import pytest
from device_agent_bench import LARGE, Bench, body_of, model_file, of_kind, offered, statuses

from device_agent.adapters.link_state import LinkState, modem_of
from device_agent.service.uploads import LOOK_AGAIN_S
from schemas.messages import Need, UpdateManifest
from schemas.topics import Kind
from transport.events import Connected

HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
HELD = "waits: the link is metered"


def route(interface, destination="00000000", mask="00000000"):
    return f"{interface}\t{destination}\t0102A8C0\t0003\t0\t0\t100\t{mask}\t0\t0\t0\n"


@pytest.fixture
def root(tmp_path):
    """Yield a function that writes the kernel's files of some interfaces."""

    def write(routes, **uevents):
        (tmp_path / "proc/net").mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc/net/route").write_text(HEADER + "".join(routes))
        for name, text in uevents.items():
            folder = tmp_path / "sys/class/net" / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "uevent").write_text(text)
        return tmp_path

    return write


def test_a_default_route_through_a_modem_is_metered(root):
    modem = "DEVTYPE=wwan\nINTERFACE=wwan0\nIFINDEX=4\n"
    assert modem_of(root([route("wwan0")], wwan0=modem)) == "wwan0"
    assert modem_of(root([route("ppp0")])) == "ppp0"


def test_a_default_route_through_anything_else_is_not(root):
    wifi = "DEVTYPE=wlan\nINTERFACE=wlan0\nIFINDEX=3\n"
    assert modem_of(root([route("wlan0")], wlan0=wifi)) is None
    assert modem_of(root([route("eth0")], eth0="INTERFACE=eth0\nIFINDEX=2\n")) is None


def test_a_modem_without_the_default_route_does_not_matter(root):
    modem = "DEVTYPE=wwan\nINTERFACE=wwan0\n"
    routes = [route("wwan0", "0002A8C0", "00FFFFFF"), route("eth0")]
    assert modem_of(root(routes, wwan0=modem)) is None


def test_without_routes_nothing_is_known(tmp_path, root):
    assert modem_of(tmp_path / "nowhere") is None
    assert modem_of(root(["odd line\n"])) is None


def test_the_settings_say_more_than_the_files_and_the_policy_most(root):
    place = root([route("ppp0")])
    assert "ppp0 is a modem" in LinkState("auto", is_allowed=False, root=place).why_not_now()
    assert LinkState("no", is_allowed=False, root=place).why_not_now() is None
    assert LinkState("auto", is_allowed=True, root=place).why_not_now() is None
    assert "the settings say so" in LinkState("yes", is_allowed=False).why_not_now()
    assert LinkState("yes", is_allowed=True).why_not_now() is None


def test_the_files_are_read_again_after_a_while(root):
    now_s = [0.0]
    link = LinkState("auto", is_allowed=False, root=root([]), clock=lambda: now_s[0])
    assert link.why_not_now() is None
    root([route("ppp0")])
    assert link.why_not_now() is None
    now_s[0] = 10.0
    assert link.why_not_now() is not None


def test_an_update_waits_for_another_link_and_says_so(bench: Bench):
    bench.held = HELD
    bench.assign()
    sent = bench.train()
    assert of_kind(sent, Kind.MANIFEST) == []
    assert [(one.state, one.reason) for one in statuses(sent)] == [("uploading", HELD)]
    assert of_kind(bench.wait(10 * LOOK_AGAIN_S), Kind.MANIFEST) == []
    bench.held = None
    offer, *_ = of_kind(bench.wait(LOOK_AGAIN_S), Kind.MANIFEST)
    manifest = body_of(offer, UpdateManifest)
    (done,) = statuses(bench.receipt(manifest, "accepted"))
    assert (done.state, done.reason) == ("done", None)


def test_a_wait_for_another_link_does_not_keep_the_agent_busy(bench: Bench):
    bench.held = HELD
    bench.assign()
    bench.train()
    bench.wait(1.0)
    due_s = bench.agent._parts.uploads.next_due_s()
    assert due_s is not None
    assert due_s - bench.now_s > LOOK_AGAIN_S / 2


def test_a_new_connection_does_not_offer_what_waits(bench: Bench):
    bench.held = HELD
    bench.assign()
    bench.train()
    again = bench.reborn(held=HELD)
    assert of_kind(again.sent, Kind.MANIFEST) == []
    again.held = None
    assert len(of_kind(again.wait(2 * LOOK_AGAIN_S), Kind.MANIFEST)) >= 1


def test_a_wait_is_told_again_on_a_new_connection_and_not_once_it_is_over(bench: Bench):
    bench.held = HELD
    bench.assign()
    bench.train()
    for held in (HELD, None):
        bench.held = held
        bench.lose_connection()
        bench.sent.clear()
        bench.give(Connected("main"))
        assert [one.reason for one in statuses(bench.sent)] == [held]


def test_chunks_that_are_asked_for_wait_too(bench: Bench):
    bench.assign(LARGE)
    for number in range(2):
        bench.block(model_file(LARGE), number)
    manifest, _ = offered(bench.train())
    need = Need(xfer=manifest.xfer, want=(0,))
    bench.held = HELD
    assert of_kind(bench.send(Kind.NEED, need, xfer=manifest.xfer), Kind.CHUNK) == []
    bench.held = None
    assert len(of_kind(bench.send(Kind.NEED, need, xfer=manifest.xfer), Kind.CHUNK)) == 1


def test_a_wait_for_another_link_is_not_taken_for_a_slow_one(bench: Bench):
    bench.held = HELD
    bench.assign()
    bench.train()
    bench.wait(3600.0)
    bench.held = None
    offer, *_ = of_kind(bench.wait(LOOK_AGAIN_S), Kind.MANIFEST)
    bench.now_s += 2.0
    bench.receipt(body_of(offer, UpdateManifest), "accepted")
    rate = bench.agent._parts.uploads.rate_bytes_s()
    assert rate is not None
    assert rate > len(offer.payload) / (LOOK_AGAIN_S + 5.0)
