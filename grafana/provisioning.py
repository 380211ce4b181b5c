"""Where Grafana finds data and dashboards: provisioning files.

One data source for InfluxDB 1.x and 2.x: both answer InfluxQL on /query to a user and password (on 2.x a "v1
compatible" credential, or any name with a token as password). Address and secrets come from Grafana's environment,
never from these files: there Grafana replaces `$NAME`, once, so a dollar within a password stays what it is.

Grafana sends both as HTTP basic authentication (grafana-plugin-sdk-go, backend/common.go, HTTPClientOptions); 2.x takes
that for /query (InfluxDB v2, "/query 1.x compatibility API", Authentication).
"""

from __future__ import annotations

from typing import Any

from grafana.panels import FOLDER, SOURCE

Json = dict[str, Any]

DASHBOARDS_PATH = "/etc/grafana/dashboards/battfleet"


def data_source(database: str) -> Json:
    """Return the provisioning file of the one data source."""
    source = {
        "name": "battfleet",
        "uid": SOURCE["uid"],
        "type": SOURCE["type"],
        "access": "proxy",
        "orgId": 1,
        "url": "$BATTFLEET_INFLUXDB_URL",
        "isDefault": True,
        "editable": False,
        "basicAuth": True,
        "basicAuthUser": "$BATTFLEET_INFLUXDB_USER",
        "jsonData": {"version": "InfluxQL", "dbName": database, "httpMode": "POST", "timeInterval": "1s"},
        "secureJsonData": {"basicAuthPassword": "$BATTFLEET_INFLUXDB_PASSWORD"},
    }
    return {"apiVersion": 1, "datasources": [source]}


def dashboards() -> Json:
    """Return the provider that reads the dashboards' folder again every half minute.

    The folder has no id, only its name: rules can name theirs in no other way and may come first, and a folder that is
    looked for by an id would then be made a second time, or refused for its name.
    """
    provider = {
        "name": "battfleet",
        "orgId": 1,
        "folder": FOLDER,
        "type": "file",
        "disableDeletion": False,
        "updateIntervalSeconds": 30,
        "allowUiUpdates": False,
        "options": {"path": DASHBOARDS_PATH},
    }
    return {"apiVersion": 1, "providers": [provider]}
