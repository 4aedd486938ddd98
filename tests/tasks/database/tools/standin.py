"""A stand-in for mongodump and mongorestore, which cannot be had where these tests run.

It takes the options that this software uses, and no others, with the meaning that the tools' own documentation and
sources give them: `--config` with a URI, `--archive` on standard output or input, `--gzip`, `--db`,
`--excludeCollection`, `--excludeCollectionsWithPrefix`, `--oplog`, `--drop`, `--stopOnError`, `--nsInclude`,
`--nsExclude`, `--nsFrom`, `--nsTo`, `--version`.  It works on a real server, archives in the real format through this project's
writer, reads a login as Go's driver does (a plus is a plus), prints progress in the tools' form to standard
error, ends at SIGTERM with the tools' words, and ignores SIGPIPE, as they do.

Beside the program, `behaviour.json` may ask for: `fail` (a line after `Failed: `) and `code`, `after` (batches
before that), `stall` (seconds to do nothing after those batches), `pause` (seconds before each batch), `deaf` (SIGTERM is not heard), `version`, `lose` (documents that
a restore counts as failed), `forget` (documents of each run that it
skips without a word), `junk` (bytes that are no archive are written, with exit code 0), and `pids` (a file
that gets the process id).
"""

import argparse
import gzip
import json
import os
import re
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

import yaml
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from tasks.database.archive.format import CollectionEntry, Header, Namespace, split
from tasks.database.archive.inlet import Inlet
from tasks.database.archive.metadata import CollectionMetadata, decode
from tasks.database.archive.reader import ArchiveReader, Documents
from tasks.database.archive.writer import ArchiveWriter

RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
BEHAVIOUR: dict[str, Any] = {}


def say(text: str) -> None:
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "+0000")
    print(f"{moment}\t{text}", file=sys.stderr, flush=True)


def fail(text: str, code: int = 1) -> None:
    say(f"Failed: {text}")
    sys.exit(code)


def options(program: str, arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=program, add_help=False, allow_abbrev=False)
    parser.add_argument("--config", required=True)
    parser.add_argument("--archive", nargs="?", const="-", required=True)
    parser.add_argument("--gzip", action="store_true")
    if program == "mongodump":
        parser.add_argument("--db", default="")
        parser.add_argument("--excludeCollection", action="append", default=[])
        parser.add_argument("--excludeCollectionsWithPrefix", action="append", default=[])
        parser.add_argument("--oplog", action="store_true")
    else:
        parser.add_argument("--drop", action="store_true")
        parser.add_argument("--stopOnError", action="store_true")
        parser.add_argument("--oplogReplay", action="store_true")
        for name in ("--nsInclude", "--nsExclude", "--nsFrom", "--nsTo"):
            parser.add_argument(name, action="append", default=[])
    return parser.parse_args(arguments)


def connect(config: str) -> MongoClient[Any]:
    settings = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    if set(settings) - {"uri", "password", "sslPEMKeyPassword"}:
        say("error parsing command line options: error parsing config file")
        sys.exit(1)
    uri = settings["uri"]
    scheme, rest = uri.split("://", 1)
    login, _, place = rest.rpartition("@")
    user, _, password = login.partition(":")
    who = {"username": unquote(user), "password": unquote(password)} if login else {}
    client: MongoClient[Any] = MongoClient(f"{scheme}://{place}", **who, connect=True)
    try:
        client.admin.command("ping")
        client.list_database_names()
    except OperationFailure as problem:
        if problem.code == 18:
            fail(
                "can't create session: could not connect to server: connection() error occurred during connection "
                'handshake: auth error: sasl conversation error: unable to authenticate using mechanism "SCRAM-SHA-256": '
                "(AuthenticationFailed) Authentication failed."
            )
        fail(f"error creating intents to dump: (Unauthorized) {problem.details['errmsg'] if problem.details else ''}")
    except PyMongoError:
        fail(
            "can't create session: could not connect to server: server selection error: server selection timeout, current "
            "topology: { Type: Single, Servers: [{ Addr: db, Type: Unknown, Last error: dial tcp: connect: connection refused }, ] }"
        )
    return client


