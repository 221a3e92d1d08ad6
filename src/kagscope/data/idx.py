"""Read IDX files, plain or gzipped, the format of MNIST and its relatives.

Four bytes ``0, 0, dtype, dimensions``, then one big-endian 32-bit count per dimension, then the numbers; the dtype of images and
labels is 8, unsigned bytes. The header is checked against limits before anything is allocated, and at most one byte more than it
announces is read, so that a compressed file cannot unpack without end.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from io import BufferedReader
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from kagscope.base.errors import DataError
from kagscope.base.files import open_regular
from kagscope.base.messages import reason_of

MAX_BYTES = 2**30
"""Maximum pixels in a file; four times as many bytes in float32."""

_DEFLATE_LIMIT = 1032  # largest expansion of a deflate stream
_CHUNK = 2**20
_UBYTE = 0x08
_Stream = IO[bytes] | gzip.GzipFile


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not (detected by its first bytes, not its name).

    Args:
        path: the file.
        dimensions: 3 for images ``(N, H, W)``, 1 for labels ``(N,)``.

    Returns:
        uint8 array with ``dimensions`` dimensions.

    Raises:
        DataError: missing, not a regular file, empty, wrong magic number, wrong length, damaged gzip, or absurd counts.
    """
    with open_regular(path) as raw:
        return parse_idx(raw, path, dimensions, os.fstat(raw.fileno()).st_size)


def parse_idx(raw: BufferedReader, path: object, dimensions: int, size: int) -> npt.NDArray[np.uint8]:
    """Like :func:`read_idx`, from an open stream of at most ``size`` bytes, named ``path`` in messages."""
    compressed = raw.peek(2)[:2] == b"\x1f\x8b"
    try:
        if not compressed:
            return _parse(raw, path, dimensions, size)
        with gzip.open(raw) as stream:
            return _parse(stream, path, dimensions, size * _DEFLATE_LIMIT)
    except (OSError, EOFError, zlib.error) as error:
        kind = "gzip file" if compressed else "file"
        raise DataError(
            f"{path}: damaged {kind} ({reason_of(error)}); expected an IDX file: copy or download it again"
        ) from error


def _parse(stream: _Stream, path: object, dimensions: int, most_bytes: int) -> npt.NDArray[np.uint8]:
    """Read header and numbers; ``most_bytes`` is an upper bound on the unpacked size."""
    shape = _header(stream, path, dimensions)
    expected, counts = math.prod(shape), " x ".join(map(str, shape))
    if expected == 0:
        raise DataError(f"{path}: its header announces {counts} bytes, so nothing; expected at least one image or label")
    if expected > MAX_BYTES:
        raise DataError(f"{path}: its header announces {counts} bytes; at most {MAX_BYTES} can be read: the header is damaged?")
    if expected > most_bytes:
        raise DataError(
            f"{path}: its header announces {counts} bytes, more than the file can hold; it is truncated or damaged: copy it again"
        )
    content = _read_at_most(stream, expected + 1)
    if len(content) < expected:
        raise DataError(
            f"{path}: truncated: its header announces {counts} = {expected} bytes, found {len(content)}: copy it again"
        )
    if len(content) > expected:
        raise DataError(
            f"{path}: goes on after the {counts} = {expected} bytes that its header announces; expected it to end there"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _header(stream: _Stream, path: object, dimensions: int) -> tuple[int, ...]:
    magic = stream.read(4)
    if not magic:
        raise DataError(f"{path}: empty file; expected an IDX file: copy or download it again")
    expected = bytes((0, 0, _UBYTE, dimensions))
    if magic != expected:
        raise DataError(
            f"{path}: starts with 0x{magic.hex()}; expected 0x{expected.hex()}, an IDX file of unsigned bytes in {dimensions} "
            f"dimension{'s' if dimensions > 1 else ''} ({'images' if dimensions == 3 else 'labels'})"
        )
    counts = stream.read(4 * dimensions)
    if len(counts) < 4 * dimensions:
        raise DataError(
            f"{path}: truncated within its header; expected {dimensions} counts of 4 bytes: copy or download it again"
        )
    return struct.unpack(f">{dimensions}I", counts)


def _read_at_most(stream: _Stream, limit: int) -> bytes:
    """Read up to ``limit`` bytes, allocating as they arrive rather than as announced."""
    pieces, remaining = [], limit
    while remaining and (piece := stream.read(min(remaining, _CHUNK))):
        pieces.append(piece)
        remaining -= len(piece)
    return b"".join(pieces)
