"""The sandbox's rules without I/O, by tables."""

from typing import Any

import pytest
import yaml

from deployments.sandbox import patching, rollout
from deployments.sandbox.defaults import apply_defaults
from deployments.sandbox.failures import ApiError
from deployments.sandbox.images import digest_of, normalise, program_of
from deployments.sandbox.protobuf import decode
from deployments.sandbox.resources import DEPLOYMENTS, PODS
from deployments.sandbox.scheduling import quantity, why_not
from deployments.sandbox.selectors import parse_fields, parse_labels
from deployments.sandbox.validation import validate

JsonObject = dict[str, Any]


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        ("", True),
        ("app=worker", True),
        ("app==worker,tier!=back", True),
        ("app!=worker", False),
        ("missing!=x", True),
        ("app in (worker, cache)", True),
        ("app notin (worker)", False),
        ("missing notin (a)", True),
        ("app,!missing", True),
        ("!app", False),
        ("example.com/name=x", True),
    ],
)
def test_label_selectors(selector: str, *, taken: bool) -> None:
    obj = {"metadata": {"labels": {"app": "worker", "example.com/name": "x"}}}
    assert parse_labels(selector)(obj) is taken


@pytest.mark.parametrize("text", ["a b", "app in worker", "=x"])
def test_label_selectors_that_are_none(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_labels(text)
    assert caught.value.code == 400


def test_field_selectors() -> None:
    pod = {"metadata": {"name": "one"}, "spec": {"nodeName": "a"}, "status": {"phase": "Running"}}
    assert parse_fields("spec.nodeName=a,status.phase!=Failed", PODS)(pod)
    assert not parse_fields("metadata.name!=one", PODS)(pod)
    with pytest.raises(ApiError) as caught:
        parse_fields("spec.unknown=x", PODS)
    assert caught.value.code == 400


STRATEGIC = """
- name: a container is merged by its name, others stay
  target: {containers: [{name: side, image: s:1}, {name: main, image: m:1, env: [{name: A, value: "1"}]}]}
  patch: {containers: [{name: main, image: m:2}]}
  result: {containers: [{name: side, image: s:1}, {name: main, image: m:2, env: [{name: A, value: "1"}]}]}
- name: an element is deleted by its key
  target: {containers: [{name: side}, {name: main}]}
  patch: {containers: [{name: side, $patch: delete}]}
  result: {containers: [{name: main}]}
- name: a new element goes to the end
  target: {env: [{name: A, value: "1"}]}
  patch: {env: [{name: B, value: "2"}]}
  result: {env: [{name: A, value: "1"}, {name: B, value: "2"}]}
- name: a list without a key is replaced
  target: {args: [a, b]}
  patch: {args: [c]}
  result: {args: [c]}
- name: null deletes
  target: {a: 1, b: {c: 2, d: 3}}
  patch: {a: null, b: {c: null}}
  result: {b: {d: 3}}
- name: a map is replaced on demand
  target: {strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1}}}
  patch: {strategy: {$patch: replace, type: Recreate}}
  result: {strategy: {type: Recreate}}
- name: keys that are not retained go
  target: {strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1}}}
  patch: {strategy: {$retainKeys: [type], type: Recreate}}
  result: {strategy: {type: Recreate}}
- name: finalizers are a set
  target: {finalizers: [a]}
  patch: {finalizers: [a, b]}
  result: {finalizers: [a, b]}
- name: a primitive leaves a list
  target: {finalizers: [a, b]}
  patch: {$deleteFromPrimitiveList/finalizers: [a]}
  result: {finalizers: [b]}
- name: the order is set
  target: {containers: [{name: a}, {name: b}]}
  patch: {$setElementOrder/containers: [{name: b}, {name: a}], containers: [{name: b, image: x}]}
  result: {containers: [{name: b, image: x}, {name: a}]}
- name: a container's ports merge by containerPort
  target: {ports: [{containerPort: 80, name: web}]}
  patch: {ports: [{containerPort: 80, protocol: UDP}, {containerPort: 81}]}
  result: {ports: [{containerPort: 80, name: web, protocol: UDP}, {containerPort: 81}]}
"""


@pytest.mark.parametrize("case", yaml.safe_load(STRATEGIC), ids=lambda case: case["name"])
def test_strategic_merge(case: JsonObject) -> None:
    before = yaml.safe_dump(case["target"])
    assert patching.strategic_patch(case["target"], case["patch"]) == case["result"]
    assert yaml.safe_dump(case["target"]) == before, "the target was changed in place"


JSON_PATCHES = """
- {target: {a: {b: 1}}, patch: [{op: replace, path: /a/b, value: 2}], result: {a: {b: 2}}}
- {target: {a: [1, 3]}, patch: [{op: add, path: /a/1, value: 2}, {op: add, path: /a/-, value: 4}], result: {a: [1, 2, 3, 4]}}
- {target: {a: 1}, patch: [{op: test, path: /a, value: 1}, {op: remove, path: /a}], result: {}}
- {target: {a/b: 1}, patch: [{op: move, from: /a~1b, path: /c}], result: {c: 1}}
- {target: {a: 1}, patch: [{op: copy, from: /a, path: /b}], result: {a: 1, b: 1}}
- {target: {a: 1}, patch: [{op: test, path: /a, value: 2}], refused: 422}
- {target: {a: 1}, patch: [{op: remove, path: /b}], refused: 422}
- {target: {a: 1}, patch: [{op: replace, path: /b/c, value: 1}], refused: 422}
- {target: {a: 1}, patch: {op: remove}, refused: 400}
"""


@pytest.mark.parametrize("case", yaml.safe_load(JSON_PATCHES))
def test_json_patch(case: JsonObject) -> None:
    if "refused" in case:
        with pytest.raises(ApiError) as caught:
            patching.json_patch(case["target"], case["patch"])
        assert caught.value.code == case["refused"]
    else:
        assert patching.json_patch(case["target"], case["patch"]) == case["result"]


def test_merge_patch() -> None:
    target = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert patching.merge_patch(target, {"a": {"b": None}, "d": [2], "e": {"f": None}}) == {
        "a": {"c": 2},
        "d": [2],
        "e": {},
    }


# The rounding of util/deployment ResolveFenceposts: surge up, unavailable down, never both zero.
@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (1, "25%", "25%", (1, 0)),
        (4, "25%", "25%", (1, 1)),
        (10, "25%", "25%", (3, 2)),
        (3, 0, "10%", (0, 1)),
        (2, 1, 1, (1, 1)),
        (1, 0, 5, (0, 1)),
        (0, "25%", "25%", (0, 0)),
    ],
)
def test_limits(replicas: int, surge: Any, unavailable: Any, expected: tuple[int, int]) -> None:
    deployment = a_deployment(replicas, surge, unavailable)
    assert rollout.limits(deployment) == expected


