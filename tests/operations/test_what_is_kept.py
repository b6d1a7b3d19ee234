"""What the bridge tells of certificates, keys and snapshots, before one of them ends or fills a disk."""

from __future__ import annotations

import asyncio
import math
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import Gauge

from app.operations.certificates import CertificateSettings, certificate_end_s, end_of, watch_certificates
from app.operations.snapshot_counts import watch_snapshots
from app.telemetry import Telemetry
from demo.stores import free_port
from tests.contracts.app_under_test import bench


def _shown(gauge: Gauge) -> float:
    [[sample]] = [family.samples for family in gauge.collect()]
    return float(sample.value)


def _certificate(folder: Path, days: int) -> tuple[Path, Path, float]:
    """A new certificate, its key, and when openssl says that it ends."""
    folder.mkdir(exist_ok=True)
    certificate, key = folder / "c.pem", folder / "k.pem"
    made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run(
        ["openssl", *made, "-days", str(days), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-enddate", "-in", str(certificate)], check=True, capture_output=True, text=True
    )
    ends = datetime.strptime(shown.stdout.strip().removeprefix("notAfter="), "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    return certificate, key, ends.timestamp()


@asynccontextmanager
async def _tls_server(certificate: Path, key: Path) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    port = free_port()
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port, ssl=context)
    async with server:
        yield port


@pytest.mark.parametrize("days", [1, 30, 12_000])
async def test_the_end_of_a_certificate_is_what_openssl_says(tmp_path: Path, days: int) -> None:
    certificate, key, ends_s = _certificate(tmp_path, days)
    async with _tls_server(certificate, key) as port:
        assert await certificate_end_s(f"localhost:{port}") == ends_s
    assert ends_s == pytest.approx(datetime.now(UTC).timestamp() + days * 86400, abs=60)


async def test_an_endpoint_that_goes_away_keeps_what_was_seen_and_one_never_seen_is_not_known(tmp_path: Path) -> None:
    certificate, key, ends_s = _certificate(tmp_path, 10)
    telemetry, gone = Telemetry(), free_port()
    async with _tls_server(certificate, key) as port:
        settings = CertificateSettings(endpoints=(f"127.0.0.1:{port}", f"127.0.0.1:{gone}"), look_s=1)
        watching = asyncio.create_task(watch_certificates(settings, telemetry))
        while _shown(telemetry.certificate_end.labels(f"127.0.0.1:{port}")) != ends_s:
            await asyncio.sleep(0.01)
    await asyncio.sleep(1.2)
    watching.cancel()
    assert _shown(telemetry.certificate_end.labels(f"127.0.0.1:{port}")) == ends_s
    assert math.isnan(_shown(telemetry.certificate_end.labels(f"127.0.0.1:{gone}")))


@pytest.mark.parametrize("spoilt", [b"", b"\x30", b"\x30\x03\x02\x01\x05", b"\x30\x82\xff\xff" + b"\0" * 10, b"\xff" * 40])
def test_what_is_no_certificate_is_refused(spoilt: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        end_of(spoilt)


def test_an_endpoint_is_a_host_and_a_port() -> None:
    for wrong in ("lb.desk.example", ":8443", "lb:0", "https://lb.desk.example"):
        with pytest.raises(ValueError, match="no host:port"):
            CertificateSettings(endpoints=(wrong,))
    assert CertificateSettings(endpoints=("lb.desk.example:8443", "[::1]:443")).endpoints[1] == "[::1]:443"


def test_a_key_with_an_end_has_a_metric_and_one_without_has_none() -> None:
    keys = {"grafana": {"sha256": "0" * 64, "expires": "2027-01-31T00:00:00Z"}, "scripts": {"sha256": "1" * 64}}
    telemetry = bench(auth={"keys": keys}).service.operations.telemetry
    assert _shown(telemetry.key_end.labels("grafana")) == datetime(2027, 1, 31, tzinfo=UTC).timestamp()
    assert 'key="scripts"' not in telemetry.exposition().decode()


async def test_the_snapshots_of_a_folder_are_counted(tmp_path: Path) -> None:
    for minute in range(3):
        (tmp_path / f"snap-20261128T10{minute:02d}00.000Z.duckdb").write_bytes(b"x" * 500)
    (tmp_path / "live.duckdb").write_bytes(b"x" * 9000)
    telemetry = Telemetry()
    watching = asyncio.create_task(watch_snapshots({"duckdb": tmp_path, "gone": tmp_path / "nowhere"}, telemetry))
    while not _shown(telemetry.snapshots.labels("duckdb")):
        await asyncio.sleep(0.01)
    watching.cancel()
    text = telemetry.exposition().decode()
    assert 'bridge_snapshots{source="duckdb"} 3.0' in text
    assert 'bridge_snapshots_bytes{source="duckdb"} 1500.0' in text
