"""Wi-Fi metrics of the kernel, read from recorded text."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors import signals
from collectors.host import metrics

HEAD = """\
Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE
 face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22
"""
# A Raspberry Pi's brcmfmac, as its kernel prints it (net/wireless/wext-proc.c: "%6s: %04x  %3d%c  %3d%c  %3d%c …").
CONNECTED = " wlan0: 0000   54.  -56.  -256        0      0      0      0      0        0\n"
AGED = " wlan0: 0000   70   -38  -256        0      0      0     12      0        0\n"
NOT_CONNECTED = " wlan0: 0000    0     0     0        0      0      0      0      0        0\n"
IN_PARTS_OF_100 = " wlan1: 0000   86.   86.    0.       0      0      0      0      0        0\n"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (CONNECTED, {"wifi_signal_dbm": -56.0, "wifi_quality": pytest.approx(54 / 70)}),
        (AGED, {"wifi_signal_dbm": -38.0, "wifi_quality": 1.0}),
        (NOT_CONNECTED, {}),
        (IN_PARTS_OF_100, {"wifi_quality": 0.86}),
        (NOT_CONNECTED + CONNECTED.replace("wlan0", "wlan1"), {"wifi_signal_dbm": -56.0, "wifi_quality": 54 / 70}),
        ("", {}),
        (" wlan0: 0000\n garbage\n", {}),
    ],
    ids=["connected", "strong", "not connected", "no dBm", "the second", "no interface", "garbage"],
)
def test_wifi_signal_and_quality_are_read(rows: str, expected: dict[str, float]) -> None:
    found = metrics.parse_wireless(HEAD + rows)
    assert found == expected
    for name, value in found.items():
        signal = signals.find("collector", name)
        assert signal is not None
        assert signal.low <= value <= signal.high


def test_a_host_without_wifi_has_no_wifi_metrics(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(metrics, "WIRELESS", tmp_path / "wireless")
    assert metrics.wifi() == {}
    (tmp_path / "wireless").write_text(HEAD + CONNECTED, encoding="ascii")
    assert metrics.wifi()["wifi_signal_dbm"] == -56.0
