"""Every page is reachable from the index; links lead to files and headings that exist; the guide's example works."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from collectors.protocols.dialogue import Reply
from collectors.reading import Reading

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "tests" / "frames" / "README.md"])


def links(page: Path) -> list[tuple[Path, str]]:
    """Return (file, anchor) for each relative link of a page; code blocks are left out."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    parts = [target.partition("#") for target in targets if "://" not in target]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in parts]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, formed as GitHub forms them."""
    headings = re.findall(r"^#+ +(.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_reachable_from_the_index() -> None:
    reached, waiting = {INDEX}, [INDEX]
    while waiting:
        page = waiting.pop()
        new = {file for file, _ in links(page) if file.suffix == ".md" and file.is_file()} - reached
        reached |= new
        waiting += [file for file in new if file.name == "README.md"]
    assert set(DOCS.rglob("*.md")) <= reached


def test_the_index_lists_each_page_once() -> None:
    listed = [file for file, _ in links(INDEX)]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = [
        f"{file}#{anchor}"
        for file, anchor in links(page)
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file))
    ]
    assert not broken


def test_decisions_are_numbered_without_gaps_and_listed_as_they_are() -> None:
    index = (DOCS / "decisions" / "README.md").read_text()
    records = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for number, record in enumerate(records, 1):
        head = re.match(r"# (\d+)\. (.+)\n\nDate: (\d{4}-\d\d-\d\d) · Status: (.+)\n", record.read_text())
        assert head, record.name
        assert int(head[1]) == number
        assert f"| {number} | [{head[2]}]({record.name}) | {head[3]} | {head[4]} |" in index
        assert "\n## Decision\n" in record.read_text()


def test_the_example_instrument_of_the_guide_reads_its_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (DOCS / "adding-an-instrument.md").read_text()
    modules = []
    for name, source in zip(
        ("collectors.devices.acme_pm1", "collectors.fakes.acme_pm1"),
        re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL),
        strict=True,
    ):
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(source, name, "exec"), module.__dict__)
        modules.append(module)
    device, kind = modules[0].DEVICE, modules[1].FAKE
    fake = kind.make(lambda _now_s: {"battery.voltage_v": 12.8}, kind.options())
    poll = device.driver(device.options()).poll()
    ask = next(poll)
    (out,) = fake.receive(ask.send, 0.0)
    assert [frame["values"]["voltage_v"] for frame in device.decode([out.data])] == pytest.approx([12.8])
    with pytest.raises(StopIteration) as done:
        poll.send(Reply(ask.cut(out.data).payload, 5))
    (reading,) = done.value.value
    assert isinstance(reading, Reading) and reading.boottime_ns == 5
    assert reading.values == pytest.approx({"voltage_v": 12.8})
