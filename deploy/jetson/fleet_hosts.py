"""The list of hosts: one a line, ``host,region,id,profile``, checked before anything is done."""

import csv
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from schemas.ids import DeviceId, RegionId

_COLUMNS = ("host", "region", "id", "profile")
_REGION = TypeAdapter(RegionId)
_DEVICE = TypeAdapter(DeviceId)


class HostsError(ValueError):
    """A list of hosts does not fit; the text names the file and the line."""


@dataclass(frozen=True, slots=True)
class Host:
    """One line.

    Attributes:
        address: As ssh takes it: ``[user@]name``; a port or a key belongs in ~/.ssh/config.
        region: The device's region.
        device: The device's id.
        profile: Firmware profile, or "" for none.
    """

    address: str
    region: str
    device: str
    profile: str = ""


def read_hosts(path: Path) -> list[Host]:
    """Return the hosts of a file; empty lines, ``#`` and a heading are passed over.

    Raises:
        HostsError: A line does not fit, a host or an id comes twice, or there is none.
    """
    try:
        rows = list(
            csv.reader(path.read_text(encoding="utf-8").splitlines(), skipinitialspace=True)
        )
    except (OSError, ValueError, csv.Error) as error:
        message = f"{path}: {error}"
        raise HostsError(message) from error
    hosts: list[Host] = []
    for number, row in enumerate(rows, start=1):
        cells = tuple(cell.strip() for cell in row)
        if not any(cells) or cells[0].startswith("#") or cells == _COLUMNS:
            continue
        hosts.append(_host(cells, f"{path}, line {number}"))
        _check_new(hosts, f"{path}, line {number}")
    if not hosts:
        message = f"{path}: no host in it; a line is {','.join(_COLUMNS)}"
        raise HostsError(message)
    return hosts


def _host(cells: tuple[str, ...], where: str) -> Host:
    if len(cells) not in (len(_COLUMNS) - 1, len(_COLUMNS)):
        message = f"{where}: {len(cells)} columns; a line is {','.join(_COLUMNS)}"
        raise HostsError(message)
    host = Host(*cells)
    if not host.address or host.address.startswith("-") or " " in host.address:
        message = f"{where}: host {host.address!r} is not [user@]name"
        raise HostsError(message)
    try:
        _REGION.validate_python(host.region)
        _DEVICE.validate_python(host.device)
    except ValidationError as error:
        message = f"{where}: region or id: {error.errors()[0]['msg']}"
        raise HostsError(message) from error
    return host


def _check_new(hosts: list[Host], where: str) -> None:
    *earlier, last = hosts
    for host in earlier:
        if host.address == last.address or host.device == last.device:
            message = f"{where}: host {last.address} or id {last.device} is there before"
            raise HostsError(message)
