#!/usr/bin/python3
"""Ansible module: an InfluxDB 1.x with administrator, database, retention policies and users.

Speaks InfluxQL to `url`. Every statement is sent only when something differs, so a second run changes nothing, and
check mode says what would be changed. The answer is the list of changes in words; passwords are never in it.

A writer may write to this database and nothing else, a reader only read. Policies and users that are not named are left
alone, `retired` users are dropped.
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
READY_S = 60.0

ARGUMENTS: dict[str, Any] = {
    "url": {"type": "str", "required": True},
    "admin": {"type": "str", "required": True},
    "admin_password": {"type": "str", "required": True, "no_log": True},
    "admin_password_old": {"type": "str", "default": "", "no_log": True},
    "database": {"type": "str", "required": True},
    "policies": {"type": "list", "elements": "dict", "required": True},
    "writers": {"type": "dict", "default": {}, "no_log": True},
    "readers": {"type": "dict", "default": {}, "no_log": True},
    "retired": {"type": "list", "elements": "str", "default": []},
}


class Refused(Exception):
    """The server did not do it; the text is what it says."""


def duration_s(text: str) -> int:
    """Return seconds of "26w", "30d", "12h"; 0 for "forever"; Refused for anything else."""
    if text == "forever":
        return 0
    found = re.fullmatch(r"([1-9]\d*)([hdw])", text)
    if not found:
        raise Refused(f"keep: expected for example 12h, 30d, 26w or forever, got {text!r}")
    return int(found[1]) * SECONDS[found[2]]


def server_s(text: str) -> int:
    """Return seconds of a duration as the server writes it, "4368h0m0s"."""
    parts = {unit: int(number) for number, unit in re.findall(r"(\d+)([hms])", text)}
    return parts.get("h", 0) * 3600 + parts.get("m", 0) * 60 + parts.get("s", 0)


def name_of(name: str) -> str:
    """Return an identifier, quoted."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def text_of(text: str) -> str:
    """Return a string, quoted."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Influx:
    """The server, asked as one user."""

    def __init__(self, url: str, user: str, password: str) -> None:
        """Remember whom to ask as; `user` "" asks as nobody."""
        self._url = url
        self._headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if user:
            credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {credentials}"

    def ask(self, statement: str) -> list[dict[str, Any]]:
        """Return the rows of one statement; Refused with the server's words."""
        body = urllib.parse.urlencode({"q": statement}).encode()
        request = urllib.request.Request(f"{self._url}/query", body, self._headers)  # noqa: S310 - http, as configured
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise Refused(error.read().decode("utf-8", "replace").strip()) from error
        except OSError as error:
            raise Refused(f"{self._url} does not answer: {error}") from error
        (result,) = answer["results"]
        if "error" in result:
            raise Refused(result["error"])
        return [
            dict(zip(series["columns"], row, strict=True))
            for series in result.get("series", [])
            for row in series.get("values", [])
        ]

    def lets_in(self) -> bool:
        """Return whether the server knows this user by this password."""
        try:
            self.ask("SHOW DATABASES")
        except Refused as refused:
            if "authorization failed" in str(refused):
                return False
            raise
        return True


def await_ready(url: str) -> None:
    """Return when the server answers its ping; Refused when it does not in time."""
    deadline_s = time.monotonic() + READY_S
    while True:
        try:
            urllib.request.urlopen(f"{url}/ping", timeout=5).close()  # noqa: S310
        except OSError as error:
            if time.monotonic() > deadline_s:
                raise Refused(f"{url} does not answer within {READY_S:.0f} s: {error}") from error
            time.sleep(0.2)
        else:
            return


