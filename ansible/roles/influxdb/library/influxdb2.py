#!/usr/bin/python3
"""Ansible module: an InfluxDB 2.x with organisation, buckets, InfluxQL mappings, and one credential for each user.

    policy raw of database bat     bucket "bat/raw", mapped (DBRP) so that InfluxQL finds it as bat.raw
    writer                         may write to the default bucket and nothing else
    reader                         may read the buckets
    means, minima, maxima, counts  buckets of their own (`reduced`), filled by Flux tasks (`tasks`)
    what dashboards read           a few points (`grain`) in one of those buckets

A user's credential is a "v1 compatible" authorisation (`influx v1 auth create`): user and password, good for /write
and /query. It is the only kind whose secret we choose: a token of /api/v2/authorizations is invented by the server,
shown once and, since 2.9, kept as a hash, so no play could find out whether it is still right. Its address,
/private/legacy/authorizations, is the one that the vendor's own command line uses.

A task is known by its name, which its own text says; tasks of other names are left alone, and so is whether a task is
switched on. The server keeps the text as it was sent (kv/task.go), so it can be compared.

What was changed by hand is put right: retention, a mapping to another bucket, another default policy, a user's
permissions, password and status. A mapping that the server derives from a bucket's name ("virtual") does not count: it
is never the default for a name with a slash, so that neither InfluxQL nor `/write` without a policy finds it.

Sources: the vendor's API reference of 2.x; v1/authorization/http_server.go, dbrp/service.go and tenant/ of
influxdata/influxdb 2.7. In tests this module speaks to a stand-in that responds as a recorded 2.7.12.
"""

from __future__ import annotations

import base64
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

SECONDS = {"h": 3600, "d": 86400, "w": 7 * 86400}
DAY_S = 86400
READY_S = 60.0
LEGACY = "/private/legacy/authorizations"
TASK_NAME = re.compile(r'option task = \{name: "([^"]+)"')

ARGUMENTS: dict[str, Any] = {
    "url": {"type": "str", "required": True},
    "admin": {"type": "str", "required": True},
    "admin_password": {"type": "str", "required": True, "no_log": True},
    "admin_token": {"type": "str", "required": True, "no_log": True},
    "org": {"type": "str", "required": True},
    "database": {"type": "str", "required": True},
    "policies": {"type": "list", "elements": "dict", "required": True},
    "reduced": {"type": "list", "elements": "dict", "default": []},
    "tasks": {"type": "list", "elements": "str", "default": []},
    "grain": {"type": "dict", "options": {"policy": {"type": "str"}, "lines": {"type": "str"}}},
    "writers": {"type": "dict", "default": {}, "no_log": True},
    "readers": {"type": "dict", "default": {}, "no_log": True},
    "retired": {"type": "list", "elements": "str", "default": []},
}


class Refused(Exception):
    """The server did not do it; the text is what it says."""


class NotFound(Refused):
    """What was asked for by name or id is not there: the vendor's error code "not found", not just any 404."""


def duration_s(text: str) -> int:
    """Return seconds of "26w", "30d", "12h"; 0 for "forever"; Refused for anything else."""
    if text == "forever":
        return 0
    found = re.fullmatch(r"([1-9]\d*)([hdw])", text)
    if not found:
        raise Refused(f"keep: expected for example 12h, 30d, 26w or forever, got {text!r}")
    return int(found[1]) * SECONDS[found[2]]


def shard_s(keep_s: int) -> int:
    """Return the shard group duration that the server chooses for a new bucket; it rejects one above the retention."""
    if not keep_s or keep_s >= 180 * DAY_S:
        return 7 * DAY_S
    return DAY_S if keep_s >= 2 * DAY_S else 3600


def retention_rules(keep_s: int) -> list[dict[str, Any]]:
    """Return a bucket's rules; 0 keeps points forever, and must be said: an empty list changes nothing."""
    return [{"type": "expire", "everySeconds": keep_s, "shardGroupDurationSeconds": shard_s(keep_s)}]


