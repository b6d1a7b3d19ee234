"""Calls to the backend over HTTP when a Redis server fails or comes back, so that the backend refills Redis.

Calls are signed (`call`) and delivered at least once, in order for each server (`delivery`). Undelivered calls survive a restart
(`spool`).
"""

from app.sync.call import SyncCall, signature, verify
from app.sync.delivery import BackendSync
from app.sync.settings import SyncSettings

__all__ = ["BackendSync", "SyncCall", "SyncSettings", "signature", "verify"]
