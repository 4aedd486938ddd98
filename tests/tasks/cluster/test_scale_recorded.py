"""Scaling under the journal: what was there is written before, each change is made once whatever dies between."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.settings import ClusterSettings, InstallationSettings
from deployments.sandbox.launch import Sandbox
from tasks.cluster.answers import Request, lost
from tasks.cluster.api import KubernetesApi
from tasks.cluster.planning import Connections
from tasks.cluster.recorded_change import change_recorded
from tasks.cluster.recorded_scaling import Scaled, scale_recorded, scale_up_recorded
from tasks.cluster.scaling import scale
from tasks.cluster.watch import WatchHub
from tasks.domain.errors import DriftError, ForbiddenError, StoppedError, UpgradeError
from tasks.domain.inventory import DeploymentFacts, DeploymentKey
from tasks.domain.journal import Entry
from tasks.domain.step import ImageChange, RolloutStep
from tasks.record.owner import present_owner
from tasks.record.run_record import RunRecord
from tests.domain.recorded import upgrade_journal

PATH = "/apis/apps/v1/namespaces/prod/deployments/worker-prod"
MANAGER = DeploymentKey(cluster="", namespace="apinizer", name="manager")


@pytest.fixture
def record(connections: Connections) -> Iterator[RunRecord]:
    """Of a run that holds the lock and has begun its journal."""
    made = RunRecord(present_owner())
    journals = made.take(connections.apis[""], MANAGER, "a run", "testing")
    made.create(upgrade_journal(id=f"20261120-100000-{len(journals):04x}", manager=MANAGER, backup=None))
    yield made
    made.release()


def of(worker: DeploymentFacts) -> Scaled:
    return Scaled(worker.key, worker.uid, worker.component)


def step_of(worker: DeploymentFacts) -> RolloutStep:
    return RolloutStep(
        key=worker.key,
        uid=worker.uid,
        resource_version=worker.resource_version,
        component=worker.component,
        changes=(),
        replicas=2,
    )


def entries(record: RunRecord) -> tuple[Entry, ...]:
    """As a reader of the cluster sees them."""
    assert record.journal is not None
    store = record._open_store()
    return next(j for j in store.all() if j.id == record.journal.id).entries


def patched(sandbox: Sandbox, since: int) -> list[int]:
    """The counts that were written to the Deployment, in order."""
    writes = sandbox.audit()[since:]
    return [w["body"]["spec"]["replicas"] for w in writes if w["path"] == PATH and w["status"] == 200]


def test_what_was_there_is_written_before_and_what_was_seen_after(
    sandbox: Sandbox, connections: Connections, worker: DeploymentFacts, record: RunRecord
) -> None:
    assert scale_recorded(connections.apis[""], of(worker), 0, record).changed
    (entry,) = entries(record)
    assert entry.before is not None
    assert (entry.kind, entry.replicas, entry.before.replicas, entry.before.uid) == ("scale", 0, 2, worker.uid)
    assert entry.undo == "kubectl scale deployment worker-prod -n prod --replicas=2"
    assert entry.done is not None
    assert entry.evidence["replicas after"] == 0
    order = [w["path"] for w in sandbox.audit() if "configmaps" in w["path"] or w["path"] == PATH]
    assert "configmaps" in order[-3], "the journal is written first"
    assert order[-2] == PATH
    assert not scale_recorded(connections.apis[""], of(worker), 0, record).changed
    assert len(entries(record)) == 1, "what is done already is no change"


def test_one_that_died_in_between_is_found_done(
    connections: Connections, worker: DeploymentFacts, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change was made, and the process died before it wrote so."""

    def killed(*given: Any, **more: Any) -> None:
        scale(*given, **more)
        raise KeyboardInterrupt

    api = connections.apis[""]
    with monkeypatch.context() as patch:
        patch.setattr("tasks.cluster.recorded_scaling.scale", killed)
        with pytest.raises(KeyboardInterrupt):
            scale_recorded(api, of(worker), 0, record)
    assert entries(record)[0].done is None
    scale_recorded(api, of(worker), 0, record)
    (entry,) = entries(record)
    assert entry.done is not None
    assert entry.before is not None
    assert entry.before.replicas == 2


