"""The supported instruments: one module or package each, discovered by name. See `collectors.device`."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from collectors.device import Device
from collectors.errors import ConfigError

KINDS: list[str] = sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_"))


def load(kind: str) -> Device:
    """Return the DEVICE of the module named `kind`. Raise ConfigError if there is no such module."""
    if kind not in KINDS:
        raise ConfigError(f"kind: no instrument {kind!r}; there are: {', '.join(KINDS)}")
    device: Device = import_module(f"{__name__}.{kind}").DEVICE
    return device
