"""Create, update, patch: from a request's body to the stored object, as the generic registry of the API server does it."""

from __future__ import annotations

from typing import Any

from deployments.sandbox import defaults, failures, ownership, patching, validation
from deployments.sandbox.replication import Replicator
from deployments.sandbox.resources import CONFIGMAPS, DEPLOYMENTS, NAMESPACES, PODS, REPLICASETS, SECRETS, Resource
from deployments.sandbox.store import Store, editable, now, random_suffix

JsonObject = dict[str, Any]
_SYSTEM_FIELDS = (
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
)
_NO_UNCONDITIONAL_UPDATE = ("leases", "poddisruptionbudgets")


class Writer:
    def __init__(self, store: Store, replicator: Replicator) -> None:
        self._store, self._replicator = store, replicator

    def create(
        self, resource: Resource, namespace: str, body: JsonObject, *, dry: bool = False, writer: str = ""
    ) -> JsonObject:
        """Create from a body. Raises ApiError 400, 403, 404, 409, 422."""
        self._check_identity(resource, namespace, body)
        obj = editable(body)
        meta = obj.setdefault("metadata", {})
        if meta.get("resourceVersion"):
            raise failures.ApiError(500, "InternalError", "resourceVersion should not be set on objects to be created")
        for name in ("uid", "creationTimestamp", "selfLink", "deletionTimestamp", "managedFields", "generation"):
            meta.pop(name, None)
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + random_suffix()
        if resource.namespaced:
            meta["namespace"] = namespace
            self._check_namespace(resource, namespace, meta.get("name", ""))
        if "status" in resource.subresources:
            obj.pop("status", None)
        _complete(resource, obj, None)
        if dry:
            meta |= {"uid": "00000000-0000-0000-0000-000000000000", "creationTimestamp": now()}
            return obj
        if resource is PODS:
            return self._replicator.admit(obj)
        if resource is DEPLOYMENTS:
            meta["managedFields"] = ownership.managed(None, obj, writer, now())
        return self._store.create(resource, obj)

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        if self._store.get(NAMESPACES, "", namespace) is None:
            raise failures.not_found(NAMESPACES, namespace)
        if self._store.namespace_is_ending(namespace):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            error = failures.forbidden(resource, name, why)
            (error.details or {})["causes"] = [
                {
                    "reason": "NamespaceTerminating",
                    "message": f"namespace {namespace} is being terminated",
                    "field": "metadata.namespace",
                }
            ]
            raise error

    def _check_identity(self, resource: Resource, namespace: str, body: JsonObject, name: str = "") -> None:
        validation.check_shape(resource, body)
        version, kind = body.get("apiVersion"), body.get("kind")
        if version and version != resource.api_version:
            raise failures.bad_request(
                f"the API version in the data ({version}) does not match the expected API version ({resource.api_version})"
            )
        if kind and kind != resource.kind:
            raise failures.bad_request(
                f'{kind} in version "{resource.version}" cannot be handled as a {resource.kind}: converting ({kind}) to ({resource.kind}): unknown conversion'
            )
        meta = body.get("metadata") or {}
        if resource.namespaced and meta.get("namespace") not in (None, "", namespace):
            raise failures.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        if name and meta.get("name") not in (None, "", name):
            raise failures.bad_request(
                f"the name of the object ({meta.get('name')}) does not match the name on the URL ({name})"
            )

    def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: JsonObject,
        sub: str = "",
        *,
        dry: bool = False,
        writer: str = "",
    ) -> JsonObject:
        """Replace an object, its status or its scale by a body. Raises ApiError 400, 404, 409, 422."""
        if sub == "scale":
            return self._write_scale(resource, namespace, name, body, dry=dry)
        self._check_identity(resource, namespace, body, name)
        old = self._store.must_get(resource, namespace, name)
        if not (body.get("metadata") or {}).get("resourceVersion") and resource.plural in _NO_UNCONDITIONAL_UPDATE:
            cause = {
                "reason": "FieldValueInvalid",
                "message": "Invalid value: 0x0: must be specified for an update",
                "field": "metadata.resourceVersion",
            }
            raise failures.invalid(resource, name, [cause])
        return self._store_successor(resource, old, editable(body), sub, dry=dry, writer=writer)

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: Any,
        kind: str,
        sub: str = "",
        *,
        dry: bool = False,
        writer: str = "",
    ) -> JsonObject:
        """Apply a patch of a content type. Raises ApiError 400, 404, 409, 415, 422."""
        if kind not in (patching.JSON_PATCH, patching.MERGE_PATCH, patching.STRATEGIC_PATCH):
            raise failures.unsupported_media_type()
        old = self._store.must_get(resource, namespace, name)
        base = scale_of(resource, old) if sub == "scale" else old
        if kind == patching.JSON_PATCH:
            new = patching.json_patch(base, body)
        elif not isinstance(body, dict):
            raise failures.bad_request(
                "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}"
            )
        elif kind == patching.MERGE_PATCH:
            new = patching.merge_patch(base, body)
        else:
            new = patching.strategic_patch(base, body)
        if sub == "scale":
            return self._write_scale(resource, namespace, name, new, dry=dry)
        self._check_identity(resource, namespace, new, name)
        self._check_patched(resource, old, new)
        return self._store_successor(resource, old, editable(new), sub, dry=dry, writer=writer)

    def _check_patched(self, resource: Resource, old: JsonObject, new: JsonObject) -> None:
        """To a patch another uid is a field that cannot be changed; to an update, a precondition that does not hold."""
        meta, before = new.get("metadata") or {}, old["metadata"]
        if meta.get("resourceVersion") and str(meta["resourceVersion"]) != before["resourceVersion"]:
            raise failures.conflict(resource, before["name"])
        if meta.get("uid") and meta["uid"] != before["uid"]:
            cause = validation.wrong("metadata.uid", meta["uid"], "field is immutable")
            raise failures.invalid(resource, before["name"], [cause])

    def _store_successor(
        self, resource: Resource, old: JsonObject, new: JsonObject, sub: str, *, dry: bool, writer: str
    ) -> JsonObject:
        meta, before = new.setdefault("metadata", {}), old["metadata"]
        name = before["name"]
        if meta.get("uid") and meta["uid"] != before["uid"]:
            raise failures.conflict(
                resource,
                name,
                f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {before['uid']}",
            )
        if meta.get("resourceVersion") and str(meta["resourceVersion"]) != before["resourceVersion"]:
            raise failures.conflict(resource, name)
        for key in (*_SYSTEM_FIELDS, "resourceVersion", "name", "namespace"):
            meta.pop(key, None)
            if key in before:
                meta[key] = before[key]
        meta.pop("managedFields", None)
        for key in ("labels", "annotations", "finalizers", "ownerReferences"):
            if not meta.get(key):
                meta.pop(key, None)
        if sub == "status":
            status = new.get("status")
            new = editable(old)
            new["status"] = status if status is not None else {}
        elif "status" in resource.subresources and "status" in old:
            new["status"] = editable(old["status"])
        _complete(resource, new, old)
        self._check_immutable(resource, old, new)
        if not sub:
            self._count_generation(resource, old, new)
        if resource is DEPLOYMENTS and not sub and (fields := ownership.managed(old, new, writer, now())):
            new["metadata"]["managedFields"] = fields
        return new if dry else self._store.replace(resource, new)

    def _check_immutable(self, resource: Resource, old: JsonObject, new: JsonObject) -> None:
        if (
            resource in (SECRETS, CONFIGMAPS)
            and old.get("immutable")
            and (new.get("data") != old.get("data") or not new.get("immutable"))
        ):
            cause = {
                "reason": "FieldValueForbidden",
                "message": "Forbidden: field is immutable when `immutable` is set",
                "field": "data",
            }
            raise failures.invalid(resource, old["metadata"]["name"], [cause])
        if resource is SECRETS and new.get("type") != old.get("type"):
            cause = {
                "reason": "FieldValueInvalid",
                "message": f'Invalid value: "{new.get("type")}": field is immutable',
                "field": "type",
            }
            raise failures.invalid(resource, old["metadata"]["name"], [cause])

    def _count_generation(self, resource: Resource, old: JsonObject, new: JsonObject) -> None:
        """A Deployment counts changes of its annotations too (deploymentStrategy.PrepareForUpdate)."""
        if not resource.counts_generation:
            return
        changed = new.get("spec") != old.get("spec")
        if resource is DEPLOYMENTS:
            changed = changed or new["metadata"].get("annotations") != old["metadata"].get("annotations")
        if changed:
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1

    def _write_scale(
        self, resource: Resource, namespace: str, name: str, scale: JsonObject, *, dry: bool
    ) -> JsonObject:
        old = self._store.must_get(resource, namespace, name)
        replicas = (scale.get("spec") or {}).get("replicas") or 0
        if not isinstance(replicas, int):
            raise failures.bad_request(
                'Scale in version "v1" cannot be handled as a Scale: v1.Scale.Spec: v1.ScaleSpec.Replicas: readUint32: unexpected character'
            )
        if replicas < 0:
            raise failures.invalid(
                resource, name, [validation.wrong("spec.replicas", replicas, "must be greater than or equal to 0")]
            )
        new = editable(old)
        new["spec"]["replicas"] = replicas
        if version := (scale.get("metadata") or {}).get("resourceVersion"):
            new["metadata"]["resourceVersion"] = version
        return scale_of(resource, self._store_successor(resource, old, new, "", dry=dry, writer=""))


def _complete(resource: Resource, obj: JsonObject, old: JsonObject | None) -> None:
    """Default and validate, in place. An object whose parts are not of the kind's types trips over them: 400, as undecodable."""
    try:
        defaults.apply_defaults(resource, obj)
        validation.validate(resource, obj, old)
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise validation.undecodable(resource, str(error)) from error


def scale_of(resource: Resource, obj: JsonObject) -> JsonObject:
    """The Scale subresource of a Deployment or ReplicaSet."""
    meta = obj["metadata"]
    labels = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")},
        "spec": {"replicas": obj["spec"]["replicas"]} if resource in (DEPLOYMENTS, REPLICASETS) else {},
        "status": {
            "replicas": obj["status"].get("replicas", 0),
            "selector": ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
        },
    }
