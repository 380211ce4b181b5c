"""Provisions InfluxDB 2.x with `influxdb-client`; part of `collectors.shipper.influxdb.provisioning`.

The server shows a write token once, when it is created; it cannot be edited later. An empty write, which stores
nothing, tests the token of the file. A token that is accepted is kept, whoever created it. A token that is rejected
(unknown, inactive, created for a bucket that was deleted since) is activated or replaced if the server has an
authorisation with the shipper's description. A file that contains somebody else's token is never overwritten.

Sources: API reference of InfluxDB 2.x; responses recorded from 2.7.12.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from collectors import libraries
from collectors.errors import ConfigError, LinkDown
from collectors.shipper.config import ShipConfig, SinkConfig
from collectors.shipper.influxdb.client import endpoint
from collectors.shipper.influxdb.provisioning import (
    Admin,
    Change,
    NotAllowed,
    first_set_up_is_due,
    request,
    shard_s,
    write_secret,
)

TIMEOUT_MS = 10_000
OK = 204
UNKNOWN, NOT_PERMITTED = 401, 403
HIDDEN = "REDACTED"  # 2.9 stores tokens as hashes, and does not show them again


def set_up_influxdb2(config: ShipConfig, sink: SinkConfig, admin: Admin, keep_s: int | None) -> list[Change]:
    """Provision the sink and return its items, changed or not. Errors: as `provisioning.set_up`."""
    try:
        library: Any = import_module("influxdb_client")
        urllib3 = import_module("urllib3")
    except ImportError as error:
        raise ConfigError(libraries.advice(error) or str(error)) from error
    if first_set_up_is_due(sink):
        raise NotAllowed(
            f"{sink.url}: this server has no user yet, so it knows no operator token; make its first user, "
            "organisation and token: `influx setup`, or its web page"
        )
    try:
        with library.InfluxDBClient(
            sink.url, admin.secret, org=sink.org, timeout=TIMEOUT_MS, ssl_ca_cert=sink.ca_file or None, retries=False
        ) as client:
            return _SetUp2(config, sink, library, client).run(keep_s)
    except library.rest.ApiException as error:
        raise NotAllowed(f"{sink.url}: {error.status} {error.body or error.reason}") from error
    except urllib3.exceptions.HTTPError as error:
        raise LinkDown(f"sink {sink.name}: {sink.url} does not answer: {error}") from error


def _names(sink: SinkConfig) -> tuple[str, str]:
    """Return database and policy as the server derives them from a bucket's name."""
    database, _, policy = sink.bucket.partition("/")
    return database, policy or "autogen"


