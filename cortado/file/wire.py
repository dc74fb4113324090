"""Wire: whole numbers in few bytes (seven bits a byte, low first), and a cursor that reads them safely."""

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

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self.body) - self.at

    def byte(self) -> int:
        """The next byte."""
        if self.at >= len(self.body):
            raise BadFile("file: it is cut short. The file is damaged; make it again.")
        self.at += 1
        return self.body[self.at - 1]

    def number(self, most: int = 2**63 - 1) -> int:
        """The next number written by `varint`, at most `most`."""
        number = 0
        for place in range(0, 63, 7):
            byte = self.byte()
            number |= (byte & 127) << place
            if byte < 128:
                break
        else:
            raise BadFile("file: a number in it has no end. The file is damaged; make it again.")
        if number > most:
            raise BadFile(f"file: a number in it is {number}, at most {most} can be. The file is damaged.")
        return number

    def signed(self) -> int:
        """The next number written by `varint(zigzag(...))`."""
        return unzigzag(self.number())

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > self.left:
            raise BadFile("file: it is cut short. The file is damaged; make it again.")
        self.at += count
        return self.body[self.at - count : self.at]

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self.take(self.left)
