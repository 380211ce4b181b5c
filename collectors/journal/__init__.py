"""The journal: every sample of one collector, on disk before anything else.

    <state>/<collector>/j-00000001.db   SQLite; the highest number is written, the others are sealed and never change
    <state>/<collector>/lock            held by the one process that writes
    <state>/<collector>/ballast         space given up when the disk is full
    <state>/ship.db                     the shipper's own: how far each sink has read, which offsets are frozen

Promise    what was committed (`Committer.acknowledged_seq`) is read back after a crash or a power cut, once, in order;
           corruption is reported, never passed on as data; every loss is an event.
Numbers    `seq` counts commits of a stream's rows and events, one counter per collector, never used twice.
Time       rows carry CLOCK_BOOTTIME; `timeline` turns it into wall time once that is known.

    committer       commits in a thread of its own          backlog         rows that wait for a commit, bounded
    writer          the locked directory's one writer       directory       lock, new files, quarantine
    active_file     the file that is being written          schema          tables, pragmas, opening
    codec           rows to bytes and back, bit for bit     compact         rows to blocks and roll-ups
    reader          everybody else's way in                 directory_view  the directory as a reader sees it
    history         ranges and roll-ups in wall time        records         what readers get
    row_mapping     rows of tables to records               timeline        boot time to wall time
    retention       which sealed files may be deleted       recovery        rows of a damaged file, by checksum
    held_losses     losses that no file could take          shipper_state   cursors and frozen offsets from ship.db
    clock_request   a manually set clock, handed over       timestamps      points in time as text
    notes           events by people and tools              settings        the [journal] table

May import `collectors.host`, `reading`, `signals`, `text` and `errors`. Offers `JournalReader`, `Committer`, `notes`.
"""