class _SetUp2:
    """`library` is the module influxdb_client, which has no type hints and is imported only when needed."""

    def __init__(self, config: ShipConfig, sink: SinkConfig, library: Any, client: Any) -> None:
        self._config = config
        self._sink = sink
        self._library = library
        self._client = client

    def run(self, keep_s: int | None) -> list[Change]:
        org_id, org_step = self._org()
        bucket_id, bucket_steps = self._bucket(org_id, keep_s)
        return [org_step, *bucket_steps, self._mapping(org_id, bucket_id), *self._token(org_id, bucket_id)]

    def _org(self) -> tuple[str, Change]:
        api, what = self._client.organizations_api(), f"organisation {self._sink.org}"
        for org in self._found(api.find_organizations, org=self._sink.org):
            return org.id, Change(False, what)
        return api.create_organization(self._sink.org).id, Change(True, what)

    def _found(self, ask: Callable[..., Any], **wanted: str) -> list[Any]:
        """Return the server's objects of a name; 2.x responds with 404 when there are none."""
        try:
            found = ask(**wanted)
        except self._library.rest.ApiException as error:
            if error.status == 404 and error.headers.get("X-Platform-Error-Code") == "not found":
                return []
            raise
        return list(getattr(found, "buckets", found))

    def _bucket(self, org_id: str, keep_s: int | None) -> tuple[str, list[Change]]:
        api, what = self._client.buckets_api(), f"bucket {self._sink.bucket}"
        found = self._found(api.find_buckets, name=self._sink.bucket, org_id=org_id)
        if not found:
            made = api.create_bucket(
                bucket_name=self._sink.bucket, retention_rules=self._rules(keep_s or 0), org=org_id
            )
            return made.id, [Change(True, what)]
        bucket = found[0]
        kept_s = sum(rule.every_seconds for rule in bucket.retention_rules)
        if keep_s is None or kept_s == keep_s:
            return bucket.id, [Change(False, what)]
        bucket.retention_rules = self._rules(keep_s)
        api.update_bucket(bucket)
        return bucket.id, [Change(True, f"{what}: keeps {f'{keep_s} s' if keep_s else 'everything'}")]

    def _rules(self, keep_s: int) -> list[Any]:
        """Return the bucket's only rule. The server rejects shard groups that last longer than the retention."""
        rule = self._library.BucketRetentionRules
        return [rule(type="expire", every_seconds=keep_s, shard_group_duration_seconds=shard_s(keep_s))]

    def _mapping(self, org_id: str, bucket_id: str) -> Change:
        """Map database and policy for InfluxQL: bucket "bat/raw" becomes bat and raw, "bat" becomes bat and autogen.

        A mapping that the server derives from the bucket's name ("virtual") is never the default of a database whose
        bucket has a policy in its name, so it is no substitute. Of several sinks in one database, the first is default.
        """
        database, policy = _names(self._sink)
        what = f"InfluxQL database {database}, policy {policy}"
        service = self._library.DBRPsService(self._client.api_client)
        is_default = self._sink is self._first_of_database()
        for mapping in service.get_dbr_ps(org_id=org_id, db=database).content or []:
            if mapping.virtual or mapping.retention_policy != policy:
                continue
            if mapping.bucket_id == bucket_id:
                if not is_default or mapping.default:
                    return Change(False, what)
                change = self._library.DBRPUpdate(default=True)
                service.patch_dbrpid(mapping.id, change, org_id=org_id)
                return Change(True, f"{what}, the default")
            what += ", of another bucket until now"  # a mapping's bucket cannot be edited
            service.delete_dbrpid(mapping.id, org_id=org_id)
        service.post_dbrp(
            self._library.DBRPCreate(
                bucket_id=bucket_id, org_id=org_id, database=database, retention_policy=policy, default=is_default
            )
        )
        return Change(True, what)

    def _first_of_database(self) -> SinkConfig:
        place = (self._sink.url, self._sink.org, _names(self._sink)[0])
        return next(
            sink
            for sink in self._config.sinks
            if sink.dialect == "influxdb2" and (sink.url, sink.org, _names(sink)[0]) == place
        )

    def _token(self, org_id: str, bucket_id: str) -> list[Change]:
        api = self._client.authorizations_api()
        path = self._config.secret_path(self._sink.token_file)
        description = f"battfleet: {self._config.ship.bench} writes to {self._sink.bucket}"
        what = f"token {description!r} in {path}"
        ours = [a for a in api.find_authorizations(org_id=org_id) if a.description == description]
        is_there = path.exists()
        status = self._try(path) if is_there else None
        if status == OK:
            return [Change(False, what if ours else f"token in {path}, which may write to {self._sink.bucket}")]
        if status == UNKNOWN or (is_there and not self._is_of(ours)):
            raise ConfigError(
                f"{self._config.path}: [[sink]] {self._sink.name} token_file: {path} is there, but its token may not "
                f"write to {self._sink.bucket} and was not made for this bench and bucket; move it away for a new one"
            )
        for authorization in ours:
            if is_there and authorization.status != "active" and self._is_for(authorization, bucket_id):
                authorization.status = "active"
                api.update_authorization(authorization)
                if self._try(path) == OK:
                    return [Change(True, f"{what} is active again")]
        resource = self._library.PermissionResource(org_id=org_id, type="buckets", id=bucket_id)
        write = self._library.Permission(action="write", resource=resource)
        wanted = self._library.Authorization(org_id=org_id, description=description, permissions=[write])
        made = api.create_authorization(authorization=wanted)
        write_secret(path, made.token, replace=is_there)
        for old in ours:
            api.delete_authorization(old)
        return [Change(True, f"{what}, instead of one that could not write there" if is_there else what)]

    def _is_of(self, ours: list[Any]) -> bool:
        """Return whether the file's token belongs to one of these; true also when the server does not show tokens."""
        shown = {a.token for a in ours}
        secret = self._config.secret(self._sink.token_file)
        return secret in shown or any(not token or token == HIDDEN for token in shown)

    def _try(self, path: Path) -> int:
        """Return the status of an empty write with the file's token: 204, 401 or 403; NotAllowed for any other."""
        opened = endpoint(self._sink, self._config.secret(self._sink.token_file))
        response = request(self._sink, "POST", opened.path, "", opened.headers)
        if response.status not in (OK, UNKNOWN, NOT_PERMITTED):
            raise NotAllowed(
                f"{self._sink.url}: a write with the token in {path}: {response.status} {response.text[:200]}"
            )
        return response.status

    @staticmethod
    def _is_for(authorization: Any, bucket_id: str) -> bool:
        return [(p.action, p.resource.id) for p in authorization.permissions] == [("write", bucket_id)]
