"""The host that a process runs on.

    clock         CLOCK_BOOTTIME, wall time and whether it is synchronised
    systemd       sd_notify(3)                                metrics       memory, Wi-Fi, disk
    privileges    continue as the owner of a folder

May import `collectors.errors` only.
"""