def test_without_the_lock_nothing_is_written(
    sandbox: Sandbox, connections: Connections, worker: DeploymentFacts, record: RunRecord
) -> None:
    since = len(sandbox.audit())
    record.release()
    with pytest.raises(StoppedError):
        scale_recorded(connections.apis[""], of(worker), 0, record)
    assert patched(sandbox, since) == []


def test_what_the_server_refused_counts_for_nothing(
    sandbox: Sandbox, worker: DeploymentFacts, record: RunRecord, tmp_path: Path
) -> None:
    rules = [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]}]
    config = sandbox.restricted_kubeconfig(tmp_path / "config", "reader", "prod", rules)
    settings = ClusterSettings(kubeconfig_path=str(config))
    api = Connections.open(InstallationSettings(clusters=(settings,))).apis[""]
    with pytest.raises(ForbiddenError):
        scale_recorded(api, of(worker), 0, record)
    (entry,) = entries(record)
    assert entry.unmade


@pytest.fixture
def another_image(connections: Connections, worker: DeploymentFacts) -> Iterator[RolloutStep]:
    """A step that sets the worker's image; it has its own again afterwards."""
    (had,) = worker.containers
    change = ImageChange(container=had.name, old=had.image, new="apinizercloud/worker:2025.08.0")
    yield step_of(worker).model_copy(update={"changes": (change,)})
    connections.apis[""].patch(PATH, {"spec": _image(had.name, had.image)})


def _image(container: str, image: str) -> dict[str, Any]:
    """The part of a Deployment's spec that sets it."""
    return {"template": {"spec": {"containers": [{"name": container, "image": image}]}}}


@pytest.mark.parametrize("code", [401, 403, 404])
@pytest.mark.parametrize("what", ["scale", "image"])
def test_a_change_whose_answer_was_lost_is_not_withdrawn(
    sandbox: Sandbox,
    connections: Connections,
    worker: DeploymentFacts,
    record: RunRecord,
    another_image: RolloutStep,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    what: str,
) -> None:
    """It landed, and the look that should tell so is refused (a login that has run out, an API server that starts)."""
    api, patch = connections.apis[""], KubernetesApi.patch

    def lose(self: KubernetesApi, path: str, *given: Any, **more: Any) -> Any:
        answer = patch(self, path, *given, **more)  # a controller that wrote in between makes it a 409: then again
        if path != PATH:
            return answer
        sandbox.fail_requests(code, path=PATH, methods=("GET",))
        raise lost(Request("PATCH", path), "Connection reset by peer", unsent=False)

    def change() -> object:
        if what == "image":
            return change_recorded(api, another_image, "", record)
        return scale_recorded(api, of(worker), 0, record)

    with monkeypatch.context() as losing:
        losing.setattr(KubernetesApi, "patch", lose)
        with pytest.raises(UpgradeError) as raised:
            change()
    sandbox.faults(answers=[])
    spec = api.get(PATH)["spec"]
    image = spec["template"]["spec"]["containers"][0]["image"]
    assert image == another_image.changes[0].new if what == "image" else spec["replicas"] == 0
    (entry,) = entries(record)
    assert (entry.done, entry.unmade) == (None, False), "it may have been made"
    assert "is not known" in raised.value.safe
    change()
    (entry,) = entries(record)
    assert entry.done is not None
    assert entry.evidence["found"] == "its effect was there"


