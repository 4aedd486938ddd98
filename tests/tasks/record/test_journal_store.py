"""Journals against the sandbox's API: conditional writes, lost answers, hands that edit, and what is refused."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import config

from deployments.sandbox.launch import Sandbox
from tasks.cluster.answers import ServerAwayError
from tasks.cluster.api import KubernetesApi
from tasks.cluster.planning import Connections
from tasks.cluster.retry import Retry
from tasks.domain.errors import BlockedError, ConflictError, ForbiddenError
from tasks.domain.inventory import Inventory
from tasks.domain.journal import Ended, Journal, require_none_unfinished
from tasks.domain.journal_form import LIMIT
from tasks.record import journal_store
from tasks.record.feed import Event, listening
from tasks.record.journal_object import LABELS
from tasks.record.journal_store import JournalStore, beside, journal_store_for
from tasks.record.owner import present_owner
from tasks.record.run_record import RunRecord
from tests.domain.journals import MANAGER, OTHER, at, backup, journal, rollback, set_image

MAPS = "/api/v1/namespaces/{}/configmaps"
ERROR = {"happened": "h", "observed": "o", "safe": "s", "next": "n"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(speed=10) as running:
        yield running


@pytest.fixture(scope="module")
def connect(sandbox: Sandbox) -> Callable[..., KubernetesApi]:
    def one(kubeconfig: Path = sandbox.kubeconfig) -> KubernetesApi:
        return KubernetesApi(config.new_client_from_config(str(kubeconfig)), retry=Retry(cap=0.1))

    return one


@pytest.fixture(scope="module")
def api(connect: Callable[..., KubernetesApi]) -> KubernetesApi:
    return connect()


@pytest.fixture
def space(api: KubernetesApi, sandbox: Sandbox) -> Iterator[str]:
    """A namespace of the test's own, and no fault when it ends."""
    meta = {"generateName": "journals-"}
    made = api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    yield made["metadata"]["name"]
    sandbox.faults(answers=[])
    api.delete(f"/api/v1/namespaces/{made['metadata']['name']}")


@pytest.fixture
def store(api: KubernetesApi, space: str) -> JournalStore:
    return JournalStore(api, space)


def path(space: str, run: str = "") -> str:
    return MAPS.format(space) + (f"/apinizer-upgrade-{run}" if run else "")


def writes(sandbox: Sandbox, since: int = 0) -> list[tuple[str, int]]:
    return [(w["method"], w["status"]) for w in sandbox.audit(since) if "configmaps" in w["path"]]


def count(sandbox: Sandbox) -> int:
    return len(sandbox.audit())


RUN = journal("a", backup=backup())


def test_what_one_machine_writes_another_reads(connect: Callable[..., KubernetesApi], store: JournalStore) -> None:
    store.create(RUN)
    store.create(journal("b", begun=60).end(at(70), Ended.COMPLETE))
    changed = RUN.begin(set_image())
    store.save(changed)
    store.save(changed.finish(0, at(90), {"generation": 3}))
    elsewhere = JournalStore(connect(), store.namespace)
    assert [j.id for j in elsewhere.all()] == ["b", "a"], "newest first"
    assert elsewhere.all()[1] == changed.finish(0, at(90), {"generation": 3})


def test_the_object_says_whose_it_is(api: KubernetesApi, store: JournalStore) -> None:
    store.create(RUN)
    labels = api.get(path(store.namespace, "a"))["metadata"]["labels"]
    assert {k: v for k, v in labels.items() if k in LABELS} == LABELS
    assert labels["app.kubernetes.io/version"] in present_owner().tool


def test_other_configmaps_are_none_of_its_business(api: KubernetesApi, store: JournalStore) -> None:
    for name, labels in (("apinizer-upgrade-settings", {}), ("kube-root-ca.crt", {}), ("x", {"a": "b"})):
        body = {"metadata": {"name": name, "labels": labels}, "data": {"apinizer.yaml": "x"}}
        if name != "kube-root-ca.crt":
            api.create(path(store.namespace), body)
    assert store.all() == ()
    require_none_unfinished(store.all())