def a_deployment(replicas: int, surge: Any = 1, unavailable: Any = 1) -> JsonObject:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    return {"metadata": {"name": "app"}, "spec": {"replicas": replicas, "strategy": strategy}, "status": {}}


def a_set(name: str, replicas: int, available: int, maximum: int = 0) -> JsonObject:
    annotations = {rollout.MAXIMUM: str(maximum)} if maximum else {}
    meta = {"name": name, "creationTimestamp": f"2026-01-01T00:00:0{len(name)}Z", "annotations": annotations}
    return {
        "metadata": meta,
        "spec": {"replicas": replicas},
        "status": {"availableReplicas": available, "replicas": replicas},
    }


# (wanted, surge, unavailable), old sets (size, available), new set (size, available) -> size of the new, sizes of the old that change
ROLLING = [
    ((3, 1, 0), [(3, 3)], (0, 0), 1, {}),
    ((3, 1, 0), [(3, 3)], (1, 0), 1, {}),
    ((3, 1, 0), [(3, 3)], (1, 1), 1, {"old": 2}),
    ((3, 1, 1), [(3, 3)], (1, 0), 1, {"old": 2}),
    ((4, 0, 2), [(4, 4)], (0, 0), 0, {"old": 2}),
    ((2, 1, 1), [(1, 1)], (2, 0), 2, {}),
    ((2, 1, 1), [(1, 1)], (2, 2), 2, {"old": 0}),
    ((3, 1, 0), [(2, 0), (2, 2)], (1, 1), 1, {"old": 0}),  # What is not available goes first.
]


@pytest.mark.parametrize(("limits", "old", "new", "size", "smaller"), ROLLING)
def test_rolling(
    limits: tuple[int, int, int], old: list[tuple[int, int]], new: tuple[int, int], size: int, smaller: dict[str, int]
) -> None:
    deployment = a_deployment(*limits)
    olds = [a_set("old" + "er" * index, *one) for index, one in enumerate(old)]
    newest = a_set("newest-of-all", *new)
    assert rollout.size_for_new(deployment, [*olds, newest], new[0]) == size
    assert rollout.sizes_for_old(deployment, newest, olds) == smaller


def test_scaling_in_the_middle_keeps_proportions() -> None:
    # The example of the documentation of Deployments: 10 replicas, maxSurge 3, 8 old and 5 new, scaled to 15.
    deployment = a_deployment(15, 3, 2)
    sizes = rollout.proportional_sizes(deployment, [a_set("old", 8, 8, 13), a_set("newer", 5, 0, 13)])
    assert sizes == {"old": 11, "newer": 7}
    assert sum(sizes.values()) == 18