@pytest.mark.parametrize("what", ["scale", "image"])
def test_what_was_done_and_is_undone_between_two_looks_is_not_changed_without_an_entry(
    connections: Connections,
    worker: DeploymentFacts,
    record: RunRecord,
    another_image: RolloutStep,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    api, get = connections.apis[""], KubernetesApi.get
    (had,) = worker.containers
    image = another_image.changes[0].new
    done, undone = (
        ({"replicas": 0}, {"replicas": 2})
        if what == "scale"
        else (_image(had.name, image), _image(had.name, had.image))
    )
    api.patch(PATH, {"spec": done})
    looks: list[str] = []

    def undo(self: KubernetesApi, path: str, **query: Any) -> Any:
        seen = get(self, path, **query)
        if path == PATH and not looks:
            looks.append(path)
            api.patch(PATH, {"spec": undone})
        return seen

    def change() -> object:
        if what == "image":
            return change_recorded(api, another_image, "", record)
        return scale_recorded(api, of(worker), 0, record)

    monkeypatch.setattr(KubernetesApi, "get", undo)
    with pytest.raises(DriftError, match="between two looks"):
        change()
    spec = api.get(PATH)["spec"]
    assert (spec["replicas"], spec["template"]["spec"]["containers"][0]["image"]) == (2, had.image), "theirs stands"
    assert entries(record) == ()


def test_one_that_met_only_another_s_writes_counts_for_nothing(
    connections: Connections, worker: DeploymentFacts, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, patch = connections.apis[""], KubernetesApi.patch

    def meddle(self: KubernetesApi, path: str, *given: Any, **more: Any) -> Any:
        if path == PATH:
            patch(api, PATH, {"spec": {"replicas": 5}}, "merge")
        return patch(self, path, *given, **more)

    monkeypatch.setattr(KubernetesApi, "patch", meddle)
    with pytest.raises(DriftError, match="somebody else scaled it to 5"):
        scale_recorded(api, of(worker), 0, record)
    (entry,) = entries(record)
    assert entry.unmade


def up(connections: Connections, worker: DeploymentFacts, replicas: int, record: RunRecord, **more: Any) -> list[str]:
    said: list[str] = []
    hub = WatchHub(connections.apis[""])
    count = scale_up_recorded(hub, step_of(worker), replicas, record, deadline_seconds=60, say=said.append, **more)
    assert connections.apis[""].get(PATH)["spec"]["replicas"] == count
    return said


def test_one_pod_comes_first_and_the_others_when_it_is_ready(
    sandbox: Sandbox, connections: Connections, worker: DeploymentFacts, record: RunRecord
) -> None:
    api = connections.apis[""]
    scale_recorded(api, of(worker), 0, record)
    since = len(sandbox.audit())
    ready: list[int] = []
    up(connections, worker, 2, record, progress=lambda p: ready.append(p.counts.ready))
    assert patched(sandbox, since) == [1, 2]
    assert [(e.before.replicas, e.replicas) for e in entries(record) if e.before] == [(2, 0), (0, 1), (1, 2)]
    assert all(e.done for e in entries(record))
    assert api.get(PATH)["status"]["readyReplicas"] == 2
    since = len(sandbox.audit())
    up(connections, worker, 2, record)
    assert patched(sandbox, since) == [], "what is there already is only looked at"


def test_another_try_goes_on_from_the_first_pod(
    sandbox: Sandbox, connections: Connections, worker: DeploymentFacts, record: RunRecord
) -> None:
    scale_recorded(connections.apis[""], of(worker), 0, record)
    scale_recorded(connections.apis[""], of(worker), 1, record)
    since = len(sandbox.audit())
    up(connections, worker, 2, record)
    assert patched(sandbox, since) == [2]


def test_a_count_of_somebody_else_is_left_and_told(
    connections: Connections, worker: DeploymentFacts, record: RunRecord
) -> None:
    """An autoscaler takes over as soon as the first pod is there."""
    api = connections.apis[""]
    scale_recorded(api, of(worker), 0, record)
    deeds: list[Callable[[], object]] = [lambda: api.patch(PATH, {"spec": {"replicas": 3}}, "merge")]

    def meddle(_: object) -> None:
        if deeds:
            deeds.pop()()

    (said,) = up(connections, worker, 2, record, progress=meddle)
    assert "wants 3 pods, not the 2 of before; it is left so" in said


def test_what_had_no_pods_before_gets_none(
    sandbox: Sandbox, connections: Connections, worker: DeploymentFacts, record: RunRecord
) -> None:
    scale_recorded(connections.apis[""], of(worker), 0, record)
    since = len(sandbox.audit())
    up(connections, worker, 0, record)
    assert patched(sandbox, since) == []
