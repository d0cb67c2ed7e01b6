"""``devices``: every gateway and device, from the states that are retained at the broker."""

import json

import click

from fedfleet import options
from fedfleet.client import broker_name, open_client
from fedfleet.fleet import Fleet
from fedfleet.tables import size, table
from schemas.messages import Capabilities, DataDescription
from schemas.topics import state_filter

COLUMNS = (
    "region",
    "device",
    "status",
    "profile",
    "backends",
    "computes on",
    "data",
    "memory",
    "version",
)


@click.command()
@options.connection
@options.wait(5.0, "How long to read, at most.")
@options.json_output
def devices(
    *, broker: str | None, mqtt_protocol: str | None, wait_s: float, as_json: bool
) -> None:
    """List gateways and devices with what they can do and which data they have."""
    settings = options.settings(broker, mqtt_protocol)
    fleet = Fleet()
    with open_client(settings, (state_filter(),)) as client:
        for message in client.collect(wait_s):
            fleet.take(message)
    if as_json:
        click.echo(json.dumps(_objects(fleet)))
    elif fleet.devices or fleet.gateways:
        click.echo(table(COLUMNS, [*_gateway_rows(fleet), *_device_rows(fleet)]))
        for line in _fallbacks(fleet):
            click.echo(line)
    else:
        click.echo(f"no devices at {broker_name(settings)}", err=True)


def _gateway_rows(fleet: Fleet) -> list[tuple[str, ...]]:
    return [
        (
            region,
            "(gateway)",
            state.status,
            "",
            "",
            "",
            f"{state.devices_online} of {state.devices_known} devices online",
            "",
            state.versions.get("fedfleet", ""),
        )
        for region, state in sorted(fleet.gateways.items())
    ]


def _device_rows(fleet: Fleet) -> list[tuple[str, ...]]:
    return [
        (
            region,
            device,
            fleet.status_of(region, device),
            state.profile,
            ",".join(state.capabilities.backends),
            _computes_on(state.capabilities),
            " ".join(_data(item) for item in state.data),
            size(state.capabilities.memory_bytes) if state.capabilities.memory_bytes else "-",
            state.versions.get("fedfleet", ""),
        )
        for (region, device), state in sorted(fleet.devices.items())
    ]


def _fallbacks(fleet: Fleet) -> list[str]:
    return [
        f"{region}/{device}: {state.capabilities.fallback}"
        for (region, device), state in sorted(fleet.devices.items())
        if state.capabilities.fallback is not None
    ]


def _computes_on(has: Capabilities) -> str:
    return f"{','.join(has.providers)} {has.precision}" if has.providers else "-"


def _data(item: DataDescription) -> str:
    shape = "x".join(map(str, item.shape))
    return f"{item.name}[{item.examples} of {shape}, {item.classes} classes]"


def _objects(fleet: Fleet) -> dict[str, list[dict[str, object]]]:
    gateways: list[dict[str, object]] = [
        {"region": region, **state.model_dump(mode="json")}
        for region, state in sorted(fleet.gateways.items())
    ]
    found: list[dict[str, object]] = [
        {
            "region": region,
            "device": device,
            **state.model_dump(mode="json"),
            "status": fleet.status_of(region, device),
        }
        for (region, device), state in sorted(fleet.devices.items())
    ]
    return {"gateways": gateways, "devices": found}
