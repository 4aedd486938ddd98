"""Backups of whole servers and of choices, of several collections at once, with the oplog, and with faults in the middle."""

import os
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bson
import pytest
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS
from bson.timestamp import Timestamp
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from tasks.database import oplog_interval, readers
from tasks.database.archive.format import CollectionEntry, Namespace, split
from tasks.database.archive.inlet import Inlet
from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.archive.reader import ArchiveReader, Documents, Prelude
from tasks.database.connection import open_database
from tasks.database.dump import BackupEvidence, DumpProgress, dump
from tasks.database.listing import Collection
from tasks.database.proof import prove
from tasks.database.scope import Scope
from tasks.database.survey import check_readable
from tasks.domain.errors import ForbiddenError, NotFoundError, StoppedError, TemporaryError

Client = MongoClient[dict[str, Any]]
WHOLE = Scope()


def backup(uri: str, scope: Scope | str, directory: Path, **options: Any) -> BackupEvidence:
    with open_database(uri, timeout=3) as client:
        return dump(client, scope, directory, apinizer_version="2025.04.3", **options)


def read(path: Path) -> tuple[Prelude, dict[Namespace, list[bytes]], int]:
    """What is announced, the documents of each namespace, and how often the namespace changed from block to block."""
    documents: dict[Namespace, list[bytes]] = defaultdict(list)
    turns: list[Namespace] = []
    with path.open("rb") as file:
        reader = ArchiveReader(Inlet(file).pieces())
        prelude = reader.prelude()
        for item in reader.blocks():
            documents[item.namespace] += split(item.data) if isinstance(item, Documents) else []
            if turns[-1:] != [item.namespace]:
                turns.append(item.namespace)
    return prelude, dict(documents), len(turns)


def stored(client: Client, namespace: Namespace) -> list[bytes]:
    found = client[namespace.db].get_collection(namespace.collection, codec_options=DEFAULT_RAW_BSON_OPTIONS).find()
    return [bytes(document.raw) for document in found]


@pytest.fixture
def server(client: Client) -> Client:
    client["apinizerdb"]["api_proxy"].insert_many([{"_id": i, "n": f"proxy {i}"} for i in range(500)])
    client["apinizerdb"]["apinizer_log"].insert_many([{"_id": i} for i in range(30)])
    client["apinizerdb"].create_collection("view", viewOn="api_proxy", pipeline=[])
    client["apinizerdb"]["api_proxy"].create_index("n")
    client["other"]["x"].insert_one({"_id": 1})
    client["third"].create_collection("empty")
    return client


def names(evidence: BackupEvidence) -> set[str]:
    return {f"{record.db}.{record.collection}" for record in evidence.manifest.namespaces}


