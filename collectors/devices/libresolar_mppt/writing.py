"""Write to a Libre Solar charge controller: disabled unless the operator allows it, read back, and never periodic.

Pitfalls of the device (docs/protocols/libresolar_mppt.md §7), and how this module handles them:

    :84 Changed. also answers a battery setting that was silently restored        read before, read back after
    :83 Valid. also answers a wrong password, which removes access rights         only a write shows it: :A1
    every stored setting wears the EEPROM                                         equal values are not written, and
                                                                                  one setting only every 10 minutes
    functions restart the charger or its bootloader                               rejected
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from collectors.devices.libresolar_mppt import Controller
from collectors.devices.libresolar_mppt.objects import AUTHENTICATION, SETTINGS, places
from collectors.errors import ConfigError, Refused
from collectors.protocols import thingset
from collectors.protocols.dialogue import Dialogue
from collectors.protocols.thingset import UNAUTHORIZED, Json

STORE_PAUSE_S = 600.0
"""Minimum time in s between two writes of a stored setting."""
PASSWORD_CHARACTERS = 10

_FUNCTION = re.compile(r"(exec|rpc|dfu|auth|x-auth)(/|$)|.*(^|/)(x[-A-Z]|reset)", re.IGNORECASE)
_STORED = re.compile(r"(conf|cal|rec)/|.*/[sp][A-Z]")
"""Settings, calibration and counters: groups up to 0.4, prefixes from 0.5 on."""


class SettingWriter:
    """Writes settings and switches over a connection on which `open` has been run."""

    def __init__(self, controller: Controller) -> None:
        """Raise ConfigError if the configuration does not allow writing."""
        if not controller.options.allow_write:
            raise ConfigError("allow_write: writing is off; set allow_write = true in the [device] table")
        self._controller = controller
        self._stored_ns: dict[str, int] = {}

    def authenticate(self, password: str) -> Dialogue[None]:
        """Send the password. Raise Refused if it is too long; for a wrong one in 0.2 only, others do not report it."""
        function = AUTHENTICATION.get(self._controller.generation)
        if not function:
            raise Refused(f"generation {self._controller.generation} has no known way to authenticate")
        if not 1 <= len(password) <= PASSWORD_CHARACTERS:
            raise Refused(f"the password has {len(password)} characters; the device takes 1 to {PASSWORD_CHARACTERS}")
        response, _ = yield from self._controller.ask(thingset.execute(function, password))
        if not response.ok:
            raise Refused(f"the password was answered {response.status}", response.code)

    def write(self, path: str, value: bool | float | str) -> Dialogue[Json]:
        """Write one object, named "group/name" as the device names it, and return its value afterwards.

        Raises Refused for functions, for missing rights, for a value that the device did not keep, and for a stored
        setting that was written less than 10 minutes ago.
        """
        group, _, name = path.rpartition("/")
        if not group or _FUNCTION.match(path):
            raise Refused(f"{path}: expected group/name of a setting or switch; functions are never called")
        before, now_ns = yield from self._controller.fetch(group, [name])
        if before[name] == value:
            return value
        if _STORED.match(path):
            self._note_store(path, now_ns)
        response, _ = yield from self._controller.ask(
            thingset.update(self._controller.generation, group, {name: value})
        )
        if not response.ok:
            rights = "; authenticate first, and mind that a wrong password is answered like a right one"
            hint = rights if response.code in (UNAUTHORIZED, 38) else ""
            raise Refused(f"{path}: writing {value!r} was answered {response.status}{hint}", response.code)
        after, _ = yield from self._controller.fetch(group, [name])
        if not _taken(before[name], value, after[name]):
            raise Refused(
                f"{path}: {value!r} was taken but {after[name]!r} is kept: it does not fit the other settings"
            )
        return after[name]

    def _note_store(self, path: str, now_ns: int) -> None:
        last_ns = self._stored_ns.get(path)
        if last_ns is not None and now_ns - last_ns < STORE_PAUSE_S * 1e9:
            ago_s = (now_ns - last_ns) / 1e9
            raise Refused(f"{path}: stored {ago_s:.0f} s ago; it wears the EEPROM, so wait {STORE_PAUSE_S:g} s")
        self._stored_ns[path] = now_ns

    def read_settings(self) -> Dialogue[Mapping[str, Json]]:
        """Return the device's stored settings, by this project's names with units, for example "topping_voltage_v"."""
        generation = self._controller.generation
        known = {place: item.signal.split(".")[1] for item in SETTINGS for place in places(item, generation)}
        found: dict[str, Json] = {}
        for group in dict.fromkeys(group for group, _ in known):
            members, _ = yield from self._controller.command(thingset.names(generation, group))
            wanted = [name for name in members if (group, name) in known]
            for batch in self._controller.batches(group, wanted):
                raw, _ = yield from self._controller.fetch(group, batch)
                found |= {known[group, name]: value for name, value in raw.items()}
        return found


def _taken(before: Json, wanted: bool | float | str, after: Json) -> bool:
    """Return whether the device kept the value; it prints numbers with one to three decimals."""
    if after == wanted:
        return True
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (wanted, after))
    return numbers and after != before and abs(after - wanted) <= 0.0501
