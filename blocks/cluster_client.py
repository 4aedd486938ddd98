"""Opens the API of a cluster: from kubeconfig content, a file and context, or the pod's service account."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blocks.settings import ClusterSettings
from tasks.domain.errors import UsageError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient


def open_client(settings: ClusterSettings) -> "ApiClient":
    """A client of the official library; raise `UsageError` where the configuration cannot be used.

    Nothing is asked of the API server yet.
    """
    from kubernetes import client

    configuration = client.Configuration()
    if settings.in_cluster or _pod_without_kubeconfig(settings):
        _in_cluster(configuration)
    else:
        _from_kubeconfig(settings, configuration)
    return client.ApiClient(configuration)


def configured(clusters: Iterable[ClusterSettings]) -> bool:
    """Whether anything says how a cluster is reached: the settings, `$KUBECONFIG`, `~/.kube/config`, or being a pod."""
    said = any(c.kubeconfig is not None or c.kubeconfig_path or c.context or c.in_cluster for c in clusters)
    around = os.environ.get("KUBECONFIG") or "KUBERNETES_SERVICE_HOST" in os.environ
    return bool(said or around or _default_path().exists())


def _pod_without_kubeconfig(settings: ClusterSettings) -> bool:
    given = settings.kubeconfig is not None or settings.kubeconfig_path or os.environ.get("KUBECONFIG")
    return not given and not _default_path().exists() and "KUBERNETES_SERVICE_HOST" in os.environ


def _default_path() -> Path:
    return Path("~/.kube/config").expanduser()


def _in_cluster(configuration: Any) -> None:
    from kubernetes import config

    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise UsageError(
            "This does not run in a pod with a service account.",
            observed=str(error),
            next="Give a kubeconfig, or run it in the cluster with a mounted service account.",
        ) from None


def _from_kubeconfig(settings: ClusterSettings, configuration: Any) -> None:
    import yaml
    from kubernetes import config

    context = settings.context or None
    try:
        if settings.kubeconfig is not None:
            content = yaml.safe_load(settings.kubeconfig.get_secret_value())
            config.load_kube_config_from_dict(content, context=context, client_configuration=configuration)
        else:
            files = _existing_files(settings)
            config.load_kube_config(
                config_file=os.pathsep.join(map(str, files)),
                context=context or _current_context(files),
                client_configuration=configuration,
            )
        _require_server(configuration)
    except (config.ConfigException, yaml.YAMLError, OSError, AttributeError, TypeError, ValueError, KeyError) as error:
        raise UsageError(
            f"The kubeconfig {_described(settings)} cannot be used.",
            observed=_reason(error),
            next="Set KUBECONFIG or give --kubeconfig FILE (and --context NAME); kubectl config get-contexts lists them.",
        ) from None


def _require_server(configuration: Any) -> None:
    if not configuration.host:
        raise ValueError("the cluster of its context has no server")


def _reason(error: Exception) -> str:
    """What is wrong, in words that quote nothing but names and paths."""
    import yaml

    if isinstance(error, yaml.YAMLError):
        return "it is not YAML"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, AttributeError | TypeError | KeyError):
        return "it is YAML, and no kubeconfig with clusters, contexts and users"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).removeprefix("Invalid kube-config file. ").removeprefix("Invalid kube-config. ")


def _existing_files(settings: ClusterSettings) -> list[Path]:
    """As kubectl has it, a file of several that is missing or empty is passed over."""
    path = settings.kubeconfig_path or os.environ.get("KUBECONFIG") or str(_default_path())
    if Path(path).expanduser().is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a directory")
    existing = [p for text in path.split(os.pathsep) if text and (p := Path(text).expanduser()).is_file()]
    if not existing:
        raise FileNotFoundError("there is no such file")
    return [p for p in existing if p.stat().st_size] or existing if len(existing) > 1 else existing


def _current_context(files: list[Path]) -> str | None:
    """The current context of several files: the first file that sets one wins, as in kubectl (client-go's loading
    rules).  The Python client lets the last one win, which would be another cluster than kubectl shows.
    """
    import yaml

    if len(files) < 2:
        return None
    contents = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in files)
    return next((str(found) for c in contents if (found := c.get("current-context"))), None)


def _described(settings: ClusterSettings) -> str:
    if settings.kubeconfig is not None:
        return f"of the cluster {settings.name}".strip() if settings.name else "in the settings"
    return settings.kubeconfig_path or os.environ.get("KUBECONFIG") or "~/.kube/config"
