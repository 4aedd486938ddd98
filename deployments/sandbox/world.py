"""The installation as it is found: namespaces, nodes, seven Deployments that are Ready, and what belongs to them.

Deployment, container and namespace names differ from the components' on purpose.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from deployments.sandbox import rollout
from deployments.sandbox.component import release
from deployments.sandbox.defaults import apply_defaults
from deployments.sandbox.images import PAUSE, RELEASES, entry, normalise
from deployments.sandbox.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICASETS,
    SECRETS,
    SERVICEACCOUNTS,
    SERVICES,
)
from deployments.sandbox.rollout import set_condition
from deployments.sandbox.store import Store, editable, now

JsonObject = dict[str, Any]
RECREATE: JsonObject = {"type": "Recreate"}
ROLLING: JsonObject = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}
NODE_NAMES = ("node-a", "node-b")


@dataclass(frozen=True, slots=True)
class Installation:
    version: str
    mongo_uri: str
    prefix: str = "apinizercloud"  # What stands before the repository's name, a registry included.
    database: str = "apinizerdb"


@dataclass(frozen=True, slots=True)
class Component:
    namespace: str
    deployment: str
    container: str
    repository: str
    replicas: int
    strategy: JsonObject
    service: str
    port: int


def components(version: str) -> list[Component]:
    """What is installed at a release, with that release's repository names."""
    manager = "apimanager" if release(version) >= (2025, 11, 1) else "manager"
    portal = "apiportal" if release(version) >= (2025, 4, 6) else "portal"
    return [
        Component("apinizer", "manager", "apinizer-manager", manager, 1, RECREATE, "manager", 8080),
        Component("prod", "worker-prod", "worker", "worker", 2, ROLLING, "worker-http-service", 8091),
        Component("prod", "cache-prod", "cache", "cache", 1, RECREATE, "cache-http-service", 8090),
        Component("test", "worker", "apinizer-worker", "worker", 1, ROLLING, "worker-http-service", 8091),
        Component("test", "cache", "apinizer-cache", "cache", 1, RECREATE, "cache-http-service", 8090),
        Component("portal", "apinizer-portal", "portal", portal, 1, ROLLING, "apinizer-portal-service", 8080),
        Component(
            "integration",
            "apinizer-integration",
            "integration",
            "integration",
            1,
            ROLLING,
            "integration-http-service",
            8092,
        ),
    ]


def furnish(store: Store, installation: Installation) -> None:
    """Create everything, with the status that controllers and kubelets would have come to."""
    namespaces = (
        "default",
        "kube-system",
        "kube-public",
        "kube-node-lease",
        "apinizer",
        "prod",
        "test",
        "portal",
        "integration",
    )
    for name in namespaces:
        namespace: JsonObject = {"metadata": {"name": name}}
        apply_defaults(NAMESPACES, namespace)
        store.create(NAMESPACES, namespace)
        store.create(SERVICEACCOUNTS, {"metadata": {"name": "default", "namespace": name}})
        store.create(CONFIGMAPS, {"metadata": {"name": "kube-root-ca.crt", "namespace": name}, "data": {"ca.crt": ""}})
    names = [f"{installation.prefix}/{one}:{installation.version}" for one in RELEASES[installation.version]]
    images = [entry(normalise(name) or name) for name in (PAUSE, *names)]
    for number, name in enumerate(NODE_NAMES):
        store.create(NODES, _node(name, number, images))
    for name in namespaces[4:]:
        data = {"dbUrl": _encode(installation.mongo_uri), "dbName": _encode(installation.database)}
        store.create(
            SECRETS, {"metadata": {"name": "mongo-db-credentials", "namespace": name}, "type": "Opaque", "data": data}
        )
    for index, component in enumerate(components(installation.version)):
        _install(store, installation, component, index)


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _install(store: Store, installation: Installation, component: Component, index: int) -> None:
    deployment = _deployment(installation, component)
    apply_defaults(DEPLOYMENTS, deployment)
    deployment = store.create(DEPLOYMENTS, deployment)
    service: JsonObject = {
        "metadata": {"name": component.service, "namespace": component.namespace},
        "spec": {
            "selector": {"app": component.deployment},
            "clusterIP": f"10.0.0.{index + 20}",
            "ports": [{"name": "http", "port": component.port, "targetPort": 8080}],
        },
    }
    apply_defaults(SERVICES, service)
    store.create(SERVICES, service)
    one = store.create(REPLICASETS, _replica_set(deployment))
    for number in range(component.replicas):
        store.create(PODS, _pod(one, NODE_NAMES[(index + number) % len(NODE_NAMES)]))
    _settle(store, deployment, one)


