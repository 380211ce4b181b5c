"""Make one deployment the current one: switch, restart what changed, await samples; else go back. Runs on the host.

    <home>/releases/<id>/            a virtual environment
    <home>/deployments/<id>/         venv -> ../../releases/<id>, collectors/<name>.toml, ship.toml
    <home>/current, previous         links to deployments
    <home>/applied.json              unit -> fingerprint of what it was started with

    <state>                          journals; owned by the users of the units, who share it by their group

A unit's fingerprint is everything it runs on: code, configuration, unit file, secrets. A unit whose fingerprint is the
applied one is left alone, so a play that was cut off in the middle is finished by the next. Standard library only.

    activate.py DEPLOYMENT           exit code 0: {"changed": …, "restarted": […], "stopped": […], "warning": …}
    activate.py --previous           the deployment before the current one
    activate.py DEPLOYMENT --plan    say what would be done, do nothing

The state folder is given to its users before anything is restarted: also where older versions left it to a dynamic user
(/var/lib/private/collectors), and where a command that root ran left files of root.

What changed something is written down with `collectors note deploy`, also a way back; a note that cannot be written is
a warning.

Exit code 1: it did not work, and what ran before runs again; 2: there is no such deployment.
"""

from __future__ import annotations

import argparse
import grp
import hashlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHIPPER = "collectors-ship.service"
VERIFICATION = "collectors-verify.service"
LOOK_S = 1.0
SETTLE_S = 3.0
"""A shipper that is still up after this long has read its configuration and its secrets."""
MOST_LETTERS = 2000
COLLECT_USER, SHIP_USER, GROUP = "battfleet-collect", "battfleet-ship", "battfleet"
SHIPPERS = ("ship.", "shipper")
"""What of the state folder is the shipper's: ship.db with what is put beside it, and its own journal."""
STATE_MODE = 0o1770
"""Both users make files there; the sticky bit keeps the shipper from removing what collectors have made."""
NOTE_S = 30.0
"""A note that takes longer is given up."""


class Failed(Exception):
    """The deployment does not work; the text says what is wrong."""


@dataclass(frozen=True)
class Owners:
    """The numbers of the users and of their group."""

    collect: int
    ship: int
    group: int

    def of(self, name: str) -> int:
        """Return whose this entry of the state folder is."""
        return self.ship if name.startswith(SHIPPERS[0]) or name == SHIPPERS[1] else self.collect


def known_owners() -> Owners:
    """Return them, as this host knows them."""
    return Owners(pwd.getpwnam(COLLECT_USER).pw_uid, pwd.getpwnam(SHIP_USER).pw_uid, grp.getgrnam(GROUP).gr_gid)


def has_owners() -> bool:
    """Return whether this host has the users; a rehearsal on a host of an older version has not made them."""
    try:
        known_owners()
    except KeyError:
        return False
    return True


@dataclass(frozen=True)
class Settings:
    """Where things are, and how long to wait."""

    home: Path
    state: Path
    units: Path
    secrets: Path
    timeout_s: float
    silent: frozenset[str]
    keep: int
    owners: Owners | None = None
    """None: leave the state folder as it is."""


def unit_of(name: str) -> str:
    """Return the unit of the collector of this name."""
    return f"collector@{name}.service"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command, whatever comes of it."""
    return subprocess.run(command, capture_output=True, text=True, check=False)


def must(*command: str) -> str:
    """Return a command's output; Failed with its words when it fails."""
    done = run(*command)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")
    return done.stdout


def names_in(deployment: Path) -> list[str]:
    """Return the collectors of a deployment."""
    return sorted(path.stem for path in (deployment / "collectors").glob("*.toml"))


def fingerprints(deployment: Path, settings: Settings) -> dict[str, str]:
    """Return unit to fingerprint of everything that it would run on."""
    code = str((deployment / "venv").resolve())
    wanted = {unit_of(name): ("collector@.service", f"collectors/{name}.toml") for name in names_in(deployment)}
    if (deployment / "ship.toml").exists():
        wanted[SHIPPER] = (SHIPPER, "ship.toml")
    return {
        unit: digest(
            code, (settings.units / file).read_text(), (deployment / config).read_text(), *secrets_of(unit, settings)
        )
        for unit, (file, config) in wanted.items()
    }