class Batches:
    """Counts batches, and does what the behaviour asks for at each."""

    def __init__(self) -> None:
        self.left = BEHAVIOUR.get("after", 0)

    def next(self) -> None:
        time.sleep(BEHAVIOUR.get("pause", 0))
        if not self.left:
            time.sleep(BEHAVIOUR.get("stall", 0))
            if "fail" in BEHAVIOUR:
                fail(BEHAVIOUR["fail"], BEHAVIOUR.get("code", 1))
        self.left -= 1


def dumped(client: MongoClient[Any], asked: argparse.Namespace) -> list[tuple[Namespace, CollectionEntry]]:
    found = []
    names = [asked.db] if asked.db else [n for n in client.list_database_names() if n not in {"local", "config"}]
    for database in names:
        listed = client[database].command("listCollections")["cursor"]["firstBatch"]
        for info in sorted(listed, key=lambda info: str(info["name"])):
            name, kind = info["name"], info.get("type", "collection")
            skipped = name in asked.excludeCollection or name.startswith(tuple(asked.excludeCollectionsWithPrefix))
            if skipped or (name.startswith("system.") and name != "system.js" and database != "admin"):
                continue
            indexes = [] if kind == "view" else client[database].command("listIndexes", name)["cursor"]["firstBatch"]
            uuid = info.get("info", {}).get("uuid")
            metadata = CollectionMetadata(
                name, kind, bytes(uuid).hex() if uuid else "", info.get("options", {}), tuple(indexes)
            )
            namespace = Namespace(database, name)
            found.append((namespace, CollectionEntry(namespace, metadata.encode(), kind)))
    return found


def dump(client: MongoClient[Any], asked: argparse.Namespace) -> None:
    binary: Any = sys.stdout.buffer
    sink = gzip.GzipFile(fileobj=binary, mode="wb") if asked.gzip else binary
    found, steps = dumped(client, asked), Batches()
    entries = [entry for _, entry in found]
    oplog = Namespace("", "oplog")
    first = None
    if asked.oplog:
        first = next(client.local["oplog.rs"].find().sort("$natural", -1).limit(1), None)
        if first is None:
            fail("error getting oplog start: no oplog")
        entries.append(CollectionEntry(oplog, "", ""))
    version = client.admin.command("buildInfo")["version"]
    writer = ArchiveWriter(sink, Header(version, BEHAVIOUR.get("version", "100.9.4"), 4), entries)
    for namespace, entry in found:
        say(f"writing {namespace} to archive on stdout")
        writer.begin(namespace)
        collection = client[namespace.db].get_collection(namespace.collection, codec_options=RAW)
        total = 0 if entry.type == "view" else collection.estimated_document_count()
        done = 0
        for batch in collection.find_raw_batches(batch_size=500) if entry.type != "view" else ():
            steps.next()
            documents = split(batch)
            writer.documents(namespace, batch, len(documents))
            done += len(documents)
            say(f"[############............]  {namespace}  {done}/{total}  ({100 * done / max(total, 1):.1f}%)")
            sink.flush()
        writer.end(namespace)
        say(f"done dumping `{namespace}` ({done} document{'' if done == 1 else 's'})")
    if first is not None:
        since = {"ts": {"$gte": first["ts"]}}
        raws = [bytes(one.raw) for one in client.local.get_collection("oplog.rs", codec_options=RAW).find(since)]
        writer.begin(oplog)
        writer.documents(oplog, b"".join(raws), len(raws))
        writer.end(oplog)
    writer.close()
    if asked.gzip:
        sink.close()
    binary.flush()


