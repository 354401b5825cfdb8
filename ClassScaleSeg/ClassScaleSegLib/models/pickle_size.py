"""Refuse pickles of a few kilobytes that keep ``torch.load`` busy for ever, or use up the stack of the process.

``weights_only=True`` runs no code, but it makes any tuples and uses them as keys. The hash of a tuple that contains the
same tuple twice, sixty times over, takes for ever; that of tuples nested a million times deep ends the process. Here a
pickle is followed without making anything of it: only how large and how deep each value would be.
"""

from __future__ import annotations

from ..errors import ModelError

MAX_PICKLE = 128 << 20  # bytes; 1000 epochs with the Dice of 1000 classes take 25 MB
_MAX_DEPTH = 1000  # of tuples and lists in each other; more than 8 MiB of stack are used up at some ten thousand
_MAX_HASHED = 50_000_000  # values in all keys together, those in tuples counted each time; some seconds
_MAX_VALUES = 500_000_000  # in the whole, where what is shared counts each time, as it is printed or compared
_MAX_CONTAINERS = 5_000_000  # lists and dictionaries, and tuples with these in them
_MAX_LARGE_KEYS = 10_000  # keys that can be chosen so that their hashes are the same
_SMALL_INTEGER = 9  # bytes; all hashes of larger ones can be the same
_TOO_LARGE = 1 << 50  # more is not counted
_DEPTH_BITS = 10  # of the number that stands for a tuple
_EMPTY = (None, 1 << _DEPTH_BITS | 1)  # what stands for the tuple without values


def _by_operation(*groups: tuple[bytes, int]) -> list[int]:
    found = [-1] * 256
    for operations, value in groups:
        for operation in operations:
            found[operation] = value
    return found


# bytes of the argument after each operation that torch knows; -1: not known
_ARGUMENT = _by_operation(
    (b"(tl]}).NRbusaec\x85\x86\x87\x88\x89Q0\x81\x8f\x90", 0),
    (b"hqKU\x8aC\x80", 1),
    (b"M", 2),
    (b"jrJXTB\x8b", 4),
    (b"G", 8),
)
_PLAIN, _TEXT, _GET, _PUT, _TUPLE, _CALL, _MARK, _MARKED, _ONE, _NEW, _NAME, _OTHER = range(12)
# what it does; of those with a text, the argument is the length of the text
_KIND = _by_operation(
    (b"NKMJG)\x88\x89", _PLAIN), (b"UC\x8aXTB\x8b", _TEXT), (b"hj", _GET), (b"qr", _PUT), (b"\x85\x86\x87", _TUPLE),
    (b"R\x81", _CALL), (b"(", _MARK), (b"tlue\x90", _MARKED), (b"sab", _ONE), (b"]}\x8f", _NEW), (b"c", _NAME),
)  # fmt: skip

# A value on the stack: None if it is a text or number; a number if it is a tuple of these, or of such tuples: how many
# values would be hashed, and in the last bits its depth; and else a container.


class _Container:
    """A list, a dictionary or a set; or a tuple that contains one.

    :ivar values: in it, without those in the containers in it.
    :ivar inside: these containers.
    """

    __slots__ = ("depth", "hashed", "inside", "values")

    def __init__(self, items: list) -> None:
        self.inside: list[_Container] = []
        self.values, self.hashed, self.depth = 1, 1, 1
        self.add(items)

    def add(self, items: list) -> None:
        """Add values, as the pickle has them now; what is added to those later does not count here."""
        self.values += len(items)
        self.hashed += len(items)
        for item in items:
            if item is not None:
                self._add_compound(item)
        if self.depth > _MAX_DEPTH:
            raise _refused(f"its values are nested more than {_MAX_DEPTH} deep")

    def _add_compound(self, item: int | _Container) -> None:
        if isinstance(item, int):
            hashed = item >> _DEPTH_BITS
            self.values = min(_TOO_LARGE, self.values + hashed)
        else:
            self.inside.append(item)
            hashed = item.hashed
        self.hashed = min(_TOO_LARGE, self.hashed + hashed)
        self.depth = max(self.depth, 1 + _depth(item))


def _depth(item: int | _Container) -> int:
    return item & ((1 << _DEPTH_BITS) - 1) if isinstance(item, int) else item.depth


def check_pickles(content: bytes, count: int) -> None:
    """Check pickles that follow each other, in a form that ``torch.load(weights_only=True)`` reads.

    What torch does not know ends the check: torch refuses it there.

    :raises ModelError: if one of them would take for ever to read or to look at.
    """
    end: int | None = 0
    for _ in range(count):
        end = None if end is None else follow(content, end)


