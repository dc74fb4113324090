"""Whole numbers in few bytes (seven bits a byte, low first), and a cursor that reads them safely."""

from cortado.errors import BadFile


def varint(number: int) -> bytes:
    """`number` (0 or more) as bytes: 0..127 take one."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number: int) -> int:
    """Signed to unsigned, small stays small: 0, -1, 1, -2 become 0, 1, 2, 3."""
    return 2 * number if number >= 0 else -2 * number - 1


def unzigzag(number: int) -> int:
    """The inverse of `zigzag`."""
    return number >> 1 if number % 2 == 0 else -(number + 1) // 2


class Cursor:
    """Reads bytes and whole numbers one after another; BadFile when there are none left."""

    def __init__(self, body: bytes) -> None:
        self.body, self.at = body, 0

    def byte(self) -> int:
        """The next byte."""
        if self.at >= len(self.body):
            raise BadFile("file: a coded stream is cut short. The file is damaged; make it again.")
        self.at += 1
        return self.body[self.at - 1]

    def number(self) -> int:
        """The next number written by `varint`, at most 63 bits."""
        number = 0
        for place in range(0, 63, 7):
            byte = self.byte()
            number |= (byte & 127) << place
            if byte < 128:
                return number
        raise BadFile("file: a number in a coded stream has no end. The file is damaged; make it again.")

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > len(self.body) - self.at:
            raise BadFile("file: a coded stream is cut short. The file is damaged; make it again.")
        self.at += count
        return self.body[self.at - count : self.at]

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self.take(len(self.body) - self.at)
