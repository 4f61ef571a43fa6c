#!/usr/bin/env python3
"""Writes log_slot_v1.bin: one slot with records 1 to 15, built from the layout tables alone (format/slot.rs, format/record.rs), with a BLAKE3
of its own; log_slot_damage_v1.bin, the same with records 16 and 17; log_slot_basis_v1.bin and log_slot_missing_v1.bin, with those that were given
more fields since; and log_slot_carrying.bin, the slot behind the first that carries it. Run it only together with a new version of the format:
python3 log_slot.py > log_slot_v1.bin; python3 log_slot.py damage > log_slot_damage_v1.bin; and so on"""
import struct
import sys

# BLAKE3, hash mode, from the specification; chunks joined as a left-balanced tree.
IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERM = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
M = 0xFFFFFFFF


def compress(cv, block, counter, length, flags):
    v = cv + IV[:4] + [counter & M, counter >> 32, length, flags]
    m = list(block)

    def rot(x, n):
        return (x >> n | x << 32 - n) & M

    def g(a, b, c, d, x, y):
        v[a] = (v[a] + v[b] + x) & M
        v[d] = rot(v[d] ^ v[a], 16)
        v[c] = (v[c] + v[d]) & M
        v[b] = rot(v[b] ^ v[c], 12)
        v[a] = (v[a] + v[b] + y) & M
        v[d] = rot(v[d] ^ v[a], 8)
        v[c] = (v[c] + v[d]) & M
        v[b] = rot(v[b] ^ v[c], 7)

    for _ in range(7):
        g(0, 4, 8, 12, m[0], m[1]); g(1, 5, 9, 13, m[2], m[3])
        g(2, 6, 10, 14, m[4], m[5]); g(3, 7, 11, 15, m[6], m[7])
        g(0, 5, 10, 15, m[8], m[9]); g(1, 6, 11, 12, m[10], m[11])
        g(2, 7, 8, 13, m[12], m[13]); g(3, 4, 9, 14, m[14], m[15])
        m = [m[i] for i in PERM]
    return [v[i] ^ v[i + 8] for i in range(8)]


def words(block):
    return struct.unpack("<16I", block.ljust(64, b"\0"))


def chunk(data, counter, root):
    cv = IV
    blocks = [data[i:i + 64] for i in range(0, len(data), 64)] or [b""]
    for i, block in enumerate(blocks):
        flags = (CHUNK_START if i == 0 else 0)
        if i == len(blocks) - 1:
            flags |= CHUNK_END | root
        cv = compress(cv, words(block), counter, len(block), flags)
    return cv


def tree(data, first, root):
    if len(data) <= 1024:
        return chunk(data, first, root)
    left = 1024
    while left * 2 < len(data):
        left *= 2
    a = tree(data[:left], first, 0)
    b = tree(data[left:], first + left // 1024, 0)
    return compress(IV, a + b, 0, 64, PARENT | root)


def blake3(data):
    return struct.pack("<8I", *tree(data, 0, ROOT))


assert blake3(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def u8(v): return struct.pack("<B", v)
def u16(v): return struct.pack("<H", v)
def u32(v): return struct.pack("<I", v)
def u64(v): return struct.pack("<Q", v)
def i64(v): return struct.pack("<q", v)
def text(v): return u32(len(v)) + v
def listing(values): return u32(len(values)) + b"".join(values)
def name(epoch, node, boot, count): return u64(epoch) + u32(node) + u64(boot) + u32(count)


segment = name(3, 4, 5, 1) + u32(1) + u32(1) + u32(2) + u32(500) + u64(2) + u64(900) + u64(70000) + b"".join(map(u32, [11, 12, 13, 0])) + bytes(16)
records = [
    (1, u64(3)),
    (3, text(b"homes") + u32(1) + text(b'{"keep":7}') + listing([u32(1) + text(b"/dev/vg/homes"), u32(2) + text(b"/dev/vg/mail")])),
    (5, u32(1) + text(b"homes") + listing([u32(1) + b"\xAA" * 16 + u8(1) + b"\xBB" * 16, u32(2) + b"\xCC" * 16 + u8(0)]) + i64(1700000000000000000)),
    (6, u32(1) + listing([name(3, 4, 5, 0) + u64(16777216)]) + listing([segment]) + listing([name(2, 4, 9, 7)]) + listing([u32(1) + u64(2) + u64(0) + u64(901) + u64(3)]) + b"".join(map(u64, range(100, 110)))),
    (7, u32(1) + i64(-1)),
    (8, u32(9)),
    (9, u32(8)),
    (10, listing([name(1, 1, 1, 1), name(1, 1, 1, 2)])),
    (11, u64(2)),
    (12, u64(0x1122334455667788) + u32(6)),
    (13, u64(0x1122334455667788) + u64(2)),
    (14, u64(0x1122334455667788)),
    (15, u64(256) + bytes(range(16)) + bytes(range(32))),
    (4, text(b"homes") + u32(2)),
    (2, u8(1) + u32(7)),
    (2, u8(0)),
]
if sys.argv[1:] == ["damage"]:
    runs = lambda values: listing([name(3, 4, 5, first) + u32(last) for first, last in values])
    points = lambda values: listing([u32(value) for value in values])
    records = [
        (16, runs([(1, 3), (9, 9)]) + runs([(6, 6)]) + runs([]) + points([1, 2]) + points([7])),
        (17, i64(5) + text(b"seg/1")),
        (17, i64(6) + text(b"")),
    ]
basis = b"\xDD" * 16 + u64(1 << 40) + b"\xEE" * 16
if sys.argv[1:] == ["basis"]:
    volumes = [u32(1) + b"\xAA" * 16 + u8(3) + b"\xBB" * 16 + basis, u32(2) + b"\xCC" * 16 + u8(2) + basis, u32(3) + b"\xCC" * 16 + u8(4) + i64(-2)]
    records = [
        (5, u32(1) + text(b"homes") + listing(volumes) + i64(1700000000000000000)),
        (6, records[3][1] + i64(1700000001)),
    ]
if sys.argv[1:] == ["missing"]:
    fields = u32(1) + text(b"homes") + listing([u32(1) + b"\xAA" * 16 + u8(0)]) + i64(1700000000000000000)
    records = [(5, fields + listing([u32(2), u32(9)]))]


def slot_of(number, nonce, previous, records):
    body = b"".join(u8(kind) + u32(len(fields)) + fields for kind, fields in records)
    slot = b"WLSL" + u16(1) + u16(0) + bytes(range(1, 17)) + u64(number) + u64(3) + u32(4) + u32(0) + u64(5)
    slot += nonce + previous + u32(len(body)) + body
    return slot + blake3(slot)


slot = slot_of(300, bytes(range(16, 32)), bytes(range(32, 64)), records)
if sys.argv[1:] == ["carrying"]:
    slot = slot_of(301, bytes(range(17, 33)), slot[-32:], [(14, u64(9))]) + slot
sys.stdout.buffer.write(slot)
