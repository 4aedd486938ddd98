"""What a pax header says of the file behind it (POSIX.1-2008, pax, "pax Extended Header").  Pure."""


class ArchiveError(Exception):
    """The bytes are no tar archive; the text says where and why."""


def pax_records(content: bytes) -> dict[str, str]:
    """The records of a header, `LENGTH KEY=VALUE\\n` each, the length being the whole record's; raise `ArchiveError`."""
    records: dict[str, str] = {}
    at = 0
    while at < len(content):
        blank = content.find(b" ", at)
        length = whole_number(content[at:blank].decode("ascii", "replace")) if blank > at else 0
        record = content[blank + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if length <= blank - at or len(record) != at + length - blank - 1 or not record.endswith(b"\n") or not equals:
            raise ArchiveError("a pax header that is not as POSIX has it")
        records[_text(key)] = _text(value)
        at += length
    if "size" in records:
        whole_number(records["size"])
    if any(key.startswith("GNU.sparse") for key in records):
        raise ArchiveError("a sparse file")
    return records


def whole_number(text: str) -> int:
    """A number of at most 18 digits; raise `ArchiveError` for anything else."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ArchiveError(f"{text[:40]!r} where a number is expected")
    return int(text)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")
