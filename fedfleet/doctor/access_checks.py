"""What a visit to a broker means: may the program say and hear what it must, and how much? Pure.

A refusal is believed; an acknowledgement is not, only a message that came back.
"""

from fedfleet.doctor.finding import Finding, failed, ok, warning
from fedfleet.doctor.visit_facts import NEEDED_BYTES, SIZES, Visit
from fedfleet.tables import size
from transport.probe_answers import Echo


def judge_access(found: Visit) -> list[Finding]:
    """Judge rights, sizes and sessions; nothing, when the program could not even log in."""
    if found.login is None or found.login.problem is not None:
        return []
    rights = [_judge_filters(found), _judge_publishing(found), _judge_listening(found)]
    findings = [*rights, _judge_sizes(found), _judge_session(found)]
    return [finding for finding in findings if finding is not None]


def _judge_filters(found: Visit) -> Finding:
    check = f"{found.link.name}.subscribe"
    if found.refused:
        seen = "; ".join(f"{name}: {reason}" for name, reason in found.refused.items())
        advice = f"the broker's access list must let {_who(found)} read these topics"
        return failed(check, f"refused: {seen}", advice)
    return ok(check, f"granted: {', '.join(found.link.filters)}")


def _judge_publishing(found: Visit) -> Finding | None:
    """Where the program publishes, a message without echo may also be one it may not read."""
    echo = found.publishes
    if echo is None:
        return None
    check, topics = f"{found.link.name}.publish", _subtree(found.link.paths.publishes)
    if echo.came_back:
        return ok(check, f"a message under {topics} came back")
    if echo.refusal is not None:
        advice = f"the broker's access list must let {_who(found)} write {topics}"
        return failed(check, f"refused under {topics}: {echo.refusal}", advice)
    proof = f"{found.link.paths.publishes}/#"
    advice = f"to prove it, let {_who(found)} read {proof}; check that it may write {topics}"
    return warning(check, f"not proved: {_silence(echo)} under {topics}", advice)


def _judge_listening(found: Visit) -> Finding | None:
    """Where the program listens, a message without echo may also be one it may not write."""
    echo = found.listens
    if echo is None:
        return None
    check, topics = f"{found.link.name}.listen", _subtree(found.link.paths.listens)
    if echo.came_back:
        return ok(check, f"a message under {topics} came back")
    proof = f"{found.link.paths.listens}/#"
    if echo.acknowledged and found.version == "5":
        advice = (
            f"the broker's access list must let {_who(found)} read {topics}; "
            f"if it does, let it write {proof} too, to prove it"
        )
        return failed(check, f"taken under {topics} and never delivered", advice)
    advice = f"to prove it, let {_who(found)} write {proof}; check that it may read {topics}"
    return warning(check, f"not proved: {_silence(echo)} under {topics}", advice)


def _judge_sizes(found: Visit) -> Finding:
    check = f"{found.link.name}.packet_size"
    told = found.login.packet_bytes if found.login else None
    said = f"; the broker says {size(told)}" if told is not None else ""
    largest = max((n for n, echo in found.sizes.items() if echo.came_back), default=0)
    lost = next((n for n, echo in found.sizes.items() if not echo.came_back), None)
    if largest >= SIZES[-1]:
        return ok(check, f"{size(largest)} came back{said}")
    limits = [limit for limit in (told, lost) if limit is not None]
    advice = f"raise the broker's packet limit to 1 MiB (Mosquitto: max_packet_size {1 << 20})"
    if limits and min(limits) <= NEEDED_BYTES:
        return failed(check, f"{_lost(found, lost)}{said}", advice)
    if limits:
        seen = f"{size(largest)} came back, {size(SIZES[-1])} does not pass{said}"
        return warning(check, seen, f"the largest models cannot be announced: {advice}")
    if largest >= NEEDED_BYTES:
        seen = f"{size(largest)} came back; there was no time for {size(SIZES[-1])}"
        return warning(check, seen, "the link is slow: nothing need be done")
    rights = "grant what the lines on publish and listen ask for, and run the doctor again"
    return warning(check, f"not proved: no probe came back{said}", rights)


def _lost(found: Visit, lost: int | None) -> str:
    if lost is None:
        return "the programs need more than the broker takes"
    echo = found.sizes[lost]
    acknowledged = "acknowledged, but " if echo.acknowledged else ""
    why = f" ({echo.refusal})" if echo.refusal else ""
    return f"a message of {size(lost)} was {acknowledged}never delivered{why}"


def _judge_session(found: Visit) -> Finding | None:
    check = f"{found.link.name}.session"
    if found.is_kept is None:
        return None
    if found.is_kept:
        return ok(check, "kept while the program is away")
    advice = (
        "let the broker keep sessions (Mosquitto: persistent_client_expiration): what comes while "
        "the program is away is else only sent again later"
    )
    return warning(check, "the broker forgets a session at once", advice)


def _silence(echo: Echo) -> str:
    return (
        "acknowledged, and nothing came back" if echo.acknowledged else echo.refusal or "silence"
    )


def _subtree(probe: str) -> str:
    return f"{probe.removesuffix('/probe')}/#"


def _who(found: Visit) -> str:
    return found.address.username or "this client"
