"""InfluxDB 2.x made ready for the shipper, by `influxdb-client`; part of `collectors.shipper.setting_up`.

The write token is shown by the server once, when it is made, and cannot be edited later. So it is kept: where the
token's file and the authorisation of our description are both there, nothing is done; where one is missing, a new
token is made, written to the file, and the old authorisation is deleted.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from collectors import libraries
from collectors.errors import ConfigError, LinkDown
from collectors.shipper.config import ShipConfig, SinkConfig
from collectors.shipper.setting_up import Admin, NotAllowed, Step, write_secret

TIMEOUT_MS = 10_000


def set_up_influxdb2(config: ShipConfig, sink: SinkConfig, admin: Admin, keep_s: int | None) -> list[Step]:
    """Return what was found right or was put right."""
    try:
        library: Any = import_module("influxdb_client")
        urllib3 = import_module("urllib3")
    except ImportError as error:
        raise ConfigError(libraries.advice(error) or str(error)) from error
    try:
        with library.InfluxDBClient(
            sink.url, admin.secret, org=sink.org, timeout=TIMEOUT_MS, ssl_ca_cert=sink.ca_file or None, retries=False
        ) as client:
            return _SetUp2(config, sink, library, client).run(keep_s)
    except library.rest.ApiException as error:
        raise NotAllowed(f"{sink.url}: {error.status} {error.body or error.reason}") from error
    except urllib3.exceptions.HTTPError as error:
        raise LinkDown(f"sink {sink.name}: {sink.url} does not answer: {error}") from error


class _SetUp2:
    """`library` is the module influxdb_client, which has no types; it is loaded only where it is used."""

    def __init__(self, config: ShipConfig, sink: SinkConfig, library: Any, client: Any) -> None:
        self._config = config
        self._sink = sink
        self._library = library
        self._client = client

    def run(self, keep_s: int | None) -> list[Step]:
        org_id, org_step = self._org()
        bucket_id, bucket_steps = self._bucket(org_id, keep_s)
        return [org_step, *bucket_steps, self._mapping(org_id, bucket_id), *self._token(org_id, bucket_id)]

    def _org(self) -> tuple[str, Step]:
        api, what = self._client.organizations_api(), f"organisation {self._sink.org}"
        for org in api.find_organizations():
            if org.name == self._sink.org:
                return org.id, Step(False, what)
        return api.create_organization(self._sink.org).id, Step(True, what)

    def _bucket(self, org_id: str, keep_s: int | None) -> tuple[str, list[Step]]:
        api, what = self._client.buckets_api(), f"bucket {self._sink.bucket}"
        rules = [self._library.BucketRetentionRules(every_seconds=keep_s)] if keep_s else []
        found = api.find_buckets(name=self._sink.bucket, org_id=org_id).buckets
        if not found:
            made = api.create_bucket(bucket_name=self._sink.bucket, retention_rules=rules, org=org_id)
            return made.id, [Step(True, what)]
        (bucket,) = found
        kept_s = sum(rule.every_seconds for rule in bucket.retention_rules)
        if keep_s is None or kept_s == keep_s:
            return bucket.id, [Step(False, what)]
        bucket.retention_rules = rules
        api.update_bucket(bucket)
        return bucket.id, [Step(True, f"{what}: keeps {f'{keep_s} s' if keep_s else 'everything'}")]

    def _mapping(self, org_id: str, bucket_id: str) -> Step:
        """Let InfluxQL ask for database and policy: bucket "bat/raw" is bat and raw, "bat" is bat and autogen."""
        database, _, policy = self._sink.bucket.partition("/")
        what = f"InfluxQL database {database}, policy {policy or 'autogen'}"
        service = self._library.DBRPsService(self._client.api_client)
        for mapping in service.get_dbr_ps(org_id=org_id, bucket_id=bucket_id).content or []:
            if (mapping.database, mapping.retention_policy) == (database, policy or "autogen"):
                return Step(False, what)
        service.post_dbrp(
            self._library.DBRPCreate(
                bucket_id=bucket_id,
                org_id=org_id,
                database=database,
                retention_policy=policy or "autogen",
                default=True,
            )
        )
        return Step(True, what)

    def _token(self, org_id: str, bucket_id: str) -> list[Step]:
        api = self._client.authorizations_api()
        path = self._config.secret_path(self._sink.token_file)
        description = f"battfleet: {self._config.ship.bench} writes to {self._sink.bucket}"
        ours = [a for a in api.find_authorizations(org_id=org_id) if a.description == description]
        if ours and path.exists():
            return [Step(False, f"token {description!r} in {path}")]
        if path.exists():
            raise ConfigError(
                f"{self._config.path}: [[sink]] {self._sink.name} token_file: {path} is there, but its token was not "
                "made for this bench and bucket; move it away for a new one, or go on with it: `collectors sink check`"
            )
        resource = self._library.PermissionResource(org_id=org_id, type="buckets", id=bucket_id)
        write = self._library.Permission(action="write", resource=resource)
        wanted = self._library.Authorization(org_id=org_id, description=description, permissions=[write])
        made = api.create_authorization(authorization=wanted)
        write_secret(path, made.token)
        for old in ours:
            api.delete_authorization(old)
        return [Step(True, f"token {description!r} in {path}")]
