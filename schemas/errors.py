"""Errors of the wire.

- ``WireError``: bytes or values from elsewhere that break the contract
    - ``FrameError``: the frame's outer shape (lengths, limits, digest)
    - ``MessageError``: a header or a body that does not fit its model
    - ``UnsupportedVersionError``: a major version that this program does not speak
    - ``IdentityError``: the topic and the sender disagree
    - ``PayloadError``: an encoded update or a model that does not decode

A value from elsewhere is shown in a text by ``shown``, so that no text grows with what was sent.
"""

MAX_SHOWN_CHARACTERS = 60


def shown(value: object) -> str:
    """Return ``value`` for an error's text: escaped, at most 60 characters."""
    text = repr(value)
    if len(text) <= MAX_SHOWN_CHARACTERS:
        return text
    return f"{text[: MAX_SHOWN_CHARACTERS - 3]}..."


class WireError(ValueError):
    """Something received breaks the contract; the sender is told, nothing is changed.

    Attributes:
        code: Stable machine-readable cause, in capitals, used in receipts and metrics.
    """

    code = "E_WIRE"


class FrameError(WireError):
    """A frame's lengths, limits or digest do not hold."""

    code = "E_FORMAT"


class MessageError(WireError):
    """A header or a body does not fit its model; the text names field, value and limit."""

    code = "E_SCHEMA"


class UnsupportedVersionError(WireError):
    """The sender speaks another major version of the protocol."""

    code = "E_VERSION"

    def __init__(self, version: object) -> None:
        super().__init__(f"protocol version {shown(version)} is not supported; this side speaks 1")
        self.version = version


class IdentityError(WireError):
    """The topic's identity and the sender's word for it disagree."""

    code = "E_IDENTITY"

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"topic belongs to {expected!r}, the message says {shown(got)}")
        self.expected = expected
        self.got = got


class PayloadError(WireError):
    """An encoded update or a model does not decode, or has a value that it may not have."""

    code = "E_PAYLOAD"