def secrets_of(unit: str, settings: Settings) -> list[str]:
    """Return when each secret was written: enough to notice a new one, and nothing to learn it from."""
    if unit != SHIPPER or not settings.secrets.is_dir():
        return []
    return [f"{path.name} {path.stat().st_mtime_ns}" for path in sorted(settings.secrets.iterdir())]


def digest(*parts: str) -> str:
    """Return one short name for all these texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def applied(settings: Settings) -> dict[str, str]:
    """Return unit to fingerprint as last started here."""
    file = settings.home / "applied.json"
    return json.loads(file.read_text()) if file.exists() else {}


def note_applied(units: Mapping[str, str], settings: Settings) -> None:
    """Remember what runs."""
    draft = settings.home / "applied.json.new"
    draft.write_text(json.dumps(units, indent=1))
    draft.replace(settings.home / "applied.json")


def link(name: str, target: Path, settings: Settings) -> None:
    """Point a link at a deployment, in one step."""
    draft = settings.home / f"{name}.new"
    draft.unlink(missing_ok=True)
    draft.symlink_to(target.relative_to(settings.home))
    draft.replace(settings.home / name)


def linked(name: str, settings: Settings) -> Path | None:
    """Return the deployment that a link points at, or None."""
    path = settings.home / name
    return settings.home / path.readlink() if path.is_symlink() else None


def plan(deployment: Path, settings: Settings) -> tuple[list[str], list[str]]:
    """Return which units must be restarted, and which stopped."""
    wanted, before = fingerprints(deployment, settings), applied(settings)
    everything = state_is_not_theirs(settings)
    restart = [unit for unit, mark in wanted.items() if everything or before.get(unit) != mark or not is_up(unit)]
    return sorted(restart), sorted(before.keys() - wanted.keys())


def old_state(settings: Settings) -> Path | None:
    """Return where older versions have left the state folder; None where it is in its place."""
    private = settings.state.parent / "private" / settings.state.name  # systemd.exec(5), DynamicUser=
    is_there = settings.state.is_dir() and not settings.state.is_symlink()
    return private if private.is_dir() and not is_there else None


def state_is_not_theirs(settings: Settings) -> bool:
    """Return whether the state folder must be moved, made, or given to its users."""
    if settings.owners is None:
        return False
    if old_state(settings) or not settings.state.is_dir():
        return True
    top = settings.state.stat()
    wanted = (settings.owners.collect, settings.owners.group, STATE_MODE)
    return (top.st_uid, top.st_gid, top.st_mode & 0o7777) != wanted


def give_state(settings: Settings) -> None:
    """Give the state folder, and all in it, to its users; Failed where it cannot be moved.

    For a folder that is in its place already, nothing is stopped: then only files are given back that a command of
    root's has left. No link is followed, as the folder belongs to users who have fewer rights than this program.
    """
    if settings.owners is None:
        return
    if state_is_not_theirs(settings):
        old = old_state(settings)
        if old is not None and old.stat().st_dev != settings.state.parent.stat().st_dev:
            raise Failed(f"{old} is on a disk of its own: mount that disk at {settings.state}, with what is in {old}")
        run("systemctl", "stop", "collector@*.service", SHIPPER, VERIFICATION)
        if old is not None:
            settings.state.unlink(missing_ok=True)
            old.rename(settings.state)
        settings.state.mkdir(parents=True, exist_ok=True)
    for folder, folders, files, descriptor in os.fwalk(settings.state):
        for name in (*folders, *files):
            owner = settings.owners.of(Path(folder, name).relative_to(settings.state).parts[0])
            try:
                entry = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if (entry.st_uid, entry.st_gid) != (owner, settings.owners.group):
                    os.chown(name, owner, settings.owners.group, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:  # its program has removed it meanwhile
                continue
    os.chown(settings.state, settings.owners.collect, settings.owners.group)
    settings.state.chmod(STATE_MODE)


def is_up(unit: str) -> bool:
    """Return whether it runs and will run after the next boot."""
    return all(run("systemctl", question, "--quiet", unit).returncode == 0 for question in ("is-active", "is-enabled"))


def apply(deployment: Path, settings: Settings) -> tuple[list[str], list[str]]:
    """Switch to it, stop and restart what must be; return what was restarted and stopped."""
    restart, stop = plan(deployment, settings)
    wanted = fingerprints(deployment, settings)
    give_state(settings)
    link("current", deployment, settings)
    if stop:
        must("systemctl", "disable", "--quiet", "--now", *stop)
    note_applied({unit: mark for unit, mark in wanted.items() if unit not in restart}, settings)
    if restart:
        must("systemctl", "enable", "--quiet", *restart)
        restart_all(restart)
    note_applied(wanted, settings)
    return restart, stop


def restart_all(units: Sequence[str]) -> None:
    """Restart them; Failed with the log of each that did not come up."""
    run("systemctl", "restart", *units)
    down = [unit for unit in units if run("systemctl", "is-active", "--quiet", unit).returncode]
    if down:
        raise Failed("\n".join(f"{unit} does not start; its log ends:\n{last_words(unit)}" for unit in down))


def last_words(unit: str) -> str:
    """Return the end of a unit's log."""
    return run("journalctl", "--unit", unit, "--lines", "5", "--output", "cat", "--no-pager").stdout.strip()


