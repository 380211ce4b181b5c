"""The errors of stores."""

from __future__ import annotations

from soc.errors import SocError


class StoreError(SocError):
    """The place, its content or the request is wrong; a retry does not help."""


class StoreDown(StoreError):
    """The store does not respond, or reports that it is temporarily unavailable: a retry may help."""
