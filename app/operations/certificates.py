"""When the certificates of TLS endpoints end, for an alert before they do.

An endpoint is asked as a client asks it: only so is the certificate seen that is in use. Nothing is verified, because a
certificate that has ended must be seen, too.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

from pydantic import Field, field_validator

from app.documents.schema import Strict
from app.telemetry import Telemetry

_log = logging.getLogger(__name__)
_HANDSHAKE_S = 5.0
_VERSION = 0xA0
#: UTCTime has a year of two digits, GeneralizedTime one of four
_FORMS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}


class CertificateSettings(Strict):
    """The TLS endpoints whose certificates are watched."""

    endpoints: tuple[str, ...] = Field((), description="host:port of each, as clients reach it: HAProxy's, a store's")
    look_s: float = Field(600.0, ge=1, le=86400, description="time between two looks")

    @field_validator("endpoints")
    @classmethod
    def _check_endpoints(cls, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        for endpoint in endpoints:
            host, _, port = endpoint.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError(f"{endpoint} is no host:port, such as lb.desk.example:8443")
        return endpoints


async def watch_certificates(settings: CertificateSettings, telemetry: Telemetry) -> None:
    """Update the metric for every endpoint, for ever. What does not answer keeps what was last seen; it is NaN before that."""
    for endpoint in settings.endpoints:
        telemetry.certificate_end.labels(endpoint).set(math.nan)
    while True:
        await asyncio.gather(*(_look(endpoint, telemetry) for endpoint in settings.endpoints))
        await asyncio.sleep(settings.look_s)


async def _look(endpoint: str, telemetry: Telemetry) -> None:
    try:
        telemetry.certificate_end.labels(endpoint).set(await certificate_end_s(endpoint))
    except (OSError, ValueError, TimeoutError) as problem:
        _log.warning("the certificate of %s cannot be seen: %s", endpoint, str(problem) or type(problem).__name__)


async def certificate_end_s(endpoint: str) -> float:
    """When the certificate of host:port ends, epoch s. Raises OSError, TimeoutError, ValueError."""
    host, _, port = endpoint.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(_HANDSHAKE_S):
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context, server_hostname=host.strip("[]"))
    try:
        found: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
    if found is None:
        raise ValueError("it shows no certificate")
    return end_of(found)


def end_of(certificate: bytes) -> float:
    """`notAfter` of an X.509 certificate in DER, epoch s. Raises ValueError.

    The standard library reads it of verified certificates only.
    """
    try:
        [(_, whole)] = _items(certificate)
        signed = list(_items(next(_items(whole))[1]))
        # version (left out in the oldest), serial number, algorithm, issuer, validity
        validity = signed[4 if signed[0][0] == _VERSION else 3]
        _, (form, ends) = _items(validity[1])
        return datetime.strptime(ends.decode("ascii"), _FORMS[form]).replace(tzinfo=UTC).timestamp()
    except (IndexError, KeyError, StopIteration, ValueError) as problem:
        raise ValueError("its certificate cannot be read") from problem


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The tag and the content of each item of a DER sequence."""
    place = 0
    while place < len(content):
        tag, length, place = content[place], content[place + 1], place + 2
        if length & 0x80:
            size = length & 0x7F
            length, place = int.from_bytes(content[place : place + size], "big"), place + size
        if place + length > len(content):
            raise ValueError("it is cut short")
        yield tag, content[place : place + length]
        place += length
