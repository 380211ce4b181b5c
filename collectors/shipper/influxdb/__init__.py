"""InfluxDB 1.x and 2.x as a sink.

    client            one keep-alive connection in either dialect
    responses         what a response means: stored, rejected, expired, retry, or a person must act
    provisioning      database, retention, users and tokens of 1.x, and what both generations share
    provisioning_v2   organisation, bucket, DBRP mapping and token of 2.x

May import `collectors.errors`, `collectors.line_protocol`, `collectors.libraries` and the sink's configuration.
"""
