"""Who asks, and whether they may: bearer tokens and RBAC."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from deployments.sandbox import failures
from deployments.sandbox.resources import CLUSTERROLEBINDINGS, CLUSTERROLES, ROLEBINDINGS, ROLES, Resource
from deployments.sandbox.store import Store

JsonObject = dict[str, Any]
_OPEN_PATHS = ("/healthz", "/livez", "/readyz", "/version")
_DISCOVERY = ("/api", "/apis", "/openapi")


@dataclass(frozen=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    # Rules that came with the token, beside RBAC: (namespace, PolicyRule); namespace "" is everywhere.
    rules: tuple[tuple[str, JsonObject], ...] = field(default=(), hash=False)

    @property
    def is_admin(self) -> bool:
        return "system:masters" in self.groups


@dataclass(frozen=True, slots=True)
class Action:
    verb: str
    resource: Resource | None
    group: str
    plural: str  # With the subresource: `pods/log`.
    namespace: str = ""
    name: str = ""


class Access:
    def __init__(self, store: Store, admin_token: str) -> None:
        self._store = store
        self._tokens = {admin_token: User("admin", ("system:masters", "system:authenticated"))}

    def add(self, user: str, namespace: str, rules: list[JsonObject], groups: tuple[str, ...] = ()) -> str:
        """Make a token of a user who may do what `rules` (RBAC PolicyRules) say, in a namespace or everywhere ("")."""
        token = secrets.token_hex(16)
        self._tokens[token] = User(user, ("system:authenticated", *groups), tuple((namespace, rule) for rule in rules))
        return token

    def add_service_account(self, namespace: str, name: str) -> str:
        return self.add(
            f"system:serviceaccount:{namespace}:{name}",
            namespace,
            [],
            ("system:serviceaccounts", f"system:serviceaccounts:{namespace}"),
        )

    def authenticate(self, header: str | None) -> User:
        """The user of an Authorization header; raises ApiError 401 for a token that is not known."""
        if not header:
            return User("system:anonymous", ("system:unauthenticated",))
        scheme, _, token = header.partition(" ")
        user = self._tokens.get(token.strip()) if scheme.lower() == "bearer" else None
        if user is None:
            raise failures.unauthorized()
        return user

    def check(self, user: User, action: Action) -> None:
        """Raise ApiError 403, in the server's words, unless the user may do this."""
        if self.allowed(user, action) or action.resource is None:
            return
        where = f'in the namespace "{action.namespace}"' if action.namespace else "at the cluster scope"
        why = (
            f'User "{user.name}" cannot {action.verb} resource "{action.plural}" in API group "{action.group}" {where}'
        )
        raise failures.forbidden(action.resource, action.name, why)

    def check_path(self, user: User, verb: str, path: str) -> None:
        if user.is_admin or path.startswith(_OPEN_PATHS):
            return
        if "system:authenticated" in user.groups and path.startswith(_DISCOVERY):
            return
        raise failures.forbidden_path(user.name, verb, path)

    def allowed(self, user: User, action: Action) -> bool:
        if user.is_admin:
            return True
        if (
            action.plural in ("selfsubjectaccessreviews", "selfsubjectrulesreviews")
            and "system:authenticated" in user.groups
        ):
            return True
        return any(_covers(rule, action) for rule in self.rules_for(user, action.namespace))

    def rules_for(self, user: User, namespace: str) -> list[JsonObject]:
        """The rules that a user has in a namespace (or at the cluster scope)."""
        found = [rule for where, rule in user.rules if where in ("", namespace)]
        for binding in self._store.find(CLUSTERROLEBINDINGS):
            if _binds(binding, user):
                found += self._role(binding, "")
        for binding in self._store.find(ROLEBINDINGS, namespace) if namespace else []:
            if _binds(binding, user):
                found += self._role(binding, namespace)
        return found

    def _role(self, binding: JsonObject, namespace: str) -> list[JsonObject]:
        ref = binding["roleRef"]
        where = (CLUSTERROLES, "") if ref["kind"] == "ClusterRole" else (ROLES, namespace)
        role = self._store.get(*where, ref["name"])
        return list((role or {}).get("rules") or [])


def _binds(binding: JsonObject, user: User) -> bool:
    for one in binding.get("subjects") or []:
        name = one["name"]
        if one["kind"] == "ServiceAccount":
            name = f"system:serviceaccount:{one.get('namespace') or binding['metadata'].get('namespace', '')}:{name}"
        if name == user.name or (one["kind"] == "Group" and name in user.groups):
            return True
    return False


def _covers(rule: JsonObject, action: Action) -> bool:
    def holds(name: str, value: str) -> bool:
        listed = rule.get(name) or []
        return value in listed or "*" in listed

    plural, _, sub = action.plural.partition("/")
    resource = holds("resources", action.plural) or (bool(sub) and f"*/{sub}" in (rule.get("resources") or []))
    names = rule.get("resourceNames") or []
    return (
        holds("verbs", action.verb)
        and holds("apiGroups", action.group)
        and resource
        and (not names or action.name in names)
        and bool(plural)
    )


def access_review(access: Access, user: User, body: JsonObject) -> JsonObject:
    """Answer a SelfSubjectAccessReview."""
    spec = body.get("spec") or {}
    asked = spec.get("resourceAttributes")
    if asked is None and spec.get("nonResourceAttributes") is None:
        cause = {
            "reason": "FieldValueInvalid",
            "message": 'Invalid value: "null": exactly one of nonResourceAttributes or resourceAttributes must be specified',
            "field": "spec.resourceAttributes",
        }
        from deployments.sandbox.resources import REVIEWS

        raise failures.invalid(REVIEWS[0], "", [cause])
    plural = (asked or {}).get("resource", "")
    if asked and asked.get("subresource"):
        plural = f"{plural}/{asked['subresource']}"
    ok = user.is_admin
    if asked is not None and not ok:
        ok = access.allowed(
            user,
            Action(
                asked.get("verb", ""),
                None,
                asked.get("group", ""),
                plural,
                asked.get("namespace", ""),
                asked.get("name", ""),
            ),
        )
    return {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {"creationTimestamp": None},
        "spec": spec,
        "status": {"allowed": ok},
    }


def rules_review(access: Access, user: User, body: JsonObject) -> JsonObject:
    """Answer a SelfSubjectRulesReview."""
    namespace = (body.get("spec") or {}).get("namespace", "")
    rules = (
        [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
        if user.is_admin
        else access.rules_for(user, namespace)
    )
    return {
        "kind": "SelfSubjectRulesReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {"creationTimestamp": None},
        "spec": {},
        "status": {
            "resourceRules": rules,
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/version"]}],
            "incomplete": False,
        },
    }
