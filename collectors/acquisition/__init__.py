"""One process that reads one instrument.

    service    the process: poller in the main thread, committer in its own, watchdog and reports
    poller     when the instrument is asked; every outcome counted by name; range checks
    session    carries one dialogue over one link: all the waiting that an instrument needs

May import everything but `fakes`, `shipper`, `bench` and `cli`. Offers `service.run`, and `session` to commands that
ask an instrument once.
"""
