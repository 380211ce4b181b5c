"""What goes wrong between a store and us."""

from __future__ import annotations

from soc.errors import SocError


class StoreError(SocError):
    """The place, its content or our way of asking is wrong; trying again does not help."""


class StoreDown(StoreError):
    """The store does not answer, or says that it cannot now: try again later."""
