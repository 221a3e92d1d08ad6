"""Count cliques of a graph of columns: k-subsets whose pairs are all allowed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

KERNEL: dict[str, Any] = {"cache": True, "nogil": True}
MOST_STEPS = 2 * 10**9  # words of neighbour sets visited, in a second or two


@njit(**KERNEL)
def bit_count(w):  # type: ignore[no-untyped-def]
    """Number of bits set in a uint64."""
    w -= (w >> np.uint64(1)) & np.uint64(0x5555555555555555)
    w = (w & np.uint64(0x3333333333333333)) + ((w >> np.uint64(2)) & np.uint64(0x3333333333333333))
    w = (w + (w >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((w * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(**KERNEL)
def _count(later, k, most):  # type: ignore[no-untyped-def]
    """Cliques of ``later`` (n, words), the neighbours of each column after it as bits; -1 beyond ``most`` steps."""
    n, words = later.shape
    bit = np.uint64(1)
    remaining = np.zeros((k, words), np.uint64)  # candidates at each depth that are still to be taken
    candidates = np.zeros((k, words), np.uint64)  # all candidates at each depth
    total, steps, depth = np.int64(0), np.int64(0), 0
    for c in range(n):
        candidates[0, c >> 6] |= bit << np.uint64(c & 63)
    remaining[0] = candidates[0]
    while depth >= 0:
        if depth == k - 1:
            for i in range(words):
                total += bit_count(candidates[depth, i])
            depth -= 1
            continue
        word = 0
        while word < words and remaining[depth, word] == 0:
            word += 1
        steps += words
        if steps > most or total < 0:
            return np.int64(-1)
        if word == words:
            depth -= 1
            continue
        lowest = remaining[depth, word] & (~remaining[depth, word] + bit)
        remaining[depth, word] ^= lowest
        c = 64 * word + bit_count(lowest - bit)
        for i in range(words):
            candidates[depth + 1, i] = candidates[depth, i] & later[c, i]
            remaining[depth + 1, i] = candidates[depth + 1, i]
        depth += 1
    return total


def count_cliques(adjacency: NDArray[np.bool_], k: int, most: int = MOST_STEPS) -> int | None:
    """Number of k-cliques of a graph; None if counting them would take more than ``most`` steps."""
    n = len(adjacency)
    padded = np.zeros((n, -(-n // 64) * 64), dtype=np.bool_)
    padded[:, :n] = np.triu(adjacency, 1)
    later = np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64)
    count = int(_count(later, k, most))
    return None if count < 0 else count
