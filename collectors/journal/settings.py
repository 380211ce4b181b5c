"""The [journal] table of a collector's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from collectors.errors import ConfigError

MIB = 2**20
MOST_CONFIRMED_DAYS = 365.0
"""Number of days for which the shipper keeps its record of when a sink confirmed what."""


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """How often to commit, when to roll over, how much to keep. The defaults suit a Raspberry Pi's card."""

    sinks: tuple[str, ...] = field(
        default=(), metadata={"help": "names of the sinks that must have a sample before it may be deleted"}
    )
    commit_window_s: float = field(
        default=1.0, metadata={"help": "the longest that a sample waits for its commit to begin"}
    )
    commit_bytes: int = field(default=64 * 1024, metadata={"help": "commit earlier when so much waits"})
    queue_mib: float = field(default=8.0, metadata={"help": "memory for samples that the disk does not take"})
    compact_s: float = field(default=600.0, metadata={"help": "seconds between compactions"})
    roll_mib: float = field(default=64.0, metadata={"help": "size at which a new file is begun"})
    roll_s: float = field(default=86_400.0, metadata={"help": "age at which a new file is begun"})
    cap_mib: float | None = field(
        default=None, metadata={"help": "the journal's size limit; default a quarter of the disk, at most 8 GiB"}
    )
    keep_days: float | None = field(default=None, metadata={"help": "delete what is older; default: never by age"})
    keep_confirmed_days: float = field(
        default=14.0,
        metadata={
            "help": "keep_days deletes nothing before every sink has had it for so long, since a database can lose "
            "what it has acknowledged; a full disk does"
        },
    )
    ballast_mib: float = field(default=8.0, metadata={"help": "disk space held back for the day the disk is full"})
    min_free_mib: float = field(default=64.0, metadata={"help": "make room when less than this (or 2 %) is free"})

    def __post_init__(self) -> None:
        """Reject limits that cannot be kept."""
        lows: dict[str, float] = {
            "commit_window_s": 0.01, "commit_bytes": 1024, "queue_mib": 0.01, "compact_s": 0.1, "roll_mib": 0.05,
            "roll_s": 1.0, "cap_mib": 0.1, "keep_days": 0.0, "keep_confirmed_days": 0.0, "ballast_mib": 0.0,
            "min_free_mib": 0.0,
        }  # fmt: skip
        found = {key: getattr(self, key) for key in lows}
        problems = [
            f"{key}: expected at least {low:g}, got {found[key]:g}"
            for key, low in lows.items()
            if found[key] is not None and found[key] < low
        ]
        if self.keep_confirmed_days > MOST_CONFIRMED_DAYS:
            problems.append(
                f"keep_confirmed_days: expected at most {MOST_CONFIRMED_DAYS:g}, got {self.keep_confirmed_days:g}"
            )
        if problems:
            raise ConfigError(problems)
