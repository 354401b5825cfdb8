"""Pickles that are dangerous without running anything."""

from __future__ import annotations

import pickle


def bombs() -> dict[str, bytes]:
    """Pickles of kilobytes that Python's unpickler would be busy with for ever, or would not survive."""
    mark, tuple1, tuple2, dup = pickle.MARK, pickle.TUPLE1, pickle.TUPLE2, pickle.BINPUT + b"\x00" + pickle.BINGET
    encode = pickle.GLOBAL + b"_codecs\nencode\n"
    hexed = b"".join(
        encode
        + pickle.BINGET
        + b"\x01"
        + pickle.BINUNICODE
        + b"\x03\x00\x00\x00hex"
        + tuple2
        + pickle.REDUCE
        + pickle.BINPUT
        + b"\x01"
        for _ in range(60)
    )
    text = pickle.BINUNICODE + (1 << 16).to_bytes(4, "little") + b"x" * (1 << 16)
    shared = text + pickle.BINPUT + b"\x00"
    for _ in range(6):
        shared += pickle.BINPUT + b"\x00" + pickle.EMPTY_LIST + mark + (pickle.BINGET + b"\x00") * 200 + pickle.APPENDS
    config = pickle.BINUNICODE + b"\x06\x00\x00\x00config" + pickle.EMPTY_DICT
    config += pickle.BINUNICODE + b"\x07\x00\x00\x00network"
    numbers = [(n * (2**61 - 1)).to_bytes(10, "little") for n in range(1, 40_000)]
    keys = [pickle.LONG1 + b"\x0a" + number + pickle.NONE for number in numbers]
    ordered = pickle.GLOBAL + b"collections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE
    a, b = (pickle.BINUNICODE + b"\x01\x00\x00\x00" + letter for letter in (b"a", b"b"))
    doubled = ordered
    for number in (bytes([n]) for n in range(60)):
        first = a + doubled + pickle.BINPUT + number + pickle.SETITEM
        doubled = ordered + first + b + pickle.BINGET + number + pickle.SETITEM
    state = pickle.BINUNICODE + b"\x0a\x00\x00\x00state_dict" + pickle.EMPTY_DICT + pickle.SETITEM
    return {
        "a deep key": pickle.EMPTY_DICT + pickle.EMPTY_TUPLE + tuple1 * 1_000_000 + pickle.NONE + pickle.SETITEM,
        "a key that doubles": pickle.EMPTY_DICT + pickle.EMPTY_TUPLE + (dup + b"\x00" + tuple2) * 60 + pickle.NONE
        + pickle.SETITEM,
        "a deep set": pickle.GLOBAL + b"__builtin__\nset\n" + pickle.EMPTY_LIST + pickle.EMPTY_TUPLE
        + tuple1 * 1_000_000 + pickle.APPEND + tuple1 + pickle.REDUCE,
        "hex of hex": text + pickle.BINPUT + b"\x01" + hexed,
        "keys of one hash": pickle.EMPTY_DICT + mark + b"".join(keys) + pickle.SETITEMS,
        "lists that share lists": pickle.EMPTY_DICT + config + shared + pickle.SETITEM + pickle.SETITEM + state,
        "a deep list": pickle.EMPTY_LIST * 1_000_000 + pickle.APPEND * 999_999,
        "deep ordered dictionaries": (ordered + a) * 50_000 + pickle.NONE + pickle.SETITEM * 50_000,
        "ordered dictionaries that double": doubled,
        "an ordered dictionary in itself": ordered + pickle.BINPUT + b"\x00" + a + pickle.BINGET + b"\x00"
        + pickle.SETITEM,
        "a list in itself": pickle.EMPTY_LIST + pickle.BINPUT + b"\x00" + pickle.BINGET + b"\x00" + pickle.APPEND,
    }  # fmt: skip
