"""`bridge key`: make a key for a caller."""

from __future__ import annotations

from app.cli.output import print_lines
from app.server.auth import new_key


def key(name: str) -> int:
    """Print a new key, once, and the lines that the configuration needs for it."""
    secret, digest = new_key()
    print_lines(
        secret,
        "",
        "This is the key. It is shown only once. Put its SHA-256 into the configuration:",
        f"  auth: {{keys: {{{name}: {{sha256: {digest}}}}}}}",
        "or into the environment:",
        f"  BRIDGE_AUTH__KEYS__{name.upper()}__SHA256={digest}",
        "A request sends the key as:",
        "  Authorization: Bearer <key>",
    )
    return 0
