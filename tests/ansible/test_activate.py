"""Switching between deployments on a host, with stand-ins for systemctl and `collectors status`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.ansible.modules import load

SYSTEMCTL = """#!/bin/sh
echo "$@" >>"$FOLDER/calls"
verb=$1; shift
for unit in "$@"; do
  case $unit in -*) continue ;; esac
  case $verb in
    restart) grep -qs "$unit" "$FOLDER/broken" || touch "$FOLDER/up/$unit" ;;
    enable) touch "$FOLDER/enabled/$unit" ;;
    disable) rm -f "$FOLDER/up/$unit" "$FOLDER/enabled/$unit" ;;
    is-active) [ -e "$FOLDER/up/$unit" ] || exit 3 ;;
    is-enabled) [ -e "$FOLDER/enabled/$unit" ] || exit 1 ;;
  esac
done
"""
PROGRAM = """#!/bin/sh
case $1 in
  --version) echo "collectors, version 0.2.0" ;;
  note)
    if [ -e "$FOLDER/note-fails" ]; then echo "collectors: the disk is full" >&2; exit 74; fi
    shift; printf '%s|' "$@" >>"$FOLDER/notes"; echo >>"$FOLDER/notes" ;;
  *) cat "$FOLDER/status" ;;
esac
"""


class Place:
    """A host's folders, and the stand-ins for its programs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Create the folders and stand-ins."""
        self.module: ModuleType = load("ansible/roles/collectors/files/activate.py")
        self.folder, self.home = folder, folder / "home"
        for name in ("bin", "up", "enabled", "units", "secrets", "home/releases", "home/deployments"):
            (folder / name).mkdir(parents=True)
        for name in ("collector@.service", "collectors-ship.service"):
            (folder / "units" / name).write_text("[Service]\n", encoding="ascii")
        self.program(folder / "bin" / "systemctl", SYSTEMCTL)
        self.program(folder / "bin" / "journalctl", "#!/bin/sh\necho last words\n")
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        monkeypatch.setenv("FOLDER", str(folder))
        monkeypatch.setattr(self.module, "SETTLE_S", 0.0)
        monkeypatch.setattr(self.module, "LOOK_S", 0.01)
        self.settings: Any = self.module.Settings(
            self.home, folder, folder / "units", folder / "secrets", 0.1, frozenset(), 3
        )
        self.talks("a", "b", "c")

    def program(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="ascii")
        path.chmod(0o755)

    def talks(self, *names: str) -> None:
        """Let these instruments have a sample from now on, or a little later."""
        rows = [{"collector": name, "last_sample_age_s": -5.0} for name in names]
        (self.folder / "status").write_text(json.dumps({"collectors": rows}), encoding="ascii")

    def deployment(self, name: str, collectors: Mapping[str, str], release: str = "r1") -> Path:
        """Write a deployment: each collector with the period of its configuration."""
        program = self.home / "releases" / release / "bin" / "collectors"
        if not program.exists():
            program.parent.mkdir(parents=True)
            self.program(program, PROGRAM)
        folder: Path = self.home / "deployments" / name
        (folder / "collectors").mkdir(parents=True)
        (folder / "venv").symlink_to(f"../../releases/{release}")
        for collector, period in collectors.items():
            text = f'[collector]\nname = "{collector}"\nbench = "bench-1"\nperiod_s = {period}\n'
            (folder / "collectors" / f"{collector}.toml").write_text(text, encoding="ascii")
        return folder

    def activate(self, deployment: Path) -> list[str]:
        """Return the units that were restarted."""
        restarted: list[str] = self.module.activate(deployment, self.settings)["restarted"]
        return restarted

    def notes(self) -> list[str]:
        """Return the command lines of all notes, with a bar behind each argument."""
        path = self.folder / "notes"
        return path.read_text(encoding="ascii").splitlines() if path.exists() else []

    def current(self) -> str:
        return (self.home / "current").readlink().name


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_the_first_deployment_starts_everything_and_the_second_time_nothing(place: Place) -> None:
    first = place.deployment("d1", {"a": "0.01", "b": "0.01"})
    assert place.activate(first) == ["collector@a.service", "collector@b.service"]
    assert place.module.activate(first, place.settings) == {
        "changed": False, "restarted": [], "stopped": [], "warning": "",
    }  # fmt: skip
    assert place.current() == "d1"


def test_only_changed_collectors_are_restarted_and_removed_ones_are_stopped(place: Place) -> None:
    place.activate(place.deployment("d1", {"a": "0.01", "b": "0.01"}))
    found = place.module.activate(place.deployment("d2", {"a": "0.02"}), place.settings)
    assert (found["changed"], found["restarted"], found["stopped"]) == (
        True, ["collector@a.service"], ["collector@b.service"],
    )  # fmt: skip
    assert not (place.folder / "up" / "collector@b.service").exists()
    assert (place.home / "previous").readlink().name == "d1"


