"""The settings: what a file may say, what is refused, and that no secret is shown by either."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from pymongo.uri_parser import parse_uri

from blocks.settings import (
    ClusterSettings,
    DatabaseSettings,
    ImageSourceSettings,
    InstallationSettings,
    RunSettings,
    installation_of,
    read_installation,
)
from blocks.strict import Settings
from tasks.domain.component import Component
from tasks.domain.errors import UsageError
from tasks.domain.way import Way

SECRET = "hunter2-never-shown"
WHOLE = (Path(__file__).parent / "whole.yaml").read_text()


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "installation.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    found = read_installation(written(tmp_path, WHOLE))
    assert [c.name for c in found.clusters] == ["near", "far"]
    assert found.clusters[0].namespaces == ("apinizer", "prod")
    assert found.images.wanted_prefix == "nexus.local:5000/apinizercloud"
    assert found.images.way is Way.CONTAINERD_TO_REGISTRY
    assert found.images.nodes.of("gate").extra
    nodes = found.images.nodes
    hosts = [nodes.of("n1", "near").host, nodes.of("n1", "far").host, nodes.of("another").host]
    assert hosts == ["10.0.0.9", "", ""]
    assert found.images.source.registry.password == SecretStr(SECRET)
    assert found.environments == ("test", "far/prod")
    assert (found.overrides[0].component, found.overrides[1].ignore) == (Component.WORKER, True)
    assert found.upgrade == RunSettings(together=True, parallel=3, repositories={Component.PORTAL: "apiportal"})
    assert found.database.password is not None
    assert found.database.password.get_secret_value() == SECRET


def test_an_empty_mapping_is_all_defaults(tmp_path: Path) -> None:
    found = read_installation(written(tmp_path, "{}"))
    assert found == InstallationSettings()
    assert len(found.clusters) == 1
    assert (found.database.secret, found.database.given_uri()) == ("mongo-db-credentials", None)
    assert found.images.wanted_prefix == ""
    assert (found.upgrade.together, found.upgrade.parallel) == (False, 8)


@pytest.mark.parametrize(
    ("content", "observed"),
    [
        ("", "it holds no mapping"),
        ("- a", "it holds no mapping"),
        (SECRET, "it holds no mapping"),
        (b"\xff\xfe", "it is not UTF-8 text"),
        (f"database: {{password: {SECRET}", "line 1: expected"),
        (f"database:\n\tpassword: {SECRET}", "line 2: found character"),
        (f"database:\n  password: *{SECRET}", "line 2: a value that begins with *, & or ! needs quotes"),
        (f"database:\n  password: !{SECRET}", "line 2: a value that begins with *, & or ! needs quotes"),
        (f"database:\n  password: !{SECRET}!x y", "line 2: a value that begins with *, & or ! needs quotes"),
        ("\x01", "it is not YAML"),
        ("backup_dir: 2025-13-45", "put it in quotes"),
        ("environment: [prod]", "environment: Extra inputs are not permitted"),
        ("1: x", "1: "),
        (f"database: {{pasword: {SECRET}}}", "database.pasword: Extra inputs are not permitted"),
        (f"database: {{password: [{SECRET}]}}", "database.password: "),
        (f"database: {SECRET}", "database: "),
        ("environments: prod", "environments: "),
        ("clusters: []", "clusters: "),
        ("clusters: [{name: a}, {name: a}]", "several clusters need a name each, all different"),
        ("clusters: [{name: a}, {}]", "several clusters need a name each, all different"),
        ("overrides: [{cluster: far, namespace: a, deployment: b, ignore: true}]", "an override names a cluster that is not listed: far"),
        ("overrides: [{namespace: a, deployment: b, component: wroker}]", "overrides.0.component: "),
        ("upgrade: {parallel: 0}", "upgrade.parallel: "),
        ("upgrade: {repositories: {gateway: x}}", "upgrade.repositories"),
        (f"database: {{uri: 'mongodb://u:{SECRET}@h', host: h}}", "database: Value error, give the database as a uri or as host and parts, not both"),
        (f"database: {{host: 'mongodb://u:{SECRET}@h'}}", "database.host: Value error, a host is host or host:port"),
        ("images: {kind: mirror}", "images.kind: "),
        ("images: {kind: registry}", "a registry needs a prefix"),
        ("backup: {keep: 0}", "greater than or equal to 1"),
        ("backup: {engine: pg_dump}", "'auto', 'native' or 'mongodump'"),
        ("backup: {engine: native, ssh: db1}", "ssh is for mongodump"),
        ("backup: {leave_out: [' ']}", "has a name"),
        ("images: {kind: proxy}", "a proxy needs a prefix"),
        ("images: {prefix: 'h:5000/a'}", "a prefix needs a kind"),
        ("images: {kind: hub, prefix: 'h:5000/a'}", "a prefix needs a kind"),
        ("images: {kind: registry, prefix: 'https://h:5000/a'}", "without a scheme"),
        ("images: {way: by-pigeon}", "'online', 'docker-to-nodes'"),
        ("images: {way: docker-to-registry}", "needs the kind registry"),
        ("images: {way: proxy, kind: registry, prefix: 'h:5000/a'}", "needs the kind proxy"),
        ("images: {way: registry-to-registry, kind: registry, prefix: 'h:5/a', source: {prefix: 'h:5/a'}}", "is the one that"),
        ("images: {source: {prefix: 'h:5000/a/worker:1'}}", "without a scheme, a tag"),
        ("images: {source: {containerd: {ssh: '-oProxyCommand=x'}}}", "images.source.containerd.ssh"),
        ("images: {nodes: {user: -l}}", "images.nodes.user"),
        ("images: {nodes: {user: 'root;x'}}", "images.nodes.user"),
        ("images: {nodes: {named: [{name: a, host: 'h$(x)'}]}}", "images.nodes.named.0.host"),
        ("images: {nodes: {jump: 'ops@b:22:22'}}", "images.nodes.jump"),
        ("images: {nodes: {jump: 'bastion;x'}}", "images.nodes.jump"),
        ("images: {nodes: {jump: 'a,,b'}}", "images.nodes.jump"),
        ("images: {nodes: {jump: 'b:port'}}", "images.nodes.jump"),
        ("images: {nodes: {named: [{name: a}, {name: a}]}}", "named twice"),
        ("images: {nodes: {named: [{name: a, host: h}, {name: b, host: H}]}}", "a and b have one host"),
        ("images: {nodes: {named: [{host: h}]}}", "a node has a name"),
        ("images: {nodes: {named: [{name: a, extra: true}]}}", "needs host and runtime"),
        ("images: {nodes: {named: [{name: a, host: h, runtime: docker, extra: true, cluster: c}]}}", "is in no cluster"),
        ("images: {nodes: {named: [{name: a, cluster: far}]}}", "a cluster that is not listed: far"),
        ("clusters: [{name: x}, {name: y}]\nimages: {nodes: {named: [{name: a, host: h}]}}", "say which one has the node a"),
        ("images: {platform: windows}", "images.platform"),
        ("images: {parallel: 0}", "greater than or equal to 1"),
        ("images: {kind: registry, prefix: 'h:5000/a/worker:1'}", "without a scheme, a tag"),
    ],
)  # fmt: skip
def test_files_that_are_refused(tmp_path: Path, content: str | bytes, observed: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        read_installation(path)
    error = caught.value
    assert str(path) in error.happened
    assert observed in error.observed
    assert SECRET not in str(error)
    assert error.__cause__ is None
    assert error.exit_code == 2


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_installation(written(tmp_path, "bakcup: x\nupgrade: {timeout: 0, manager_timeout: soon}"))
    assert [line.split(":")[0] for line in caught.value.observed.splitlines()] == [
        "upgrade.manager_timeout",
        "upgrade.timeout",
        "bakcup",
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_installation(tmp_path / "nowhere.yaml")
    with pytest.raises(UsageError, match="Is a directory"):
        read_installation(tmp_path)


def test_what_is_read_is_what_was_meant(tmp_path: Path) -> None:
    found = read_installation(written(tmp_path, WHOLE))
    assert installation_of(found.model_dump(mode="python"), source="options") == found


def test_secrets_are_in_no_text_of_the_settings(tmp_path: Path) -> None:
    found = read_installation(written(tmp_path, WHOLE))
    cluster = ClusterSettings(kubeconfig=SecretStr(SECRET))
    database = DatabaseSettings(uri=SecretStr(f"mongodb://u:{SECRET}@h"))
    for settings in (found, cluster, database):
        texts = (repr(settings), str(settings), f"{settings:}", repr(settings.model_dump()), settings.model_dump_json())
        assert not any(SECRET in text for text in texts)
    assert SECRET not in repr(found.database.given_uri())
    assert SECRET not in repr(database.given_uri())


@pytest.mark.parametrize("kind", [ClusterSettings, DatabaseSettings, ImageSourceSettings, InstallationSettings])
def test_secrets_are_marked_in_the_schema_and_have_no_default(kind: type[Settings]) -> None:
    schema = json.dumps(kind.model_json_schema())
    assert schema.count('"writeOnly": true') >= 1
    for name, field in kind.model_fields.items():
        assert "SecretStr" not in str(field.annotation) or field.default is None, name


def test_a_validation_error_shows_no_input() -> None:
    with pytest.raises(ValidationError) as caught:
        DatabaseSettings.model_validate({"pasword": SECRET})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "nodes"),
    [
        ("db", [("db", 25080)]),
        ("db:27017", [("db", 27017)]),
        ("db1, db2:1 ,db3,", [("db1", 25080), ("db2", 1), ("db3", 25080)]),
        ("10.0.0.7", [("10.0.0.7", 25080)]),
        ("::1", [("::1", 25080)]),
        ("fd00::7,[fd00::8],[fd00::9]:27017", [("fd00::7", 25080), ("fd00::8", 25080), ("fd00::9", 27017)]),
        ("mongo_0.mongo-headless.db.svc", [("mongo_0.mongo-headless.db.svc", 25080)]),
    ],
)
def test_hosts_as_the_driver_reads_them(host: str, nodes: list[tuple[str, int]]) -> None:
    uri = DatabaseSettings(host=host, password=SecretStr("p")).given_uri()
    assert uri is not None
    assert parse_uri(uri.get_secret_value())["nodelist"] == nodes


@pytest.mark.parametrize(
    "host", ["mongodb://h", "u:p@h", "h/apinizerdb", "h?tls=true", "h:port", "h:1:2:x", "[::1", "a b/c"]
)
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(ValidationError, match="a host is host or host:port"):
        DatabaseSettings(host=host)


@pytest.mark.parametrize(
    "password", ["p@ss:w/rd", "100%", "%41", "a+b c", "ü€🔑", "?x=1&tls=false#", "[::1]", "'\"\\", " "]
)
def test_odd_passwords_arrive_whole(password: str) -> None:
    settings = DatabaseSettings(
        host="::1,db", user="ap@inizer", password=SecretStr(password), auth_source="a&b", replica_set="rs 0"
    )
    uri = settings.given_uri()
    assert uri is not None
    read = parse_uri(uri.get_secret_value())
    assert (read["username"], read["password"]) == ("ap@inizer", password)
    assert read["options"]["authSource"] == "a&b"
    assert read["options"]["replicaSet"] == "rs 0"
    assert "+" not in uri.get_secret_value().split("@")[0], "the database's own tools read + as it is"


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=40))
def test_any_user_and_password_arrive_whole(user: str, password: str) -> None:
    uri = DatabaseSettings(host="h", user=user, password=SecretStr(password)).given_uri()
    assert uri is not None
    read = parse_uri(uri.get_secret_value())
    assert (read["username"], read["password"]) == (user, password)


def test_the_options_of_the_uri() -> None:
    def options(**parts: Any) -> dict[str, Any]:
        uri = DatabaseSettings(host="h", **parts).given_uri()
        assert uri is not None
        return dict(parse_uri(uri.get_secret_value(), warn=False)["options"])

    assert options() == {}
    assert options(password=SecretStr("p")) == {"authSource": "admin"}
    assert options(tls=True) == {"tls": True}
    assert options(tls_ca_file=__file__) == {"tls": True, "tlsCAFile": __file__}


def test_a_uri_is_used_as_it_is() -> None:
    text = "mongodb+srv://u:p%40@cluster.local/x?authSource=admin"
    assert DatabaseSettings(uri=SecretStr(text)).given_uri() == SecretStr(text)


@pytest.mark.parametrize(
    ("kind", "prefix", "wanted"),
    [
        ("as-is", "", ""),
        ("hub", "", "apinizercloud"),
        ("registry", " nexus.local:5000/apinizercloud/ ", "nexus.local:5000/apinizercloud"),
        ("proxy", "harbor.local/hub/apinizercloud", "harbor.local/hub/apinizercloud"),
        ("registry", "nexus:5000", "nexus:5000"),
    ],
)
def test_the_prefix_of_every_image(kind: Any, prefix: str, wanted: str) -> None:
    assert ImageSourceSettings(kind=kind, prefix=prefix).wanted_prefix == wanted


@pytest.mark.parametrize(
    "nodes",
    [
        {"user": "ops@corp.example"}, {"user": "CORP\\\\ops"}, {"jump": "bastion"}, {"jump": "ops@b.example:2222,c"},
        {"jump": "[fe80::1%eth0]:22"}, {"named": [{"name": "a", "host": "fd00::5"}]},
    ],
)  # fmt: skip
def test_how_ssh_may_be_told_of_machines(nodes: dict[str, object]) -> None:
    told = InstallationSettings.model_validate({"images": {"nodes": nodes}}).images.nodes
    assert told.model_dump(exclude_defaults=True).keys() == nodes.keys()
