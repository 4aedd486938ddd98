"""Whether an archive is of this installation: the judge by a table (tables/kinship.yaml), the look-up on a server."""

import uuid
from pathlib import Path
from typing import Any

import bson
import pytest
import yaml
from bson import Binary, ObjectId
from pymongo import MongoClient

from tasks.database.element import id_of
from tasks.database.kinship import IdSampler, Kinship, Sample, family_of, judge, look_up
from tasks.database.listing import identities

Client = MongoClient[dict[str, Any]]
RANDOM_UUID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
CASES = yaml.safe_load((Path(__file__).parent / "tables" / "kinship.yaml").read_text())


def made_by(process: int, *, count: int, start: int = 0) -> list[dict[str, Any]]:
    """Documents whose ObjectIds one process made."""
    return [
        {"_id": ObjectId(f"6b02ed81{process:010x}{number:06x}"), "name": f"proxy {number}"}
        for number in range(start, start + count)
    ]


def sampled(**collections: list[dict[str, Any]]) -> IdSampler:
    sampler = IdSampler()
    for name, documents in collections.items():
        sampler.add(name, b"".join(map(bson.encode, documents)))
    return sampler


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_verdicts(case: dict[str, Any]) -> None:
    samples = [Sample(f"{n}", asked, found) for n, (asked, found) in enumerate(case.pop("samples"))]
    verdict, _ = case.pop("verdict"), case.pop("name")
    assert judge(samples, **case).kinship == Kinship(verdict)


@pytest.mark.parametrize(
    ("value", "family"),
    [
        (ObjectId("6b02ed8167d2329a4fcda052"), "67d2329a4f"),
        ("6b02ed8167d2329a4fcda052", "67d2329a4f"),
        (Binary.from_uuid(uuid.UUID(RANDOM_UUID)), "uuid c"),
        (RANDOM_UUID, "uuid c"),
        ("00000000-0000-0000-0000-000000000001", ""),
        (1, ""), ("schema", ""), ({"a": ObjectId()}, ""), (Binary(b"x" * 16), ""),
    ],
)  # fmt: skip
def test_origins(value: Any, family: str) -> None:
    assert family_of(id_of(bson.encode({"_id": value})), "c") == family


def test_samples_are_spread_and_bounded() -> None:
    sampler = IdSampler()
    documents = made_by(1, count=40_000)
    for start in range(0, len(documents), 400):
        sampler.add("big", b"".join(map(bson.encode, documents[start : start + 400])))
    sampler.add("apinizer_log", bson.encode(documents[0]))
    sampler.add("small", bson.encode(documents[0]))
    sampler.add("numbers", bson.encode({"_id": 1}))
    places = [int.from_bytes(found.value[9:], "big") for found in sampler.ids["big"]]
    assert 20 < len(places) <= 64
    assert places[0] < 4000
    assert places[-1] > 36_000
    assert len(sampler.ids["small"]) == 1
    assert not sampler.ids["numbers"]
    assert "apinizer_log" not in sampler.ids


def test_the_same_database_later(client: Client) -> None:
    proxies, users = made_by(1, count=50), made_by(2, count=10)
    archive = sampled(proxy=proxies, user=users, gone=made_by(3, count=10))
    client.kin.proxy.insert_many(proxies[5:] + made_by(4, count=100))
    client.kin.user.insert_many(users)
    assert look_up(client, "kin", archive.ids, {}).kinship is Kinship.SAME


def test_another_installation_of_the_same_release(client: Client) -> None:
    brought = made_by(9, count=20)
    archive = sampled(
        role=brought,
        proxy=made_by(1, count=30) + made_by(2, count=30),
        user=made_by(3, count=5),
        key=made_by(5, count=9),
    )
    client.kin.role.insert_many(brought)
    client.kin.proxy.insert_many(made_by(11, count=30))
    client.kin.user.insert_many(made_by(12, count=5))
    client.kin.key.insert_many(made_by(13, count=9))
    judgement = look_up(client, "kin", archive.ids, {})
    assert judgement.kinship is Kinship.OTHER, judgement


def test_an_empty_database_and_a_known_uuid(client: Client) -> None:
    archive = sampled(proxy=made_by(1, count=50))
    assert look_up(client, "kin", archive.ids, {}).kinship is Kinship.UNKNOWN
    client.kin.create_collection("proxy")
    empty = look_up(client, "kin", archive.ids, {"proxy": ""})
    assert empty.kinship is Kinship.UNKNOWN
    assert "no documents" in empty.reason
    with client.start_session() as session:
        known = identities(client, session, "kin")["proxy"][0]
    assert known
    assert look_up(client, "kin", archive.ids, {"proxy": known}).kinship is Kinship.SAME
