"""The shipper: from the journals of this host to its databases. One process for all journals and sinks.

    journal ─ journal_source ─ batches ─ worker ─ retry ─ influxdb.client ─ database
                    │                      │
                    └────── cursors ───────┘  ship.db: cursors, backlog ranges, frozen offsets, types, dead letters

Promise    every row whose time is known reaches every sink at least once, with the same bytes each time, so that
           the effect is exactly once; what a sink rejects for good is kept with its response. Nothing else is ever
           dropped, however often or long a sink fails.
Limit      a server that loses what it acknowledged cannot be seen from here: `collectors ship --verify`.

    config          ship.toml                               service    the process: threads, reports, systemd
    journal_source  rows to lines, time stamps frozen       worker     one sink's schedule: live first, backlog beside
    batches         lines to bodies of requests             retry      one batch until the server has answered for good
    cursors         ship.db                                 sink_status  ship.db read by others
    influxdb        the sink: client, responses, provisioning

May import everything of `collectors` but `acquisition`, `bench`, `fakes`, `devices` and `cli`.
"""
