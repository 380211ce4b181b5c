"""Instruments to journal to database: bytes in, readings out, kept on disk, sent on.

    protocols    wire formats, without any I/O               devices     one module or package an instrument
    transports   links that move bytes                       fakes       instruments that speak the same bytes
    acquisition  the process that reads one instrument       journal     every sample on disk, before anything else
    shipper      journals to databases, one process a host   host        clock, systemd, privileges, host metrics
    bench        the virtual bench                           cli         the `collectors` command

Every package's docstring says its job, what it may import and what it offers; the import rules are contracts in
pyproject.toml. `collectors` never imports `soc`.
"""
