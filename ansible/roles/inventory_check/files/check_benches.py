"""Check what an inventory says of all benches, and print every mistake at once. Exit code 78 when there is one.

    {"bench-1": {"bench": …, "instruments": […], "sinks": […], "secrets": […], …}}   on stdin: see `bench_facts`

Instruments and sinks are judged by `collectors check`, on the very files that the host would get; only what it cannot
see in one host's files is judged here. No host is touched.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[4]
sys.path.insert(0, str(CHECKOUT / "ansible" / "plugins" / "filter"))

import battfleet  # noqa: E402 - found by the line above

NAMED = "/dev/bat/"
CAN_KEYS = ("name", "bitrate", "oscillator", "interrupt")
CAN_LIMITS = {"bitrate": (10_000, 1_000_000), "oscillator": (1_000_000, 40_000_000), "interrupt": (0, 27)}
CONFIGURATION = 78


def problems(benches: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return every mistake of every host, one line each: host, instrument, key, what was expected."""
    hosts = benches.items()
    found = [line for host, facts in hosts for of in (_of_host, _of_radio, _of_can) for line in of(host, facts)]
    return found + _of_names(benches)


def _of_names(benches: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each bench name that several hosts claim: their points would become one series."""
    users: dict[Any, list[str]] = {}
    for host, facts in benches.items():
        users.setdefault(facts["bench"], []).append(host)
    return [
        f"{', '.join(hosts)}: collectors_bench: {name!r} is used by {len(hosts)} hosts; give each bench its own"
        for name, hosts in users.items()
        if len(hosts) > 1
    ]


def _of_radio(host: str, facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the settings of Wi-Fi and Bluetooth."""
    if not isinstance(facts["bluetooth"], bool):
        yield f"{host}: bluetooth_enabled: expected true or false, got {facts['bluetooth']!r}"
    country = facts["country"]
    if country != "" and not (isinstance(country, str) and re.fullmatch(r"[A-Z]{2}", country)):
        yield f"{host}: network_watch_country: expected two letters such as 'DE', got {country!r}"


def _of_can(host: str, facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the CAN interfaces."""
    interfaces = facts["can"]
    if not isinstance(interfaces, list):
        yield f"{host}: can_interfaces: expected a list of interfaces, got {type(interfaces).__name__}"
        return
    whole = [item for item in interfaces if isinstance(item, dict)]
    for number, item in enumerate(interfaces, 1):
        where = f"{host}: can_interfaces[{number}]"
        if isinstance(item, dict):
            yield from _of_can_interface(where, item)
        else:
            yield f"{where}: expected keys such as name and bitrate, got {item!r}"
    for key in ("name", "interrupt"):
        used = Counter(item[key] for item in whole if isinstance(item.get(key), str | int))
        yield from (f"{host}: can_interfaces: {key} {value!r} is used {n} times" for value, n in used.items() if n > 1)


def _of_can_interface(where: str, item: Mapping[str, Any]) -> Iterator[str]:
    name = item.get("name")
    is_hat = "oscillator" in item or "interrupt" in item
    names = r"can[01]" if is_hat else r"can\d{1,2}"
    if not isinstance(name, str) or not re.fullmatch(names, name):
        yield f"{where} name: expected {'can0 or can1' if is_hat else 'can0, can1, …'}, got {name!r}"
    for key in item.keys() - set(CAN_KEYS):
        yield f"{where} {key}: unknown key; there are: {', '.join(CAN_KEYS)}"
    for key in ("bitrate", "oscillator", "interrupt") if is_hat else ("bitrate",):
        (low, high), value = CAN_LIMITS[key], item.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            yield f"{where} {key}: expected {low} to {high}, got {value!r}"


def _of_host(host: str, facts: Mapping[str, Any]) -> list[str]:
    instruments = facts["instruments"]
    if instruments is None:
        return [f"{host}: bench_instruments: missing; write it in inventory/host_vars/{host}.yml"]
    if not isinstance(instruments, list):
        return [f"{host}: bench_instruments: expected a list of instruments, got {type(instruments).__name__}"]
    whole = [(number, item) for number, item in enumerate(instruments, 1) if isinstance(item, dict)]
    found = [
        f"{_named(host, number, item)}: expected keys such as name, kind and link, got {item!r}"
        for number, item in enumerate(instruments, 1)
        if not isinstance(item, dict)
    ]
    found += [line for number, item in whole for line in _of_instrument(_named(host, number, item), item, facts)]
    links = Counter(item.get("link") for _, item in whole if isinstance(item.get("link"), str))
    shared = [(link, n) for link, n in links.items() if n > 1]
    found += [f"{host}: link {link}: used by {n} instruments; a port has one reader" for link, n in shared]
    return found + list(_of_files(host, whole, facts))


def _named(host: str, number: int, item: Any) -> str:
    name = item.get("name") if isinstance(item, dict) else None
    return f"{host}: bench_instruments[{number}]" + (f" {name!r}" if name else "")


def _of_instrument(where: str, item: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield what `collectors check` cannot know."""
    for key in battfleet.OURS:
        if key in item:
            yield f"{where} {key}: is the same for the whole host; leave it out here"
    for key in ("device", "journal"):
        if not isinstance(item.get(key, {}), dict):
            yield f"{where} {key}: expected a table of options, got {item[key]!r}"
    link = item.get("link")
    names = {row.get("name") for row in facts["serial_names"]}
    if isinstance(link, str) and link.startswith(f"serial:{NAMED}"):
        name = link.removeprefix(f"serial:{NAMED}").partition("?")[0]
        if name not in names:
            yield f"{where} link: no {name!r} in serial_names_ports; there are: {', '.join(sorted(names)) or 'none'}"


def _of_files(host: str, whole: list[tuple[int, dict[str, Any]]], facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield what `collectors check` says of the files that this host would get."""
    with tempfile.TemporaryDirectory(prefix="battfleet-") as folder:
        files: dict[Path, str] = {}
        for secret in facts["secrets"]:
            (Path(folder) / secret).write_text("only its name is known here", encoding="utf-8")
            (Path(folder) / secret).chmod(0o600)
        sinks = [sink["name"] for sink in facts["sinks"] if isinstance(sink, dict) and "name" in sink]
        for number, item in whole:
            tables = {key: item[key] for key in ("device", "journal") if isinstance(item.get(key), dict)}
            own = {key: value for key, value in item.items() if key not in ("device", "journal", *battfleet.OURS)}
            path, where = Path(folder) / f"{number}.toml", _named(host, number, item)
            try:
                path.write_text(battfleet.collector_toml(own | tables, str(facts["bench"]), sinks), encoding="utf-8")
                files[path] = where
            except ValueError as error:
                yield f"{where} {error}"
        if facts["sinks"]:
            path = Path(folder) / "ship.toml"
            path.write_text(battfleet.ship_toml(facts["sinks"], str(facts["bench"])), encoding="utf-8")
            files[path] = f"{host}: collectors_sinks"
        for line in _checked(list(files)):
            yield _in_words(line, files).replace(folder, "collectors_secrets")


def _in_words(line: str, files: Mapping[Path, str]) -> str:
    """Return the line with what the user wrote in the place of the files made from it."""
    for path, where in files.items():
        line = line.replace(f"{path}:", where).replace(str(path), where)
    return line


def _checked(paths: list[Path]) -> list[str]:
    """Return what `collectors check` finds, one line each."""
    if not paths:
        return []
    command = [sys.executable, "-m", "collectors", "check", "--json", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    if done.returncode not in (0, CONFIGURATION):
        sys.exit(f"check_benches.py: collectors check ended with {done.returncode}: {done.stderr}")
    return [line for lines in json.loads(done.stdout).values() for line in lines]


def main() -> None:
    """Read the benches from standard input, tell what is wrong with them."""
    found = problems(json.load(sys.stdin))
    print("\n".join(found))
    sys.exit(CONFIGURATION if found else 0)


if __name__ == "__main__":
    main()
