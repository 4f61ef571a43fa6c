#!/usr/bin/env python3
"""Writes the golden files, byte by byte from the layout tables in agent/src/format and agent/src/table.

Run once per format version (needs the packages blake3, cryptography, zstandard); never by the build. The Rust code has no part
in it: where the two disagree, read the table and find out who is wrong.
"""
import os
import struct
import zlib

import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MASTER = bytes(range(32))
KEY_FILE = bytes([0xA5]) * 32
UUID = bytes.fromhex("00112233445566778899aabbccddeeff")
DATA = "windlass 2025-11 v1: data key, frames of upload objects"
ROWS = "windlass 2025-11 v1: row key, row blocks, indexes and trailers"
WRAP = "windlass 2025-11 v1: key file, wraps the master key"
OBJECT_ID = struct.pack("<QIQI", 7, 3, 0x0102030405060708, 9)
FRAME, ROW_BLOCK, INDEX, TRAILER = 1, 2, 3, 4


def derive(context):
    return blake3(MASTER, derive_key_context=context).digest()


def seal(context, region, offset, header, body, sealed):
    """Returns (body, tag)."""
    name = OBJECT_ID + bytes(8)
    key = blake3(name, key=derive(context)).digest()
    nonce = bytes([region, 0, 0, 0]) + struct.pack("<Q", offset)
    aad = name + bytes([region]) + struct.pack("<Q", offset) + header
    if sealed:
        out = AESGCM(key).encrypt(nonce, body, aad)
        return out[:-16], out[-16:]
    mac = blake3(nonce + struct.pack("<Q", len(aad)) + aad + body, key=key).digest()
    return body, mac[:16]


def flags(sealed, zstd=False):
    return (1 if zstd else 0) | (2 if sealed else 0)


def frame(plain, offset, sealed, zstd=False):
    body = zstandard.ZstdCompressor(level=3).compress(plain) if zstd else plain
    header = b"WLFR" + struct.pack("<BBHII", 1, flags(sealed, zstd), 0, len(plain), len(body))
    body, tag = seal(DATA, FRAME, offset, header, body, sealed)
    return header + body + tag


def row_block(kind, rows, raw, offset, sealed):
    header = b"WLRB" + struct.pack("<BBBBIII", 1, flags(sealed), kind, 0, rows, len(raw), len(raw))
    body, tag = seal(ROWS, ROW_BLOCK, offset, header, raw, sealed)
    return header + body + tag


def v(number):
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def z(number):
    return v(2 * number if number >= 0 else -2 * number - 1)