def test_a_write_that_changes_nothing_still_finds_out(
    connect: Callable[..., KubernetesApi], store: JournalStore
) -> None:
    store.create(RUN)
    store.save(RUN)
    other = JournalStore(connect(), store.namespace)
    other.look()
    other.save(RUN.take_up(OTHER, at(1)))
    with pytest.raises(ConflictError):
        store.save(RUN)


# -------------------------------------------------------------------------------------------------- lost answers
@pytest.mark.parametrize(("landed", "posts"), [(True, [201]), (False, [504, 201])])
def test_the_lost_answer_of_the_first_write(
    sandbox: Sandbox, api: KubernetesApi, store: JournalStore, *, landed: bool, posts: list[int]
) -> None:
    before = count(sandbox)
    sandbox.fail_requests(code=504, path="configmaps", methods=("POST",), count=1, landed=landed)
    store.create(RUN)
    assert writes(sandbox, before) == [("POST", code) for code in posts]
    store.save(RUN.begin(set_image()))
    assert store.all() == (RUN.begin(set_image()),)


@pytest.mark.parametrize(("landed", "patches"), [(True, [200]), (False, [504, 200])])
def test_the_lost_answer_of_a_write(sandbox: Sandbox, store: JournalStore, *, landed: bool, patches: list[int]) -> None:
    store.create(RUN)
    before = count(sandbox)
    sandbox.fail_requests(code=504, path="configmaps", methods=("PATCH",), count=1, landed=landed)
    changed = RUN.begin(set_image())
    store.save(changed)
    assert writes(sandbox, before) == [("PATCH", code) for code in patches]
    store.save(changed.stop(at(99), ERROR))
    assert store.all() == (changed.stop(at(99), ERROR),)


def test_an_api_server_that_is_away_for_seconds(sandbox: Sandbox, store: JournalStore) -> None:
    store.create(RUN)
    sandbox.api_down(2)
    store.save(RUN.begin(set_image()))
    assert store.all()[0].entries