def follow(content: bytes, start: int) -> int | None:
    """Follow one pickle.

    :returns: where it ends; ``None`` if it has no end, or takes what is not there.
    :raises ModelError: as `check_pickles`.
    """
    counts, place = _Counts(), start
    stack: list = []
    marked: list[list] = []
    memo: dict[int, None | int | _Container] = {}
    try:
        while (operation := content[place]) != 46:  # a full stop
            size = _ARGUMENT[operation]
            if size < 0:
                return None
            place += 1
            number = int.from_bytes(content[place : place + size], "little") if size else 0
            place += size
            kind = _KIND[operation]
            if kind == _PLAIN:
                stack.append(None)
            elif kind == _PUT:
                memo[number] = stack[-1]
            elif kind == _GET:
                stack.append(memo[number])
            elif kind == _TEXT:
                place += number
                stack.append(None)
                if number > _SMALL_INTEGER and operation in b"\x8a\x8b":
                    counts.large_key()
            elif kind == _TUPLE:
                length = operation - 0x84
                stack[-length:] = [counts.tuple(stack[-length:])]
            elif kind == _CALL:  # a function and its arguments: a set hashes what is in these
                arguments = stack.pop()
                counts.hashed(arguments)
                if arguments in _EMPTY:  # what is filled later, such as an OrderedDict
                    stack[-1] = counts.container([])
                else:  # the arguments of a number are not kept
                    stack[-1] = arguments if isinstance(arguments, _Container) or _depth(arguments or 0) > 1 else None
            elif kind == _MARK:
                marked.append(stack)
                stack = []
            elif kind == _MARKED:
                items, stack = stack, marked.pop()
                counts.marked(chr(operation), items, stack)
            elif kind == _ONE:
                items = stack[-2:] if operation == 115 else stack[-1:]  # a key and its value, an item, or a state
                del stack[-len(items) :]
                counts.marked("u" if operation == 115 else "e", items, stack)
            elif kind == _NEW:
                stack.append(counts.container([]))
            elif kind == _NAME:  # two names, each with a line of its own
                place = content.index(b"\n", content.index(b"\n", place) + 1) + 1
                stack.append(None)
            elif operation == 81:  # a storage
                stack[-1] = None
            elif operation == 48:  # one is dropped
                stack.pop()
        _check_whole(stack[-1])
    except (IndexError, KeyError, ValueError):
        return None
    return place + 1


class _Counts:
    """What a pickle has too many of."""

    def __init__(self) -> None:
        self._hashed = self._large_keys = self._containers = 0

    def container(self, items: list) -> _Container:
        self._containers += 1
        if self._containers > _MAX_CONTAINERS:
            raise _refused("it has too many lists")
        return _Container(items)

    def tuple(self, items: list) -> int | _Container:
        """Return what stands for a tuple."""
        compound = [item for item in items if item is not None]
        if not compound:
            return (len(items) + 1) << _DEPTH_BITS | 1
        if any(isinstance(item, _Container) for item in compound):
            return self.container(items)
        hashed = min(_TOO_LARGE, len(items) + 1 + sum(item >> _DEPTH_BITS for item in compound))
        depth = 1 + max(map(_depth, compound))
        if depth > _MAX_DEPTH:
            raise _refused(f"its values are nested more than {_MAX_DEPTH} deep")
        return hashed << _DEPTH_BITS | depth

    def marked(self, operation: str, items: list, stack: list) -> None:
        """Make a tuple or list of items, or add items, or keys and values, to the last one of the stack."""
        if operation == "t":
            stack.append(self.tuple(items))
        elif operation == "l":
            stack.append(self.container(items))
        else:
            for key in items[::2] if operation == "u" else items if operation == "\x90" else ():
                if key is not None:
                    self.hashed(key)
                    self.large_key()
            if isinstance(stack[-1], _Container):
                stack[-1].add(items)

    def hashed(self, found: None | int | _Container) -> None:
        if found is not None:
            self._hashed += found >> _DEPTH_BITS if isinstance(found, int) else found.hashed
            if self._hashed > _MAX_HASHED:
                raise _refused("its keys contain too many values")

    def large_key(self) -> None:
        self._large_keys += 1
        if self._large_keys > _MAX_LARGE_KEYS:
            raise _refused("too many of its keys are no text")


def _check_whole(root: None | int | _Container) -> None:
    """Refuse a value that contains itself, or too many values if what is shared counts each time."""
    total: dict[int, int] = {}
    path: set[int] = set()
    stack = [root] if isinstance(root, _Container) else []
    while stack:
        node = stack[-1]
        if id(node) in total:
            stack.pop()
        elif id(node) in path:
            stack.pop()
            path.discard(id(node))
            total[id(node)] = min(_TOO_LARGE, node.values + sum(total[id(item)] for item in node.inside))
            if total[id(node)] > _MAX_VALUES:
                raise _refused("it contains the same values too often")
        else:
            path.add(id(node))
            if len(path) > _MAX_DEPTH:
                raise _refused(f"its values are nested more than {_MAX_DEPTH} deep")
            for item in node.inside:
                if id(item) in path:
                    raise _refused("a value contains itself")
                if id(item) not in total:
                    stack.append(item)


def _refused(why: str) -> ModelError:
    return ModelError(f"It would take for ever to read: {why}. It was not opened.")
