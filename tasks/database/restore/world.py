"""Reasons in the world not to begin a restore: the server, its room, who the database is of, what is unfinished."""

from collections.abc import Iterator, Mapping

from tasks.database.archive.metadata import CollectionMetadata
from tasks.database.connection import Client
from tasks.database.kinship import IdSampler, Kinship, look_up
from tasks.database.proof import Proof
from tasks.database.restore.plan import select
from tasks.database.restore.request import Archived, Refusal, RestoreRequest
from tasks.database.restore.state import State, read_state, runs_in
from tasks.database.server_version import VIEWLESS_TIME_SERIES, numbers

_TELLING_SIZE = 10_000_000


def reasons(
    client: Client,
    request: RestoreRequest,
    archived: list[Archived],
    definitions: dict[int, CollectionMetadata],
    proof: Proof,
    sampler: IdSampler,
    *,
    own: list[str],
    run: str,
    state: State | None,
    going_on: bool,
) -> tuple[list[Refusal], list[str]]:
    """All reasons, and sentences for the plan.

    `own` are collections that restores left, `state` what the same archive's left, `going_on` whether it is to be
    gone on with.
    """
    strangers, sentences = _stranger(client, request, definitions, archived, sampler, going_on=going_on)
    found = [
        *_unfit_server(client),
        *_unfinished(client, request, own, run, state),
        *strangers,
        *_unfit_time_series(client, archived, proof, request),
        *([] if going_on else _no_room(client, archived, request)),
    ]
    return found, sentences


def _unfit_server(client: Client) -> Iterator[Refusal]:
    hello = client.admin.command("hello")
    if not hello.get("isWritablePrimary", hello.get("ismaster", False)):
        yield Refusal(
            kind="usage",
            happened="The database server that was reached is not the primary.",
            observed=f"Replica set {hello.get('setName') or 'unnamed'}.",
            next="Name the primary, or the whole replica set without directConnection.",
        )


def _unfinished(
    client: Client, request: RestoreRequest, own: list[str], run: str, state: State | None
) -> Iterator[Refusal]:
    """A restore that was putting collections in place comes first: the database is half the one, half the other."""
    if request.give_up:
        return
    if state is not None and state.half_done and not state.is_of(request):
        yield _half_done(state, request.database, "asked otherwise")
    for other in runs_in(own):
        left = read_state(client, request.database, other) if other != run else None
        if left is not None and left.half_done:
            yield _half_done(left, request.database, f"of {left.archive}")


def _half_done(state: State, database: str, which: str) -> Refusal:
    return Refusal(
        kind="blocked",
        happened=f"A restore {which} was interrupted while it put collections of {database} in their place.",
        observed=f"Archive {state.archive}, SHA-256 {state.sha256[:12]}…, asked for: "
        f"{state.request.model_dump_json(exclude_defaults=True)}.",
        next="Restore that archive again with the same options: it goes on where it was. "
        "To put this one back instead, add --give-up.",
    )


def _stranger(
    client: Client,
    request: RestoreRequest,
    definitions: dict[int, CollectionMetadata],
    archived: list[Archived],
    sampler: IdSampler,
    *,
    going_on: bool,
) -> tuple[list[Refusal], list[str]]:
    """Whether the archive is of another installation; what an interrupted restore brought is no witness."""
    if going_on:
        return [], []
    uuids = {
        one.namespace.collection: definitions[one.number].uuid
        for one in archived
        if one.namespace.db == request.source and one.kind == "collection"
    }
    judged = look_up(client, request.database, sampler.ids, uuids)
    if judged.kinship is not Kinship.OTHER:
        return [], []
    if request.other_installation:
        return [], [f"The archive is of another installation. {judged.reason}"]
    refusal = Refusal(
        kind="blocked",
        happened=f"The archive seems to be of another installation than the database {request.database}.",
        observed=judged.reason,
        next="Name this installation's archive. If this one is meant: apinizer-upgrade restore ARCHIVE "
        "--from-other-installation puts it back.",
    )
    return [refusal], []


def _unfit_time_series(
    client: Client, archived: list[Archived], proof: Proof, request: RestoreRequest
) -> Iterator[Refusal]:
    chosen, _ = select([one for one in archived if one.namespace.db == request.source], request)
    series = [one for one in chosen if one.kind == "timeseries"]
    if not series:
        return
    version = client.admin.command("buildInfo")["version"]
    whole = [one for one in series if not proof.namespaces[one.number].data.startswith("system.buckets.")]
    if numbers(str(version)) >= VIEWLESS_TIME_SERIES or whole:
        yield Refusal(
            kind="unproven",
            happened=f"Time series cannot be restored natively here: {', '.join(s.namespace.collection for s in series)}.",
            observed=f"Server {version}; archive of server {proof.server_version}.",
            next="Restore with the engine mongodump, or exclude them.",
            native_only=True,
        )


def _no_room(client: Client, archived: list[Archived], request: RestoreRequest) -> Iterator[Refusal]:
    chosen, _ = select([one for one in archived if one.namespace.db == request.source], request)
    documents = sum(one.bytes for one in chosen)
    if refusal := no_room(client[request.database].command("dbStats"), documents):
        yield refusal


def no_room(statistics: Mapping[str, float], documents: int) -> Refusal | None:
    """Whether `documents` bytes of copies fit beside what is there; `statistics` are the server's `dbStats`.

    Servers before 4.4, and some of today, do not say how large their disk is: nothing is refused then.
    """
    total, used = statistics.get("fsTotalSize"), statistics.get("fsUsedSize")
    if not total or used is None:
        return None
    # How well this server compresses these documents; three quarters where it cannot be told.
    data, stored = statistics.get("dataSize", 0), statistics.get("storageSize", 0)
    ratio = min(1.0, stored / data) if data > _TELLING_SIZE and stored else 0.75
    if total - used >= documents * ratio:
        return None
    return Refusal(
        kind="blocked",
        happened="There is no room on the database server for the restore.",
        observed=f"Free: {round(total - used):,} bytes. Needed beside what is there, estimated from "
        f"{documents:,} bytes of documents: {round(documents * ratio):,}.",
        next="Free some space on the database server's disk.",
        native_only=True,
    )
