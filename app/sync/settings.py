"""The section `sync` of the configuration."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from app.documents.schema import Strict

_LEAST_SECRET = 16


class SyncSettings(Strict):
    """The backend's address, the secret that signs the calls, and the retries. Off without a `url`."""

    # Otherwise the text of a validation error would contain the secret.
    model_config = ConfigDict(hide_input_in_errors=True)

    url: str | None = Field(None, description="where to POST; the backend sync is off without it")
    secret: SecretStr | None = Field(
        None, validate_default=True, description="signs the calls; at least 16 characters, shared with the backend"
    )
    timeout_s: float = Field(5.0, gt=0, le=60, description="time limit of one attempt, connecting included")
    first_retry_s: float = Field(1.0, gt=0, description="the longest first wait; it doubles at each attempt")
    most_retry_s: float = Field(60.0, gt=0, description="the longest wait between two attempts")
    give_up_s: float = Field(86_400, gt=0, description="age at which an undelivered call is dropped")
    spool: Path | None = Field(
        None, description="a folder of this replica's own for undelivered calls; left out: `sync` below `state`"
    )

    @field_validator("url")
    @classmethod
    def _http_only(cls, url: str | None) -> str | None:
        if url is not None and not _is_http(url):
            raise ValueError("must be http:// or https:// and a host, for example https://backend:8443/redis-events")
        return url

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if secret is None and info.data.get("url") is not None:
            raise ValueError(f"is required when url is set: at least {_LEAST_SECRET} characters, shared with the backend")
        if secret is not None and len(secret.get_secret_value()) < _LEAST_SECRET:
            raise ValueError(f"must have at least {_LEAST_SECRET} characters")
        return secret


def _is_http(url: str) -> bool:
    try:
        parsed = urlsplit(url)
        return parsed.scheme in {"http", "https"} and bool(parsed.hostname) and parsed.port != 0
    except ValueError:  # a wrong port, or a wrong address in brackets
        return False