def test_what_makes_templates_equal() -> None:
    one = {
        "metadata": {"labels": {"app": "x"}, "creationTimestamp": None},
        "spec": {"containers": [{"name": "a", "image": "b"}]},
    }
    two = {"metadata": {"labels": {"app": "x", "pod-template-hash": "abc"}}, "spec": one["spec"]}
    other = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "a", "image": "c"}]}}
    assert rollout.template_key(one) == rollout.template_key(two)
    assert rollout.template_hash(one) != rollout.template_hash(other)


@pytest.mark.parametrize(
    ("before", "after", "progressed"),
    [
        ({}, {}, False),
        ({"updatedReplicas": 1}, {"updatedReplicas": 2}, True),
        ({"replicas": 3, "updatedReplicas": 1}, {"replicas": 2, "updatedReplicas": 1}, True),
        ({"readyReplicas": 2}, {"readyReplicas": 1}, False),
        ({"availableReplicas": 1}, {"availableReplicas": 2}, True),
    ],
)
def test_progress(before: JsonObject, after: JsonObject, *, progressed: bool) -> None:
    assert rollout.has_progressed(before, after) is progressed


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("apinizercloud/worker:2025.04.3", "docker.io/apinizercloud/worker:2025.04.3"),
        ("nexus.local:8082/apinizer/worker:1", "nexus.local:8082/apinizer/worker:1"),
        ("localhost/x", "localhost/x:latest"),
        ("busybox", "docker.io/library/busybox:latest"),
        ("Not/An:Image:Name", None),
        ("a/B:1", None),
        ("", None),
        ("a b", None),
    ],
)
def test_image_names(image: str, full: str | None) -> None:
    assert normalise(image) == full


def test_which_images_exist() -> None:
    assert program_of("docker.io/apinizercloud/portal:2025.04.3") is not None
    assert program_of("docker.io/apinizercloud/portal:2025.07.0") is None, "renamed to apiportal"
    assert program_of("nexus.local:8082/apinizer/apimanager:2025.11.1") is not None
    name = "docker.io/apinizercloud/worker"
    by_digest = program_of(f"{name}@{digest_of(f'{name}:2025.07.0')}")
    assert by_digest is not None
    assert by_digest.version == "2025.07.0"


@pytest.mark.parametrize(("text", "number"), [("500m", 0.5), ("2Gi", 2 * 2**30), ("4", 4.0), ("1k", 1000.0)])
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == number


def test_where_a_pod_fits() -> None:
    node = {
        "metadata": {"labels": {"disk": "ssd"}},
        "spec": {},
        "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "2"}},
    }
    pod = {"metadata": {}, "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "600m"}}}]}}
    assert why_not(pod, node, {}) == ""
    assert why_not(pod, node, {"cpu": 0.5}) == "Insufficient cpu"
    assert why_not(pod, node, {"pods": 2.0}) == "Too many pods"
    assert "affinity" in why_not({**pod, "spec": {**pod["spec"], "nodeSelector": {"disk": "hdd"}}}, node, {})
    assert "unschedulable" in why_not(pod, {**node, "spec": {"unschedulable": True}}, {})


def test_defaults_fill_null_as_well_as_nothing() -> None:
    deployment: JsonObject = {
        "metadata": {"name": "a"},
        "spec": {
            "progressDeadlineSeconds": None,
            "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}},
        },
    }
    apply_defaults(DEPLOYMENTS, deployment)
    validate(DEPLOYMENTS, deployment)
    spec = deployment["spec"]
    assert (spec["progressDeadlineSeconds"], spec["replicas"], spec["revisionHistoryLimit"]) == (600, 1, 10)
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
    assert spec["template"]["spec"]["containers"][0]["imagePullPolicy"] == "Always"


def test_protobuf_bodies() -> None:
    def text(number: int, value: bytes) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value

    attributes = text(1, b"prod") + text(2, b"patch") + text(3, b"apps") + text(5, b"deployments")
    raw = text(2, text(1, attributes))
    body = (
        b"k8s\x00" + text(1, text(1, b"authorization.k8s.io/v1") + text(2, b"SelfSubjectAccessReview")) + text(2, raw)
    )
    seen = decode(body)
    assert seen["kind"] == "SelfSubjectAccessReview"
    assert seen["spec"]["resourceAttributes"] == {
        "namespace": "prod",
        "verb": "patch",
        "group": "apps",
        "resource": "deployments",
    }
    with pytest.raises(ApiError):
        decode(b"k8s\x00" + text(1, text(2, b"Pod")))
