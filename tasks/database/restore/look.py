"""What a restore finds before it does anything: the archive proved, the database as it is, what a former run left."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson

from tasks.database.archive.format import CollectionEntry, Namespace, split
from tasks.database.archive.inlet import Inlet
from tasks.database.archive.metadata import EXACT, CollectionMetadata, decode
from tasks.database.archive.reader import ArchiveReader, Documents
from tasks.database.connection import Client
from tasks.database.kinship import IdSampler
from tasks.database.listing import batches
from tasks.database.manifest import Manifest, load
from tasks.database.proof import Proof, prove
from tasks.database.restore.names import is_extra, is_own, own_of, owner, run_of
from tasks.database.restore.plan import (
    Action,
    Archived,
    Present,
    RestorePlan,
    RestoreRequest,
    Safety,
    Verb,
    make_restore_plan,
)
from tasks.database.restore.preview import Merging, would_merge, would_replace
from tasks.database.restore.state import State, read_state, runs_in
from tasks.database.restore.world import reasons
from tasks.domain.errors import StoppedError

_PIECE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Survey:
    """All that was found.  `definitions` are by the collections' number in the archive,
    `own` is what restores left.

    `state` is that of an earlier run of the same archive, `given_up` are those of restores that had replaced some
    collections and are not gone on with.
    """

    plan: RestorePlan
    proof: Proof
    manifest: Manifest | None
    definitions: dict[int, CollectionMetadata]
    state: State | None
    own: list[str] = field(default_factory=list)
    safety: Safety | None = None
    given_up: tuple[State, ...] = ()

    @property
    def run(self) -> str:
        """What this archive's restores call their collections."""
        return run_of(self.proof.sha256)

    def data(self, action: Action) -> Namespace:
        """Where the archive has the documents of a collection."""
        record = self.proof.namespaces[action.number]
        return Namespace(record.db, record.data)


