"""All code uses the vocabulary: no signal, tag or event kind outside it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors import devices, signals

ROOT = Path(__file__).parents[1]


def test_names_are_lower_case_and_end_in_their_unit() -> None:
    suffix = {"V": "_v", "A": "_a", "W": "_w", "Wh": "_wh", "Ah": "_ah", "s": "_s", "°C": "_degc"}
    for measurement, table in signals.VOCABULARY.items():
        for name, signal in table.items():
            assert re.fullmatch(r"[a-z][a-z0-9_]*", name), f"{measurement}.{name}"
            assert signal.name == name
            assert signal.low < signal.high, name
            if signal.unit in suffix:
                assert name.endswith(suffix[signal.unit]), f"{measurement}.{name} is in {signal.unit}"


def test_codes_lie_within_their_signals_range() -> None:
    coded = [s for table in signals.VOCABULARY.values() for s in table.values() if s.codes]
    assert coded
    for signal in coded:
        assert all(signal.low <= code <= signal.high for code in signal.codes or ()), signal.name


@pytest.mark.parametrize("kind", devices.KINDS)
def test_a_device_reports_only_signals_of_the_vocabulary(kind: str) -> None:
    for measurement, names in devices.load(kind).signals.items():
        assert set(names) <= set(signals.VOCABULARY[measurement]), measurement


def event_kinds() -> Iterator[tuple[str, str]]:
    """Yield (file, kind) for each event made anywhere in the collectors."""
    for path in sorted((ROOT / "collectors").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
                continue
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if called in ("Event", "_once", "report", "_report", "EventAt") and isinstance(node.args[0].value, str):
                yield str(path.relative_to(ROOT)), node.args[0].value


def test_every_event_is_of_a_known_kind() -> None:
    unknown = [(path, kind) for path, kind in event_kinds() if kind not in signals.EVENTS]
    assert not unknown, "add them to collectors.signals.EVENTS"


def test_every_kind_of_event_is_made_somewhere() -> None:
    text = "".join(path.read_text() for path in (ROOT / "collectors").rglob("*.py") if path.name != "signals.py")
    assert [kind for kind in signals.EVENTS if f'"{kind}"' not in text] == []