def test_what_could_not_be_written_is_said_and_can_be_written_later(
    sandbox: Sandbox, store: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create(RUN)
    monkeypatch.setattr(journal_store, "WRITING", 0.3)
    sandbox.fail_requests(code=503, path="configmaps", methods=("PATCH",), retry_after=0)
    with pytest.raises(ServerAwayError) as caught:
        store.save(RUN.begin(set_image()))
    assert "A change is begun only when the journal has it" in caught.value.safe
    assert store.all() == (RUN,)
    sandbox.faults(answers=[])
    store.save(RUN.begin(set_image()))
    assert store.all()[0].entries


def test_a_write_that_was_given_up_and_landed_all_the_same(
    sandbox: Sandbox, store: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer and all looks after it were lost: what it wrote is no other's writing."""
    store.create(RUN)
    monkeypatch.setattr(journal_store, "PATIENCE", 0.0)
    hasty = JournalStore(store.api, store.namespace)
    hasty.look()
    sandbox.fail_requests(code=504, path="configmaps", methods=("PATCH",), count=1, landed=True)
    sandbox.fail_requests(code=504, path="configmaps/", methods=("GET",), count=1)
    with pytest.raises(ServerAwayError):
        hasty.save(RUN.begin(set_image()))
    assert store.all()[0].entries, "it landed"
    hasty.save(RUN.stop(at(99), ERROR))
    assert store.all() == (RUN.stop(at(99), ERROR),)


# ----------------------------------------------------------------------------------------------- somebody else
def test_of_two_that_write_the_same_journal_one_is_told(
    connect: Callable[..., KubernetesApi], store: JournalStore
) -> None:
    store.create(RUN)
    other = JournalStore(connect(), store.namespace)
    (seen,) = other.all()
    other.save(seen.take_up(OTHER, at(50)))
    with pytest.raises(ConflictError) as caught:
        store.save(RUN.begin(set_image()))
    assert str(OTHER) in caught.value.observed
    assert "runs show a" in caught.value.next
    assert not other.all()[0].entries, "the other's state is left as it is"
    with pytest.raises(ConflictError):
        store.save(RUN.begin(set_image()))
    assert store.prune() == ""
    with pytest.raises(ConflictError):  # a look at what may go is no look to decide on
        store.save(RUN.begin(set_image()))


def test_two_that_begin_a_run_of_one_name(connect: Callable[..., KubernetesApi], store: JournalStore) -> None:
    store.create(RUN)
    with pytest.raises(ConflictError):
        JournalStore(connect(), store.namespace).create(RUN.take_up(OTHER, at(1)))
    assert store.all() == (RUN,)


def test_labels_of_others_are_no_conflict(api: KubernetesApi, store: JournalStore) -> None:
    """A policy controller, a backup program, `kubectl label`: they write what the journal is not."""
    store.create(RUN)
    change: dict[str, Any] = {"metadata": {"annotations": {"seen": "yes"}, "labels": {"team": "x"}}}
    api.patch(path(store.namespace, "a"), change, "merge")
    store.save(RUN.begin(set_image()))
    kept = api.get(path(store.namespace, "a"))["metadata"]
    assert (kept["annotations"]["seen"], kept["labels"]["team"]) == ("yes", "x")
    assert store.all()[0].entries


def test_a_journal_that_was_deleted_in_mid_run_is_made_anew(api: KubernetesApi, store: JournalStore) -> None:
    store.create(RUN)
    api.delete(path(store.namespace, "a"))
    store.save(RUN.begin(set_image()))
    assert store.all() == (RUN.begin(set_image()),)
    store.save(RUN)


def test_a_journal_without_its_labels_is_still_one(api: KubernetesApi, store: JournalStore) -> None:
    store.create(RUN)
    api.patch(path(store.namespace, "a"), {"metadata": {"labels": None}}, "merge")
    assert store.all() == (RUN,)
    store.save(RUN.begin(set_image()))
    assert set(LABELS) <= set(api.get(path(store.namespace, "a"))["metadata"]["labels"])


def test_threads_of_one_run(store: JournalStore) -> None:
    store.create(RUN)
    lock, present = threading.Lock(), [RUN]

    def work(number: int) -> None:
        with lock:
            present[0] = present[0].begin(set_image(f"prod/worker-{number}"))
            store.save(present[0])
        store.look()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.all() == (present[0],)
    assert len(present[0].entries) == 8


# ---------------------------------------------------------------------------------------------------- damaged
def other_format(text: str) -> str:
    return json.dumps(json.loads(text) | {"format": 2})


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(lambda text: {"journal.json": text[:200]}, "no JSON", id="cut"),
        pytest.param(
            lambda text: {"journal.json": text.replace("set-image", "set-immage")}, "entries.0.kind", id="misspelt"
        ),
        pytest.param(lambda _: {"journal.json": None}, "gone or empty", id="emptied"),
        pytest.param(lambda _: {"journal.json": "", "other": "x"}, "gone or empty", id="an empty text"),
        pytest.param(lambda text: {"journal.json": text.replace('"id":"a"', '"id":"z"')}, "the run z", id="another's"),
        pytest.param(lambda text: {"journal.json": other_format(text)}, "format 2", id="another format"),
    ],
)
def test_what_cannot_be_read_blocks_and_is_never_no_journal(
    api: KubernetesApi, store: JournalStore, data: Callable[[str], dict[str, Any]], told: str
) -> None:
    store.create(RUN.begin(set_image()))
    store.create(journal("b").end(at(1), Ended.COMPLETE))
    text = api.get(path(store.namespace, "a"))["data"]["journal.json"]
    api.patch(path(store.namespace, "a"), {"data": data(text)}, "merge")
    with pytest.raises(BlockedError) as caught:
        store.all()
    assert "The journal apinizer-upgrade-a cannot be read" in caught.value.happened
    assert told in caught.value.observed
    assert f"kubectl -n {store.namespace} delete configmap apinizer-upgrade-a" in caught.value.next
    assert ("apinizer-upgrade 0.1.0" in caught.value.next) is (told == "format 2")
    found = store.look()
    assert [j.id for j in found.journals] == ["b"]
    assert [d.name for d in found.damaged] == ["apinizer-upgrade-a"]
    assert store.prune(0) == ""
    assert api.get(path(store.namespace, "a")), "what cannot be read is not removed"


