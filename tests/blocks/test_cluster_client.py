"""Opening a cluster's client from every kind of kubeconfig that people have, and have not."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from blocks.cluster_client import open_client
from blocks.settings import ClusterSettings
from tasks.domain.errors import UsageError

TOKEN = "t0p-secret-token"


def kubeconfig(*names: str, current: str | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": current or names[0],
        "clusters": [{"name": n, "cluster": {"server": f"https://{n}.local:6443"}} for n in names],
        "users": [{"name": n, "user": {"token": f"{TOKEN}-{n}"}} for n in names],
        "contexts": [{"name": n, "context": {"cluster": n, "user": n}} for n in names],
    }


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person with a home and nothing in it, on a machine that is no pod."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home" / ".kube").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(name: str, content: object) -> str:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(path)

    return write


def opened(**settings: Any) -> tuple[str, str]:
    """The server and the token that a client would use."""
    configuration = open_client(ClusterSettings(**settings)).configuration
    return configuration.host, configuration.auth_settings()["BearerToken"]["value"]


def refused(**settings: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        open_client(ClusterSettings(**settings))
    error = caught.value
    assert error.exit_code == 2
    assert error.next
    assert TOKEN not in str(error)
    assert error.__cause__ is None
    assert "object has no" not in error.observed
    return error


def test_a_file_and_its_contexts(written: Any) -> None:
    path = written("config", kubeconfig("near", "far"))
    assert opened(kubeconfig_path=path) == ("https://near.local:6443", f"Bearer {TOKEN}-near")
    assert opened(kubeconfig_path=path, context="far") == ("https://far.local:6443", f"Bearer {TOKEN}-far")


def test_where_a_kubeconfig_is_found(home: Path, written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".kube" / "config").write_text(yaml.safe_dump(kubeconfig("home")))
    assert opened()[0] == "https://home.local:6443"
    assert opened(kubeconfig_path="~/.kube/config")[0] == "https://home.local:6443"
    monkeypatch.setenv("KUBECONFIG", written("variable", kubeconfig("variable")))
    assert opened()[0] == "https://variable.local:6443"
    option = written("option", kubeconfig("option"))
    assert opened(kubeconfig_path=option)[0] == "https://option.local:6443"
    content = SecretStr(yaml.safe_dump(kubeconfig("content")))
    assert opened(kubeconfig=content, kubeconfig_path=option)[0] == "https://content.local:6443"


def test_several_files_in_the_variable(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = written("one", kubeconfig("one")), written("two", kubeconfig("two"))
    monkeypatch.setenv("KUBECONFIG", f"{first}:/nowhere/config::{second}")
    assert opened()[0] == "https://one.local:6443"
    assert opened(context="two")[0] == "https://two.local:6443"
    monkeypatch.setenv(
        "KUBECONFIG", f"{written('empty', '')}:{written('none', {'current-context': ''})}:{second}:{first}"
    )
    assert opened()[0] == "https://two.local:6443"
    monkeypatch.setenv("KUBECONFIG", f"{written('broken', 'a: [')}:{second}")
    assert refused().observed == "it is not YAML"
    monkeypatch.setenv("KUBECONFIG", f"{written('text', 'hello')}:{second}")
    assert "no kubeconfig" in refused().observed


def test_no_kubeconfig_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    error = refused()
    assert "~/.kube/config" in error.happened
    assert error.observed == "there is no such file"
    monkeypatch.setenv("KUBECONFIG", "/nowhere/a:/nowhere/b")
    assert "/nowhere/a:/nowhere/b" in refused().happened


def test_an_unknown_context(written: Any) -> None:
    error = refused(kubeconfig_path=written("config", kubeconfig("near")), context="fra")
    assert "fra" in error.observed
    assert "kubectl config get-contexts" in error.next
    assert "fra" in refused(kubeconfig=SecretStr(yaml.safe_dump(kubeconfig("near"))), context="fra").observed


NO_SERVER = {**kubeconfig("near"), "clusters": [{"name": "near", "cluster": {}}]}
NO_CA = {
    **kubeconfig("near"),
    "clusters": [{"name": "near", "cluster": {"server": "https://h", "certificate-authority": "/nowhere/ca"}}],
}
BAD = [
    ("empty", "", "file is empty"),
    ("not YAML", f"users: [{{token: {TOKEN}", "it is not YAML"),
    ("an alias", f"users: *{TOKEN}", "it is not YAML"),
    ("a sentence", f"the token is {TOKEN}", "no kubeconfig"),
    ("a list", f"[{TOKEN}]", "no kubeconfig"),
    ("not text", b"\xff\xfe\x00", "it is not UTF-8 text"),
    ("no contexts", "apiVersion: v1", "current-context"),
    ("nothing in it", "{current-context: near, clusters: null, contexts: null, users: null}", "near"),
    ("no server", NO_SERVER, "has no server"),
    ("no CA file", NO_CA, "/nowhere/ca"),
    ("a dangling user", {**kubeconfig("near"), "clusters": []}, "near"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "observed"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_files_that_are_no_kubeconfig(written: Any, content: object, observed: str) -> None:
    path = written("config", content)
    error = refused(kubeconfig_path=path)
    assert path in error.happened
    assert observed in error.observed


@pytest.mark.parametrize(
    "content",
    [b[1] for b in BAD if not isinstance(b[1], bytes)],
    ids=[b[0] for b in BAD if not isinstance(b[1], bytes)],
)
def test_content_that_is_no_kubeconfig(content: object) -> None:
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    error = refused(kubeconfig=SecretStr(text), name="far")
    assert error.happened == "The kubeconfig of the cluster far cannot be used."


def test_a_file_that_cannot_be_read() -> None:
    error = refused(kubeconfig_path="/proc/self/mem")  # there, and nobody can read its beginning
    assert error.observed == "Input/output error"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert refused(kubeconfig_path=str(tmp_path)).observed == "it is a directory"


def test_in_the_cluster_outside_of_a_pod() -> None:
    assert "pod with a service account" in refused(in_cluster=True).happened


def test_a_pod_without_a_service_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert "pod with a service account" in refused().happened


def test_a_kubeconfig_wins_over_the_pods_own_account(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    path = written("config", kubeconfig("near"))
    assert opened(kubeconfig_path=path)[0] == "https://near.local:6443"


def test_one_cluster_does_not_leak_into_the_next(written: Any) -> None:
    first = open_client(ClusterSettings(kubeconfig_path=written("a", kubeconfig("a"))))
    second = open_client(ClusterSettings(kubeconfig_path=written("b", kubeconfig("b"))))
    assert first.configuration.host == "https://a.local:6443"
    assert second.configuration.host == "https://b.local:6443"
