"""Settings that every program shares: which broker, which protocol, where its state lives.

A setting comes from a flag, else from the environment (``FEDFLEET_`` and its name), else from a
TOML file, else from the credentials that systemd handed over, else from its default here.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import Self

from schemas.base import explain

ENVIRONMENT_PREFIX = "FEDFLEET_"
#: Credentials of a systemd unit (LoadCredential=) by the setting that names their file.
CREDENTIALS = {
    "password_file": "broker-password",
    "uplink_password_file": "uplink-password",
    "ca_file": "ca.pem",
    "cert_file": "cert.pem",
    "key_file": "key.pem",
}


class SettingsError(ValueError):
    """A setting is missing or does not fit; the text names it, its value and the limit."""


class ConnectionSettings(BaseSettings):
    """Base of every program's settings; read once, then frozen."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        populate_by_name=True,
    )

    broker: str = Field(default="mqtt://127.0.0.1:1883", description="mqtt[s]://[user:pw@]host")
    password_file: Path | None = Field(
        default=None, description="file whose first line is the broker's password"
    )
    mqtt_protocol: Literal["auto", "5", "3.1.1"] = "auto"
    keepalive_s: int = Field(default=60, ge=2, le=1200)
    ca_file: Path | None = Field(default=None, description="CA that signed the broker")
    cert_file: Path | None = Field(default=None, description="this program's certificate")
    key_file: Path | None = Field(default=None, description="this program's private key")
    state_dir: Path = Field(default=Path("state"), description="database and objects")

    @property
    def password(self) -> str | None:
        """What ``password_file`` holds; None leaves it to the URL.

        Raises:
            SettingsError: The file cannot be read or has nothing in its first line.
        """
        return read_password("password_file", self.password_file)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where settings come from, the first that knows one first."""
        return (init_settings, env_settings, Credentials(settings_cls))

    @classmethod
    def load(cls, config: Path | None = None, **flags: Any) -> Self:  # noqa: ANN401
        """Return the settings; flags that are None were not given.

        Args:
            config: TOML file whose keys are the settings' names, if any.
            flags: What the command line gave.

        Raises:
            SettingsError: A setting is missing or does not fit, or the file cannot be read.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        sourced = _with_file(cls, config) if config is not None else cls
        try:
            return sourced(**given)
        except ValidationError as error:
            known = tuple(cls.model_fields)
            raise SettingsError(explain(error, known)) from error
        except (OSError, ValueError) as error:
            message = f"config: {config}: {error}"
            raise SettingsError(message) from error


def check_settings(cls: type[ConnectionSettings], settings: Mapping[str, Any]) -> None:
    """Check settings that are about to be written to a file, whatever the environment says.

    Raises:
        SettingsError: One is missing or does not fit.
    """
    try:
        _alone(cls)(**settings)
    except ValidationError as error:
        raise SettingsError(explain(error, tuple(cls.model_fields))) from error


def _alone(cls: type[Any]) -> type[Any]:
    class Alone(cls):  # type: ignore[misc]
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],  # noqa: ARG003
            init_settings: PydanticBaseSettingsSource,
            **_: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings,)

    return Alone


def _with_file(cls: type[Any], config: Path) -> type[Any]:
    if not config.is_file():
        message = f"config: {config}: no such file"
        raise SettingsError(message)

    class FromFile(cls):  # type: ignore[misc]
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            toml = TomlConfigSettingsSource(settings_cls, toml_file=config)
            return (init_settings, env_settings, toml, Credentials(settings_cls))

    return FromFile


class Credentials(PydanticBaseSettingsSource):
    """The files in ``CREDENTIALS_DIRECTORY``, each as the setting that ``CREDENTIALS`` says."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """Return the path for one setting, or None, as the base class wants it."""
        folder, name = os.environ.get("CREDENTIALS_DIRECTORY"), CREDENTIALS.get(field_name)
        path = Path(folder, name) if folder and name else None
        return (path if path is not None and path.is_file() else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return all of them that are there."""
        fields = self.settings_cls.model_fields.items()
        found = {name: self.get_field_value(field, name)[0] for name, field in fields}
        return {name: path for name, path in found.items() if path is not None}


def read_password(setting: str, path: Path | None) -> str | None:
    """Return the first line of a file, without what ends it; None for no file.

    Raises:
        SettingsError: The file cannot be read or has nothing in its first line.
    """
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        message = f"{setting}: {error}"
        raise SettingsError(message) from error
    if not lines or not lines[0]:
        message = f"{setting}: {path} has no password in its first line"
        raise SettingsError(message)
    return lines[0]