def test_the_copy_beside_the_backup_puts_it_back(api: KubernetesApi, store: JournalStore, tmp_path: Path) -> None:
    """As the error's `kubectl create ... | kubectl replace` does it, labels lost and all."""
    run = RUN.begin(set_image())
    store.create(run)
    assert beside(run, tmp_path) == ""
    (copy,) = tmp_path.iterdir()
    api.patch(path(store.namespace, "a"), {"data": {"journal.json": "{"}}, "merge")
    body = {"metadata": {"name": "apinizer-upgrade-a"}, "data": {"journal.json": copy.read_text()}}
    api.replace(path(store.namespace, "a"), body)
    assert store.all() == (run,)


# ------------------------------------------------------------------------------------------------ size, pruning
def test_a_hundred_deployments_and_long_errors(api: KubernetesApi, store: JournalStore) -> None:
    run = RUN
    for number in range(100):
        run = run.begin(set_image(f"environment-{number:03}/worker-of-the-environment", done=number))
    for _ in range(5):
        run = run.stop(at(500), {**ERROR, "observed": "a line of a log\n" * 5000}).take_up(OTHER, at(600))
    store.create(RUN)
    store.save(run)
    assert len(api.get(path(store.namespace, "a"))["data"]["journal.json"].encode()) <= LIMIT
    (kept,) = store.all()
    assert kept.entries == run.entries
    store.save(kept.end(at(900), Ended.COMPLETE))


def test_old_journals_go_and_needed_ones_stay(store: JournalStore) -> None:
    complete = journal("complete", set_image(), begun=-9000).end(at(-8000), Ended.COMPLETE)
    undone = journal("undone", set_image(), begun=-9999)
    back = rollback(undone, "back", begun=-9000)
    for run in (complete, undone.end(at(-1), Ended.ABANDONED), back, *(_ended(n) for n in range(6))):
        store.create(run)
    assert store.prune(3) == ""
    assert [j.id for j in store.all()] == ["r0", "r1", "r2", "complete", "back", "undone"]


def _ended(number: int) -> Journal:
    return journal(f"r{number}", begun=-number).end(at(10), Ended.NOTHING_CHANGED)


# ------------------------------------------------------------------------------------------------------- rights
MAY_READ = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}


@pytest.mark.parametrize(
    ("rules", "verb"),
    [([], "list"), ([MAY_READ], "create"), ([MAY_READ | {"verbs": ["get", "list", "create"]}], "patch")],
)
def test_a_missing_right_is_named_with_where_it_is_written(
    sandbox: Sandbox,
    connect: Callable[..., KubernetesApi],
    store: JournalStore,
    tmp_path: Path,
    rules: list[Any],
    verb: str,
) -> None:
    store.create(RUN)
    kubeconfig = sandbox.restricted_kubeconfig(tmp_path / "k", f"some-{verb}", store.namespace, rules)
    limited = JournalStore(connect(kubeconfig), store.namespace)

    def begin() -> None:
        limited.all()
        limited.create(journal("b"))
        limited.save(journal("b").begin(set_image()))

    with pytest.raises(ForbiddenError) as caught:
        begin()
    assert f"may not {verb} configmaps in namespace {store.namespace}" in caught.value.happened
    assert "deployments/rbac.yaml" in caught.value.next
    assert "nothing was changed" in caught.value.safe.lower()