def _deployment(installation: Installation, component: Component) -> JsonObject:
    labels = {"app": component.deployment}
    probe = {"httpGet": {"path": "/apinizer/management/health", "port": 8080}, "periodSeconds": 1}

    def secret(name: str, key: str) -> JsonObject:
        return {"name": name, "valueFrom": {"secretKeyRef": {"name": "mongo-db-credentials", "key": key}}}

    container: JsonObject = {
        "name": component.container,
        "image": f"{installation.prefix}/{component.repository}:{installation.version}",
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 8080}],
        "env": [
            {"name": "BOOT_SECONDS", "value": "2"},
            {"name": "MIGRATION_SECONDS", "value": "0"},
            secret("SPRING_DATA_MONGODB_URI", "dbUrl"),
            secret("SPRING_DATA_MONGODB_DATABASE", "dbName"),
        ],
        "startupProbe": {**editable(probe), "failureThreshold": 180},
        "readinessProbe": editable(probe),
    }
    return {
        "metadata": {"name": component.deployment, "namespace": component.namespace},
        "spec": {
            "replicas": component.replicas,
            "progressDeadlineSeconds": 60,
            "selector": {"matchLabels": labels},
            "strategy": editable(component.strategy),
            "template": {
                "metadata": {"labels": labels},
                "spec": {"dnsPolicy": "Default", "terminationGracePeriodSeconds": 2, "containers": [container]},
            },
        },
    }


def _replica_set(deployment: JsonObject) -> JsonObject:
    meta, spec = deployment["metadata"], editable(deployment["spec"])
    label = rollout.template_hash(spec["template"])
    spec["template"]["metadata"]["labels"]["pod-template-hash"] = label
    selector = {"matchLabels": {**spec["selector"]["matchLabels"], "pod-template-hash": label}}
    owner = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "metadata": {
            "name": f"{meta['name']}-{label}",
            "namespace": meta["namespace"],
            "labels": dict(spec["template"]["metadata"]["labels"]),
            "annotations": {rollout.REVISION: "1", **rollout.size_annotations(deployment)},
            "ownerReferences": [owner],
        },
        "spec": {"replicas": spec["replicas"], "selector": selector, "template": spec["template"]},
        "status": {"replicas": 0},
    }


def _pod(one: JsonObject, node: str) -> JsonObject:
    meta, template = one["metadata"], editable(one["spec"]["template"])
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    pod: JsonObject = {
        "metadata": {
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": template["metadata"]["labels"],
            "ownerReferences": [owner],
        },
        "spec": {**template["spec"], "nodeName": node, "serviceAccountName": "default", "serviceAccount": "default"},
    }
    apply_defaults(PODS, pod)
    set_condition(pod["status"], "PodScheduled", "True", "", "", now(), clock=False)
    for name in ("reason", "message"):
        pod["status"]["conditions"][0].pop(name)
    return pod


def _settle(store: Store, deployment: JsonObject, one: JsonObject) -> None:
    """Give Deployment and ReplicaSet the status of a rollout that is over."""
    replicas = deployment["spec"]["replicas"]

    def settle_set(rs: JsonObject) -> None:
        rs["status"] = dict.fromkeys(
            ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"), replicas
        )
        rs["status"]["observedGeneration"] = 1

    def settle_deployment(found: JsonObject) -> None:
        found["metadata"]["annotations"] = {rollout.REVISION: "1"}
        status: JsonObject = dict.fromkeys(
            ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), replicas
        )
        status["observedGeneration"] = 1
        set_condition(
            status, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now()
        )
        message = f'ReplicaSet "{one["metadata"]["name"]}" has successfully progressed.'
        set_condition(status, "Progressing", "True", "NewReplicaSetAvailable", message, now())
        found["status"] = status

    namespace = deployment["metadata"]["namespace"]
    store.edit(REPLICASETS, namespace, one["metadata"]["name"], settle_set)
    store.edit(DEPLOYMENTS, namespace, deployment["metadata"]["name"], settle_deployment)


def _node(name: str, number: int, images: list[JsonObject]) -> JsonObject:
    at = now()
    reasons = {
        "MemoryPressure": ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        "DiskPressure": ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        "PIDPressure": ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        "Ready": ("True", "KubeletReady", "kubelet is posting ready status"),
    }
    conditions = [
        {
            "type": kind,
            "status": value,
            "lastHeartbeatTime": at,
            "lastTransitionTime": at,
            "reason": reason,
            "message": message,
        }
        for kind, (value, reason, message) in reasons.items()
    ]
    room = {"cpu": "4", "memory": "16Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    return {
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
        },
        "spec": {"podCIDR": f"10.88.{number}.0/24"},
        "status": {
            "capacity": dict(room),
            "allocatable": dict(room),
            "conditions": conditions,
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
            "nodeInfo": {
                "kubeletVersion": "v1.20.2",
                "containerRuntimeVersion": "containerd://1.6.20",
                "osImage": "Debian GNU/Linux 12 (bookworm)",
                "kernelVersion": "6.1.0",
                "operatingSystem": "linux",
                "architecture": "amd64",
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "kubeProxyVersion": "v1.20.2",
            },
            "images": editable({"images": images})["images"],
        },
    }
