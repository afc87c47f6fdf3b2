"""The file that wandb writes of a run: protocol buffers in the log format of LevelDB.

Seven bytes of header, then blocks of 32 KiB holding chunks: CRC (4 bytes), length (2, little
endian), kind (1), data. A record is one chunk of kind `WHOLE`, or `FIRST`, any number of `MIDDLE`,
`LAST`. Fewer than 7 bytes at the end of a block are padding.
"""

import struct
from collections.abc import Iterator

HEADER = b":W&B"
HEADER_SIZE = 7
BLOCK = 32768
CHUNK_HEADER = struct.Struct("<IHB")
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(data: bytes) -> Iterator[bytes]:
    """Every record that is whole; a file still written to, or cut off, ends where it ends.

    Raises ValueError for a file of another kind.
    """
    if not data.startswith(HEADER):
        raise ValueError("it does not begin as a W&B file")
    place, parts = HEADER_SIZE, []
    while place + CHUNK_HEADER.size <= len(data):
        left = BLOCK - place % BLOCK
        if left < CHUNK_HEADER.size:
            place += left
            continue
        _, length, kind = CHUNK_HEADER.unpack_from(data, place)
        start, place = place + CHUNK_HEADER.size, place + CHUNK_HEADER.size + length
        if kind not in (WHOLE, FIRST, MIDDLE, LAST) or place > len(data):
            return
        if kind in (WHOLE, FIRST):
            parts = []
        parts.append(data[start:place])
        if kind in (WHOLE, LAST):
            yield b"".join(parts)
