"""Where a broker is: ``mqtt://[user:password@]host[:1883]`` or ``mqtts://...[:8883]``."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

_PORTS = {"mqtt": 1883, "mqtts": 8883}


class BrokerUrlError(ValueError):
    """A broker's URL or its TLS files do not fit; the text never shows the password."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"broker url: {problem}; expected mqtt[s]://[user:password@]host[:port]")


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A broker, taken apart.

    Attributes:
        host: Name or IP address, without brackets.
        port: 1 to 65535.
        is_tls: Whether the connection is TLS, the broker's certificate checked against ``host``.
        username: None: no user name is sent.
        password: None: no password is sent.
        ca_file: Trusted CAs, PEM; None: the system's.
        cert_file: The client's certificate, PEM.
        key_file: Its private key, PEM; None: it is in ``cert_file``.
    """

    host: str
    port: int
    is_tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def shown(self) -> str:
        """The address as it may be logged: no user, no password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.is_tls else 'mqtt'}://{host}:{self.port}"

    def with_login(self, username: str | None, password: str | None) -> "BrokerAddress":
        """Return the address with another login, where one is given.

        Raises:
            BrokerUrlError: A password without a user name (MQTT 3.1.1, 3.1.2.9).
        """
        address = replace(
            self,
            username=username if username is not None else self.username,
            password=password if password is not None else self.password,
        )
        if address.password is not None and address.username is None:
            problem = "a password needs a user name"
            raise BrokerUrlError(problem)
        return address

    def with_tls_files(
        self, ca_file: Path | None, cert_file: Path | None, key_file: Path | None
    ) -> "BrokerAddress":
        """Return the address with TLS files, where some are given.

        Raises:
            BrokerUrlError: Files for a connection without TLS, or a key without a certificate.
        """
        if not self.is_tls and (ca_file or cert_file or key_file):
            problem = "TLS files were given, but the scheme is mqtt, not mqtts"
            raise BrokerUrlError(problem)
        if key_file and not cert_file:
            problem = "a private key needs a certificate"
            raise BrokerUrlError(problem)
        return replace(self, ca_file=ca_file, cert_file=cert_file, key_file=key_file)


def parse_broker_url(url: str) -> BrokerAddress:
    """Return the address that a URL names; user and password may be percent-encoded.

    Raises:
        BrokerUrlError: The URL does not fit the grammar.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BrokerUrlError(str(error)) from error
    problem = _problem(parts, host, port)
    if problem is not None or host is None:
        raise BrokerUrlError(problem or "no host")
    address = BrokerAddress(host, port or _PORTS[parts.scheme], is_tls=parts.scheme == "mqtts")
    return address.with_login(_unquoted(parts.username), _unquoted(parts.password))


def _problem(parts: SplitResult, host: str | None, port: int | None) -> str | None:
    if parts.scheme not in _PORTS:
        return f"scheme {parts.scheme[:20]!r} is neither mqtt nor mqtts"
    if not host:
        return "no host"
    if port == 0:
        return "port 0"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "nothing may follow the port"
    return None


def _unquoted(value: str | None) -> str | None:
    return unquote(value) if value else None
