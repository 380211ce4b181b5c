"""The journal: every sample of one collector, on the disk first.

    <state>/<collector>/j-00000001.db   SQLite; the highest number is live, the others are sealed and never change
    <state>/<collector>/lock            held by the one process that writes
    <state>/<collector>/ballast         space given up when the disk is full
    <state>/<collector>/held            while a collector runs: what waits in its memory because the disk takes nothing
    <state>/ship.db                     the shipper's own: how far each sink has read, which offsets are frozen

Promise    what was committed (`Committer.acknowledged_seq`) is read back after a crash or a power cut, once, in order;
           damage is reported, never passed on as data; every loss is an event.
Numbers    `seq` counts commits of a stream's rows and events, one counter per collector, never used twice.
Time       rows carry CLOCK_BOOTTIME; `collectors.journal.timeline` turns it into wall time once that is known.

records    what readers see                       settings   the [journal] table
committer  the runtime's only door (a thread)     reader     everybody else's door (with folder, history)
writer     the one that writes, and its upkeep    place      the folder: lock, new files, damaged files
live       the one file that is written           schema     tables, pragmas, opening
codec      rows to bytes and back                 compact    hot rows to blocks and roll-ups
retention  what may be deleted, and when          salvage    what a damaged file still gives
timeline   boottime to wall time                  shipped    cursors and frozen offsets, from ship.db
backlog    what waits for its commit              request    a person's word about the time
tables     rows of tables to records              held       what would be lost if the process ended now
"""
