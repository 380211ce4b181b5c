"""The journal: every sample of one collector is written to disk before anything else is done with it.

    <state>/<collector>/j-00000001.db   SQLite; the file with the highest number is active, the others are sealed
    <state>/<collector>/lock            held by the one process that writes
    <state>/<collector>/ballast         reserved space that is released when the disk is full
    <state>/ship.db                     written by the shipper: the cursor of each sink, the frozen offsets

Guarantee  what was committed (`Committer.acknowledged_seq`) is read back after a crash or a power cut, once, in order;
           corruption is reported, never returned as data; every loss is an event.
Numbers    `seq` counts commits of a stream's rows and events, one counter per collector; no number is used twice.
Time       rows carry CLOCK_BOOTTIME in ns; `timeline` converts it to wall time once the offset is known.

    committer       commits in its own thread            backlog         rows that wait for a commit, bounded
    writer          the only writer of the directory     directory       lock, new files, quarantine
    active_file     the file that is being written       schema          tables, pragmas, opening
    codec           rows to bytes and back, lossless     compact         rows to blocks and roll-ups
    reader          access for all other processes       directory_view  the directory as a reader sees it
    history         ranges and roll-ups in wall time     records         what readers return
    row_mapping     table rows to records                timeline        boot time to wall time
    retention       which sealed files may be deleted    recovery        rows of a damaged file, by checksum
    held_losses     losses that no file could record     shipper_state   cursors and frozen offsets from ship.db
    clock_request   requests to set the clock manually   timestamps      points in time as text
    notes           events by people and tools           settings        the [journal] table

May import `collectors.host`, `reading`, `signals`, `text` and `errors`. Offers `JournalReader`, `Committer`, `notes`.
"""
