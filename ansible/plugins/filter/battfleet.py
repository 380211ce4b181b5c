"""Filters: what an inventory says of a bench, as the configuration files that `collectors` reads.

Standard library only, so that the role `inventory_check` can use the same functions without Ansible.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

STATE_DIR = "/var/lib/collectors"
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
OURS = ("bench", "state_dir")
"""Keys of [collector] that are the same for the whole host, so no instrument may say them."""


def to_toml(tables: Mapping[str, Any]) -> str:
    """Return TOML: mappings become tables, lists of mappings below the top become [[tables]]; ValueError for None."""
    lines: list[str] = []
    for name, content in tables.items():
        entries = content if isinstance(content, list) else [content]
        for entry in entries:
            lines.append(f"[[{_key(name)}]]" if isinstance(content, list) else f"[{_key(name)}]")
            lines += [f"{_key(key)} = {_value(value, key)}" for key, value in entry.items()]
            lines.append("")
    return "\n".join(lines)


def _key(name: str) -> str:
    return name if BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _value(value: Any, key: str) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v, k)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(v, key) for v in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, int | float):
        return repr(value)
    raise ValueError(f"{key}: has no value; give one or leave the key out")


def collector_toml(instrument: Mapping[str, Any], bench: str, sinks: Sequence[str]) -> str:
    """Return one instrument's configuration file."""
    own = {key: value for key, value in instrument.items() if key not in ("device", "journal")}
    collector = {**own, "bench": bench, "state_dir": STATE_DIR}
    journal = {"sinks": list(sinks), **instrument.get("journal", {})}
    return to_toml({"collector": collector, "device": instrument.get("device", {}), "journal": journal})


def ship_toml(sinks: Sequence[Mapping[str, Any]], bench: str) -> str:
    """Return the shipper's configuration file."""
    return to_toml({"ship": {"bench": bench, "state_dir": STATE_DIR}, "sink": list(sinks)})


def configurations(
    instruments: Sequence[Mapping[str, Any]], bench: str, sinks: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Return a host's configuration files: path below the deployment to content."""
    names = [sink["name"] for sink in sinks]
    files = {f"collectors/{item['name']}.toml": collector_toml(item, bench, names) for item in instruments}
    return files | ({"ship.toml": ship_toml(sinks, bench)} if sinks else {})


def bench_facts(host: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a host's variables is checked before it is touched; of secrets only the names."""
    return {
        "bench": host.get("collectors_bench"),
        "instruments": host.get("bench_instruments"),
        "sinks": host.get("collectors_sinks", []),
        "secrets": list(host.get("collectors_secrets", {})),
        "serial_names": host.get("serial_names_ports", []),
        "can": host.get("can_interfaces", []),
        "bluetooth": host.get("bluetooth_enabled", False),
        "country": host.get("network_watch_country", ""),
    }


class FilterModule:
    """What Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"bench_configurations": configurations, "bench_facts": bench_facts}
