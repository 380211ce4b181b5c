"""One process that reads one instrument.

    service    the process: poller in the main thread, committer in its own, watchdog and reports
    poller     schedules the requests; counts every outcome by name; checks ranges
    session    runs one dialogue over one link: all waiting for an instrument

May import everything but `fakes`, `shipper`, `bench` and `cli`. Offers `service.run`, and `session` to commands that
poll an instrument once.
"""
