"""Pack the program into one file that Python runs, on the controller: pack.py CHECKOUT FILE.

It needs nothing but Python's own library, and the vocabulary of signals. The same sources give the same bytes, so a
second run copies nothing.
"""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

PARTS = ("grafana/__init__.py", "grafana/downsampling/*.py", "collectors/__init__.py", "collectors/signals.py")
MAIN = "import sys\n\nfrom grafana.downsampling.__main__ import main\n\nsys.exit(main())\n"


def pack(checkout: Path, whole: Path) -> None:
    """Write the file; who reads it meanwhile sees the old one or the new one."""
    sources = sorted(path for part in PARTS for path in checkout.glob(part))
    texts = {"__main__.py": MAIN} | {p.relative_to(checkout).as_posix(): p.read_text(encoding="utf-8") for p in sources}
    whole.parent.mkdir(parents=True, exist_ok=True)
    draft = whole.with_name(f"{whole.name}.{os.getpid()}")
    with zipfile.ZipFile(draft, "w") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # dated 1980, whenever it is made
    draft.rename(whole)


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
