"""Reads instruments, writes every sample to a journal on disk, and ships the journals to databases.

    protocols    wire formats, without any I/O               devices     one module or package an instrument
    transports   links that move bytes                       fakes       fake instruments at the level of bytes
    acquisition  the process that reads one instrument       journal     durable store: every sample, written first
    shipper      journals to databases, one process a host   host        clock, systemd, privileges, host metrics
    bench        the virtual bench                           cli         the `collectors` command

Every package's docstring states its job, what it may import and what it offers; the import rules are contracts in
pyproject.toml. `collectors` never imports `soc`.
"""
