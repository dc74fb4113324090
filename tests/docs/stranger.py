"""A reader of coded streams written from docs/file.md alone: it shares no code with the package and has no speed."""

from collections import defaultdict
from itertools import pairwise


class Stream:
    """Bytes, numbers and signed numbers one after another."""

    def __init__(self, body: bytes) -> None:
        self.body, self.at = body, 0

    def take(self, count: int) -> bytes:
        self.at += count
        assert self.at <= len(self.body)
        return self.body[self.at - count : self.at]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def signed(self) -> int:
        value = self.number()
        return -(value + 1) // 2 if value & 1 else value // 2

    def rest(self) -> bytes:
        return self.take(len(self.body) - self.at)


def listed(stream: Stream, first: int) -> list[int]:
    """A list of ascending numbers."""
    found = []
    for _ in range(stream.number()):
        found.append(first + stream.number())
        first = found[-1] + 1
    return found


def edits(stream: Stream, removed: int | None = None) -> tuple[list[int], dict[tuple[int, int], int], bytes]:
    """Buffers, the new values of (module, rank), and the check; `removed`: how many modules files before version 4 removed."""
    buffers, values, module = listed(stream, 0), {}, -1
    for _ in range(stream.number()):
        module += 1 + stream.number()
        rank = -1
        for _ in range(stream.number()):
            rank += 1 + stream.number()
            values[module, rank] = stream.number()
    return buffers, values, stream.take(2) if removed is None or removed or buffers or values else b""


def packed(body: bytes, width: int, count: int) -> list[int]:
    """Values of `width` bits, high bit first."""
    text = "".join(f"{byte:08b}" for byte in body)
    return [int(text[width * i : width * (i + 1)] or "0", 2) for i in range(count)]


def bits(body: bytes, count: int) -> list[int]:
    """Codec 0."""
    if not body:
        return [0] * count
    stream = Stream(body)
    least, width = stream.signed(), stream.take(1)[0]
    return [least + one for one in packed(stream.rest(), width, count)]


