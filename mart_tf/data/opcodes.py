"""What a pickle would have its reader do, held against the file's size.

A few bytes of a pickle may ask for a table of gigabytes, or for years of
hashing: Python's reader does as it is told. The operations are looked at here
one by one, by Python's own parser of them, and none is carried out.
"""

import pickletools

# A pool takes some dozen; each makes an object of up to 64 bytes.
_MOST = 1_000_000
# Tuples in tuples: hashing goes as deep, on the stack of the processor.
_DEEPEST = 100
_UNBOUNDED = 2**62

_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GET = {"GET", "BINGET", "LONG_BINGET"}
_MARK = None
# An object as far as it matters here: the work of hashing it, and how many
# tuples lie in one another in it.
_PLAIN = (1, 0)


def check(file, size):
    """Refuses a pickle that asks for more than its size explains.

    Args:
        file: The file, open at its beginning.
        size: Its size in bytes.

    Raises:
        ValueError: If it does, naming it as "it holds ..."; or as
            `pickletools.genops`, if it is no pickle.
        LookupError: If it takes what it has not put.
    """
    stack, memo, hashed = [], {}, 0
    for number, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if number >= _MOST:
            raise TooMuch(f"more than {_MOST:,} operations")
        name = operation.name
        if name in _PUT:
            place = len(memo) if name == "MEMOIZE" else argument
            # Python makes room for all places up to this one.
            if place > number:
                raise TooMuch(f"place {place:,} of a table of {number:,}")
            memo[place] = stack[-1]
            continue
        if name in _GET:
            stack.append(memo[argument])
            continue
        if name == "DUP":
            stack.append(stack[-1])
            continue
        taken = _take(stack, operation)
        hashed += sum(work for work, _ in _hashed(name, taken))
        if hashed > max(size, 2**16):
            raise TooMuch("keys of tuples in tuples that repeat without end")
        if name in _TUPLES:
            work = 1 + sum(work for work, _ in taken)
            depth = 1 + max((depth for _, depth in taken), default=0)
            if depth > _DEEPEST:
                raise TooMuch(f"more than {_DEEPEST} tuples in one another")
            stack.append((min(work, _UNBOUNDED), depth))
        elif name == "MARK":
            stack.append(_MARK)
        elif operation.stack_after:
            # Of all else than tuples and large numbers Python keeps the hash.
            large = argument.bit_length() if isinstance(argument, int) else 0
            stack += [(1 + large // 8, 0)] * len(operation.stack_after)


class TooMuch(ValueError):
    """Names what a pickle of its size does not hold."""


def _take(stack, operation):
    """Takes from the stack what an operation takes, as pickletools.dis does."""
    before, taken = operation.stack_before, []
    count = len(before)
    to_mark = pickletools.markobject in before
    if to_mark or (operation.name == "POP" and stack and stack[-1] is _MARK):
        while (top := stack.pop()) is not _MARK:
            taken.append(top)
        count = before.index(pickletools.markobject) if to_mark else 0
    for _ in range(count):
        taken.append(stack.pop() or _PLAIN)
    return taken[::-1]


def _hashed(name, taken):
    """Those of an operation's objects that Python hashes."""
    if name == "SETITEM":
        return taken[1:2]
    if name == "SETITEMS":
        return taken[1::2]
    if name == "DICT":
        return taken[::2]
    if name == "ADDITEMS":
        return taken[1:]
    return taken if name == "FROZENSET" else []
