"""Generated pages of the documentation: the programs accept the examples shown there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from collectors import config
from collectors.shipper import config as shipper_config

PAGE = Path(__file__).parents[1] / "docs/configuration.md"
BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", [b for b in BLOCKS if "[collector]" in b])
def test_the_examples_of_collector_files_are_accepted(block: str, tmp_path: Path) -> None:
    file = tmp_path / "example.toml"
    file.write_text(block, encoding="utf-8")
    config.load(file)


@pytest.mark.parametrize("block", [b for b in BLOCKS if "[ship]" in b])
def test_the_examples_of_ship_files_are_accepted(block: str, tmp_path: Path) -> None:
    file = tmp_path / "ship.toml"
    file.write_text(block, encoding="utf-8")
    assert len(shipper_config.load(file).sinks) == 2


def test_every_kind_of_file_has_an_example() -> None:
    assert sum("[collector]" in block for block in BLOCKS) == 2
    assert sum("[ship]" in block for block in BLOCKS) == 1
