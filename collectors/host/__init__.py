"""The host on which a process runs: clock, service manager, privileges, metrics, serial ports.

    clock         CLOCK_BOOTTIME, wall time and whether it is synchronised
    systemd       sd_notify(3)                                metrics       memory, Wi-Fi
    privileges    continue as the owner of a directory        serial_ports  ports, adapters and their users

May import `collectors.errors` only.
"""
