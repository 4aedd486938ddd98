"""Opens the API of a cluster: from kubeconfig content, a file and context, or the pod's service account."""

import os
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

    where = _described(settings)
    try:
        if settings.kubeconfig is not None:
            content = yaml.safe_load(settings.kubeconfig.get_secret_value())
            config.load_kube_config_from_dict(
                content, context=settings.context or None, client_configuration=configuration
            )
            return
        existing = _existing_files(settings)
        config.load_kube_config(
            config_file=os.pathsep.join(str(Path(p).expanduser()) for p in existing),
            context=settings.context or None,
            client_configuration=configuration,
        )
    except (config.ConfigException, yaml.YAMLError, OSError, AttributeError, TypeError, ValueError, KeyError) as error:
        reason = (
            "it is not YAML"
            if isinstance(error, yaml.YAMLError)
            else str(error).replace("Invalid kube-config file. ", "")
        )
        raise UsageError(
            f"The kubeconfig {where} cannot be used.",
            observed=reason,
            next="Set KUBECONFIG or give --kubeconfig FILE (and --context NAME); kubectl config get-contexts lists them.",
        ) from None


def _existing_files(settings: ClusterSettings) -> list[str]:
    path = settings.kubeconfig_path or os.environ.get("KUBECONFIG") or str(_default_path())
    existing = [p for p in path.split(os.pathsep) if p and Path(p).expanduser().is_file()]
    if not existing:
        raise FileNotFoundError("there is no such file")
    return existing


def _described(settings: ClusterSettings) -> str:
    if settings.kubeconfig is not None:
        return f"of the cluster {settings.name}".strip() if settings.name else "in the settings"
    return settings.kubeconfig_path or os.environ.get("KUBECONFIG") or "~/.kube/config"
