"""A bench for tests: a booted Pi with the three instruments of the simulated bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.ansible.hosts import Host, await_true
from tests.testing.line_protocol import parse

NAMES = ("load", "mppt", "t7")
CHANNELS = [
    {"input": "AIN0", "signal": "battery.voltage_v", "scaling": {"divider": {"r1_ohm": 3000.0, "r2_ohm": 1000.0}}},
    {"input": "AIN1", "signal": "battery.current_a", "scaling": {"hall": {"burden_ohm": 100.0}}},
]
INSTRUMENTS: list[dict[str, Any]] = [
    {"name": "mppt", "kind": "libresolar_mppt", "link": "serial:/dev/bat/mppt", "battery": "lfp-1"},
    {"name": "load", "kind": "ea_el3000a", "link": "serial:/dev/bat/load", "battery": "lfp-1"},
    {
        "name": "t7",
        "kind": "labjack_t7",
        "link": "tcp:127.0.0.1",
        "battery": "lfp-1",
        "period_s": 0.05,
        "device": {"channels": CHANNELS},
    },
]
SERIES = {"mppt": ("battery", "voltage_v"), "load": ("load", "current_a"), "t7": ("battery", "current_a")}
"""One measurement and field of each instrument."""
FAKES = Path(__file__).with_name("fakes_on_host.py")


class Bench:
    """A Pi with three fake instruments."""

    def __init__(self, pi: Host, wheelhouse: Path) -> None:
        """Take the site's parts; a play with `variables` deploys."""
        self.pi = pi
        self.variables: dict[str, Any] = {
            "bench_instruments": INSTRUMENTS,
            "collectors_wheelhouse": str(wheelhouse),
            "collectors_device_allow": ["char-pts"],
            "serial_names_ports": [{"name": "load", "path": "platform-1.2"}, {"name": "mppt", "serial": "A1B2"}],
        }

    def start_fakes(self) -> None:
        """Start the three fake instruments on the host, now and at every boot."""
        unit = (
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/opt/battfleet/current/venv/bin/python "
            "/opt/fakes_on_host.py\nRestart=always\nRestartSec=1\n[Install]\nWantedBy=multi-user.target\n"
        )
        self.pi.run("cat >/opt/fakes_on_host.py", FAKES.read_text(encoding="utf-8"))
        self.pi.run("cat >/etc/systemd/system/fakes.service && systemctl enable -q fakes", unit)
        self.pi.run("systemctl daemon-reload && systemctl start fakes --no-block")

    def status(self) -> dict[str, Any]:
        """Return `collectors status`, by collector."""
        found = json.loads(self.pi.try_run("collectors status --json --state /var/lib/collectors").stdout or "{}")
        return {row["collector"]: row for row in found.get("collectors", []) if row["collector"] in NAMES}

    def collects(self) -> bool:
        """Return whether every instrument sent a sample in the last 3 s."""
        ages = [row["last_sample_age_s"] for row in self.status().values()]
        return len(ages) == len(NAMES) and all(age is not None and age < 3 for age in ages)

    def values(self, name: str) -> dict[int, float]:
        """Return stamp (ns) to value of an instrument's series in its journal."""
        measurement, field = SERIES[name]
        export = f"collectors export {name} --format lp --measurement {measurement} --state /var/lib/collectors"
        return {p.stamp_ns: float(p.fields[field]) for p in parse(self.pi.run(export)) if field in p.fields}

    def stop(self) -> None:
        """Stop the collectors, and let the shipper send every stored row."""
        self.pi.run("systemctl stop 'collector@*'")
        await_true("all confirmed", lambda: all(row["unsent"]["lab"] == 0 for row in self.status().values()), 120)

    def go_on(self) -> None:
        """Start the collectors again."""
        self.pi.run("systemctl start " + " ".join(f"collector@{name}" for name in NAMES))
        await_true("collecting again", self.collects, 20)

    def restarts(self, name: str) -> int:
        """Return how often systemd has restarted a collector."""
        return int(self.pi.run(f"systemctl show --value -p NRestarts collector@{name}"))

    def started(self) -> dict[str, str]:
        """Return when each collector was started last."""
        show = "systemctl show --value -p ExecMainStartTimestampMonotonic collector@"
        return {name: self.pi.run(show + name).strip() for name in NAMES}
