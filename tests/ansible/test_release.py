"""The content of a release on a host: configuration files from the inventory, pins and wheels from the lock."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import config
from tests.ansible.modules import ROOT, load

battfleet = load("ansible/plugins/filter/battfleet.py")
wheelhouse = load("scripts/wheelhouse.py")

NAMES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x24F, exclude_characters="\x7f"), max_size=12)
SCALARS = st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | NAMES
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))


@settings(max_examples=200)
@given(st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, max_size=4), max_size=3))
def test_written_toml_is_read_back_unchanged(tables: dict[str, dict[str, Any]]) -> None:
    assert tomllib.loads(battfleet.to_toml(tables)) == tables


def test_a_list_at_the_top_becomes_tables() -> None:
    assert tomllib.loads(battfleet.to_toml({"sink": [{"name": "a"}, {"name": "b"}]})) == {
        "sink": [{"name": "a"}, {"name": "b"}]
    }


def test_an_instrument_keeps_rows_until_every_sink_has_them() -> None:
    text = battfleet.collector_toml({"name": "mppt"}, "bench-1", ["lab", "cloud"])
    assert tomllib.loads(text)["journal"] == {"sinks": ["lab", "cloud"]}


def test_a_serial_number_without_quotes_in_an_inventory_is_taken(tmp_path: Path) -> None:
    channel = {"input": "AIN0", "signal": "battery.voltage_v"}
    t7 = {"name": "t7", "kind": "labjack_t7", "link": "tcp:192.0.2.7"}
    device = yaml.safe_load("serial_number: 470012345")
    path = tmp_path / "t7.toml"
    path.write_text(battfleet.collector_toml({**t7, "device": {**device, "channels": [channel]}}, "bench-1", ["lab"]))
    assert config.load(path).options.serial_number == "470012345"


def test_secrets_are_never_passed_on_by_value() -> None:
    facts = battfleet.bench_facts({"collectors_secrets": {"lab": "hidden"}})
    assert "hidden" not in json.dumps(facts)
    assert facts["secrets"] == ["lab"]


@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_pins_are_chosen_for_the_hosts_python_and_keep_their_hashes(python: str) -> None:
    pins = (
        'numpy==2.4.6 ; python_full_version < "3.12" \\\n    --hash=sha256:aa\n'
        'numpy==2.5.5 ; python_full_version >= "3.12" \\\n    --hash=sha256:bb\n'
        "click==8 \\\n    --hash=sha256:cc\n"
    )
    wanted = {"3.11": "numpy==2.4.6 \\\n    --hash=sha256:aa\n", "3.13": "numpy==2.5.5 \\\n    --hash=sha256:bb\n"}
    assert wheelhouse.chosen(pins, python, "aarch64") == wanted[python] + "click==8 \\\n    --hash=sha256:cc\n"


RELEASE = [sys.executable, str(ROOT / "ansible/roles/collectors/files/release.py")]


def test_a_release_holds_the_collectors_and_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    both = [subprocess.Popen(RELEASE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (json.loads(each.communicate()[0]) for each in both)
    assert first == second
    with tarfile.open(first["archive"]) as archive:
        archive.extractall(tmp_path, filter="data")
        assert {(entry.uid, entry.mode) for entry in archive} == {(0, 0o644)}
    folder = tmp_path / first["id"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([first["wheel"], "requirements.txt"])
    names = zipfile.ZipFile(folder / first["wheel"]).namelist()
    assert "collectors/cli/run.py" in names
    assert not [name for name in names if name.startswith("soc/")]
    pins = (folder / "requirements.txt").read_text(encoding="utf-8")
    assert "--hash=sha256:" in pins
    assert not re.search(r"(?m)^ansible", pins)
    (wheels := tmp_path / "wheels").mkdir()
    refused = subprocess.run([*RELEASE, wheels], check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert f"no wheels in {wheels}" in refused.stderr
    (wheels / "a-1-py3-none-any.whl").write_text("a wheel")
    more = json.loads(subprocess.run([*RELEASE, wheels], check=True, capture_output=True).stdout)
    with tarfile.open(more["archive"]) as archive:
        assert f"{more['id']}/wheels/a-1-py3-none-any.whl" in archive.getnames()