def huffman(body: bytes, count: int) -> list[int]:
    """Codec 1."""
    if not body:
        return [0] * count
    stream = Stream(body)
    size, value = stream.number(), stream.signed()
    values = [value]
    for gap in bits(stream.take(stream.number()), size - 1):
        values.append(values[-1] + gap + 1)
    if size == 1:
        return values * count
    lengths = [one + 1 for one in packed(stream.take((5 * size + 7) // 8), 5, size)]
    codes, code, before = {}, 0, 0
    for length, value in sorted(zip(lengths, values, strict=True)):
        code <<= length - before
        codes[length, code] = value
        code, before = code + 1, length
    found, text, at = [], "".join(f"{byte:08b}" for byte in stream.rest()), 0
    for _ in range(count):
        end = at + 1
        while (end - at, int(text[at:end], 2)) not in codes:
            end += 1
        found.append(codes[end - at, int(text[at:end], 2)])
        at = end
    return found


def deep_compression(body: bytes, count: int) -> list[int]:
    """Codec 4."""
    if not body:
        return [0] * count
    stream = Stream(body)
    kind = stream.take(1)[0]
    if kind == 0:
        return huffman(stream.rest(), count)
    width, entries = kind & 127, stream.number()
    if kind & 128:
        listed = huffman(stream.rest(), entries)
        pairs = [((1 << width) - 1, 0) if gap == 1 << width else (gap, 1) for gap in listed]
    else:
        gaps = huffman(stream.take(stream.number()), entries)
        pairs = list(zip(gaps, huffman(stream.rest(), entries), strict=True))
    found: list[int] = []
    for gap, value in pairs:
        found += [0] * gap + [value]
    return found + [0] * (count - len(found))


def rans(body: bytes, count: int, line: int) -> list[int]:
    """Codec 2."""
    if not body:
        return [0] * count
    stream = Stream(body)
    head = stream.take(1)[0]
    direct, signs, a, b, grain = head & 1, head >> 1 & 1, head >> 2 & 3, head >> 4 & 3, (1, 16, 64, 256)[head >> 6]
    least = stream.signed() if direct else 0
    cuts = [running([stream.number() for _ in range(2**n - 1)]) for n in (a, b)]
    tables = [table(stream, grain) for _ in range(2 ** (a + b))]
    extra = Stream(stream.take(stream.number()))
    loose, place = int.from_bytes(extra.body, "little"), 0
    words = iter(stream.rest())
    word = lambda: next(words) | next(words) << 8  # noqa: E731
    streams = 4 if count >= 16384 else 1
    edges = [s * count // streams for s in range(streams + 1)]
    states = [word() << 16 | word() for _ in range(streams)]
    along, down = [0] * streams, [[0] * line for _ in range(streams)]
    found = [0] * count
    for s, index in turns(edges):
        column = index % line
        which = 2**b * sum(cut <= along[s] >> 4 for cut in cuts[0])
        which += sum(cut <= down[s][column] >> 4 for cut in cuts[1])
        slot = states[s] & 32767
        token, start, width = next(part for part in tables[which] if part[1] <= slot < part[1] + part[2])
        states[s] = width * (states[s] >> 15) + slot - start
        if states[s] < 65536:
            states[s] = states[s] << 16 | word()
        if direct:
            found[index] = least + token
            act = min(abs(found[index]), 15)
        else:
            found[index], place = spelled(token, loose, place, signs)
            act = token
        along[s] += ((act << 12) - along[s]) >> 5
        down[s][column] += ((act << 12) - down[s][column]) >> 3
    assert all(state == 65536 for state in states) and next(words, None) is None and (place + 7) // 8 == len(extra.body)
    return found


def running(steps: list[int]) -> list[int]:
    """Distances to places."""
    return [sum(steps[: number + 1]) for number in range(len(steps))]


def table(stream: Stream, grain: int) -> list[tuple[int, int, int]]:
    """(token, start, width) of the tokens that occur."""
    which = int.from_bytes(stream.take(2), "little")
    used = [token for token in range(16) if which >> token & 1]
    found, start = [], 0
    for token in used:
        width = 32768 - start if token == used[-1] else stream.number() * grain
        found.append((token, start, width))
        start += width
    return found


def turns(edges: list[int]) -> list[tuple[int, int]]:
    """(stream, index) in the order of decoding."""
    longest = max(end - begin for begin, end in pairwise(edges))
    pairs = [(s, edges[s] + i) for i in range(longest) for s in range(len(edges) - 1)]
    return [(s, index) for s, index in pairs if index < edges[s + 1]]


def spelled(token: int, loose: int, place: int, signs: int) -> tuple[int, int]:
    """The value of a token, and the place in the extra bits behind it."""
    if token == 0:
        return 0, place
    negative, place, k = loose >> place & signs, place + signs, token >> 1
    size = token
    if 2 <= token <= 14:
        size = (2 | token & 1) << (k - 1) | (loose >> place & (1 << (k - 1)) - 1)
        place += k - 1
    elif token == 15:
        length = loose >> place & 31
        size = 192 + (loose >> (place + 5) & (1 << length) - 1)
        place += 5 + length
    return -size if negative else size, place


def floats(body: bytes, size: int, count: int) -> bytes:
    """Codec 7: the floats as bytes, low byte first."""
    if len(body) == count * size:
        return body
    if len(body) == size:
        return body * count
    from tests.docs.stranger_mix import mix

    stream, patterns = Stream(body), [0] * count
    for _ in range(size):
        kind = stream.take(1)[0]
        if kind == 0:
            plane = list(stream.take(count))
        else:
            common, plane = stream.take(1)[0], [0] * count
            if kind != 1:
                coded = stream.take(stream.number())
                plane = mix(coded, (count,), None) if kind == 2 else rans(coded, count, 1)
            plane = [value + common & 255 for value in plane]
        patterns = [pattern << 8 | byte for pattern, byte in zip(patterns, plane, strict=True)]
    width = 8 * size
    back = [pattern >> 1 | (pattern & 1) << (width - 1) for pattern in patterns]
    return b"".join(pattern.to_bytes(size, "little") for pattern in back)


def sums() -> defaultdict[tuple, list[int]]:
    """Sums and counts, 0 at first."""
    return defaultdict(lambda: [0, 0])