# Two item rows: 5:12 of backup 3 (a file), then its deletion is not there but 5:14 of backup 4 is a deletion.
SIZE, NANOS, CTIME, BTIME, KIND_MODE, OWNER, LINKS = 1, 2, 4, 16, 128, 256, 512
DELETED, BACKUP, VOLUME, XATTRS = 1 << 12, 1 << 14, 1 << 15, 1 << 20
xattrs = v(1) + v(6) + b"user.a" + v(1) + b"x"
ITEMS = (
    v(SIZE | NANOS | CTIME | BTIME | KIND_MODE | OWNER | LINKS | BACKUP | VOLUME | XATTRS)
    + v(5) + v(12)  # volume, inode
    + z(3)  # backup
    + bytes([1]) + struct.pack("<H", 0o644)
    + v(1000) + v(100)
    + v(1)  # links
    + v(5000)  # size
    + z(1700000000) + struct.pack("<I", 123456789)  # mtime
    + z(1) + struct.pack("<I", 0)  # ctime
    + v(len(xattrs)) + xattrs
    + v(DELETED | BACKUP) + v(2) + z(1)
)
# Three item rows of backup 3 on XFS: 5:20 has hints, 5:21 the same ones, 5:22 none.
HINTS = 1 << 26
HINTED = (
    v(BTIME | KIND_MODE | LINKS | BACKUP | VOLUME | HINTS)
    + v(5) + v(20) + z(3) + bytes([2]) + struct.pack("<H", 0o755) + v(2)
    + z(1700000000)  # mtime, and all other times
    + v(0x1400) + v(1 << 20) + v(0)  # nosymlinks, extszinherit of 1 MiB
    + v(BTIME) + v(1) + z(0)
    + v(BTIME | HINTS) + v(1) + z(0) + v(0) + v(0) + v(0)
)
# A directory with a digest of its listing, and a file: 5:2 and 5:12 of backup 3.
PARENT, LISTING = 1 << 10, 1 << 27
LISTED = (
    v(KIND_MODE | LINKS | PARENT | BACKUP | VOLUME | LISTING)
    + v(5) + v(2) + z(3)
    + bytes([2]) + struct.pack("<H", 0o755)
    + v(3)  # links
    + z(1700000000)  # mtime
    + z(0) + struct.pack("<Q", 0x0123456789ABCDEF)  # parent, listing
    + v(SIZE | KIND_MODE | LINKS) + v(10) + bytes([1]) + struct.pack("<H", 0o644) + v(1) + v(7) + z(0)
)
# Deletions by backup 3, found at 1700000100: of a file, 5:12, and of a directory, 5:14, whose parent was 5:2; and one of an older program.
GONE = 1 << 28
DELETIONS = (
    v(DELETED | GONE | SIZE | NANOS | KIND_MODE | OWNER | BACKUP | VOLUME)
    + v(5) + v(12) + z(3)
    + bytes([1]) + struct.pack("<H", 0o644) + v(1000) + v(100) + v(5000)
    + z(1700000000) + struct.pack("<I", 5) + z(100)
    + v(DELETED | GONE | KIND_MODE | PARENT) + v(2)
    + bytes([2]) + struct.pack("<H", 0o755)
    + z(0) + z(100) + z(2 - 14)
    + v(DELETED) + v(1)
)
# Names of directory 5:2, backup 3: "apple" -> 12, "apply" -> 10.
NAMES = (
    v(0 << 4 | 1 | 2 | 4) + v(5) + v(2) + z(3) + v(5) + b"apple" + z(12)
    + v(4 << 4) + v(1) + b"y" + z(-2)
)
# One location row: 5:12, base 10, backup 3, blocks of 4096: stored, stored (next frame), zero; runs data 4096, hole 8192.
D1, D2 = bytes([0x11]) * 16, bytes([0x22]) * 16
LOCATIONS = (
    v(1) + OBJECT_ID
    + v(2 | 4 | 8 | 16 | 32 | 128) + v(5) + v(12) + z(3) + v(10) + v(4096) + v(3)
    + bytes([3 | 3 << 3]) + v(100) + v(2000) + D1  # elsewhere
    + bytes([3 | 1 << 3 | 1 << 6]) + v(1500) + v(77) + D2  # next frame, explicit length
    + bytes([1])
    + v(2) + bytes([0]) + v(4096) + bytes([1]) + v(8192)
)
# Entries: 5:12 block 4 and 5, backup 3: in one frame, one after the other.
ENTRIES = (
    v(1) + OBJECT_ID
    + v(2 | 4 | 8 | 16) + v(5) + v(12) + z(3) + v(4) + v(4096) + bytes([3 | 3 << 3]) + v(100) + v(9000) + D1
    + v(1) + bytes([3]) + D2
)


def key(volume, inode, base, backup, run=0, name=b""):
    return v(volume) + v(inode) + v(base) + v(backup) + v(run) + v(len(name)) + name


def tail(sealed):
    data = b"\xee" * 64
    out, index = b"", b""
    for kind, rows, raw, first, last in [
        (1, 2, ITEMS, key(5, 12, 0, 3), key(5, 14, 0, 4)),
        (2, 2, NAMES, key(5, 2, 0, 3, 0, b"apple"), key(5, 2, 0, 3, 0, b"apply")),
        (3, 1, LOCATIONS, key(5, 12, 10, 3), key(5, 12, 10, 3)),
        (4, 2, ENTRIES, key(5, 12, 4, 3), key(5, 12, 5, 3)),
    ]:
        block = row_block(kind, rows, raw, len(out), sealed)
        index += bytes([kind]) + v(len(block)) + v(rows) + first + last
        out += block
    header = b"WLIX" + struct.pack("<BBHIII", 1, flags(sealed), 0, 4, len(index), len(index))
    body, tag = seal(ROWS, INDEX, len(out), header, index, sealed)
    sealed_index = header + body + tag
    trailer = b"WLTRAIL1" + struct.pack("<HBBI", 1, 1, flags(sealed), 42) + OBJECT_ID
    trailer += struct.pack("<IIQQII", 3, 5, len(data), len(out), len(sealed_index), 4)
    trailer += struct.pack("<IIII", 2, 2, 1, 2) + bytes(20)
    trailer += struct.pack("<I", zlib.crc32(trailer))
    _, tag = seal(ROWS, TRAILER, 0, trailer, b"", sealed)
    return data + out + sealed_index + trailer + tag


