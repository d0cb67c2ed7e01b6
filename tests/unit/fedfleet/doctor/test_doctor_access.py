"""What a visit to a broker means: a refusal and an echo are believed, an acknowledgement is not."""

from fedfleet.doctor.access_checks import judge_access
from fedfleet.doctor.broker_checks import judge_way
from fedfleet.doctor.subject import Link
from fedfleet.doctor.visit_facts import NEEDED_BYTES, SIZES, Visit
from schemas import probes
from schemas.topics import device_filters
from transport.broker_url import parse_broker_url
from transport.probe_answers import Answer, Echo
from transport.reaching import Handshake, Step

LINK = Link(
    "broker", "mqtt://broker", device_filters("north", "d1"), probes.of_device("north", "d1")
)
CAME, TAKEN = Echo(came_back=True, acknowledged=True), Echo(acknowledged=True)
REFUSED, SILENT = Echo(refusal="Not authorized"), Echo()


def visited(url="mqtt://broker", **more):
    found = Visit(LINK, parse_broker_url(url), Step("10.0.0.1"), Step("port 1883 is open"))
    found.login = Answer()
    for name, value in more.items():
        setattr(found, name, value)
    return found


def status(name, **more):
    return {one.check: one for one in judge_access(visited(**more))}[f"broker.{name}"].status


def test_only_what_came_back_is_proved():
    for version in ("5", "3.1.1"):
        assert status("publish", publishes=CAME, version=version) == "ok"
        assert status("publish", publishes=TAKEN, version=version) == "warning"
        assert status("publish", publishes=SILENT, version=version) == "warning"
        assert status("listen", listens=CAME, version=version) == "ok"
        assert status("listen", listens=SILENT, version=version) == "warning"


def test_a_refusal_is_believed_where_the_program_itself_publishes():
    assert status("publish", publishes=REFUSED) == "failed"
    assert status("listen", listens=REFUSED) == "warning"  # a device need not write there


def test_what_is_taken_and_not_delivered_is_a_failure_where_refusals_are_told():
    assert status("listen", listens=TAKEN, version="5") == "failed"
    assert status("listen", listens=TAKEN, version="3.1.1") == "warning"


def test_filters_that_are_refused_are_named():
    (first, *_) = judge_access(visited(refused={"fl/v1/north/d1/dn/#": "Unspecified error"}))
    assert (first.status, "fl/v1/north/d1/dn/#: Unspecified error" in first.seen) == (
        "failed",
        True,
    )


def sizes(*came, lost=None, echo=TAKEN):
    found = dict.fromkeys(came, CAME)
    return {**found, lost: echo} if lost else found


def test_what_the_programs_need_must_come_back():
    assert status("packet_size", sizes=sizes(*SIZES)) == "ok"
    assert status("packet_size", sizes=sizes(*SIZES[:1], lost=SIZES[1])) == "failed"
    assert status("packet_size", sizes=sizes(*SIZES[:3], lost=NEEDED_BYTES)) == "failed"
    assert status("packet_size", sizes=sizes(*SIZES[:4], lost=SIZES[-1])) == "warning"


def test_a_limit_that_the_broker_tells_is_enough_to_fail():
    assert status("packet_size", login=Answer(packet_bytes=4096)) == "failed"
    assert (
        status("packet_size", login=Answer(packet_bytes=600_000), sizes=sizes(*SIZES[:4]))
        == "warning"
    )
    assert status("packet_size", login=Answer(packet_bytes=1 << 20), sizes=sizes(*SIZES)) == "ok"


def test_a_slow_link_and_a_right_that_is_missing_prove_nothing_of_the_size():
    assert status("packet_size", sizes=sizes(*SIZES[:4])) == "warning"
    assert status("packet_size", sizes=sizes(*SIZES[:2])) == "warning"
    assert status("packet_size") == "warning"


def test_a_broker_that_keeps_no_session_is_a_warning():
    assert status("session", is_kept=True) == "ok"
    assert status("session", is_kept=False) == "warning"
    assert "broker.session" not in {one.check for one in judge_access(visited())}


def test_nothing_is_said_of_rights_where_nobody_could_log_in():
    assert judge_access(visited(login=Answer("Not authorized"))) == []


def way(**more):
    return {one.check: one for one in judge_way(visited(**more), 0.0)}


def test_a_password_in_the_clear_is_a_warning_except_on_this_machine():
    assert way(url="mqtt://d1:x@broker")["broker.tls"].status == "warning"
    assert way(url="mqtt://d1:x@127.0.0.1")["broker.tls"].status == "ok"


def test_a_broker_that_wants_a_certificate_says_so():
    found = way(login=Answer("tlsv13 alert certificate required"))["broker.login"]
    assert (found.status, "cert_file" in found.advice) == ("failed", True)


def test_each_failure_of_tls_has_its_advice():
    told = {
        "Hostname mismatch, certificate is not valid for 'b'.": "the name that",
        "certificate has expired": "issue the broker's certificate anew",
        "self-signed certificate in certificate chain": "ca_file",
        "unable to get local issuer certificate": "ca_file",
        "[SSL: WRONG_VERSION_NUMBER] wrong version number": "TLS port",
        "No such file or directory": "cert_file",
    }
    for problem, advice in told.items():
        found = way(url="mqtts://b", tls=Handshake("", problem), login=None)["broker.tls"]
        assert (found.status, advice in found.advice) == ("failed", True), problem
