"""Instruments to journal to InfluxDB: bytes in, readings out, kept safe, sent on."""