def visible(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


@pytest.mark.usefixtures("server")
class TestScope:
    def test_the_whole_server_reads_back(self, server: Client, uri: str, tmp_path: Path) -> None:
        evidence = backup(uri, WHOLE, tmp_path, database="apinizerdb")
        prelude, documents, _ = read(evidence.archive)
        announced = [entry.namespace for entry in prelude.entries]
        oplog = Namespace("", "oplog")
        wanted = {
            Namespace("apinizerdb", "api_proxy"), Namespace("apinizerdb", "apinizer_log"), Namespace("apinizerdb", "view"),
            Namespace("other", "x"), Namespace("third", "empty"),
        }  # fmt: skip
        assert set(announced) == {*wanted, oplog}
        assert announced[-1] == oplog
        for namespace in wanted - {Namespace("apinizerdb", "view")}:
            assert documents[namespace] == stored(server, namespace), namespace
        manifest = evidence.manifest
        assert (manifest.databases, manifest.database, manifest.left_out) == ([], "apinizerdb", [])
        assert manifest.collections_asked == "all"
        assert manifest.source is not None
        assert manifest.source.set_name == "secantus"
        assert manifest.host
        assert prove(evidence.archive).against_manifest

    def test_several_databases(self, uri: str, tmp_path: Path) -> None:
        evidence = backup(uri, Scope(databases=("other", "apinizerdb")), tmp_path)
        assert names(evidence) == {"apinizerdb.api_proxy", "apinizerdb.apinizer_log", "apinizerdb.view", "other.x"}
        assert evidence.manifest.database == "other"
        assert any("Not one point in time" in note for note in evidence.manifest.notes)
        prove(evidence.archive)

    def test_collections_left_out_are_said(self, uri: str, tmp_path: Path) -> None:
        evidence = backup(uri, Scope.of("apinizerdb", left_out=["apinizer_log", "audit_event"]), tmp_path)
        assert names(evidence) == {"apinizerdb.api_proxy", "apinizerdb.view"}
        assert evidence.manifest.left_out == ["apinizerdb.apinizer_log"]
        assert evidence.manifest.collections_asked == "some"
        assert any("apinizerdb.apinizer_log" in note for note in evidence.manifest.notes)
        assert not evidence.manifest.holds_all_of("apinizerdb")

    def test_a_database_that_is_not_there(self, uri: str, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="nothere"):
            backup(uri, Scope(databases=("apinizerdb", "nothere")), tmp_path)
        assert visible(tmp_path) == []

    def test_what_an_unfinished_restore_left_is_no_part_of_it(self, server: Client, uri: str, tmp_path: Path) -> None:
        left = "apinizer-restore.0123456789ab.0001"
        server["apinizerdb"][left].insert_one({})
        evidence = backup(uri, "apinizerdb", tmp_path)
        assert f"apinizerdb.{left}" not in names(evidence)
        assert any(left in note for note in evidence.manifest.notes)

    def test_who_may_not_read_gets_no_backup_with_a_gap(self, login: Any, tmp_path: Path) -> None:
        for scope in (WHOLE, Scope.of("apinizerdb")):
            with pytest.raises(ForbiddenError) as caught:
                backup(login("reader", "reader"), scope, tmp_path)
            assert "backup" in caught.value.next
        assert visible(tmp_path) == []

    def test_who_may_not_read_the_users_is_told_before_anything_is_read(self, login: Any) -> None:
        users = Namespace("admin", "system.users")
        entry = CollectionEntry(users, "", "collection")
        found = Collection(entry, CollectionMetadata("system.users"), users)
        with (
            open_database(login("reader", "reader")) as client,
            client.start_session() as session,
            pytest.raises(ForbiddenError, match=r"admin\.system\.users"),
        ):
            check_readable(client, session, [found])

    def test_each_that_has_rights_of_its_own_is_tried(self, uri: str) -> None:
        spaces = [Namespace("apinizerdb", name) for name in ("a", "b", "system.buckets.s", "system.buckets.t")]
        spaces += [Namespace("admin", "system.roles"), Namespace("admin", "system.users")]
        found = [Collection(CollectionEntry(n, "", "collection"), CollectionMetadata(n.collection), n) for n in spaces]
        asked = Asked()
        with MongoClient[dict[str, Any]](uri, event_listeners=[asked]) as client, client.start_session() as session:
            check_readable(client, session, found)
        assert asked.names == [n.collection for n in spaces if n.collection != "b"]


class Asked(CommandListener):
    """The collections that were read."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "find":
            self.names.append(event.command["find"])

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Not asked for."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Not asked for."""


@pytest.mark.usefixtures("many")
class TestAtOnce:
    @pytest.fixture
    def many(self, client: Client) -> Client:
        for number in range(6):
            documents = [{"_id": i, "t": os.urandom(8).hex() * 60} for i in range(200 * (number + 1))]
            client["apinizerdb"][f"c{number}"].insert_many(documents)
        return client

    def test_each_namespace_is_as_one_after_the_other(self, uri: str, tmp_path: Path) -> None:
        one = backup(uri, "apinizerdb", tmp_path, parallel=1)
        four = backup(uri, "apinizerdb", tmp_path, parallel=4)
        (first, alone, _), (second, together, turns) = read(one.archive), read(four.archive)
        assert together == alone
        assert second.entries == first.entries
        assert one.manifest.namespaces == four.manifest.namespaces
        assert (first.header.concurrent_collections, second.header.concurrent_collections) == (1, 4)
        assert turns > len(alone)  # They took turns indeed.
        prove(four.archive)

    def test_the_largest_is_begun_first(self, uri: str, tmp_path: Path) -> None:
        seen: list[str] = []
        backup(uri, "apinizerdb", tmp_path, parallel=1, progress=lambda at: seen.append(at.collection))
        assert list(dict.fromkeys(seen)) == ["c5", "c4", "c3", "c2", "c1", "c0"]

    def test_progress_counts_all_of_them(self, uri: str, tmp_path: Path) -> None:
        seen: list[DumpProgress] = []
        evidence = backup(uri, "apinizerdb", tmp_path, parallel=3, progress=seen.append)
        assert seen[-1].documents == evidence.manifest.documents == 200 * 21
        assert seen[-1].bytes_read == evidence.manifest.bytes == seen[-1].bytes_expected
        assert [at.documents for at in seen] == sorted(at.documents for at in seen)
        assert seen[-1].collections == 6

    def test_stopped_in_the_middle_no_thread_stays(self, uri: str, tmp_path: Path) -> None:
        seen: list[DumpProgress] = []
        with pytest.raises(StoppedError):
            backup(uri, "apinizerdb", tmp_path, parallel=4, progress=seen.append, stop=lambda: len(seen) >= 3)
        assert len(seen) == 3
        assert visible(tmp_path) == []
        assert ours() == []

    def test_one_that_fails_stops_all(self, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error is the server's for a killed plan, which no server at hand gives when asked."""
        real = readers.batches

        def failing(client: Any, session: Any, database: str, command: Any, **options: Any) -> Iterator[Any]:
            for number, batch in enumerate(real(client, session, database, command, **options)):
                if command["find"] == "c3" and number:
                    raise OperationFailure("killed", 175)
                yield batch

        monkeypatch.setattr(readers, "batches", failing)
        with pytest.raises(TemporaryError):
            backup(uri, "apinizerdb", tmp_path, parallel=4)
        assert visible(tmp_path) == []
        assert ours() == []

    def test_the_server_dies_while_several_read(self, mortal: tuple[str, int], tmp_path: Path) -> None:
        uri, pid = mortal
        with MongoClient[dict[str, Any]](uri) as filler:
            for name in "abcd":
                filler["apinizerdb"][name].insert_many([{"_id": i, "text": "x" * 1000} for i in range(9000)])
        seen: list[DumpProgress] = []

        def kill(progress: DumpProgress) -> None:
            seen.append(progress)
            if len(seen) == 5:
                os.kill(pid, signal.SIGKILL)

        with pytest.raises(TemporaryError):
            backup(uri, "apinizerdb", tmp_path, parallel=4, progress=kill)
        assert seen[-1].documents < 36_000
        assert visible(tmp_path) == []
        assert ours() == []

    def test_stopped_while_the_server_is_silent(self, mortal: tuple[str, int], tmp_path: Path) -> None:
        uri, pid = mortal
        with MongoClient[dict[str, Any]](uri) as filler:
            filler["apinizerdb"]["a"].insert_many([{"_id": i, "text": "x" * 1000} for i in range(20_000)])
        silent = threading.Event()

        def silence(_: DumpProgress) -> None:
            if not silent.is_set():
                os.kill(pid, signal.SIGSTOP)
                silent.set()

        try:
            with pytest.raises(StoppedError), open_database(uri, timeout=3, reply_timeout=10) as client:
                dump(client, "apinizerdb", tmp_path, apinizer_version="1", progress=silence, stop=silent.is_set)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert visible(tmp_path) == []

    def test_a_primary_that_steps_down_in_the_middle(self, mortal: tuple[str, int], tmp_path: Path) -> None:
        uri, _ = mortal
        with MongoClient[dict[str, Any]](uri) as other:
            other["apinizerdb"]["a"].insert_many([{"_id": i} for i in range(300)])

            def step_down(_: DumpProgress) -> None:
                if other.admin.command("hello").get("isWritablePrimary"):
                    other.admin.command({"replSetStepDown": 120, "force": True})

            with pytest.raises(TemporaryError, match="primary changed"):
                backup(uri, "apinizerdb", tmp_path, progress=step_down)
        assert visible(tmp_path) == []


def ours() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("read-", "archive-"))]