def test_another_program_or_unit_restarts_all(place: Place) -> None:
    place.activate(place.deployment("d1", {"a": "0.01"}))
    assert place.activate(place.deployment("d2", {"a": "0.01"}, "r2")) == ["collector@a.service"]
    (place.folder / "units" / "collector@.service").write_text("[Service]\nNice=1\n", encoding="ascii")
    assert place.activate(place.home / "deployments" / "d2") == ["collector@a.service"]


def test_a_new_secret_restarts_the_shipper_alone(place: Place) -> None:
    deployment = place.deployment("d1", {"a": "0.01"})
    (deployment / "ship.toml").write_text("", encoding="ascii")
    secret = place.folder / "secrets" / "lab"
    secret.write_text("one", encoding="ascii")
    place.activate(deployment)
    secret.write_text("two", encoding="ascii")
    os.utime(secret, (1, 1))
    assert place.activate(deployment) == ["collectors-ship.service"]


def test_a_silent_instrument_rolls_the_deployment_back(place: Place) -> None:
    place.activate(place.deployment("d1", {"a": "0.01"}))
    place.talks("a")
    with pytest.raises(place.module.Failed, match=r"(?s)b: no sample within 0 s.*last words.*Went back to d1"):
        place.activate(place.deployment("d2", {"a": "0.02", "b": "0.01"}))
    assert place.current() == "d1"
    assert not (place.folder / "up" / "collector@b.service").exists()
    assert "period_s = 0.01" in (place.home / "current" / "collectors" / "a.toml").read_text(encoding="ascii")


def test_a_sample_of_the_previous_deployment_is_no_fresh_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.activate(place.deployment("d1", {"a": "0.01"}))
    restart_all, sampled_s = place.module.restart_all, place.module.uptime_s()

    def status(*_: object) -> dict[str, dict[str, float]]:
        return {"a": {"last_sample_age_s": place.module.uptime_s() - sampled_s}}

    def restart(units: list[str]) -> None:
        nonlocal sampled_s
        sampled_s = place.module.uptime_s()
        restart_all(units)

    monkeypatch.setattr(place.module, "status", status)
    monkeypatch.setattr(place.module, "restart_all", restart)
    with pytest.raises(place.module.Failed, match="a: no sample within"):
        place.activate(place.deployment("d2", {"a": "0.02"}))


def test_an_instrument_that_may_be_silent_is_not_waited_for(place: Place) -> None:
    place.talks("a")
    place.settings = dataclasses.replace(place.settings, silent=frozenset({"b"}))
    assert len(place.activate(place.deployment("d1", {"a": "0.01", "b": "0.01"}))) == 2


def test_a_failed_first_deployment_is_not_taken_for_a_working_one_later(place: Place) -> None:
    place.talks()
    first = place.deployment("d1", {"a": "0.01"})
    for _ in range(2):
        with pytest.raises(place.module.Failed, match="nothing before d1"):
            place.activate(first)
    place.talks("a")
    assert place.activate(first) == ["collector@a.service"]


def test_a_unit_that_does_not_start_is_reported_with_its_log(place: Place) -> None:
    (place.folder / "broken").write_text("collector@a.service", encoding="ascii")
    with pytest.raises(place.module.Failed, match=r"(?s)collector@a\.service does not start.*last words"):
        place.activate(place.deployment("d1", {"a": "0.01"}))


def test_an_interrupted_activation_is_completed_by_the_next_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.activate(place.deployment("d1", {"a": "0.01", "b": "0.01"}))

    def cut_off(_units: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place.module, "restart_all", cut_off)
        with pytest.raises(KeyboardInterrupt):
            place.activate(place.deployment("d2", {"a": "0.02", "b": "0.01"}))
    assert place.activate(place.home / "deployments" / "d2") == ["collector@a.service"]


def test_old_deployments_and_unused_releases_are_deleted(place: Place) -> None:
    for number in range(1, 6):
        path = place.deployment(f"d{number}", {"a": f"0.0{number}"}, f"r{number}")
        os.utime(path, (number, number))
        place.activate(path)
    assert {path.name for path in (place.home / "deployments").iterdir()} == {"d3", "d4", "d5"}
    assert {path.name for path in (place.home / "releases").iterdir()} == {"r3", "r4", "r5"}


def test_a_plan_changes_nothing(place: Place) -> None:
    deployment = place.deployment("d1", {"a": "0.01"})
    arguments = ["--home", str(place.home), "--units", str(place.folder / "units"), "--plan", deployment.name]
    assert place.module.main(arguments) == 0
    assert not (place.home / "current").exists()
    assert place.module.main([*arguments[:-1], "no-such"]) == 2