def look(
    client: Client,
    archive: Path,
    request: RestoreRequest,
    safety: Path | None = None,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    stop: Callable[[], bool] = lambda: False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> RestorePlan:
    """What `restore` would do with the same arguments.  Reads only.

    `safety` is the backup of what is there now, which an exact restore needs; `progress` gets the archive
    file's bytes done and in all.  Raises what `prove` does for an archive that is no use.
    """
    found = survey(client, archive, request, safety, progress=progress, stop=stop, now=now)
    if found.plan.refused and not found.plan.refused.needs_safety:
        return found.plan
    if request.merge is None:
        # Chosen collections go back among others that stay as they are: whether they fit together is for a person to see.
        chosen = found.plan.of(Verb.REPLACE) if request.include else ()
        replacing = [
            Merging(action.target, found.data(action), found.definitions[action.number])
            for action in chosen
            if action.kind == action.kind_now == "collection"
        ]
        told = would_replace(client, archive, replacing, stop=stop)
        return found.plan.model_copy(update={"sentences": (*found.plan.sentences, *told)})
    if found.plan.refused:
        return found.plan
    merging = [
        Merging(action.target, found.data(action), found.definitions[action.number])
        for action in found.plan.of(Verb.MERGE)
    ]
    merged = would_merge(client, archive, merging, request.merge, stop=stop)
    return found.plan.model_copy(update={"sentences": (*found.plan.sentences, *merged)})


def survey(
    client: Client,
    archive: Path,
    request: RestoreRequest,
    safety: Path | None = None,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    stop: Callable[[], bool] = lambda: False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Survey:
    """The plan with all that a restore needs to carry it out."""
    sampler = IdSampler()

    def seen(run: Documents) -> None:
        if run.namespace.db == request.source:
            sampler.add(run.namespace.collection, run.data)

    proof = prove(archive, progress=progress, stop=stop, now=now, seen=seen)
    manifest = load(archive)
    entries = announced(archive)
    definitions = {number: _definition(entry) for number, entry in enumerate(entries)}
    archived = [_archived(number, definitions[number], proof) for number in definitions]
    # A name that no server takes is refused by the plan; the server is then not asked for it.
    names = make_restore_plan(archived, manifest, [], request.model_copy(update={"exact": False}))
    if names.refused and names.refused.kind == "usage":
        return Survey(names.model_copy(update={"archive": archive.name}), proof, manifest, definitions, None)
    infos = list(listed(client, request.database))
    own = own_of(info["name"] for info in infos)
    kept = _safety(safety, request.database, stop)
    run = run_of(proof.sha256)
    state = read_state(client, request.database, run) if run in runs_in(own) else None
    going_on = state is not None and state.phase == "swapping" and state.is_of(request)
    found, kinship = reasons(
        client, request, archived, definitions, proof, sampler, own=own, run=run, state=state, going_on=going_on
    )
    then = {one.namespace.collection for one in archived if one.namespace.db == request.source}
    plan = make_restore_plan(
        archived,
        manifest,
        [_present(client, request, info, then) for info in infos if _shown(info["name"])],
        request,
        kept,
        archive=archive.name,
        found=found,
        under_way=frozenset(request.rename.values()) if going_on else frozenset(),
    )
    given_up = tuple(_given_up(client, request, own, run))
    told = _told(own, run, None if state in given_up else state, given_up)
    plan = plan.model_copy(update={"sentences": (*plan.sentences, *kinship, *told, *proof.unproven)})
    return Survey(plan, proof, manifest, definitions, state, own, kept, given_up)


def announced(archive: Path) -> tuple[CollectionEntry, ...]:
    """What the archive announces, in its order."""
    with archive.open("rb") as file:
        return ArchiveReader(Inlet(file).pieces()).prelude().entries


def listed(client: Client, database: str, name: str | None = None) -> Iterator[dict[str, Any]]:
    """The server's description of each collection, or of one: `{name, type, options, info}`."""
    command: dict[str, Any] = {"listCollections": 1, "cursor": {}}
    if name is not None:
        command["filter"] = {"name": name}
    with client.start_session() as session:
        for batch in batches(client, session, database, command):
            for raw in split(batch.documents):
                yield bson.decode(raw, EXACT)


def kind_of(info: dict[str, Any]) -> str:
    """`collection`, `view` or `timeseries`; servers before 5.0 and archives of old tools name no type."""
    options = info.get("options", {})
    if "viewOn" in options:
        return "view"
    return "timeseries" if "timeseries" in options else str(info.get("type") or "collection")


def _shown(name: str) -> bool:
    return not is_own(name) and (not name.startswith("system.") or name == "system.js")


def _definition(entry: CollectionEntry) -> CollectionMetadata:
    return decode(entry.metadata) if entry.metadata else CollectionMetadata(entry.namespace.collection, entry.type)


def _archived(number: int, definition: CollectionMetadata, proof: Proof) -> Archived:
    record = proof.namespaces[number]
    return Archived(
        number=number,
        namespace=Namespace(record.db, record.collection),
        kind=kind_of({"type": record.type, "options": definition.options}),
        documents=record.documents,
        bytes=record.bytes,
        capped=bool(definition.options.get("capped")),
    )


def _present(client: Client, request: RestoreRequest, info: dict[str, Any], then: set[str]) -> Present:
    name, kind = info["name"], kind_of(info)
    if kind == "view":
        return Present(name=name, kind=kind)
    collection = client[request.database][f"system.buckets.{name}" if kind == "timeseries" else name]
    # Counted where it is held against a safety backup; elsewhere the server's own figure is enough to be shown.
    counted = request.exact and name not in then
    count = collection.count_documents({}) if counted else collection.estimated_document_count()
    return Present(name=name, kind=kind, documents=count)


def _safety(path: Path | None, database: str, stop: Callable[[], bool]) -> Safety | None:
    if path is None:
        return None
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                if stop():
                    raise StoppedError("The restore was stopped.", observed=f"{path.name} was being read.")
    except OSError as problem:
        return Safety(name=path.name, problem=f"it cannot be read ({problem.strerror})")
    return Safety.of(load(path), database, path.name, digest.hexdigest())


def _given_up(client: Client, request: RestoreRequest, own: list[str], run: str) -> Iterator[State]:
    for each in runs_in(own) if request.give_up else ():
        left = read_state(client, request.database, each)
        if left is not None and left.half_done and not (each == run and left.is_of(request)):
            yield left


def _told(own: list[str], run: str, state: State | None, given_up: tuple[State, ...]) -> Iterator[str]:
    for left in given_up:
        yield (
            f"Given up: the restore of {left.archive} that was interrupted while it put collections in their place. "
            "What it replaced stays replaced, but for what this one brings; what waits of it is removed."
        )
    if state is not None:
        yield f"A restore of this archive was interrupted ({state.phase}): it goes on where it was."
    if extras := [name for name in own if is_extra(name) and owner(name) != run]:
        yield f"Set aside by an exact restore that was given up, to be renamed or dropped by hand: {', '.join(extras)}."
    if others := [name for name in own if owner(name) != run and not is_extra(name)]:
        yield f"Left by interrupted restores of other archives, to be removed: {', '.join(others)}."
