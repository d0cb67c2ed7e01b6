"""Topic names and filters: what is formatted is read back, and nothing else is read."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import RESERVED, is_id
from schemas.topics import (
    MAX_TOPIC_BYTES,
    RULES,
    Address,
    Kind,
    Rule,
    Topic,
    TopicError,
    central_filters,
    device_filters,
    downlink_filters,
    parse,
    state_filter,
    status_filter,
    uplink_filters,
)

NORTH, DEVICE = "north", "dev-1"
CENTRAL = {Kind.TASK_SUBMIT, Kind.TASK_STATUS, Kind.TASK_CONTROL, Kind.CENTRAL_STATE}
TRANSFER = {Kind.MANIFEST, Kind.CHUNK, Kind.GET, Kind.NEED, Kind.RECEIPT, Kind.BLOCK}
BOTH = {Kind.STATE, Kind.NEXT, Kind.TASK, Kind.CONTROL} | TRANSFER
#: Which kinds exist where; written out from the table of the protocol.
PLACES = {
    "central": CENTRAL,
    "device": BOTH | {Kind.JOB_STATUS, Kind.HEARTBEAT},
    "gateway": BOTH | {Kind.RELAYED},
    "everyone": {Kind.TASK, Kind.BLOCK},
}
EXISTING = [(place, kind) for place in sorted(PLACES) for kind in Kind if kind in PLACES[place]]
MISSING = [(place, kind) for place in sorted(PLACES) for kind in Kind if kind not in PLACES[place]]

ids = st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True)
free = ids.filter(lambda text: text not in RESERVED)
LEVELS = {
    "task": ids,
    "device": free,
    "xfer": st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    "sha16": st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
    "k": st.integers(0, 99_999),
}
FIXED = {"task": "t-1", "device": "dev-2", "xfer": "0a" * 16, "sha16": "0b" * 8, "k": 7}


def address_of(place, region=NORTH, device=DEVICE):
    return {
        "central": None,
        "device": Address(region, device),
        "gateway": Address.of_gateway(region),
        "everyone": Address.of_everyone(region),
    }[place]


def levels_of(kind):
    return re.findall(r"{(\w+)}", kind.value)


def topic_of(place, kind):
    return Topic(kind, address_of(place), **{level: FIXED[level] for level in levels_of(kind)})


EVERY_TOPIC = [topic_of(place, kind) for place, kind in EXISTING]


@st.composite
def topics(draw, places=tuple(EXISTING)):
    place, kind = draw(st.sampled_from(places))
    levels = {level: draw(LEVELS[level]) for level in levels_of(kind)}
    return Topic(kind, address_of(place, draw(free), draw(free)), **levels)


def matches(topic_filter, name):
    """Match as MQTT 3.1.1, section 4.7 says; no filter of ours ends in a level before '#'."""
    wanted, got = topic_filter.split("/"), name.split("/")
    if wanted[-1] == "#":
        wanted, got = wanted[:-1], got[: len(wanted) - 1]
    return len(wanted) == len(got) and all(w in ("+", g) for w, g in zip(wanted, got, strict=True))


@given(topics())
def test_what_is_formatted_is_read_back(topic):
    assert parse(topic.name) == topic


@given(topics())
def test_no_topic_has_more_than_seven_slashes_or_a_wildcard(topic):
    assert topic.name.count("/") <= 7
    assert not set(topic.name) & set("+#\x00\n")
    assert len(topic.name.encode()) <= MAX_TOPIC_BYTES


@given(st.text(max_size=120) | st.from_regex(r"fl/v1/[a-z0-9/+#\n-]{0,80}"))
def test_any_text_gives_a_topic_or_a_topic_error(text):
    try:
        found = parse(text).name
    except TopicError as error:
        found = str(error)
    assert found == text or (found.endswith("is not part of fl/v1") and len(found) < 120)


@given(topics(), st.data())
def test_a_topic_with_one_character_changed_is_itself_or_refused(topic, data):
    name = topic.name
    at = data.draw(st.integers(0, len(name) - 1))
    changed = name[:at] + data.draw(st.sampled_from("/+#\nAa0-_ ")) + name[at + 1 :]
    try:
        assert parse(changed).name == changed
    except TopicError:
        assert changed != name


@pytest.mark.parametrize(("place", "kind"), EXISTING)
@pytest.mark.parametrize("addition", ["/", "/x", "\n", " ", "\x00", "/#"])
def test_nothing_may_follow_a_topic(place, kind, addition):
    name = topic_of(place, kind).name
    assert parse(name).kind is kind
    with pytest.raises(TopicError):
        parse(name + addition)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "fl",
        "fl/v1",
        "fl/v2/north/dev-1/up/state",
        "fl/v1/north/dev-1/up/State",
        "fl/v1/north/gw/up/state",
        "fl/v1/gw/gw/up/state",
        "fl/v1/all/dev-1/up/state",
        "fl/v1/ctl/dev-1/up/state",
        "fl/v1/central/dev-1/up/state",
        "fl/v1/north/ctl/up/state",
        "fl/v1/north/central/up/state",
        "fl/v1/north/all/up/state",
        "fl/v1/+/dev-1/up/state",
        "fl/v1/north/+/up/state",
        "fl/v1/north/dev-1/up/#",
        "fl/v1/north/-dev/up/state",
        "fl/v1/north//up/state",
        "fl/v1/gw/north/up/hb",
        "fl/v1/gw/north/up/dev/gw",
        "fl/v1/gw/north/up/dev/all",
        "fl/v1/ctl/task/T/status",
        "fl/v1/north/dev-1/up/c/" + "0a" * 16 + "/-1",
        "fl/v1/north/dev-1/up/c/" + "0a" * 16 + "/01",
        "fl/v1/north/dev-1/up/c/" + "0a" * 16 + "/100000",
        "fl/v1/north/dev-1/up/c/" + "0A" * 16 + "/1",
        "fl/v1/north/dev-1/up/m/" + "0a" * 15,
        "x" * 100_000,
    ],
)
def test_names_outside_the_protocol_are_refused(name):
    with pytest.raises(TopicError):
        parse(name)


@pytest.mark.parametrize(("place", "kind"), MISSING)
def test_a_kind_exists_only_where_the_table_has_it(place, kind):
    with pytest.raises(TopicError):
        _ = topic_of(place, kind).name


@pytest.mark.parametrize(("place", "kind"), EXISTING)
def test_a_topic_that_lacks_a_level_or_has_one_too_many_is_refused(place, kind):
    for level, value in FIXED.items():
        levels = {name: FIXED[name] for name in levels_of(kind)}
        if level in levels:
            del levels[level]
        else:
            levels[level] = value
        with pytest.raises(TopicError, match="has the levels"):
            _ = Topic(kind, address_of(place), **levels).name


@pytest.mark.parametrize(
    ("level", "value"),
    [
        ("xfer", "0a" * 15),
        ("xfer", "0A" * 16),
        ("k", -1),
        ("k", 100_000),
    ],
)
def test_levels_of_a_chunk_keep_their_grammar(level, value):
    levels = {"xfer": FIXED["xfer"], "k": 0, level: value}
    with pytest.raises(TopicError):
        _ = Topic(Kind.CHUNK, Address(NORTH, DEVICE), **levels).name


@pytest.mark.parametrize("bad", ["+", "#", "a/b", "a\n", "", "UP", "a" * 33])
def test_topic_levels_refuse_wildcards_and_separators(bad):
    topics_with_it = [
        Topic(Kind.TASK_STATUS, task=bad),
        Topic(Kind.RELAYED, Address.of_gateway(NORTH), device=bad),
        Topic(Kind.STATE, Address(bad, DEVICE)),
        Topic(Kind.STATE, Address(NORTH, bad)),
        Topic(Kind.STATE, Address.of_gateway(bad)),
        Topic(Kind.TASK, Address.of_everyone(bad)),
        Topic(Kind.CHUNK, Address(NORTH, DEVICE), xfer=bad, k=0),
        Topic(Kind.BLOCK, Address(NORTH, DEVICE), sha16=bad, k=0),
    ]
    for topic in topics_with_it:
        with pytest.raises(TopicError):
            _ = topic.name


@pytest.mark.parametrize("bad", [*sorted(RESERVED), "+", "a/b"])
def test_filters_refuse_regions_and_devices_that_are_not_ids(bad):
    for build in (
        lambda: uplink_filters(bad),
        lambda: downlink_filters(bad),
        lambda: device_filters(bad, DEVICE),
    ):
        with pytest.raises(TopicError):
            build()


@pytest.mark.parametrize("bad", ["ctl", "central", "+", "a/b"])
def test_a_device_filter_refuses_what_is_no_device(bad):
    with pytest.raises(TopicError):
        device_filters(NORTH, bad)


def test_rules_are_those_of_the_protocol():
    retained = {Kind.TASK_STATUS, Kind.CENTRAL_STATE, Kind.STATE}
    expiries = {
        Kind.TASK_SUBMIT: 300,
        Kind.HEARTBEAT: 90,
        Kind.MANIFEST: 3600,
        Kind.JOB_STATUS: 3600,
        Kind.RECEIPT: 3600,
        Kind.TASK: 3600,
        Kind.NEXT: 60,
        Kind.CHUNK: 60,
        Kind.GET: 60,
        Kind.NEED: 60,
        Kind.BLOCK: 60,
        Kind.CONTROL: 60,
    }
    expected = {
        kind: Rule(
            qos=0 if kind is Kind.HEARTBEAT else 1,
            retain=kind in retained,
            expiry_s=expiries.get(kind),
        )
        for kind in Kind
    }
    assert expected == RULES


def test_what_is_retained_never_expires():
    assert not [kind for kind, rule in RULES.items() if rule.retain and rule.expiry_s]


def test_a_topic_knows_its_rule():
    assert Topic(Kind.HEARTBEAT, Address(NORTH, DEVICE)).rule.qos == 0


def covered(filters):
    return {t for t in EVERY_TOPIC if any(matches(f, t.name) for f in filters)}


def only(place, direction):
    return {
        topic_of(where, kind)
        for where, kind in EXISTING
        if where == place and kind.value.startswith(direction)
    }


def test_central_hears_persons_and_gateways_and_nobody_else():
    persons = {topic_of("central", Kind.TASK_SUBMIT), topic_of("central", Kind.TASK_CONTROL)}
    assert covered(central_filters()) == persons | only("gateway", "up/")


def test_an_uplink_hears_central_and_a_downlink_devices():
    assert covered(uplink_filters(NORTH)) == only("gateway", "dn/") | {
        topic_of("central", Kind.CENTRAL_STATE)
    }
    assert covered(downlink_filters(NORTH)) == only("device", "up/")


def test_a_device_hears_its_own_subtree_and_its_region():
    assert covered(device_filters(NORTH, DEVICE)) == only("device", "dn/") | only("everyone", "")


def test_nobody_hears_another_region_or_device():
    assert not covered(uplink_filters("south")) - {topic_of("central", Kind.CENTRAL_STATE)}
    assert not covered(downlink_filters("south"))
    assert covered(device_filters(NORTH, "dev-9")) == only("everyone", "")
    assert not covered(device_filters("south", DEVICE))


def test_the_watchers_filters_cover_every_status_and_every_state():
    assert covered([status_filter()]) == {topic_of("central", Kind.TASK_STATUS)}
    assert covered([state_filter()]) == {
        topic_of("device", Kind.STATE),
        topic_of("gateway", Kind.STATE),
    }


@given(topics())
def test_no_two_filters_of_one_session_match_one_topic(topic):
    sessions = [
        central_filters(),
        uplink_filters(NORTH),
        downlink_filters(NORTH),
        device_filters(NORTH, DEVICE),
    ]
    for filters in sessions:
        assert len(filters) <= 8
        assert sum(matches(f, topic.name) for f in filters) <= 1


@given(free, free)
def test_an_address_tells_whose_subtree_it_is(region, device):
    own = Address(region, device)
    assert not own.is_gateway
    assert not own.is_everyone
    assert own.prefix == f"fl/v1/{region}/{device}"
    assert Address.of_gateway(region).is_gateway
    assert Address.of_gateway(region).prefix == f"fl/v1/gw/{region}"
    assert Address.of_everyone(region).is_everyone
    assert is_id(Address.of_everyone(region).node)
