"""A plain HTTP client of the Kubernetes API: paths, answers, watches.  It retries nothing and hides nothing."""

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from .access import Access

JsonObject = dict[str, Any]
T = TypeVar("T")

STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"

_GROUPS = {
    **dict.fromkeys(("deployments", "replicasets", "statefulsets", "daemonsets"), "apps/v1"),
    "leases": "coordination.k8s.io/v1",
    **dict.fromkeys(("roles", "rolebindings"), "rbac.authorization.k8s.io/v1"),
    **dict.fromkeys(("selfsubjectaccessreviews", "selfsubjectrulesreviews"), "authorization.k8s.io/v1"),
}


def path(resource: str, namespace: str | None = None, name: str | None = None, sub: str | None = None) -> str:
    """The path of a resource; ``sub`` may go on (``proxy/health``)."""
    group = _GROUPS.get(resource)
    parts = [f"/apis/{group}" if group else "/api/v1"]
    if namespace is not None:
        parts.append(f"namespaces/{namespace}")
    parts += [part for part in (resource, name, sub) if part is not None]
    return "/".join(parts)


@dataclass(frozen=True)
class Answer:
    """One HTTP answer: the status, and its body as JSON where it is JSON, else as an empty object."""

    status: int
    body: JsonObject
    text: str

    def refused(self, status: int, reason: str) -> JsonObject:
        """Assert that this is a ``Status`` of kind Failure with that code and reason; returns it."""
        seen = (self.status, self.body.get("kind"), self.body.get("apiVersion"), self.body.get("status"))
        assert seen == (status, "Status", "v1", "Failure"), self.text[:600]
        assert (self.body.get("code"), self.body.get("reason")) == (status, reason), self.text[:600]
        assert self.body.get("message"), self.text[:600]
        return self.body


@dataclass(frozen=True)
class Event:
    """One event of a watch."""

    type: str
    object: JsonObject

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def version(self) -> str:
        return str(self.object["metadata"]["resourceVersion"])


class Api:
    """The API of one server for one identity."""

    def __init__(self, access: Access) -> None:
        self.access = access
        headers = {"Authorization": f"Bearer {access.token}"} if access.token else {}
        # trust_env: a proxy of the environment has no business with a cluster on this machine.
        self._http = httpx.Client(
            base_url=access.server, headers=headers, verify=access.tls, timeout=30, trust_env=False
        )

    def close(self) -> None:
        self._http.close()

    def send(
        self,
        method: str,
        where: str,
        body: object = None,
        *,
        media: str = "application/json",
        params: Mapping[str, str | int] | None = None,
    ) -> Answer:
        """Any request; ``body`` is sent as it is where it is text, else as JSON."""
        content = None if body is None else body if isinstance(body, str) else json.dumps(body)
        headers = {} if body is None else {"Content-Type": media}
        answer = self._http.request(method, where, content=content, headers=headers, params=params)
        return Answer(answer.status_code, _json(answer.text), answer.text)

    def get(self, where: str, **params: str | int) -> JsonObject:
        return self._done(self.send("GET", where, params=params), 200)

    def items(self, where: str, **params: str | int) -> list[JsonObject]:
        items: list[JsonObject] = self.get(where, **params)["items"]
        return items

    def names(self, where: str, **params: str | int) -> list[str]:
        return [item["metadata"]["name"] for item in self.items(where, **params)]

    def exists(self, where: str) -> bool:
        return self.send("GET", where).status != 404

    def create(self, where: str, obj: JsonObject) -> JsonObject:
        return self._done(self.send("POST", where, obj), 201)

    def replace(self, where: str, obj: JsonObject) -> JsonObject:
        return self._done(self.send("PUT", where, obj), 200)

    def patch(self, where: str, patch: object, media: str = STRATEGIC) -> JsonObject:
        return self._done(self.send("PATCH", where, patch, media=media), 200)

    def delete(self, where: str, **options: object) -> JsonObject:
        answer = self.send("DELETE", where, options or None)
        assert answer.status in (200, 202), answer.text[:600]
        return answer.body

    def text(self, where: str, **params: str | int) -> str:
        answer = self.send("GET", where, params=params)
        assert answer.status == 200, answer.text[:600]
        return answer.text

    @contextmanager
    def lines(self, where: str, within: float = 90, **params: str | int) -> Iterator[Iterator[str]]:
        """A streamed answer, line by line; ``within`` is the longest silence in seconds."""
        with self._http.stream("GET", where, params=params, timeout=within) as answer:
            assert answer.status_code == 200, answer.read()
            yield answer.iter_lines()

    def watch(
        self,
        where: str,
        since: str | None = None,
        *,
        seconds: int = 60,
        labels: str | None = None,
        fields: str | None = None,
        bookmarks: bool = False,
    ) -> Generator[Event, None, None]:
        """The events after the resourceVersion ``since`` until the server ends the watch after ``seconds``."""
        asked: dict[str, str | int] = {"watch": "1", "timeoutSeconds": seconds}
        given = {"resourceVersion": since, "labelSelector": labels, "fieldSelector": fields}
        asked |= {key: value for key, value in given.items() if value is not None}
        if bookmarks:
            asked["allowWatchBookmarks"] = "true"
        with self.lines(where, seconds + 30, **asked) as lines:
            for line in lines:
                event = json.loads(line)
                yield Event(event["type"], event["object"])

    def version(self, where: str) -> str:
        """The resourceVersion of a list or of an object as it is now."""
        return str(self.get(where)["metadata"]["resourceVersion"])

    @staticmethod
    def _done(answer: Answer, status: int) -> JsonObject:
        assert answer.status == status, f"{answer.status}: {answer.text[:600]}"
        return answer.body


def eventually(look: Callable[[], T | None], what: str, within: float = 90, every: float = 0.1) -> T:
    """The first true answer of ``look``; fails with ``what`` after ``within`` seconds."""
    end = time.monotonic() + within
    while True:
        if seen := look():
            return seen
        assert time.monotonic() < end, f"not within {within:g} s: {what}"
        time.sleep(every)


def _json(text: str) -> JsonObject:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