class SetUp:
    """What is wanted, compared with what is there, piece by piece. `changes` tells what was (or would be) done."""

    def __init__(self, wanted: dict[str, Any], dry: bool) -> None:
        """Nothing is asked yet. `dry`: only say what would be done."""
        self._wanted = wanted
        self._dry = dry
        self._admin = Influx(wanted["url"], wanted["admin"], wanted["admin_password"])
        self._database: str = wanted["database"]
        self.changes: list[str] = []

    def run(self) -> list[str]:
        """Return the changes in words."""
        if not self._administrator():
            return self.changes
        if self._databases():
            self._policies()
        self._users()
        return self.changes

    def _do(self, what: str, statement: str, who: Influx | None = None) -> None:
        self.changes.append(what)
        if not self._dry:
            (who or self._admin).ask(statement)

    def _administrator(self) -> bool:
        """Make the first user where there is none; return whether the rest can be looked at."""
        name, password = name_of(self._wanted["admin"]), text_of(self._wanted["admin_password"])
        try:
            if self._admin.lets_in():
                return True
        except Refused as refused:
            if "create admin user first" not in str(refused):
                raise
            statement = f"CREATE USER {name} WITH PASSWORD {password} WITH ALL PRIVILEGES"
            self._do("administrator", statement, Influx(self._wanted["url"], "", ""))
            return not self._dry
        old = Influx(self._wanted["url"], self._wanted["admin"], self._wanted["admin_password_old"])
        if not self._wanted["admin_password_old"] or not old.lets_in():
            raise Refused(
                f"the administrator {self._wanted['admin']!r} is not let in with the vault's password; to change it, "
                "keep the old one as vault_influxdb_admin_password_old for one run: docs/rotate-secrets.md"
            )
        self._do("administrator's password", f"SET PASSWORD FOR {name} = {password}", old)
        return not self._dry

    def _databases(self) -> bool:
        """Make the database; return whether its policies can be looked at."""
        if self._database in [row["name"] for row in self._admin.ask("SHOW DATABASES")]:
            return True
        first = self._wanted["policies"][0]
        options = f"DURATION {self._length(first)} NAME {name_of(first['name'])}"
        self._do(f"database {self._database}", f"CREATE DATABASE {name_of(self._database)} WITH {options}")
        return not self._dry

    @staticmethod
    def _length(policy: dict[str, Any]) -> str:
        seconds = duration_s(policy["keep"])
        return f"{seconds}s" if seconds else "INF"

    def _policies(self) -> None:
        on = f"ON {name_of(self._database)}"
        known = {row["name"]: row for row in self._admin.ask(f"SHOW RETENTION POLICIES {on}")}
        for number, policy in enumerate(self._wanted["policies"]):
            name, length = policy["name"], self._length(policy)
            default = " DEFAULT" if number == 0 else ""
            what = f"retention policy {name}: {policy['keep']}"
            if name not in known:
                statement = f"CREATE RETENTION POLICY {name_of(name)} {on} DURATION {length} REPLICATION 1{default}"
                self._do(what, statement)
            elif server_s(known[name]["duration"]) != duration_s(policy["keep"]):
                self._do(
                    what, f"ALTER RETENTION POLICY {name_of(name)} {on} DURATION {length} SHARD DURATION 0s{default}"
                )
            elif default and not known[name]["default"]:
                self._do(f"{what}, the default", f"ALTER RETENTION POLICY {name_of(name)} {on} DEFAULT")

    def _users(self) -> None:
        known = {row["user"]: row["admin"] for row in self._admin.ask("SHOW USERS")}
        for privilege, users in (("WRITE", self._wanted["writers"]), ("READ", self._wanted["readers"])):
            for user, password in users.items():
                if known.get(user):
                    self._do(f"{user}: no administrator", f"REVOKE ALL PRIVILEGES FROM {name_of(user)}")
                self._user(user, password, privilege, user in known)
        for user in self._wanted["retired"]:
            if user in known:
                self._do(f"user {user} is gone", f"DROP USER {name_of(user)}")

    def _user(self, user: str, password: str, privilege: str, is_known: bool) -> None:
        granted: dict[str, str] = {}
        if not is_known:
            self._do(f"user {user}", f"CREATE USER {name_of(user)} WITH PASSWORD {text_of(password)}")
        else:
            if not Influx(self._wanted["url"], user, password).lets_in():
                self._do(f"password of {user}", f"SET PASSWORD FOR {name_of(user)} = {text_of(password)}")
            rows = self._admin.ask(f"SHOW GRANTS FOR {name_of(user)}")
            granted = {row["database"]: row["privilege"] for row in rows if row["privilege"] != "NO PRIVILEGES"}
        on = f"{privilege} ON {name_of(self._database)}"
        if granted.get(self._database) != privilege:
            self._do(f"{user}: {privilege} on {self._database}", f"GRANT {on} TO {name_of(user)}")
        for database in sorted(granted.keys() - {self._database}):
            revoke = f"REVOKE ALL PRIVILEGES ON {name_of(database)} FROM {name_of(user)}"
            self._do(f"{user}: nothing on {database}", revoke)


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