def repo_format(sealed, lease=b""):
    slots, clear = b"", MASTER
    if sealed:
        head = bytes([1, 0, 0, 0]) + bytes(12) + bytes([0x77]) * 16
        kek = blake3(bytes([0x77]) * 16, key=blake3(KEY_FILE, derive_key_context=WRAP).digest()).digest()
        slots, clear = head + AESGCM(kek).encrypt(bytes(12), MASTER, UUID + head), bytes(32)
    identity = b"file:///srv/repo"
    total = 96 + len(slots) + len(identity) + len(lease) + 4
    out = b"WINDLASS" + struct.pack("<HBBI", 2 if lease else 1, 1 if sealed else 0, 10, total) + UUID
    out += struct.pack("<qBBH", 1763000000, 1 if sealed else 0, 0, len(identity)) + struct.pack("<H", len(lease)) + bytes(18)
    out += clear + slots + identity + lease
    return out + struct.pack("<I", zlib.crc32(out))


def home():
    out = b"WINDHOME" + struct.pack("<HH", 1, 0) + UUID
    return out + struct.pack("<I", zlib.crc32(out))


def segment_meta():
    out = OBJECT_ID + struct.pack("<IIIIQQQ", 5, 3, 4, 100, 12, 99, 5000)
    return out + struct.pack("<IIII", 2, 3, 4, 0) + struct.pack("<QQ", 7, 8)


PLAIN = b"windlass winds the rope in; " * 8
LEASE = b"etcd://host:2379/rack7"
FILES = {"segment_meta.bin": segment_meta(), "home.bin": home(), "items_listing.bin": LISTED, "items_gone.bin": DELETIONS}
for mode, sealed in [("clear", False), ("sealed", True)]:
    FILES[f"format_{mode}.bin"] = repo_format(sealed)
    FILES[f"format_lease_{mode}.bin"] = repo_format(sealed, LEASE)
    FILES[f"frame_{mode}.bin"] = frame(PLAIN, 4096, sealed)
    FILES[f"frame_zstd_{mode}.bin"] = frame(PLAIN, 4096, sealed, True)
    FILES[f"object_{mode}.bin"] = tail(sealed)
    FILES[f"items_hints_{mode}.bin"] = row_block(1, 3, HINTED, 0, sealed)
for name, content in FILES.items():
    with open(name, "wb") as file:
        file.write(content)

# Seeds of the fuzz corpora: the same bytes in the form that each target takes.
INDEX_ENTRY = bytes([1]) + v(100) + v(2) + key(5, 12, 0, 3) + key(5, 14, 0, 4)
SEEDS = {
    "format_repo": [repo_format(False), repo_format(True), repo_format(True, LEASE)],
    "frame": [frame(PLAIN, 0, False), frame(PLAIN, 0, False, True)],
    "row_block": [bytes([1, 2]) + ITEMS, bytes([2, 2]) + NAMES, bytes([3, 1]) + LOCATIONS, bytes([4, 2]) + ENTRIES],
    "tail": [bytes([1]) + INDEX_ENTRY + tail(False)[-128:], tail(True)[-128:]],
    "segment_meta": [segment_meta()],
}
for target, seeds in SEEDS.items():
    os.makedirs(f"../fuzz/corpus/{target}", exist_ok=True)
    for number, content in enumerate(seeds):
        with open(f"../fuzz/corpus/{target}/seed-{number}", "wb") as file:
            file.write(content)
