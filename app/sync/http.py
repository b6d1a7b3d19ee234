"""One HTTP call to the backend."""

from __future__ import annotations

import aiohttp

from app.sources.base import first_line


class BackendClient:
    """The backend's URL and the connections to it. Make it on the event loop that uses it."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s), trust_env=False)

    async def post(self, body: bytes, headers: dict[str, str]) -> tuple[int, str, str]:
        """Returns the status (0 without a response), what happened in words, and the Retry-After header. Raises nothing."""
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                await response.read()
        except TimeoutError:
            return 0, f"no answer within {self._timeout_s:g}s", ""
        except (OSError, aiohttp.ClientConnectionError) as problem:
            return 0, f"{type(problem).__name__}: {first_line(problem)}", ""
        except Exception as problem:  # its text may contain the URL, and the URL a password
            return 0, type(problem).__name__, ""
        return response.status, f"the backend answered {response.status}", response.headers.get("Retry-After", "")

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
