"""The shipper: from the journals of this host to its databases. One process for all journals and sinks.

    journal ─ reading ─ batches ─ courier ─ delivery ─ post ─ database
                 │                   │
                 └───── store ───────┘  ship.db: cursors, spans, frozen offsets, types, dead letters, health

Promise    every row whose time is known reaches every sink at least once, with the same bytes each time, so that
           the effect is exactly once; what a sink refuses for good is kept with its words. Nothing else is ever
           dropped, however often or long a sink fails.
Repair     a database can lose what it has acknowledged; `verification` compares, and sends again what is missing.
Limit      InfluxDB Cloud may refuse points after it has said 204, which cannot be seen from here: look at its bucket
           of rejected points.

config     ship.toml                              service    the process: threads, reports, systemd
reading    journal to lines, stamps frozen        courier    one sink's order of work: live first, backlog beside
batches    lines to bodies of requests            delivery   one batch against whatever the server says
answers    what a server's answer means           post       one keep-alive connection, in two dialects
query      what a database has, by InfluxQL       verification  journals compared with a database
store      ship.db                                overview   ship.db read by others
setting_up, setting_up_influxdb2                  `collectors sink`
"""
