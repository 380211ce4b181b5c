"""Open a link to a T7, poll it some times, print the results as JSON. Runs in its own process: LJM is loaded once."""

from __future__ import annotations

import dataclasses
import json
import sys

from collectors import devices, transports
from collectors.acquisition.session import Session
from collectors.config import load_dataclass
from collectors.errors import CollectorError
from collectors.host.clock import SystemClock


def main(link_text: str, table: str, turns: str) -> None:
    """Print identity and outputs, or the error's name and text."""
    device = devices.load("labjack_t7")
    options, problems = load_dataclass(device.options, json.loads(table), "options")
    assert not problems, problems
    try:
        link = transports.open_link(link_text, device)
        conversation = Session(link, SystemClock())
        driver = device.driver(options)
        identity = conversation.carry(driver.open())
        outputs = [dataclasses.asdict(o) for _ in range(int(turns)) for o in conversation.carry(driver.poll())]
        conversation.carry(driver.close())
        link.close()
        link.close()
    except CollectorError as error:
        sys.stdout.write(json.dumps({"error": type(error).__name__, "text": str(error)}))
    else:
        sys.stdout.write(json.dumps({"link": type(link).__name__, "serial": identity.serial, "outputs": outputs}))


if __name__ == "__main__":
    main(*sys.argv[1:])