def test_an_activation_that_changes_something_is_noted_once(place: Place) -> None:
    first = place.deployment("d1", {"a": "0.01", "b": "0.01"})
    place.activate(first)
    place.activate(first)
    place.activate(place.deployment("d2", {"a": "0.02"}))
    state = place.folder
    assert place.notes() == [
        f"deploy|deployment d1; version 0.2.0; release r1; restarted a, b|--bench|bench-1|--state|{state}|",
        f"deploy|deployment d2; version 0.2.0; release r1; restarted a; stopped b|--bench|bench-1|--state|{state}|",
    ]


def test_a_rollback_is_noted_with_its_reason(place: Place) -> None:
    place.activate(place.deployment("d1", {"a": "0.01"}))
    place.talks("a")
    with pytest.raises(place.module.Failed, match="Went back to d1"):
        place.activate(place.deployment("d2", {"a": "0.01", "b": "0.01"}))
    assert len(place.notes()) == 2
    assert place.notes()[1].startswith("deploy|d2 did not work (b: no sample within 0 s;")
    assert "; went back to d1|--bench|bench-1|" in place.notes()[1]


def test_a_note_that_cannot_be_written_is_reported_and_stops_nothing(place: Place) -> None:
    (place.folder / "note-fails").touch()
    found = place.module.activate(place.deployment("d1", {"a": "0.01"}), place.settings)
    assert found["warning"] == "This is not in the notes: collectors: the disk is full"
    assert place.current() == "d1"
    place.talks("a")
    with pytest.raises(place.module.Failed, match=r"(?s)Went back to d1\..*not in the notes: collectors: the disk"):
        place.activate(place.deployment("d2", {"a": "0.01", "b": "0.01"}))


def test_a_host_that_collects_nothing_notes_nothing(place: Place) -> None:
    place.activate(place.deployment("d1", {}))
    assert place.notes() == []
    ship = place.deployment("d2", {})
    (ship / "ship.toml").write_text('[ship]\nbench = "bench-2"\n', encoding="ascii")
    place.activate(ship)
    assert "|--bench|bench-2|" in place.notes()[0]


def give(place: Place) -> Any:
    """Give the state folder to these users; return the settings. Only root may change owners."""
    owners = place.module.Owners(collect=4001, ship=4002, group=4003)
    state = place.folder / "lib" / "collectors"
    state.parent.mkdir(exist_ok=True)
    return dataclasses.replace(place.settings, state=state, owners=owners)


def owners_in(state: Path) -> dict[str, tuple[int, int]]:
    """Return the owner of each entry of a folder, and of the folder itself."""
    entries = {str(path.relative_to(state)): path.lstat() for path in (state, *state.rglob("*"))}
    return {name: (entry.st_uid, entry.st_gid) for name, entry in entries.items()}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_state_of_a_dynamic_user_is_moved_and_given_to_the_current_users(place: Place) -> None:
    settings = give(place)
    old = settings.state.parent / "private" / "collectors"
    for name in ("a/j-1.db", "notes/j-1.db", "shipper/j-1.db", "ship.db", "ship.lock"):
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_text(name, encoding="ascii")
    (old / "a" / "link").symlink_to("/etc/hostname")
    elsewhere = Path("/etc/hostname").stat()
    settings.state.symlink_to("private/collectors")
    first = place.deployment("d1", {"a": "0.01"})
    assert place.module.activate(first, settings)["restarted"] == ["collector@a.service"]
    calls = (place.folder / "calls").read_text(encoding="ascii").splitlines()
    stop = "stop collector@*.service collectors-ship.service collectors-verify.service"
    assert calls.index(stop) < calls.index("restart collector@a.service")
    assert not settings.state.is_symlink() and not old.exists()
    assert settings.state.stat().st_mode & 0o7777 == 0o1770
    collect, ship = (4001, 4003), (4002, 4003)
    assert owners_in(settings.state) == {
        ".": collect, "a": collect, "a/j-1.db": collect, "a/link": collect, "notes": collect, "notes/j-1.db": collect,
        "shipper": ship, "shipper/j-1.db": ship, "ship.db": ship, "ship.lock": ship,
    }  # fmt: skip
    assert (settings.state / "a/j-1.db").read_text(encoding="ascii") == "a/j-1.db"
    assert Path("/etc/hostname").stat().st_uid == elsewhere.st_uid
    assert place.module.activate(first, settings)["restarted"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_root_is_given_to_its_user_and_nothing_is_restarted(place: Place) -> None:
    settings = give(place)
    first = place.deployment("d1", {"a": "0.01"})
    place.module.activate(first, settings)
    (settings.state / "a").mkdir()
    (settings.state / "a/clock-set.json").touch()
    assert place.module.activate(first, settings)["restarted"] == []
    assert set(owners_in(settings.state).values()) == {(4001, 4003)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_an_interrupted_move_is_resumed(place: Place) -> None:
    settings = give(place)
    old = settings.state.parent / "private" / "collectors"
    old.mkdir(parents=True)
    (old / "kept").touch()  # the link is removed, and no folder is in its place
    place.module.activate(place.deployment("d1", {"a": "0.01"}), settings)
    assert (settings.state / "kept").exists()
