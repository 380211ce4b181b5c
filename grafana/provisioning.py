"""Where Grafana finds data and dashboards: provisioning files.

One data source with one id, for InfluxDB 1.x or for 2.x; a site installs one of the two files. Both speak InfluxQL, so
the dashboards are the same. Secrets and addresses come from Grafana's environment, never from these files.
"""

from __future__ import annotations

from typing import Any

from grafana.downsampling.influxdb1 import DATABASE
from grafana.panels import FOLDER, SOURCE

Json = dict[str, Any]

DASHBOARDS_PATH = "/etc/grafana/dashboards/battfleet"


def data_source(json_data: Json, secure: Json, **more: object) -> Json:
    """Return a provisioning file with the one data source."""
    source = {
        "name": "battfleet",
        "uid": SOURCE["uid"],
        "type": SOURCE["type"],
        "access": "proxy",
        "orgId": 1,
        "url": "$BATTFLEET_INFLUXDB_URL",
        "isDefault": True,
        "editable": False,
        **more,
        "jsonData": {"version": "InfluxQL", "dbName": DATABASE, "httpMode": "POST", "timeInterval": "1s"} | json_data,
        "secureJsonData": secure,
    }
    return {"apiVersion": 1, "datasources": [source]}


def influxdb1() -> Json:
    """Return the data source for 1.x: a user who may read, with a password."""
    return data_source({}, {"password": "$BATTFLEET_INFLUXDB_PASSWORD"}, user="$BATTFLEET_INFLUXDB_USER")


def influxdb2() -> Json:
    """Return the data source for 2.x: InfluxQL through the DBRP mapping, with a token that may read."""
    return data_source({"httpHeaderName1": "Authorization"}, {"httpHeaderValue1": "Token $BATTFLEET_INFLUXDB_TOKEN"})


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