def matcher(pattern: str) -> re.Pattern[str]:
    """The tools' patterns: `*` is anything, a backslash takes the next character as it is (mongorestore/ns/ns.go)."""
    parts = re.findall(r"\\(.)|([^\\])", pattern)
    return re.compile(
        "".join(re.escape(plain) if plain else "(.*)" if one == "*" else re.escape(one) for plain, one in parts)
    )


def renamed(namespace: str, asked: argparse.Namespace) -> Namespace:
    for old, new in zip(asked.nsFrom, asked.nsTo, strict=True):
        if found := matcher(old).fullmatch(namespace):
            values = iter(found.groups())
            namespace = re.sub(r"\\(.)|\*", lambda m: m[1] or next(values), new)  # noqa: B023 - used at once
            break
    database, _, collection = namespace.partition(".")
    return Namespace(database, collection)


def restore(client: MongoClient[Any], asked: argparse.Namespace) -> None:
    included, excluded = ([matcher(one) for one in some] for some in (asked.nsInclude, asked.nsExclude))
    source: Any = sys.stdin.buffer
    if not asked.gzip and source.peek(2)[:2] == b"\x1f\x8b":
        fail("stream or file does not appear to be a mongodump archive")
    reader = ArchiveReader(Inlet(source).pieces())
    prelude, steps, count = reader.prelude(), Batches(), 0
    counts: dict[Namespace, int] = {}
    targets: dict[Namespace, Namespace] = {}
    for entry in prelude.entries:
        name = str(entry.namespace)
        if not any(one.fullmatch(name) for one in included) or any(one.fullmatch(name) for one in excluded):
            continue
        target = renamed(name, asked)
        targets[entry.namespace] = target
        if asked.drop:
            client[target.db].drop_collection(target.collection)
        client[target.db].command({"create": target.collection, **decode(entry.metadata).options})
    for block in reader.blocks():
        if isinstance(block, Documents) and block.namespace in targets:
            steps.next()
            target = targets[block.namespace]
            documents = [RawBSONDocument(one) for one in split(block.data)][BEHAVIOUR.get("forget", 0) :]
            client[target.db][target.collection].insert_many(documents, bypass_document_validation=True)
            counts[block.namespace] = counts.get(block.namespace, 0) + block.count
            count += block.count
            say(f"[############............]  {target}  {len(block.data)}B/{len(block.data)}B  (100.0%)")
    for entry in prelude.entries:
        wanted = (
            [index for index in decode(entry.metadata).indexes if index["name"] != "_id_"] if entry.metadata else []
        )
        if entry.namespace in targets:
            target = targets[entry.namespace]
            if wanted:
                say(f"restoring indexes for collection {target} from metadata")
                client[target.db].command({"createIndexes": target.collection, "indexes": wanted})
            say(f"finished restoring `{target}` ({counts.get(entry.namespace, 0)} documents, 0 failures)")
    lost = BEHAVIOUR.get("lose", 0)
    say(f"{count - lost} document(s) restored successfully. {lost} document(s) failed to restore.")


def main(program: str, here: Path, arguments: list[str]) -> None:
    behaviour = here / "behaviour.json"
    if behaviour.exists():
        BEHAVIOUR.update(json.loads(behaviour.read_text(encoding="utf-8")))
    if arguments == ["--version"]:
        print(f"{program} version: {BEHAVIOUR.get('version', '100.9.4')}\ngit version: none\nGo version: none")
        return
    if "pids" in BEHAVIOUR:
        Path(BEHAVIOUR["pids"]).write_text(str(os.getpid()), encoding="utf-8")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def terminated(*_: object) -> None:
        if BEHAVIOUR.get("deaf"):
            return
        say("signal 'terminated' received; attempting to shut down")
        say("Failed: received termination signal")
        os._exit(1)

    signal.signal(signal.SIGTERM, terminated)
    asked = options(program, arguments)
    if "junk" in BEHAVIOUR:
        sys.stdout.buffer.write(BEHAVIOUR["junk"].encode())
        return
    client = connect(asked.config)
    if program == "mongodump":
        dump(client, asked)
    else:
        restore(client, asked)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
