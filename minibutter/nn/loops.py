"""How many cache lines a nest of loops moves, by reasoning instead of simulation.

A nest is a tree: a `Loop` has a count and a body of loops and uses; a `Use` says which array is
touched, how far a step of each loop moves in it, and what the processor reads and writes. The rule:
*a loop finds in the cache what its iterations share if all that one iteration touches fits*;
otherwise every iteration starts anew. So reasons the literature on layer conditions (Stengel,
Treibig, Hager, Wellein 2015, ICS, section 4); it is exact for a fully associative cache that drops
the least recently used line, as long as no working set lies near its size.

Parts that follow each other share arrays as a whole: an array that a part touches is still there
if what was touched since its last use fits with it.

Counts may be fractions: blocks of unequal sizes are given by their mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

LINE_BYTES = 64

_MATTERS = 0.02  # of all lines that are moved: decisions for less are not counted as near


@dataclass(frozen=True)
class Use:
    """A part of an array that is touched at once.

    Attributes
    ----------
    array : its name.
    extent : contiguous bytes.
    steps : bytes by which a step of a loop moves on, by the loop's name; 0 where it is missing.
    read, written : bytes that the processor moves.
    """

    array: str
    extent: float
    steps: dict[str, float] = field(default_factory=dict)
    read: float = 0.0
    written: float = 0.0


@dataclass(frozen=True)
class Loop:
    """A loop around loops and uses; the name is that of its variable."""

    name: str
    count: float
    body: tuple["Loop | Use", ...]


Part = tuple["Loop | Use", ...]
"""What is done one after the other."""


class Cache(NamedTuple):
    """A level as this reasoning sees it.

    Attributes
    ----------
    lines : capacity.
    sets : into which lines fall by the low bits of their number; 1 where any line may lie
        anywhere. They decide nothing, but a working set that crowds few of them counts as near.
    """

    lines: float
    sets: int = 1


class Touched(NamedTuple):
    """What a part does to an array, in a cache that is empty before and flushed behind.

    Attributes
    ----------
    lines : different ones.
    fetched : lines that come from the next level.
    written_back : lines that go there.
    window : lines of all arrays that are touched while this one is walked through once.
    """

    lines: float
    fetched: float
    written_back: float
    window: float

    @property
    def is_written(self) -> bool:
        """Whether the part leaves lines that must be written back."""
        return self.written_back > 0


class Margin:
    """How near the closest working set that decides anything came to a cache's size.

    Attributes
    ----------
    factor : the larger of the two divided by the smaller; at least 1.
    """

    def __init__(self) -> None:
        self.factor = math.inf

    def note(self, lines: float, capacity: float, changed: float, of: float) -> None:
        """A working set was compared; the other outcome would move so many lines more or less."""
        if changed > _MATTERS * of and lines > 0:
            self.factor = min(self.factor, max(lines / capacity, capacity / lines))


def moved_bytes(part: Part) -> tuple[float, float]:
    """Bytes that the processor reads and writes."""
    read = written = 0.0
    for node in part:
        if isinstance(node, Use):
            read, written = read + node.read, written + node.written
        else:
            inner = moved_bytes(node.body)
            read, written = read + node.count * inner[0], written + node.count * inner[1]
    return read, written


def footprint(part: Part, sets: int = 1) -> dict[str, float]:
    """Different lines of every array; with sets, as many as would crowd all of them as much."""
    lines: dict[str, float] = {}
    _collect(part, (), sets, lines)
    return lines


def _collect(part: Part, around: tuple[Loop, ...], sets: int, lines: dict[str, float]) -> None:
    for node in part:
        if isinstance(node, Loop):
            _collect(node.body, (*around, node), sets, lines)
        else:
            # Uses of one array in one part are of the same region.
            n = _count_lines(node, around, sets)
            lines[node.array] = max(lines.get(node.array, 0.0), n)


def _count_lines(use: Use, around: tuple[Loop, ...], sets: int) -> float:
    """Lines of a use within loops: the steps make runs longer, or make more of them."""
    steps = sorted(
        (use.steps[loop.name], loop.count)
        for loop in around
        if use.steps.get(loop.name) and loop.count > 1
    )
    run, pieces, places, is_aligned = use.extent, 1.0, 1.0, True
    for step, count in steps:
        if pieces == 1 and step <= max(run, LINE_BYTES):
            run += (count - 1) * step
        else:
            pieces *= count
            is_aligned = is_aligned and step % LINE_BYTES == 0
            period = sets * LINE_BYTES
            places *= min(count, period // math.gcd(round(step), period))
    if pieces == 1 or is_aligned:
        of_run = math.ceil(run / LINE_BYTES)
    else:
        # Runs begin anywhere in a line, in steps of a number.
        of_run = (run + LINE_BYTES - min(use.extent, LINE_BYTES)) / LINE_BYTES
    lines = pieces * of_run
    reached = min(places * math.ceil(of_run), sets)
    return lines * sets / reached if sets > 1 and lines > reached else lines


def analyse(part: Part, cache: Cache, margin: Margin) -> dict[str, Touched]:
    """What a part does to every array.

    Updates: margin.
    """
    lines = footprint(part)
    moved = _moved(part, cache, margin)
    return {array: Touched(lines[array], *moved[array], _window(part, array)) for array in lines}


def _moved(part: Part, cache: Cache, margin: Margin) -> dict[str, tuple[float, float]]:
    """Lines of every array that are fetched and written back."""
    if len(part) > 1:
        return sum_moved(follow([analyse((node,), cache, margin) for node in part], cache, margin))
    (node,) = part
    lines = footprint(part)
    if isinstance(node, Use):
        n = lines[node.array]
        return {node.array: (n, n if node.written else 0.0)}
    written = _written(part)
    shared = {array: (n, n if array in written else 0.0) for array, n in lines.items()}
    if node.count <= 1:
        return _moved(node.body, cache, margin)
    bodies = [analyse((child,), cache, margin) for child in node.body]
    once = sum_moved(follow(bodies, cache, margin))
    # What no step of the loop moves on in may still be there from the iteration before.
    same = [
        {array: use for array, use in body.items() if not _depends(node, array)} for body in bodies
    ]
    again = sum_moved(follow(bodies, cache, margin, before=same))
    anew = {
        array: tuple(
            max(first + (node.count - 1) * more, least)
            for first, more, least in zip(once[array], again[array], shared[array], strict=True)
        )
        for array in lines
    }
    total = node.count * sum(fetched for fetched, _ in once.values())
    gained = total - sum(lines.values())
    for working_set in (
        sum(footprint(node.body).values()),
        sum(footprint(node.body, cache.sets).values()),
    ):
        margin.note(working_set, cache.lines, gained, total)
    return shared if sum(footprint(node.body).values()) <= cache.lines else anew


def _written(part: Part) -> set[str]:
    found = set()
    for node in part:
        if isinstance(node, Loop):
            found |= _written(node.body)
        elif node.written:
            found.add(node.array)
    return found


def _window(part: Part, array: str) -> float:
    """Lines touched by the innermost part that walks through all of the array."""
    while True:
        users = [node for node in part if array in footprint((node,))]
        if len(part) > 1 and len(users) == 1:
            part = (users[0],)
        elif len(part) == 1 and isinstance(part[0], Loop) and not _depends(part[0], array):
            part = part[0].body
        else:
            return sum(footprint(part).values())


def _depends(loop: Loop, array: str) -> bool:
    """Whether a step of the loop moves on in the array."""

    def moves(part: Part) -> bool:
        return any(
            moves(node.body)
            if isinstance(node, Loop)
            else node.array == array and bool(node.steps.get(loop.name))
            for node in part
        )

    return loop.count > 1 and moves(loop.body)


# ---------------------------------------------------------------------------------------------
# Parts that follow each other

Moved = dict[str, tuple[float, float]]
"""Lines of every array that a part fetches from the next level, and that are written back."""


def follow(
    parts: Sequence[dict[str, Touched]],
    cache: Cache,
    margin: Margin,
    before: Sequence[dict[str, Touched]] = (),
) -> list[Moved]:
    """What every part moves, given what the parts before it have left in the cache.

    Parameters
    ----------
    parts : from `analyse`.
    cache : the level.
    margin : is updated.
    before : parts that came earlier and are not counted; with none the cache is empty.
    """
    history = [*before, *parts]
    last_use: dict[str, int] = {}
    is_dirty: dict[str, bool] = {}
    moved = []
    total = sum(touched.fetched for part in parts for touched in part.values())
    for position, part in enumerate(history):
        is_counted = position >= len(before)
        row: Moved = {}
        for array, touched in part.items():
            fetched, written_back = touched.fetched, touched.written_back
            was_dirty = False
            if array in last_use:
                earlier = history[last_use[array]][array]
                shared = min(touched.lines, earlier.lines)
                between = {
                    other: use.lines
                    for middle in history[last_use[array] + 1 : position]
                    for other, use in middle.items()
                    if other != array
                }
                distance = (earlier.window + touched.window) / 2 + sum(between.values())
                if is_counted:
                    margin.note(distance, cache.lines, shared, total)
                if distance <= cache.lines:
                    was_dirty = is_dirty[array]
                    fetched = max(fetched - shared, 0.0)
                    if was_dirty and touched.is_written:
                        written_back = max(written_back - shared, 0.0)
            is_dirty[array] = touched.is_written or was_dirty
            row[array] = fetched, written_back
        last_use |= dict.fromkeys(part, position)
        if is_counted:
            moved.append(row)
    return moved


def sum_moved(moved: Sequence[Moved]) -> Moved:
    """Lines of every array over all parts."""
    total: Moved = {}
    for row in moved:
        for array, (fetched, written_back) in row.items():
            before = total.get(array, (0.0, 0.0))
            total[array] = before[0] + fetched, before[1] + written_back
    return total
