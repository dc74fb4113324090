"""Python port of rans.cpp, the fast coder, with identical bytes.  Change both or neither."""

from collections.abc import Iterator

import numpy as np

STREAMS, TOKENS, BITS, FLOOR, ESCAPE = 4, 16, 15, 1 << 16, 192


def split_token(value: int, direct: int, least: int, signed: int) -> tuple[int, int, int, int]:
    """Return the token, the number of extra bits, the extra bits, and the contribution to the running means."""
    size = abs(value)
    if direct:
        return value - least, 0, 0, min(size, 15)
    token, count, extra = size, 0, 0
    if size >= ESCAPE:
        length = (size - ESCAPE).bit_length()
        token, count, extra = 15, 5 + length, length | (size - ESCAPE) << 5
    elif size >= 2:
        bit = size.bit_length() - 1
        token, count, extra = 2 * bit + (size >> (bit - 1) & 1), bit - 1, size & ((1 << (bit - 1)) - 1)
    if signed and size:
        count, extra = count + 1, extra << 1 | (value < 0)
    return token, count, extra, token


class Means:
    """The running means of one stream."""

    def __init__(self, column: int, line: int, along: int, down: int) -> None:
        self.along, self.column, self.down = 0, column, [0] * line
        self.line, self.shift_along, self.shift_down = line, along, down

    def learn(self, act: int) -> None:
        """Move both means towards `act`, and step to the next column."""
        self.along += ((act << 12) - self.along) >> self.shift_along
        self.down[self.column] += ((act << 12) - self.down[self.column]) >> self.shift_down
        self.column = (self.column + 1) % self.line

    def steps(self) -> tuple[int, int]:
        """Return the two means in steps of the lookup tables."""
        return self.along >> 4, self.down[self.column] >> 4


def walk_values(plan: list[int]) -> Iterator[tuple[int, int, Means]]:
    """Yield index, stream and means of each value, in decoding order."""
    count, line, _, _, _, along, down, streams = plan
    edges = [s * count // streams for s in range(streams + 1)]
    means = [Means(edges[s] % line, line, along, down) for s in range(streams)]
    common = count // streams
    for i in range(common):
        for s in range(streams):
            yield edges[s] + i, s, means[s]
    for s in range(streams):
        if edges[s] + common < edges[s + 1]:
            yield edges[s] + common, s, means[s]


def survey(values: np.ndarray, plan: list[int]) -> np.ndarray:
    """Return the same counts as the compiled `rans_survey`."""
    listed, counts = values.tolist(), np.zeros(8192, dtype=np.int64)
    for index, _, means in walk_values(plan):
        along, down = means.steps()
        counts[along] += 1
        counts[4096 + down] += 1
        means.learn(split_token(listed[index], plan[2], plan[3], 0)[3])
    return counts


def tokens(
    values: np.ndarray, plan: list[int], across: np.ndarray, below: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bytes]:
    """Return contexts, tokens (coding order), counts (64, 16), and the extra bits."""
    listed, attached, filled, raw = values.tolist(), 0, 0, bytearray()
    contexts, found, counts = [], [], np.zeros((64, TOKENS), dtype=np.int64)
    for index, _, means in walk_values(plan):
        token, count, extra, act = split_token(listed[index], plan[2], plan[3], plan[4])
        along, down = means.steps()
        context = int(across[along]) + int(below[down])
        contexts.append(context)
        found.append(token)
        counts[context, token] += 1
        attached, filled = attached | extra << filled, filled + count
        while filled >= 8:
            raw.append(attached & 255)
            attached, filled = attached >> 8, filled - 8
        means.learn(act)
    if filled:
        raw.append(attached)
    return np.array(contexts, dtype=np.uint8), np.array(found, dtype=np.uint8), counts, bytes(raw)


def encode(contexts: np.ndarray, found: np.ndarray, streams: int, renumber: np.ndarray, tables: np.ndarray) -> bytes:
    """Return the coded tokens, encoded backwards."""
    count = len(found)
    rounds, states, words = count // streams, [FLOOR] * streams, []
    longer = [s for s in range(streams) if (s + 1) * count // streams - s * count // streams > rounds]
    owners = [k % streams for k in range(rounds * streams)] + longer
    starts, widths = tables[:, :TOKENS].tolist(), tables[:, TOKENS:].tolist()
    which, listed = renumber[contexts].tolist(), found.tolist()
    for k in range(count - 1, -1, -1):
        s, width = owners[k], widths[which[k]][listed[k]]
        state = states[s]
        if state >= width << (32 - BITS):
            words.append(state & 65535)
            state >>= 16
        states[s] = (state // width << BITS) + state % width + starts[which[k]][listed[k]]
    for state in reversed(states):
        words += [state & 65535, state >> 16]
    return np.array(words[::-1], dtype="<u2").tobytes()


class WordReader:
    """Reads 16-bit words, zeros after the end."""

    def __init__(self, body: bytes) -> None:
        self.listed, self.at, self.odd = np.frombuffer(body[: len(body) & ~1], dtype="<u2").tolist(), 0, len(body) & 1

    def take(self) -> int:
        """Return the next word."""
        self.at += 1
        return self.listed[self.at - 1] if self.at <= len(self.listed) else 0


def spell(token: int, raw: int, at: int, signed: int) -> tuple[int, int]:
    """Return the value of a token of magnitude and the next position in the extra bits."""
    if token == 0:
        return 0, at
    negative = raw >> at & signed
    at, bit, size = at + signed, token >> 1, token
    if 2 <= token < 15:
        size = (2 | token & 1) << (bit - 1) | raw >> at & ((1 << (bit - 1)) - 1)
        at += bit - 1
    elif token == 15:
        length = raw >> at & 31
        size = ESCAPE + (raw >> (at + 5) & ((1 << length) - 1))
        at += 5 + length
    value = -size if negative else size
    return (value + 2**31) % 2**32 - 2**31, at


def decode(
    body: bytes, raw: bytes, plan: list[int], across: np.ndarray, below: np.ndarray, tables: np.ndarray, out: np.ndarray
) -> bool:
    """Fill `out`; return False when the streams do not end in the encoder's final state."""
    words, at, direct, least, signed = WordReader(body), 0, plan[2], plan[3], plan[4]
    states = [words.take() << 16 | words.take() for _ in range(plan[7])]
    starts, widths, found = tables[:, :TOKENS].tolist(), tables[:, TOKENS:].tolist(), [0] * plan[0]
    for index, s, means in walk_values(plan):
        along, down = means.steps()
        context = int(across[along]) + int(below[down])
        state = states[s]
        slot = state & ((1 << BITS) - 1)
        token = sum(start <= slot for start in starts[context]) - 1
        state = widths[context][token] * (state >> BITS) + slot - starts[context][token]
        states[s] = state << 16 | words.take() if state < FLOOR else state
        if direct:
            found[index] = least + token
            means.learn(min(abs(found[index]), 15))
            continue
        byte = at >> 3
        near = int.from_bytes(raw[byte : byte + 8], "little")
        found[index], end = spell(token, near, at & 7, signed)
        at = 8 * byte + end
        means.learn(token)
    out[:] = np.array(found, dtype=np.int64)
    ended = words.at == len(words.listed) and not words.odd and (at + 7) // 8 == len(raw)
    return ended and all(state == FLOOR for state in states)