def permission_set(permissions: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Return permissions so that they can be compared: action, kind of thing, id."""
    return {(p["action"], p["resource"]["type"], p["resource"].get("id", "")) for p in permissions}


def points(lines: str) -> list[dict[str, Any]]:
    """Return lines of line protocol with one tag, texts and decimals, in the form of `rows`; time in s."""
    found = []
    for line in lines.splitlines():
        series, fields, time_s = line.split(" ")
        pairs = [pair.split("=", 1) for pair in [series.split(",")[1], *fields.split(",")]]
        values = {key: float(text) if text[0].isdigit() else text.strip('"') for key, text in pairs}
        found.append(values | {"time": int(time_s)})
    return found


def rows(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an answer to one InfluxQL statement: name to value."""
    (result,) = answer["results"]
    return [
        dict(zip(series["columns"], values, strict=True))
        for series in result.get("series", [])
        for values in series["values"]
    ]


class Influx:
    """The server's HTTP API."""

    def __init__(self, url: str, authorization: str = "") -> None:
        """Remember what to show at the door: "Token …", "Basic …" or nothing."""
        self._url = url
        self._headers = {"Authorization": authorization} if authorization else {}

    def status(self, method: str, path: str, body: bytes = b"") -> int:
        """Return the status alone; Refused when nothing answers."""
        request = urllib.request.Request(self._url + path, body, self._headers, method=method)  # noqa: S310 - http
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError as error:
            raise Refused(f"{self._url} does not answer: {error}") from error

    def ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """Return the answer to a JSON request; Refused with the server's words."""
        text = self._send(method, path, json.dumps(content).encode() if content else None, "application/json")
        found: dict[str, Any] = json.loads(text) if text else {}
        return found

    def find(self, path: str) -> dict[str, Any]:
        """Return the response to a GET; {} where the server says "not found", as 2.x does for a missing name."""
        try:
            return self.ask("GET", path)
        except NotFound:
            return {}

    def write(self, path: str, lines: str) -> None:
        """Store lines of line protocol; Refused with the server's words."""
        self._send("POST", path, lines.encode(), "text/plain; charset=utf-8")

    def _send(self, method: str, path: str, body: bytes | None, kind: str) -> bytes:
        headers = self._headers | {"Content-Type": kind}
        request = urllib.request.Request(self._url + path, body, headers, method=method)  # noqa: S310 - http
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                answer: bytes = response.read()
                return answer
        except urllib.error.HTTPError as error:
            words = error.read().decode("utf-8", "replace").strip()
            is_missing = error.code == 404 and error.headers.get("X-Platform-Error-Code") == "not found"
            kind_of_error = NotFound if is_missing else Refused
            raise kind_of_error(f"{method} {path.partition('?')[0]}: {error.code} {words}") from error
        except OSError as error:
            raise Refused(f"{self._url} does not answer: {error}") from error


def await_ready(url: str) -> None:
    """Return when the server calls itself healthy; Refused when it does not in time."""
    deadline_s = time.monotonic() + READY_S
    while True:
        try:
            if Influx(url).status("GET", "/health") == 200:
                return
            problem = "not healthy yet"
        except Refused as refused:
            problem = str(refused)
        if time.monotonic() > deadline_s:
            raise Refused(f"{url} is not ready within {READY_S:.0f} s: {problem}")
        time.sleep(0.2)


class SetUp:
    """What is wanted, compared with what is there, piece by piece. `changes` tells what was (or would be) done."""

    def __init__(self, wanted: dict[str, Any], dry: bool) -> None:
        """Nothing is asked yet. `dry`: only say what would be done."""
        self._wanted = wanted
        self._dry = dry
        self._server = Influx(wanted["url"], f"Token {wanted['admin_token']}")
        self._org_id = ""
        self.changes: list[str] = []

    def run(self) -> list[str]:
        """Return the changes in words."""
        if not self._first_setup():
            return self.changes
        self._org_id = self._organisation()
        buckets = [self._bucket(policy) for policy in self._wanted["policies"] + self._wanted["reduced"]]
        known = {a["token"]: a for a in self._server.ask("GET", f"{LEGACY}?orgID={self._org_id}")["authorizations"]}
        for user, password in self._wanted["writers"].items():
            self._user(user, password, "write", buckets[:1], known.get(user))
        for user, password in self._wanted["readers"].items():
            self._user(user, password, "read", buckets, known.get(user))
        for user in self._wanted["retired"]:
            if user in known:
                self._do(f"user {user} is gone", "DELETE", f"{LEGACY}/{known[user]['id']}")
        for flux in self._wanted["tasks"]:
            self._task(flux)
        if self._wanted["grain"]:
            self._grain(**self._wanted["grain"])
        return self.changes

    def _do(self, what: str, method: str, path: str, **content: Any) -> dict[str, Any]:
        """Note a change and make it; {} in a dry run."""
        self.changes.append(what)
        return {} if self._dry else self._server.ask(method, path, **content)

    def _first_setup(self) -> bool:
        """Make administrator, organisation and first bucket of a new server; return whether there is more to see."""
        nobody = Influx(self._wanted["url"])
        if not nobody.ask("GET", "/api/v2/setup")["allowed"]:
            return True
        self.changes.append("administrator, organisation and first bucket")
        if self._dry:
            return False
        first = self._wanted["policies"][0]
        nobody.ask(
            "POST",
            "/api/v2/setup",
            username=self._wanted["admin"],
            password=self._wanted["admin_password"],
            token=self._wanted["admin_token"],
            org=self._wanted["org"],
            bucket=self._bucket_name(first),
            retentionPeriodSeconds=duration_s(first["keep"]),
        )
        return True

    def _organisation(self) -> str:
        name = urllib.parse.quote(self._wanted["org"])
        found = self._server.find(f"/api/v2/orgs?org={name}").get("orgs")
        if not found:
            raise Refused(
                f"there is no organisation {self._wanted['org']!r} here; set influxdb_org to the one there is"
            )
        return str(found[0]["id"])

    def _bucket_name(self, policy: dict[str, Any]) -> str:
        return f"{self._wanted['database']}/{policy['name']}"

    def _bucket(self, policy: dict[str, Any]) -> str:
        """Return the bucket's id, "" for one that a dry run did not make."""
        name, keep_s = self._bucket_name(policy), duration_s(policy["keep"])
        rules = retention_rules(keep_s)
        query = urllib.parse.urlencode({"orgID": self._org_id, "name": name})
        found = self._server.find(f"/api/v2/buckets?{query}").get("buckets")
        what = f"bucket {name}: {policy['keep']}"
        if not found:
            made = self._do(what, "POST", "/api/v2/buckets", orgID=self._org_id, name=name, retentionRules=rules)
            bucket = str(made.get("id", ""))
        else:
            bucket = str(found[0]["id"])
            if sum(rule["everySeconds"] for rule in found[0]["retentionRules"]) != keep_s:
                self._do(what, "PATCH", f"/api/v2/buckets/{bucket}", retentionRules=rules)
        self._mapping(policy, bucket)
        return bucket

    def _mapping(self, policy: dict[str, Any], bucket: str) -> None:
        """Let InfluxQL find the bucket, and the first policy's where no policy is named."""
        database, is_default = self._wanted["database"], policy is self._wanted["policies"][0]
        what = f"InfluxQL name {database}.{policy['name']}"
        query = urllib.parse.urlencode({"orgID": self._org_id, "db": database})
        for mapping in self._server.ask("GET", f"/api/v2/dbrps?{query}")["content"]:
            if mapping.get("virtual") or mapping["retention_policy"] != policy["name"]:
                continue
            address = f"/api/v2/dbrps/{mapping['id']}?orgID={self._org_id}"
            if mapping["bucketID"] == bucket:
                if is_default and not mapping["default"]:
                    self._do(f"{what}, the default", "PATCH", address, default=True)
                return
            what += ", of another bucket until now"  # a mapping's bucket cannot be edited
            if not self._dry:
                self._server.ask("DELETE", address)
        self._do(
            what,
            "POST",
            "/api/v2/dbrps",
            orgID=self._org_id,
            bucketID=bucket,
            database=database,
            retention_policy=policy["name"],
            default=is_default,
        )

    def _user(self, user: str, password: str, action: str, buckets: list[str], known: dict[str, Any] | None) -> None:
        """Make the credential, or put its password right. Permissions cannot be edited: for others it is made anew."""
        permissions = [
            {"action": action, "resource": {"type": "buckets", "id": bucket, "orgID": self._org_id}}
            for bucket in buckets
        ]
        if known and permission_set(known["permissions"]) != permission_set(permissions):
            self._do(f"user {user}: other permissions", "DELETE", f"{LEGACY}/{known['id']}")
            known = None
        if known and known["status"] != "active":
            self._do(f"user {user} is active again", "PATCH", f"{LEGACY}/{known['id']}", status="active")
            if self._dry:  # an inactive user is let in by no password
                return
        if known and self._is_let_in(user, password):
            return
        if known:
            self._do(f"password of {user}", "POST", f"{LEGACY}/{known['id']}/password", password=password)
            return
        description = f"battfleet: {user} may {action}"
        made = self._do(
            f"user {user} may {action}",
            "POST",
            LEGACY,
            orgID=self._org_id,
            token=user,
            description=description,
            permissions=permissions,
        )
        if made:
            self._server.ask("POST", f"{LEGACY}/{made['id']}/password", password=password)

    def _is_let_in(self, user: str, password: str) -> bool:
        """Return whether user and password are right: an empty write is judged only after who asks was looked at."""
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
        query = urllib.parse.urlencode({"db": self._wanted["database"], "rp": self._wanted["policies"][0]["name"]})
        return Influx(self._wanted["url"], f"Basic {credentials}").status("POST", f"/write?{query}") != 401

    def _task(self, flux: str) -> None:
        """Make the task that this text names, or give it this text; blanks do not count."""
        named = TASK_NAME.search(flux)
        if not named:
            raise Refused(f"a task without a name: expected 'option task = {{name: \"…\"', got {flux[:80]!r}")
        what, query = f"task {named[1]}", urllib.parse.urlencode({"orgID": self._org_id, "name": named[1]})
        found = self._server.ask("GET", f"/api/v2/tasks?{query}")["tasks"]
        if not found:
            self._do(what, "POST", "/api/v2/tasks", orgID=self._org_id, flux=flux, status="active")
        elif found[0]["flux"].split() != flux.split():
            self._do(f"{what}: other text", "PATCH", f"/api/v2/tasks/{found[0]['id']}", flux=flux)

    def _grain(self, policy: str, lines: str) -> None:
        """Store the points that dashboards choose by, unless InfluxQL finds them already."""
        database, what = self._wanted["database"], f"choice of grains in {policy}"
        if self._dry and any(change.startswith(f"InfluxQL name {database}.{policy}") for change in self.changes):
            self.changes.append(what)
            return
        query = urllib.parse.urlencode({"db": database, "rp": policy, "q": 'SELECT * FROM "grain"', "epoch": "s"})
        there = rows(self._server.ask("GET", f"/query?{query}"))
        if any(point not in there for point in points(lines)):
            self.changes.append(what)
            if not self._dry:
                place = {"org": self._wanted["org"], "bucket": f"{database}/{policy}", "precision": "s"}
                self._server.write(f"/api/v2/write?{urllib.parse.urlencode(place)}", lines)


def main() -> None:
    """Do what Ansible asks for."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        await_ready(module.params["url"])
        changes = SetUp(module.params, module.check_mode).run()
    except Refused as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(changed=bool(changes), changes=changes)


if __name__ == "__main__":
    main()
