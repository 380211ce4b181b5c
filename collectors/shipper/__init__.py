"""The shipper: sends the journals of this host to its databases. One process serves all journals and sinks.

    journal ─ journal_source ─ batches ─ worker ─ retry ─ influxdb.client ─ database
                    │                      │
                    └────── cursors ───────┘  ship.db: cursors, backlog ranges, frozen offsets, types, dead letters

Guarantee  every row whose time is known reaches every sink at least once, with the same bytes each time, so that
           the effect is exactly once. A line that a sink rejects permanently is kept with the sink's response.
           Nothing else is ever dropped, however often or long a sink fails.
Limit      the shipper does not see that a server lost rows it acknowledged: use `collectors ship --verify`.

    config          ship.toml                               service    the process: threads, reports, systemd
    journal_source  rows to lines, time stamps frozen       worker     one sink's schedule: live rows before backlog
    batches         lines to request bodies                 retry      one batch until the server's final response
    cursors         ship.db                                 sink_status  ship.db, read by other programs
    influxdb        the sink: client, responses, provisioning

May import everything of `collectors` but `acquisition`, `bench`, `fakes`, `devices` and `cli`.
"""
