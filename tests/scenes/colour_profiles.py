"""ICC profiles made byte by byte, and the colour arithmetic that they stand for."""

from __future__ import annotations

import struct

import numpy as np

D65, D50 = np.array([0.95047, 1.0, 1.08883]), np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
GAMMA = 563 / 256  # of Adobe RGB


def to_xyz(primaries):
    """Return the (3, 3) matrix from linear RGB to XYZ under D65."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    return columns * np.linalg.solve(columns, D65)


def encode_srgb(linear):
    """Return 0..1 as sRGB encodes it (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def decode_srgb(encoded):
    """Return what sRGB encodes as 0..1."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def seen_through(rgb, primaries, encode):
    """Return the 8-bit numbers by which another space says an sRGB colour."""
    xyz = to_xyz(SRGB) @ decode_srgb(np.array(rgb) / 255)
    return np.rint(255 * encode(np.linalg.solve(to_xyz(primaries), xyz))).astype(np.uint8)


def rgb_profile(primaries, curve):
    """Return the bytes of a matrix profile, ICC.1:2001-04 section 6.3.1.2; `curve` decodes."""
    cone = BRADFORD @ D65, BRADFORD @ D50
    to_d50 = np.linalg.inv(BRADFORD) @ np.diag(cone[1] / cone[0]) @ BRADFORD
    columns = (to_d50 @ to_xyz(primaries)).T
    tags = {f"{c}XYZ": _xyz(column) for c, column in zip("rgb", columns, strict=True)}
    return _profile(b"RGB ", tags | {f"{c}TRC": _curve(curve) for c in "rgb"})


def grey_profile(curve):
    """Return the bytes of a monochrome profile, section 6.3.1.1."""
    return _profile(b"GRAY", {"kTRC": _curve(curve)})


def _xyz(values):
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * v) for v in values))


def _curve(decode):
    table = np.rint(65535 * decode(np.linspace(0, 1, 1024))).astype(int)
    return b"curv\0\0\0\0" + struct.pack(">I1024H", 1024, *table)


def _profile(space, tags):
    name = b"test\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(79)
    tags = {"desc": text, "cprt": b"text\0\0\0\0none\0", "wtpt": _xyz(D50)} | tags
    table, data, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for key, value in tags.items():
        value += bytes(-len(value) % 4)
        table += struct.pack(">4sII", key.encode(), offset + len(data), len(value))
        data += value
    body = struct.pack(">I", len(tags)) + table + data
    head = struct.pack(">I4sI4s4s4s", 128 + len(body), b"none", 0x02400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _xyz(D50)[8:]
    return head.ljust(128, b"\0") + body
