"""Whether an update that is offered is one of its round's plan, by its manifest alone."""

from central.service.records import RoundRecord, TaskRecord
from central.service.verdicts import UpdateRefusedError
from schemas.messages import UpdateManifest
from updates.choice import AUTO, CANDIDATES, Accuracy, accuracy_of, is_candidate, label
from updates.codecs import create
from updates.codecs.base import Codec
from updates.layout import Layout


def codec_of(task: TaskRecord, offer: UpdateManifest) -> Codec:
    """Return what an update is decoded with: the task's codec, or the one its device has picked.

    It was checked by ``check_plan``.
    """
    one = offer if task.submission.codec == AUTO else task.submission
    return create(one.codec, one.codec_params)


def check_size(codec: Codec, layout: Layout, offer: UpdateManifest) -> None:
    """Refuse an update that is longer than its codec ever makes one, before it is pulled.

    Raises:
        UpdateRefusedError: With ``E_SIZE``.
    """
    bound = codec.encoded_size_bound(layout)
    if offer.object.size > bound:
        text = f"object.size: {offer.object.size} bytes, {codec.codec_id} makes at most {bound}"
        raise UpdateRefusedError(text, "E_SIZE")


def check_plan(task: TaskRecord, record: RoundRecord, offer: UpdateManifest) -> None:
    """Refuse an update that is not encoded, or not based, as its round asks.

    Raises:
        UpdateRefusedError: With ``E_PLAN``.
    """
    layout = task.plan.layout_sha256 if task.plan else None
    asked = task.submission
    if asked.codec == AUTO:
        _check_candidate(accuracy_of(asked.codec_params), offer)
    codec = offer.codec if asked.codec == AUTO else asked.codec
    pairs = (
        ("codec", offer.codec, codec),
        ("layout_sha256", offer.layout_sha256 or layout, layout),
        ("base_model_sha256", offer.base_model_sha256, record.base_model_sha256),
    )
    for field, got, expected in pairs:
        if got != expected:
            text = f"{field}: {got!r}, the round has {expected!r}"
            raise UpdateRefusedError(text, "E_PLAN")


def _check_candidate(accuracy: Accuracy, offer: UpdateManifest) -> None:
    if not is_candidate(accuracy, offer.codec, offer.codec_params):
        named = label(offer.codec, offer.codec_params)
        allowed = ", ".join(one.label for one in CANDIDATES[accuracy])
        text = f"codec: {named!r}, accuracy {accuracy!r} takes one of {allowed}"
        raise UpdateRefusedError(text, "E_PLAN")