def uptime_s() -> float:
    """Return the time since boot, suspend included: what samples are stamped with."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def status(deployment: Path, settings: Settings) -> dict[str, dict[str, Any]]:
    """Return what `collectors status` says of each collector."""
    done = run(str(deployment / "venv/bin/collectors"), "status", "--json", "--state", str(settings.state))
    try:
        return {row["collector"]: row for row in json.loads(done.stdout)["collectors"]}
    except (ValueError, KeyError):
        return {}


def await_samples(deployment: Path, settings: Settings, since_s: float) -> None:
    """Return when every instrument has a sample in its journal that was taken after `since_s`; Failed if not."""
    names = [name for name in names_in(deployment) if name not in settings.silent]
    waiting = {name: limit_s(deployment, name, settings) for name in names}
    while waiting:
        known, now_s = status(deployment, settings), uptime_s()
        for name in list(waiting):
            age_s = known.get(name, {}).get("last_sample_age_s")
            if age_s is not None and now_s - age_s > since_s:
                del waiting[name]
            elif now_s - since_s > waiting[name]:
                raise Failed("\n".join(complaint(n, known.get(n, {}), limit) for n, limit in waiting.items()))
        if waiting:
            time.sleep(LOOK_S)


def limit_s(deployment: Path, name: str, settings: Settings) -> float:
    """Return how long this instrument may take for its first sample."""
    table = tomllib.loads((deployment / "collectors" / f"{name}.toml").read_text())["collector"]
    return max(settings.timeout_s, 3 * float(table.get("period_s", 1.0)))


def complaint(name: str, known: Mapping[str, Any], limit: float) -> str:
    """Return what is known about a collector that has no sample."""
    state = known.get("state") or "never opened its link"
    return f"{name}: no sample within {limit:.0f} s; {state}; its log ends:\n{last_words(unit_of(name))}"


def await_shipper(deployment: Path) -> None:
    """Return when the shipper has stayed up for a moment; Failed if not. A server that is away is no failure."""
    if not (deployment / "ship.toml").exists():
        return
    time.sleep(SETTLE_S)
    if run("systemctl", "is-active", "--quiet", SHIPPER).returncode:
        raise Failed(f"{SHIPPER} does not stay up; its log ends:\n{last_words(SHIPPER)}")


def activate(deployment: Path, settings: Settings) -> dict[str, Any]:
    """Make it the current one and return what was done; Failed, with what ran before running again."""
    before = linked("current", settings)
    try:
        restarted, stopped = apply(deployment, settings)
        if restarted:
            since_s = uptime_s()  # before that, the sample could be one of what ran until now
            await_samples(deployment, settings, since_s)
            if SHIPPER in restarted:
                await_shipper(deployment)
    except Failed as failure:
        if before is None or before == deployment:
            note_applied({}, settings)  # so that the next try does not take them for good
            raise Failed(f"{failure}\nThere is nothing before {deployment.name} to go back to.") from failure
        apply(before, settings)
        reason = str(failure).partition("\n")[0]
        warning = note(deployment, f"{deployment.name} did not work ({reason}); went back to {before.name}", settings)
        raise Failed("\n".join(filter(None, [str(failure), f"Went back to {before.name}.", warning]))) from failure
    if before is not None and before != deployment:
        link("previous", before, settings)
    changed = bool(restarted or stopped or before != deployment)
    warning = note(deployment, told(deployment, restarted, stopped), settings) if changed else ""
    prune(settings)
    return {"changed": changed, "restarted": restarted, "stopped": stopped, "warning": warning}


def told(deployment: Path, restarted: Sequence[str], stopped: Sequence[str]) -> str:
    """Return what was done, in one line for people."""
    version = run(str(deployment / "venv/bin/collectors"), "--version").stdout.split()[-1:] or ["unknown"]
    release = (deployment / "venv").resolve().name
    parts = [f"deployment {deployment.name}", f"version {version[0]}", f"release {release}"]
    for word, units in (("restarted", restarted), ("stopped", stopped)):
        names = [unit.removesuffix(".service").removeprefix("collector@") for unit in units]
        parts += [f"{word} {', '.join(names)}"] if names else []
    return "; ".join(parts)


def note(deployment: Path, text: str, settings: Settings) -> str:
    """Write it into this host's notes; return what is wrong if that cannot be done, which is no reason to stop."""
    bench = bench_of(deployment)
    if bench is None:  # nothing collects here
        return ""
    command = [str(deployment / "venv/bin/collectors"), "note", "deploy", text[:MOST_LETTERS], "--bench", bench]
    try:
        done = subprocess.run(
            [*command, "--state", str(settings.state)], capture_output=True, text=True, check=False, timeout=NOTE_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"This is not in the notes: {error}"
    return f"This is not in the notes: {done.stderr.strip() or done.returncode}" if done.returncode else ""


def bench_of(deployment: Path) -> str | None:
    """Return the bench that the configuration is for; None if there is none."""
    tables = [("collector", path) for path in sorted((deployment / "collectors").glob("*.toml"))]
    for table, path in [*tables, ("ship", deployment / "ship.toml")]:
        if path.exists() and (bench := tomllib.loads(path.read_text()).get(table, {}).get("bench")):
            return str(bench)
    return None


def prune(settings: Settings) -> None:
    """Remove the oldest deployments, and releases that no deployment uses."""
    kept = [path for name in ("current", "previous") if (path := linked(name, settings))]
    every = sorted((settings.home / "deployments").iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    kept += [path for path in every if path not in kept][: max(0, settings.keep - len(kept))]
    used = {(path / "venv").resolve() for path in kept}
    old_releases = [path for path in (settings.home / "releases").iterdir() if path.resolve() not in used]
    for path in [*(path for path in every if path not in kept), *old_releases]:
        shutil.rmtree(path)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deployment", nargs="?")
    parser.add_argument("--previous", action="store_true")
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--home", type=Path, default=Path("/opt/battfleet"))
    parser.add_argument("--state", type=Path, default=Path("/var/lib/collectors"))
    parser.add_argument("--units", type=Path, default=Path("/etc/systemd/system"))
    parser.add_argument("--secrets", type=Path, default=Path("/etc/battfleet/secrets"))
    parser.add_argument("--timeout-s", type=float, default=30.0)
    parser.add_argument("--silent", action="append", default=[], help="an instrument that may give no sample")
    parser.add_argument("--keep", type=int, default=3)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; return the exit code."""
    asked = parse(arguments)
    settings = Settings(
        asked.home, asked.state, asked.units, asked.secrets, asked.timeout_s, frozenset(asked.silent), asked.keep,
        None if asked.plan and not has_owners() else known_owners(),
    )  # fmt: skip
    named = settings.home / "deployments" / (asked.deployment or "")
    deployment = linked("previous", settings) if asked.previous else named
    if deployment is None or not (deployment / "venv").exists():
        print(f"{settings.home}: no {'previous' if asked.previous else named.name} deployment here", file=sys.stderr)
        return 2
    try:
        if asked.plan:
            restart, stop = plan(deployment, settings)
            found = {"changed": bool(restart or stop), "restarted": restart, "stopped": stop}
        else:
            found = activate(deployment, settings)
    except Failed as failure:
        print(failure, file=sys.stderr)
        return 1
    print(json.dumps({"deployment": deployment.name} | found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
