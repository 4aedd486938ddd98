"""What the server refuses. Pure; the part that clients of this API meet of k8s.io/kubernetes/pkg/apis/{core,apps}/validation."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from deployments.sandbox import failures, resources
from deployments.sandbox.resources import Resource
from deployments.sandbox.selectors import matches

JsonObject = dict[str, Any]

_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN_TEXT = (
    "a DNS-1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_TEXT = (
    "a DNS-1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric "
    "character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def _cause(reason: str, field: str, message: str) -> JsonObject:
    return {"reason": reason, "message": message, "field": field}


def required(field: str, detail: str = "") -> JsonObject:
    return _cause("FieldValueRequired", field, "Required value" + (f": {detail}" if detail else ""))


def wrong(field: str, value: object, detail: str) -> JsonObject:
    shown = f'"{value}"' if isinstance(value, str) else _go(value)
    return _cause("FieldValueInvalid", field, f"Invalid value: {shown}: {detail}")


def _go(value: object) -> str:
    if isinstance(value, dict) and all(isinstance(one, str) for one in value.values()):
        return "map[string]string{" + ", ".join(f'"{k}":"{value[k]}"' for k in sorted(value)) + "}"
    return str(value)


def check_shape(resource: Resource, obj: Any) -> None:
    """Refuse with 400 what does not decode into the type: wrong JSON types in the fields that clients set."""
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata", {}), dict):
        raise undecodable(resource, "json: cannot unmarshal into Go value")
    meta = obj.get("metadata", {})
    for name in ("labels", "annotations"):
        for value in (meta.get(name) or {}).values():
            if not isinstance(value, str):
                raise undecodable(
                    resource,
                    f"json: cannot unmarshal {_json_type(value)} into Go struct field ObjectMeta.metadata.{name} of type string",
                )
    spec = obj.get("spec")
    if spec is not None and not isinstance(spec, dict):
        raise undecodable(
            resource, f"json: cannot unmarshal {_json_type(spec)} into Go struct field {resource.kind}.spec"
        )
    if resource.plural in ("deployments", "replicasets") and isinstance(spec, dict):
        for name in ("replicas", "progressDeadlineSeconds", "minReadySeconds", "revisionHistoryLimit"):
            value = spec.get(name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
                raise undecodable(
                    resource,
                    f"json: cannot unmarshal {_json_type(value)} into Go struct field {resource.kind}Spec.spec.{name} of type int32",
                )
        if not isinstance(spec.get("template", {}), dict):
            raise undecodable(resource, "json: cannot unmarshal into Go struct field PodTemplateSpec")
    for container in _containers(resource, obj):
        image = container.get("image") if isinstance(container, dict) else 0
        if image is not None and not isinstance(image, str):
            raise undecodable(
                resource,
                f"json: cannot unmarshal {_json_type(image)} into Go struct field Container.spec.template.spec.containers.image of type string",
            )


def _containers(resource: Resource, obj: JsonObject) -> list[Any]:
    spec = obj.get("spec") or {}
    if resource.plural in ("deployments", "replicasets"):
        spec = (spec.get("template") or {}).get("spec") or {}
    elif resource.plural != "pods":
        return []
    listed = spec.get("containers") or []
    return listed if isinstance(listed, list) else [listed]


def _json_type(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    for kind, name in ((str, "string"), ((int, float), "number"), (dict, "object"), (list, "array")):
        if isinstance(value, kind):
            return name
    return "null"


def undecodable(resource: Resource, why: str) -> failures.ApiError:
    return failures.bad_request(
        f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {why}'
    )


def validate(resource: Resource, obj: JsonObject, old: JsonObject | None = None) -> None:
    """Raise ApiError 422 with every cause when the object is not valid, alone or as a successor of `old`."""
    causes = _validate_meta(resource, obj.get("metadata", {}))
    match resource.plural:
        case "deployments":
            causes += _validate_deployment(obj["spec"], old)
        case "replicasets":
            causes += _validate_selector(obj["spec"]) + _validate_pod_spec(
                obj["spec"].get("template", {}).get("spec", {}), "spec.template.spec"
            )
        case "pods":
            causes += _validate_pod_spec(obj["spec"], "spec") + _validate_pod_update(obj, old)
        case "secrets":
            causes += _validate_secret(obj)
        case "configmaps":
            causes += [
                wrong(f"data[{key}]", str(value), "must be a string")
                for key, value in (obj.get("data") or {}).items()
                if not isinstance(value, str)
            ]
        case "services":
            if not (obj["spec"].get("ports") or obj["spec"].get("clusterIP") == "None"):
                causes.append(required("spec.ports"))
        case "leases":
            causes += _validate_lease(obj.get("spec") or {})
    if causes:
        raise failures.invalid(resource, obj.get("metadata", {}).get("name", ""), causes)


def _validate_meta(resource: Resource, meta: JsonObject) -> list[JsonObject]:
    name = meta.get("name") or ""
    if not name:
        return [required("metadata.name", "name or generateName is required")]
    if resource.group == "rbac.authorization.k8s.io":
        return []
    if resource is resources.NAMESPACES and not (_LABEL.match(name) and len(name) < 64):
        return [wrong("metadata.name", name, _LABEL_TEXT)]
    if not _SUBDOMAIN.match(name) or len(name) > 253:
        return [wrong("metadata.name", name, _SUBDOMAIN_TEXT)]
    return []


def _validate_deployment(spec: JsonObject, old: JsonObject | None) -> list[JsonObject]:
    causes = [
        wrong(f"spec.{name}", spec[name], "must be greater than or equal to 0")
        for name in ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")
        if (spec.get(name) or 0) < 0
    ]
    if spec["progressDeadlineSeconds"] <= (spec.get("minReadySeconds") or 0):
        causes.append(
            wrong(
                "spec.progressDeadlineSeconds", spec["progressDeadlineSeconds"], "must be greater than minReadySeconds"
            )
        )
    causes += _validate_selector(spec)
    if old is not None and old["spec"].get("selector") != spec.get("selector"):
        shown = f"v1.LabelSelector{{MatchLabels:{_go((spec.get('selector') or {}).get('matchLabels') or {})}, MatchExpressions:[]v1.LabelSelectorRequirement(nil)}}"
        causes.append(_cause("FieldValueInvalid", "spec.selector", f"Invalid value: {shown}: field is immutable"))
    causes += _validate_strategy(spec["strategy"])
    causes += _validate_pod_spec(spec["template"]["spec"], "spec.template.spec")
    if spec["template"]["spec"].get("restartPolicy") != "Always":
        value = spec["template"]["spec"]["restartPolicy"]
        causes.append(
            _cause(
                "FieldValueNotSupported",
                "spec.template.spec.restartPolicy",
                f'Unsupported value: "{value}": supported values: "Always"',
            )
        )
    return causes


def _validate_strategy(strategy: JsonObject) -> list[JsonObject]:
    kind = strategy.get("type")
    if kind == "Recreate":
        if strategy.get("rollingUpdate") is not None:
            return [
                _cause(
                    "FieldValueForbidden",
                    "spec.strategy.rollingUpdate",
                    "Forbidden: may not be specified when strategy `type` is 'Recreate'",
                )
            ]
        return []
    if kind != "RollingUpdate":
        return [
            _cause(
                "FieldValueNotSupported",
                "spec.strategy",
                f'Unsupported value: "{kind}": supported values: "Recreate", "RollingUpdate"',
            )
        ]
    rolling, causes = strategy["rollingUpdate"], []
    for name in ("maxUnavailable", "maxSurge"):
        value = rolling[name]
        if isinstance(value, str) and not re.fullmatch(r"[0-9]+%", value):
            causes.append(
                wrong(
                    f"spec.strategy.rollingUpdate.{name}",
                    value,
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                )
            )
        elif isinstance(value, int) and value < 0:
            causes.append(wrong(f"spec.strategy.rollingUpdate.{name}", value, "must be greater than or equal to 0"))
    if not causes and all(str(rolling[name]).rstrip("%") == "0" for name in ("maxUnavailable", "maxSurge")):
        causes.append(
            _cause(
                "FieldValueInvalid",
                "spec.strategy.rollingUpdate.maxUnavailable",
                'Invalid value: intstr.IntOrString{Type:0, IntVal:0, StrVal:""}: may not be 0 when `maxSurge` is 0',
            )
        )
    return causes


def _validate_selector(spec: JsonObject) -> list[JsonObject]:
    selector = spec.get("selector")
    if not selector:
        return [required("spec.selector")]
    labels = (spec.get("template", {}).get("metadata") or {}).get("labels") or {}
    if not matches(selector, labels):
        return [wrong("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")]
    return []


def _validate_pod_spec(spec: JsonObject, at: str) -> list[JsonObject]:
    causes: list[JsonObject] = []
    if not spec.get("containers"):
        causes.append(required(f"{at}.containers"))
    seen: set[str] = set()
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or []):
            place, name = f"{at}.{field}[{index}]", container.get("name", "")
            if not name:
                causes.append(required(f"{place}.name"))
            elif not _LABEL.match(name) or len(name) > 63:
                causes.append(wrong(f"{place}.name", name, _LABEL_TEXT))
            elif name in seen:
                causes.append(_cause("FieldValueDuplicate", f"{place}.name", f'Duplicate value: "{name}"'))
            seen.add(name)
            image = container.get("image", "")
            if not image:
                causes.append(required(f"{place}.image"))
            elif image.strip() != image:
                causes.append(wrong(f"{place}.image", image, "must not have leading or trailing whitespace"))
    return causes


def _validate_lease(spec: JsonObject) -> list[JsonObject]:
    causes = []
    if (spec.get("leaseDurationSeconds") or 1) <= 0:
        causes.append(wrong("spec.leaseDurationSeconds", spec["leaseDurationSeconds"], "must be greater than 0"))
    if (spec.get("leaseTransitions") or 0) < 0:
        causes.append(wrong("spec.leaseTransitions", spec["leaseTransitions"], "must be greater than or equal to 0"))
    return causes


def _validate_pod_update(obj: JsonObject, old: JsonObject | None) -> list[JsonObject]:
    if old is None:
        return []

    def fixed(spec: JsonObject) -> JsonObject:
        kept = {
            key: value for key, value in spec.items() if key not in ("activeDeadlineSeconds", "tolerations", "nodeName")
        }
        for field in ("containers", "initContainers"):
            kept[field] = [{k: v for k, v in one.items() if k != "image"} for one in spec.get(field) or []]
        return kept

    if fixed(obj["spec"]) == fixed(old["spec"]):
        return []
    allowed = "`spec.containers[*].image`, `spec.initContainers[*].image`, `spec.activeDeadlineSeconds` or `spec.tolerations` (only additions to existing tolerations)"
    return [_cause("FieldValueForbidden", "spec", f"Forbidden: pod updates may not change fields other than {allowed}")]


def _validate_secret(obj: JsonObject) -> list[JsonObject]:
    for key, value in (obj.get("data") or {}).items():
        try:
            base64.b64decode(value or "", validate=True)
        except (binascii.Error, ValueError, TypeError) as error:
            raise failures.bad_request(
                f'Secret in version "v1" cannot be handled as a Secret: v1.Secret.Data: base64Codec: invalid input in key {key}'
            ) from error
    return []
