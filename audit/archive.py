"""The one zip layout of a bundle: stored, undated, in order, so that one content has one file.

Decides the bytes of the file. Because they follow from the members, any byte that differs, even in a
header that unzip ignores, is found. Readable by every zip program. Implements PKWARE APPNOTE 6.3,
method 0, without data descriptors, comments, extra fields or zip64. Pure.
"""

import struct
import zlib
from collections.abc import Mapping

from audit.faults import unverified

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_LOCAL_MARK, _CENTRAL_MARK, _END_MARK = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_VERSION, _UNIX = 20, 3 << 8
_DATE = 0x0021  # 1 January 1980, the earliest that the format knows
_MODE = 0o100644 << 16
MAX_MEMBERS = 65_534
MAX_BYTES = 2**32 - 2


def pack(members: Mapping[str, bytes]) -> bytes:
    """Return the archive of members, in their order; raise ValueError beyond what a zip holds."""
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"a bundle holds at most {MAX_MEMBERS} files")
    body, directory = bytearray(), bytearray()
    for name, data in members.items():
        encoded, offset = name.encode("ascii"), len(body)
        common = (0, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(encoded), 0)
        body += _LOCAL.pack(_LOCAL_MARK, _VERSION, *common) + encoded + data
        if len(body) > MAX_BYTES:
            raise ValueError("a bundle holds at most 4 GiB")
        directory += _CENTRAL.pack(
            _CENTRAL_MARK, _UNIX | _VERSION, _VERSION, *common, 0, 0, 0, _MODE, offset
        )
        directory += encoded
    end = _END.pack(_END_MARK, 0, 0, len(members), len(members), len(directory), len(body), 0)
    return bytes(body + directory) + end


def unpack(data: bytes) -> dict[str, bytes]:
    """Return the members without trusting a check sum: a changed member is still handed out.

    Raises:
        LocalFault: RNM-LEDGER-0001 the file is not laid out as a bundle.
    """
    members: dict[str, bytes] = {}
    offset = 0
    while data[offset : offset + 4] != _CENTRAL_MARK:
        if data[offset : offset + 4] != _LOCAL_MARK or offset + _LOCAL.size > len(data):
            raise _damaged(offset)
        fields = _LOCAL.unpack_from(data, offset)
        length, name_length = fields[8], fields[9]
        start = offset + _LOCAL.size + name_length
        name = data[offset + _LOCAL.size : start].decode("ascii", "replace")
        if start + length > len(data) or name in members:
            raise _damaged(offset)
        members[name] = data[start : start + length]
        offset = start + length
    return members


def check_layout(data: bytes, members: Mapping[str, bytes]) -> None:
    """Refuse a file that is not, byte for byte, what `pack` makes of its members."""
    expected = pack(members)
    if data != expected:
        pairs = enumerate(zip(data, expected, strict=False))
        first = next((i for i, (a, b) in pairs if a != b), min(len(data), len(expected)))
        raise _damaged(first)


def _damaged(offset: int) -> Exception:
    return unverified(
        "the bundle was refused",
        f"its zip structure was changed at byte {offset}, outside its files",
    )
