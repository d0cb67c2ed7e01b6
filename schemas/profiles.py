"""The model of a firmware profile: what is known of one family of hardware and its firmware.

Profiles are YAML files, which come with ``firmware_profiles`` or are a user's own; an unknown
field is an error that names it. Each fact of a profile has its source, or says that it is this
project's own choice or measurement.
"""

import json
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from schemas.base import PersonMessage, explain
from schemas.errors import MessageError
from schemas.limits import DEFAULT_CHUNK_BYTES, KIB, MAX_CHUNK_BYTES, MIB, MIN_CHUNK_BYTES
from schemas.tasks import Name, NamePattern

#: What onnxruntime may compute on, as settings and births name it.
Provider = Literal["cpu", "cuda", "tensorrt"]
#: What the arithmetic of a training step is done in; parameters travel as float32 in any case.
Precision = Literal["float32", "float16"]

#: A version of two or three numbers: ``3.10``, ``32.7``, ``1.16.3``.
Version = Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4}){1,2}\z")]
#: A line of text that people read.
Line = Annotated[str, Field(min_length=1, max_length=400)]
#: Of a device tree: the board's name, or a shell pattern of it.
BoardPattern = Annotated[str, Field(min_length=3, max_length=120)]

#: What a source that is no address begins with.
_WITHOUT_ADDRESS = ("own choice: ", "measured: ")
#: How far below the ceiling training goes on again, where a profile does not say it.
DEFAULT_HYSTERESIS_CELSIUS = 8.0


class Detection(PersonMessage):
    """How a family is recognized; all that is given must fit.

    Of ``models`` and ``compatible`` one suffices. A profile with neither is for every machine of
    its architectures, and is taken where no other fits.
    """

    models: tuple[BoardPattern, ...] = Field(
        default=(), max_length=32, description="shell patterns of /proc/device-tree/model"
    )
    compatible: tuple[NamePattern, ...] = Field(
        default=(), max_length=64, description="entries of /proc/device-tree/compatible"
    )
    architectures: tuple[Name, ...] = Field(
        default=(), max_length=8, description="of uname -m; none: any"
    )
    l4t_min: Version | None = Field(default=None, description="oldest release of Jetson Linux")
    l4t_max: Version | None = Field(
        default=None, description="newest one; 32.7 takes in all of its revisions"
    )
    memory_min_bytes: int | None = Field(default=None, ge=MIB)
    memory_max_bytes: int | None = Field(default=None, ge=MIB)
    priority: int = Field(default=50, ge=0, le=100, description="the highest is taken")

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> "Detection":
        least, most = self.memory_min_bytes, self.memory_max_bytes
        if least is not None and most is not None and least > most:
            message = f"memory_min_bytes: {least} is above memory_max_bytes: {most}"
            raise ValueError(message)
        if self.l4t_min and self.l4t_max and numbers(self.l4t_min) > numbers(self.l4t_max):
            message = f"l4t_min: {self.l4t_min} is above l4t_max: {self.l4t_max}"
            raise ValueError(message)
        return self

    @property
    def is_specific(self) -> bool:
        """Whether it is for particular boards, not for a whole architecture."""
        return bool(self.models or self.compatible)


class Wheels(PersonMessage):
    """What Python the firmware brings, and with which one the agent can be installed."""

    system_python: Version | None = Field(default=None, description="the firmware's own")
    pythons: tuple[Version, ...] = Field(
        min_length=1, max_length=8, description="with wheels of all dependencies, best first"
    )
    glibc: Version | None = None
    platform_tag: str | None = Field(default=None, pattern=r"^[a-z0-9_]{5,40}\z")
    note: Line | None = None


class Runtime(PersonMessage):
    """The oldest onnxruntime that devices of this family run, and what it reads."""

    onnxruntime_oldest: Version = "1.16"
    opset: int = Field(default=19, ge=7, le=99, description="newest one of that version")
    ir_version: int = Field(default=9, ge=3, le=99)