def test_who_may_not_delete_keeps_old_journals_and_says_so(
    sandbox: Sandbox, connect: Callable[..., KubernetesApi], store: JournalStore, tmp_path: Path
) -> None:
    store.create(RUN.end(at(1), Ended.ABANDONED))
    kubeconfig = sandbox.restricted_kubeconfig(tmp_path / "k", "reader", store.namespace, [MAY_READ])
    assert "may not delete configmaps" in JournalStore(connect(kubeconfig), store.namespace).prune(0)
    assert len(store.all()) == 1


# ------------------------------------------------------------------------------------------- where, and beside
def test_journals_are_where_the_manager_is(sandbox: Sandbox, api: KubernetesApi) -> None:
    from blocks.settings import installation_of

    value = {"clusters": [{"name": "main", "kubeconfig_path": str(sandbox.kubeconfig)}]}
    connections = Connections.open(installation_of(value, source="test"))
    store = journal_store_for(connections, connections.inventory())
    assert store.namespace == "apinizer"
    store.create(RUN.begin(set_image()))
    try:
        (seen,) = store.all()
        assert seen.manager.cluster == "main", "as this configuration calls the cluster"
        assert seen.of_manager("set-image") is not None
        store.save(seen.finish(0, at(5), {}))
        assert JournalStore(api, "apinizer", cluster="main").all() == store.all()
        assert JournalStore(api, "apinizer").all()[0].manager == MANAGER
    finally:
        api.delete(path("apinizer", "a"))
    with pytest.raises(BlockedError, match="not exactly one manager"):
        journal_store_for(connections, Inventory(deployments=()))
    assert journal_store_for(connections, MANAGER.model_copy(update={"cluster": "main"})).namespace == "apinizer"


def test_the_copy_beside_the_backup(tmp_path: Path) -> None:
    assert beside(journal("a"), tmp_path) == "", "no backup, nothing to be beside of"
    assert beside(RUN, tmp_path) == ""
    (copy,) = tmp_path.iterdir()
    assert copy.name == "apinizer-backup--2025.04.3--2026-03-01--01.archive.journal.json"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert beside(RUN.begin(set_image()), tmp_path) == ""
    assert Journal.model_validate_json(copy.read_text()) == RUN.begin(set_image())
    assert [p.name for p in tmp_path.iterdir()] == [copy.name]
    back = rollback(RUN, "b", safety=backup("safety.archive"))
    assert beside(back, tmp_path) == ""
    assert Journal.model_validate_json(copy.read_text()).id == "a", "a rollback leaves the upgrade's as it is"
    assert (tmp_path / "safety.archive.journal.json").exists()


def test_a_copy_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    told = beside(RUN, tmp_path / "gone")
    assert "could not be written: No such file or directory" in told
    (tmp_path / "apinizer-backup--2025.04.3--2026-03-01--01.archive.journal.json").mkdir()
    assert "could not be written" in beside(RUN, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1, "no half file is left"


def test_a_copy_that_could_not_be_written_is_tried_again_at_the_next_write(
    api: KubernetesApi, space: str, tmp_path: Path
) -> None:
    """A volume that was full or away; said once."""
    folder = tmp_path / "away"
    made = backup().model_copy(update={"host": present_owner().host, "archive": str(folder / "b.archive")})
    record = RunRecord(present_owner())
    told: list[Event] = []
    with listening(told.append):
        record.take(api, MANAGER.model_copy(update={"namespace": space}), "a", "testing")
        record.create(journal("a", backup=made))
        with record.changing(set_image()):
            pass
        folder.mkdir()
        with record.changing(set_image("prod/worker")):
            pass
        record.release()
    copy = Journal.model_validate_json((folder / "b.archive.journal.json").read_text())
    assert [e.done is not None for e in copy.entries] == [True, True]
    assert len([e for e in told if "could not be written" in e.text]) == 1


def test_who_this_is() -> None:
    me = present_owner("flow-run")
    assert me.user
    assert me.host
    assert me.pid > 0
    assert me.tool.startswith("apinizer-upgrade ")
    assert me.run == "flow-run"
