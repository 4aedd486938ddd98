"""The pure rules of speaking to registries."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain import errors
from tasks.domain.reference import ImageReference
from tasks.images.registry.address import Repository, label_of, repository_of
from tasks.images.registry.challenge import choose, join_scopes, parse_challenges
from tasks.images.registry.gzipping import gzipped
from tasks.images.registry.parts import Kept, in_parts
from tasks.images.registry.refusals import Answer, refusal

TABLES = Path(__file__).parent / "tables"


def table(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = yaml.safe_load((TABLES / f"{name}.yaml").read_text())
    return rows


@pytest.mark.parametrize("row", table("challenges"), ids=lambda row: str(row["lines"][0])[:40])
def test_challenges(row: dict[str, Any]) -> None:
    for lines in (row["lines"], [", ".join(row["lines"])]):  # several lines are one line with commas
        found = parse_challenges(lines)
        assert [[challenge.scheme, dict(challenge.parameters)] for challenge in found] == row["found"]
        chosen = choose(found)
        assert (chosen.scheme if chosen else None) == row["chosen"]


@given(st.lists(st.text()))
def test_any_line_is_taken(lines: list[str]) -> None:
    choose(parse_challenges(lines))


def test_scopes_are_joined() -> None:
    assert join_scopes(["repository:a/b:push,pull", "repository:c:pull", "repository:a/b:pull"]) == (
        "repository:a/b:pull,push",
        "repository:c:pull",
    )
    assert join_scopes(["repository:host:5000/a:pull", ""]) == ("repository:host:5000/a:pull",)


@pytest.mark.parametrize("row", table("refusals"), ids=lambda row: f"{row['status']} {row.get('body', '')[:40]}")
def test_refusals(row: dict[str, Any]) -> None:
    answer = Answer(row["status"], row.get("headers", {}), row.get("body", "").encode())
    error = refusal(answer, "registry:5000", "read the manifest of worker:1", user=row.get("user", ""))
    assert type(error) is getattr(errors, row["error"])
    assert answer.temporary is row.get("temporary", False)
    assert answer.wait == row.get("wait")
    assert row.get("says", "registry:5000") in str(error)
    assert error.happened.endswith(".")


@pytest.mark.parametrize(
    ("text", "host", "path", "label"),
    [
        ("nexus.local:5000/apinizercloud/worker:1", "nexus.local:5000", "apinizercloud/worker", "1"),
        ("apinizercloud/worker:1", "registry-1.docker.io", "apinizercloud/worker", "1"),
        ("index.docker.io/redis", "registry-1.docker.io", "library/redis", "latest"),
        ("docker.io/redis:7@sha256:" + "a" * 64, "registry-1.docker.io", "library/redis", "sha256:" + "a" * 64),
    ],
)
def test_where_a_reference_leads(text: str, host: str, path: str, label: str) -> None:
    reference = ImageReference.parse(text)
    at = repository_of(reference)
    assert (at.host, at.path, label_of(reference)) == (host, path, label)
    assert Repository.parse(str(at)) == at


# ---------------------------------------------------------------- streams
@given(st.lists(st.binary(max_size=3000)))
def test_gzip_reads_back_and_is_always_the_same(chunks: list[bytes]) -> None:
    made = b"".join(gzipped(chunks))
    assert gzip.decompress(made) == b"".join(chunks)
    assert made == b"".join(gzipped(chunks))
    assert zlib.decompressobj(31).decompress(made) == b"".join(chunks)
    assert made[4:8] == bytes(4), "no time"


@given(st.lists(st.binary(max_size=50)), st.integers(1, 20), st.data())
def test_parts_are_the_stream(chunks: list[bytes], size: int, data: st.DataObject) -> None:
    whole = b"".join(chunks)
    parts = list(in_parts(chunks, size))
    assert b"".join(piece for part in parts for piece in part.pieces) == whole
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert all(part.size == size for part in parts[:-1])
    assert 0 < parts[-1].size <= size or not whole
    assert [part.start for part in parts] == [number * size for number in range(len(parts))]
    part = data.draw(st.sampled_from(parts))
    at = data.draw(st.integers(part.start, part.end))
    assert b"".join(part.rest(at).pieces) == whole[at : part.end]
    assert part.rest(at).end == part.end


def test_a_stream_is_kept_up_to_its_limit() -> None:
    kept = Kept(10)
    for part, whole in zip(in_parts([bytes(25)], 5), [True, True, False, False, False], strict=True):
        kept.add(part)
        assert kept.whole is whole
        assert bool(kept.parts) is whole
