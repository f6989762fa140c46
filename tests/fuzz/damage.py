"""What is done to a good file: pieces cut, swapped, repeated, or replaced by what is hostile."""

from __future__ import annotations

from hypothesis import strategies as st

PIECES = [
    b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\x1b[31m", b"\xed\xb2\x80", b"[/x]", b"\r", b"\n\n",
    b"nan", b"inf", b"-inf", b"NaN", b"Infinity", b"1e999", b"-1", b"0", b"1.5", b"true", b"null",
    b'""', b"[]", b"{}", b"[[]]", b'{"a": 1}', b"9" * 400, b"9" * 5000, b"0x" + b"f" * 5000,
    b"[" * 2000, b"{" * 2000, b'{"a":' * 2000, b".".join([b"a"] * 2000), b"x" * 3000,
    b"9223372036854775808", b"1970-01-01", b"<bear>", b"<>", b"<" * 50, b"../../x", b"/dev/zero",
    b"~nobody", b"--", b"--seed", b"=", b",", b"#", b'"', b"'", b"\\", b"@", b";", b":",
    "\u202e\u0000ö😀".encode(),
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """Draw bytes that are near `good`, sometimes far from it."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.sampled_from([0, 0, 1, 1, 2, 5, 20, 1000])))
        kind = draw(st.integers(0, 9))
        if kind < 6:
            data[at:end] = draw(st.sampled_from(PIECES))
        elif kind == 6:
            data[at:end] = draw(st.binary(max_size=8))
        elif kind == 7:
            data[at:at] = data[at:end] * draw(st.sampled_from([1, 2, 50]))
        elif kind == 8:
            del data[at:]
        else:
            data[at:end] = data[at:end].swapcase()
    return bytes(data)


@st.composite
def damaged_json(draw: st.DrawFn, good: object) -> object:
    """Draw a value like `good`, one of whose parts is another one's, missing or hostile."""
    if draw(st.integers(0, 3)) == 0 or not isinstance(good, dict | list) or not good:
        return draw(
            st.sampled_from(
                [None, True, -1, 0, 1.5, 2**63, 1e308, "", "x", "[/x]", "\x1b[31m", "x" * 3000,
                 [], {}, [[]], {"": None}, [None], ["x"] * 50, {"a": {"a": {}}}]
            )
        )  # fmt: skip
    if isinstance(good, list):
        at = draw(st.integers(0, len(good) - 1))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            return [*good[:at], *good[at + 1 :]]
        if kind == 1:
            return [*good, good[at]]
        return [*good[:at], draw(damaged_json(good[at])), *good[at + 1 :]]
    key = draw(st.sampled_from(sorted(good)))
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return {name: value for name, value in good.items() if name != key}
    if kind == 1:
        return {**good, draw(st.sampled_from(["", "x", "[/x]", key.upper()])): good[key]}
    return {**good, key: draw(damaged_json(good[key]))}
