"""One attempt to tell the backend, over HTTP (httpx)."""

from __future__ import annotations

import asyncio
import ssl
from functools import cache

import httpx

from app.sources.base import first_line


class Backend:
    """The backend's URL, and the connections to it."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=timeout_s, verify=_certificates())

    async def post(self, body: bytes, headers: dict[str, str]) -> tuple[int, str, str]:
        """Status (0 where there was no answer), what happened in words, and the Retry-After header. Raises nothing."""
        try:
            async with asyncio.timeout(self._timeout_s):  # httpx' own limits start anew with every byte
                got = await self._http.post(self._url, content=body, headers=headers)
        except (TimeoutError, httpx.TimeoutException):
            return 0, f"no answer within {self._timeout_s:g}s", ""
        except (OSError, httpx.TransportError) as problem:
            return 0, f"{type(problem).__name__}: {first_line(problem)}", ""
        except Exception as problem:  # its text is not known to be free of the secret
            return 0, type(problem).__name__, ""
        return got.status_code, f"the backend answered {got.status_code}", got.headers.get("Retry-After", "")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


@cache
def _certificates() -> ssl.SSLContext:
    # Reading them holds the event loop up for some 40 ms.
    return httpx.create_ssl_context(trust_env=False)
