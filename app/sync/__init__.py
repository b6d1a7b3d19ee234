"""Telling the backend over HTTP that a Redis server failed or came back, so that it fills Redis again.

Signed (`call`), at least once, in order for each server (`delivery`); what is not delivered yet survives a restart (`spool`).
"""

from app.sync.call import SyncCall, signature, verify
from app.sync.delivery import BackendSync
from app.sync.settings import SyncSettings

__all__ = ["BackendSync", "SyncCall", "SyncSettings", "signature", "verify"]
