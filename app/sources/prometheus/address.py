"""Where Prometheus, or a store with its API, is, and what is sent along with each request."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, HttpUrl, SecretStr, StringConstraints, model_validator

from app.sources.base import SourceConfig

#: The header that names a tenant, of Cortex and Mimir.
_TENANT = "X-Scope-OrgID"
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
#: A header's value must be one line, or whoever can write it could add headers of his own.
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{1,8192}")
#: Headers that belong to the connection or to the body.
_NOT_OURS = frozenset(
    ("accept-encoding", "connection", "content-encoding", "content-length", "content-type", "host", "te", "transfer-encoding")
)
#: Parameters that the bridge itself sends.
_OWN_PARAMS = frozenset(("query", "time", "start", "end", "step", "timeout"))


def _scalar_text(value: Any) -> Any:
    """`true` and numbers of YAML as the API writes them."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _expect_line(what: str, value: SecretStr) -> None:
    if not _HEADER_VALUE.fullmatch(value.get_secret_value()):
        raise ValueError(f"{what} is empty, or no single line of ASCII")


_ParamText = Annotated[str, BeforeValidator(_scalar_text), StringConstraints(max_length=1000)]


class PrometheusAddress(SourceConfig):
    """A Prometheus, or whatever speaks its API (Thanos, Mimir, VictoriaMetrics)."""

    url: HttpUrl = Field(description="the server's address, without /api")
    max_rows: int = Field(
        400_000, ge=1, le=50_000_000, description="most points that one statement may return; before that the step is raised"
    )
    bearer_token: SecretStr | None = Field(None, description="sent as `Authorization: Bearer`")
    username: str | None = Field(None, description="for HTTP Basic")
    password: SecretStr | None = Field(None, description="for HTTP Basic")
    tenant: str | None = Field(
        None, pattern=r"^[A-Za-z0-9!_.*'()|-]{1,1000}$", description=f"sent as `{_TENANT}` (Mimir); several as `a|b`"
    )
    headers: dict[str, SecretStr] = Field(default_factory=dict, max_length=20, description="further headers of each request")
    params: dict[str, _ParamText] = Field(
        default_factory=dict, max_length=20, description="further parameters of each query, such as `partial_response` of Thanos"
    )
    ca_file: Path | None = Field(None, description="PEM file of the authority that signed the server's certificate")
    max_execution_time_s: float = Field(4.0, gt=0, le=60, description="sent along as `timeout`; keep it below attempt_timeout_s")
    min_window_s: int = Field(60, ge=1, le=86_400, description="the shortest window of a rate: four scrape intervals")

    @property
    def sent_headers(self) -> dict[str, str]:
        """Headers of every request, credentials for HTTP Basic aside."""
        headers = {name: value.get_secret_value() for name, value in self.headers.items()}
        if self.tenant is not None:
            headers[_TENANT] = self.tenant
        if self.bearer_token is not None:
            headers["Authorization"] = f"Bearer {self.bearer_token.get_secret_value()}"
        return headers

    @property
    def sent_params(self) -> dict[str, str]:
        """Parameters of every query.

        VictoriaMetrics gives the value of half a minute ago as the value of now unless these say otherwise: `nocache` for an
        instant, `latency_offset` for a range. The others do not know them.
        """
        return {"nocache": "1", "latency_offset": "1ms"} | self.params

    @model_validator(mode="after")
    def _headers_can_be_sent(self) -> Self:
        if self.bearer_token is not None and self.username is not None:
            raise ValueError("bearer_token: stands in place of username and password; remove one side")
        taken = dict[str, str]()
        if self.tenant is not None:
            taken[_TENANT.lower()] = "tenant"
        if self.bearer_token is not None or self.username is not None:
            taken["authorization"] = "bearer_token" if self.username is None else "username"
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _NOT_OURS:
                raise ValueError(
                    f"headers: {name[:100]!r} cannot be set; allowed are headers of the request itself, such as X-Key"
                )
            if name.lower() in taken:
                raise ValueError(f"headers: {name} is set by {taken[name.lower()]}, too; remove one of them")
            _expect_line(f"headers: the value of {name}", value)
            taken[name.lower()] = f"headers.{name}"
        if self.bearer_token is not None:
            _expect_line("bearer_token:", self.bearer_token)
        return self

    @model_validator(mode="after")
    def _params_are_further_ones(self) -> Self:
        for name in self.params:
            if name in _OWN_PARAMS or not re.fullmatch(r"[A-Za-z0-9_.\[\]-]{1,100}", name):
                raise ValueError(
                    f"params: {name[:100]!r} cannot be set; the bridge itself sends {', '.join(sorted(_OWN_PARAMS))}"
                )
        return self
