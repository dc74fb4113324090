"""Wire: whole numbers and byte strings one after another, read back with every length bounded."""

from cortado.errors import BadFile


class Writer:
    """Puts numbers and bytes one after another."""

    def __init__(self) -> None:
        self.body = bytearray()

    def raw(self, data: bytes) -> None:
        self.body += data

    def number(self, value: int) -> None:
        """A whole number, 0 or more, 7 bits a byte, low ones first."""
        while value >= 128:
            self.body.append(value & 127 | 128)
            value >>= 7
        self.body.append(value)

    def signed(self, value: int) -> None:
        """A whole number of either sign: 0, -1, 1, -2 ... become 0, 1, 2, 3 ..."""
        self.number(value * 2 if value >= 0 else -value * 2 - 1)


class Reader:
    """Reads what a Writer wrote.  Raises BadFile at the first thing that cannot be."""

    def __init__(self, body: bytes) -> None:
        self.body, self.place = body, 0

    @property
    def left(self) -> int:
        return len(self.body) - self.place

    def raw(self, count: int) -> bytes:
        if count > self.left:
            raise BadFile(f"file: cut short at byte {self.place}: {count} more bytes are named, {self.left} are there.")
        self.place += count
        return self.body[self.place - count : self.place]

    def number(self, most: int = 2**48) -> int:
        """A whole number of at most `most`."""
        value = shift = 0
        while True:
            byte = self.raw(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
            if shift > 56:
                raise BadFile(f"file: a number at byte {self.place} has no end. The file is damaged; fetch it again.")
        if value > most:
            raise BadFile(
                f"file: a number at byte {self.place} is {value}, at most {most} can be. The file is damaged."
            )
        return value

    def signed(self) -> int:
        value = self.number()
        return value // 2 if value % 2 == 0 else -(value // 2) - 1