@pytest.mark.usefixtures("server")
class TestOplog:
    def test_writes_of_the_interval_are_in_it(self, server: Client, uri: str, tmp_path: Path) -> None:
        written = threading.Event()

        def write(_: DumpProgress) -> None:
            if not written.is_set():
                written.set()
                server["apinizerdb"]["api_proxy"].update_one({"_id": 3}, {"$set": {"n": "changed meanwhile"}})
                server["other"]["x"].insert_one({"_id": "made meanwhile"})

        server["other"]["x"].insert_one({"_id": "before"})
        evidence = backup(uri, WHOLE, tmp_path, progress=write)
        server["other"]["x"].insert_one({"_id": "afterwards"})
        manifest = evidence.manifest
        entries = [bson.decode(raw) for raw in read(evidence.archive)[1][Namespace("", "oplog")]]
        told = [entry["o"].get("_id", entry.get("o2", {}).get("_id")) for entry in entries]
        assert told[0] == "before"  # The newest entry of before the first read is the first of the interval.
        assert {3, "made meanwhile"} <= set(told)
        assert "afterwards" not in told
        assert manifest.point_in_time
        assert manifest.oplog is not None
        assert manifest.oplog.documents == len(entries)
        times = [(entry["ts"].time, entry["ts"].inc) for entry in entries]
        assert (manifest.oplog.first, manifest.oplog.last) == (times[0], times[-1])
        assert prove(evidence.archive).against_manifest

    def test_a_rename_of_the_interval_is_refused(self, server: Client, uri: str, tmp_path: Path) -> None:
        def rename(_: DumpProgress) -> None:
            if "z" not in server["other"].list_collection_names():
                server["other"]["y"].insert_one({})
                server["other"]["y"].rename("z")

        with pytest.raises(TemporaryError, match="cannot be replayed") as caught:
            backup(uri, WHOLE, tmp_path, progress=rename)
        assert "renameCollection" in caught.value.observed
        assert visible(tmp_path) == []

    def test_a_start_that_was_overwritten_is_refused(
        self, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The oplog of this server does not roll over at will: the start is set before its oldest entry instead."""
        monkeypatch.setattr(oplog_interval, "start", lambda *_: Timestamp(1, 1))
        with pytest.raises(TemporaryError, match="too small"):
            backup(uri, WHOLE, tmp_path)
        assert visible(tmp_path) == []

    @pytest.mark.parametrize("scope", [Scope.of("apinizerdb"), Scope(left_out=("apinizerdb.apinizer_log",))])
    def test_what_is_not_the_whole_server_is_not_one_point_in_time(
        self, uri: str, tmp_path: Path, scope: Scope
    ) -> None:
        manifest = backup(uri, scope, tmp_path).manifest
        assert not manifest.point_in_time
        assert manifest.oplog is None
        assert any("Not one point in time" in note for note in manifest.notes)

    @pytest.mark.parametrize(
        ("entry", "why"),
        [
            ({"op": "i", "ns": "a.b", "o": {"_id": 1}}, ""),
            ({"op": "i", "ns": "a.b", "o": {"text": "renameCollection"}}, ""),
            ({"op": "c", "ns": "a.$cmd", "o": {"renameCollection": "a.b", "to": "a.c"}}, "renameCollection in a.$cmd."),
            ({"op": "c", "ns": "a.$cmd", "o": {"importCollection": "a.b"}}, "importCollection in a.$cmd."),
            ({"op": "u", "ns": "admin.system.version", "o": {}}, "The server's feature version was changed."),
            (
                {"op": "c", "ns": "config.$cmd", "o": {"create": "reshardingOperations"}},
                "A collection is being resharded.",
            ),
            ({"op": "c", "ns": "a.$cmd", "o": {"create": "reshardingOperations"}}, ""),
            ({"op": "n", "ns": "", "o": {"msg": "periodic noop"}}, ""),
        ],
    )
    def test_what_cannot_be_replayed(self, entry: dict[str, Any], why: str) -> None:
        assert oplog_interval.not_replayable(entry) == why
        run = bson.encode({"op": "n", "ns": "", "o": {}}) + bson.encode(entry)
        if why:
            with pytest.raises(TemporaryError):
                oplog_interval.check(run)
        else:
            oplog_interval.check(run)


class TestChangedMeanwhile:
    @pytest.fixture
    def filled(self, client: Client) -> Client:
        client["apinizerdb"]["a"].insert_many([{"_id": i, "n": i} for i in range(300)])
        return client

    @pytest.mark.parametrize("change", ["index made", "index gone", "dropped", "made anew"])
    def test_is_noticed(self, filled: Client, uri: str, tmp_path: Path, change: str) -> None:
        collection = filled["apinizerdb"]["a"]
        collection.create_index("old")

        def act(_: DumpProgress) -> None:
            match change:
                case "index made":
                    collection.create_index("n")
                case "index gone" if "old_1" in collection.index_information():
                    collection.drop_index("old_1")
                case "dropped":
                    collection.drop()
                case "made anew":
                    collection.drop()
                    collection.insert_one({"_id": 1})

        with pytest.raises(TemporaryError, match=r"dropped or changed|cannot be used now"):
            backup(uri, "apinizerdb", tmp_path, progress=act)
        assert visible(tmp_path) == []