class Limits(PersonMessage):
    """What a device may be burdened with; what is not set is not limited."""

    memory_bytes: int | None = Field(default=None, ge=MIB, description="one job may take")
    threads: int | None = Field(default=None, ge=1, le=256, description="of one training step")
    batch_size: int | None = Field(default=None, ge=1, le=65536)
    model_bytes: int | None = Field(
        default=None, ge=KIB, description="of a model's parameters as float32"
    )
    temperature_ceiling_celsius: float | None = Field(
        default=None, ge=30, le=120, description="training pauses from here on"
    )
    temperature_resume_celsius: float | None = Field(
        default=None, ge=20, le=120, description="and goes on from here down"
    )
    battery_floor_percent: int | None = Field(
        default=None, ge=0, le=95, description="below it training pauses, unless it is charged"
    )
    power_mode: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_]{1,32}\z",
        description="that the limits are meant for; the agent does not set it",
    )

    @model_validator(mode="after")
    def _resumes_below_the_ceiling(self) -> "Limits":
        ceiling, resume = self.temperature_ceiling_celsius, self.temperature_resume_celsius
        if resume is not None and (ceiling is None or resume >= ceiling):
            message = (
                f"temperature_resume_celsius: {resume:g} must be below "
                f"temperature_ceiling_celsius: {ceiling}"
            )
            raise ValueError(message)
        return self

    @property
    def resume_celsius(self) -> float | None:
        """From where down training goes on; None: there is no ceiling."""
        if self.temperature_ceiling_celsius is None:
            return None
        if self.temperature_resume_celsius is not None:
            return self.temperature_resume_celsius
        return self.temperature_ceiling_celsius - DEFAULT_HYSTERESIS_CELSIUS


class Link(PersonMessage):
    """The usual link of such devices, and what to do on it until it was measured."""

    kind: Literal["ethernet", "wifi", "cellular", "unknown"] = "unknown"
    rate_bytes_s: int | None = Field(
        default=None, ge=100, description="upwards; codec auto reckons with it at first"
    )
    codec: Name = Field(default="auto", description="for tasks that are for such devices")


class KnownGood(PersonMessage):
    """Versions that are known to work together, and how that is known."""

    firmware: tuple[Line, ...] = Field(default=(), max_length=16)
    agents: tuple[Version, ...] = Field(default=(), max_length=16)
    verified: Literal["hardware", "documents"] = Field(
        default="documents", description="whether anybody ran it on such hardware"
    )


class Source(PersonMessage):
    """Where one fact comes from."""

    fact: Line
    source: Line = Field(
        description="an https address, or `own choice: ` or `measured: ` and why or how"
    )

    @field_validator("source")
    @classmethod
    def _is_an_address_or_a_reason(cls, value: str) -> str:
        said = any(value.startswith(one) and value != one for one in _WITHOUT_ADDRESS)
        if not (value.startswith("https://") or said):
            message = "must begin with https://, `own choice: ` or `measured: ` and go on"
            raise ValueError(message)
        return value


class FirmwareProfile(PersonMessage):
    """All that is known of one family."""

    family: Name
    description: Line
    detection: Detection
    wheels: Wheels
    runtime: Runtime = Runtime()
    backends: tuple[Literal["onnx", "torch"], ...] = Field(
        default=("onnx", "torch"), min_length=1, max_length=2, description="best first"
    )
    providers: tuple[Provider, ...] = Field(
        default=("cpu",), min_length=1, max_length=3, description="of onnx, best first"
    )
    precision: Precision = "float32"
    threads: int = Field(default=1, ge=1, le=256, description="where the settings name none")
    chunk_bytes: int = Field(default=DEFAULT_CHUNK_BYTES, ge=MIN_CHUNK_BYTES, le=MAX_CHUNK_BYTES)
    limits: Limits = Limits()
    link: Link = Link()
    known_good: KnownGood = KnownGood()
    sources: tuple[Source, ...] = Field(min_length=1, max_length=64)

    @model_validator(mode="after")
    def _keeps_within_itself(self) -> "FirmwareProfile":
        most = self.limits.threads
        if most is not None and self.threads > most:
            message = f"threads: {self.threads} is above limits.threads: {most}"
            raise ValueError(message)
        if self.providers[-1] != "cpu":
            message = f"providers: the last must be cpu, not {self.providers[-1]}"
            raise ValueError(message)
        return self


#: Every field's name, to suggest the one that was meant.
_KNOWN = tuple(
    name
    for model in (FirmwareProfile, Detection, Wheels, Runtime, Limits, Link, KnownGood, Source)
    for name in model.model_fields
)


def parse_profile(table: object) -> FirmwareProfile:
    """Return the profile in what a YAML or JSON file holds.

    Raises:
        MessageError: It does not fit; the text names each field, its value and the limit.
    """
    try:
        # Through JSON, because the strict model takes a list for a tuple only there.
        return FirmwareProfile.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        raise MessageError(explain(error, _KNOWN)) from error


def numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers, to be compared."""
    return tuple(int(part) for part in version.split("."))
