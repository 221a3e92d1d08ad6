"""Every unusable argument of the engine: one clear error that quotes what was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import kagscope as kag
from kagscope.base.errors import InputError

J = np.random.default_rng(0).normal(size=(4, 6))
IMAGE = {"image_shape": (2, 3)}


def bad(value: float) -> np.ndarray:
    array = J.copy()
    array[2, 3] = value
    return array


MATRICES: dict[str, tuple[Any, str]] = {
    "list": ([[1.0, 2.0], [3.0, 4.0]], "builtins.list"),
    "none": (None, "NoneType"),
    "string": ("J", "builtins.str"),
    "integers": (np.ones((3, 3), dtype=int), "int64"),
    "booleans": (np.ones((3, 3), dtype=bool), "bool"),
    "complex": (J + 1j, r"complex128.*J\.real$"),  # no cast, which would drop what is imaginary
    "objects": (J.astype(object), "object"),
    "texts": (np.array([["a", "b"]]), "<U1"),
    "masked": (np.ma.masked_less(J, 0), "masked"),
    "vector": (J[0], r"\(6,\)"),
    "scalar": (np.array(1.0), r"\(\)"),
    "four axes": (J[None, None], r"\(1, 1, 4, 6\)"),
    "no rows": (J[:0], r"\(0, 6\)"),
    "no columns": (J[:, :0], r"\(4, 0\)"),
    "no matrices": (J[None][:0], r"\(0, 4, 6\)"),
    "nan": (bad(np.nan), r"1 NaN and 0 infinite.*\(0, 2, 3\)|1 NaN and 0 infinite.*\(2, 3\)"),
    "infinite": (bad(np.inf), "0 NaN and 1 infinite"),
    "torch integers": (torch.ones(3, 3, dtype=torch.int64), "torch.int64"),
    "data frame": (pd.DataFrame(J), r"J\.to_numpy\(\)"),
    "scipy sparse": (scipy.sparse.csr_array(J), r"J\.toarray\(\)"),
    "torch complex": (torch.ones(3, 3, dtype=torch.complex64), r"torch.complex64.*J\.real$"),
    "torch fake": (FakeTensorMode().from_tensor(torch.eye(3)), "without data"),
    "torch quantised": (torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8), r"J\.dequantize\(\)"),
    "torch sparse": (torch.eye(3).to_sparse(), "to_dense"),
    "torch without data": (torch.empty(3, 3, device="meta"), "without data"),
    "torch nested": (torch.nested.nested_tensor([torch.ones(3, 3), torch.ones(3, 3)]), "nested"),
    "torch nan": (torch.tensor([[float("nan"), 1.0], [1.0, 1.0]]), "1 NaN"),
}


if np.finfo(np.longdouble).nmant > 52:  # entries are taken as given, and these round to others, to zero or beyond the range
    ONE = np.ones((3, 3), dtype=np.longdouble)
    MATRICES["more digits"] = ONE + np.eye(3) * np.longdouble(2) ** -60, "longdouble|float128"
    MATRICES["below the range"] = ONE * np.longdouble("1e-3000"), "longdouble|float128"
    MATRICES["beyond the range"] = ONE * np.longdouble("1e3000"), "longdouble|float128"


@pytest.mark.parametrize("name", list(MATRICES))
@pytest.mark.parametrize("function", [kag.minor_moments, kag.zero_rows, kag.effective_rank, kag.haar_mean_s1, kag.row_means])
def test_matrices(name: str, function: Any) -> None:
    value, message = MATRICES[name]
    with pytest.raises(InputError, match=message):
        function(value)


ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "k zero": ({"k": 0}, "k=0, expected 1 to 4"),
    "k negative": ({"k": -1}, "k=-1"),
    "k too large": ({"k": 5}, "k=5, expected 1 to 4"),
    "k float": ({"k": 2.0}, "k=2.0"),
    "k text": ({"k": "2"}, "k='2'"),
    "k bool": ({"k": True}, "k=True"),
    "method": ({"method": "fast"}, "'fast'.*'auto' or 'exact' or 'sampled'"),
    "moments unknown": ({"moments": ("s1", "s3")}, "'s3'"),
    "moments empty": ({"moments": ()}, "moments"),
    "moments number": ({"moments": 4}, "moments=4"),
    "rel_error zero": ({"rel_error": 0}, "rel_error=0"),
    "rel_error negative": ({"rel_error": -0.1}, "rel_error=-0.1"),
    "rel_error nan": ({"rel_error": float("nan")}, "rel_error=nan"),
    "seed negative": ({"seed": -1}, "seed=-1"),
    "seed float": ({"seed": 0.5}, "seed=0.5"),
    "memory": ({"memory_budget": 0}, "memory_budget=0"),
    "selection number": ({"selection": 7}, "selection=7"),
    "selection class": ({"selection": kag.Ball}, "expected All"),
    "selection name": ({"selection": "bal(7)"}, r"'bal\(7\)'"),
    "selection empty": ({"selection": []}, "empty list"),
    "selection mixed": ({"selection": [kag.All(), 3]}, "expected All"),
    "ball without positions": ({"selection": kag.Ball(1)}, "image_shape"),
    "window without positions": ({"selection": kag.Window((0, 0), 1)}, "image_shape"),
    "window in groups": ({"selection": kag.Window((0, 0), 1), "groups": list("aabbcc")}, "coordinates"),
    "window of another dimension": ({"selection": kag.Window((0, 0, 0), 1), **IMAGE}, "3 coordinates"),
    "image of other size": ({"image_shape": (3, 3)}, "9 pixels.*6 columns"),
    "image of one number": ({"image_shape": (6,)}, "image_shape"),
    "image of floats": ({"image_shape": (2.0, 3.0)}, "image_shape"),
    "image negative": ({"image_shape": (-2, -3)}, "image_shape"),
    "image number": ({"image_shape": 6}, "image_shape"),
    "positions too few": ({"positions": np.zeros((5, 2))}, r"\(5, 2\).*6 columns"),
    "positions of three axes": ({"positions": np.zeros((6, 2, 2))}, "positions"),
    "positions nan": ({"positions": np.full((6, 2), np.nan)}, "NaN"),
    "positions text": ({"positions": ["a"] * 6}, "positions"),
    "positions ragged": ({"positions": [[0], [1, 2]] * 3}, "positions"),
    "groups too few": ({"groups": [0, 1]}, r"\(2,\).*6 columns"),
    "groups ragged": ({"groups": [[0], [1, 2]] * 3}, "groups"),
    "groups of two kinds": ({"groups": [None, "a"] * 3}, "groups"),
    "groups complex tensor": ({"groups": torch.ones(5, dtype=torch.complex64)}, r"\(5,\)"),
    "positions complex tensor": ({"positions": torch.ones(6, dtype=torch.complex64)}, "positions"),
    "positions masked": ({"positions": np.ma.masked_less(np.arange(6.0), 1)}, "masked"),  # what lay under the mask was read
    "groups masked": ({"groups": np.ma.masked_less(np.arange(6), 1)}, "masked"),
    "positions complex": ({"positions": np.ones(6, dtype=complex)}, "positions"),
    "positions sparse": ({"positions": torch.eye(6).to_sparse()}, "positions"),
    "two layouts": ({"groups": [0] * 6, **IMAGE}, "image_shape and groups"),
    "subsets of another size": ({"selection": kag.Subsets([(0, 1, 2)])}, "k=2"),
    "subsets beyond": ({"selection": kag.Subsets([(0, 6)])}, "column 6"),
}


@pytest.mark.parametrize("name", list(ARGUMENTS))
def test_arguments(name: str) -> None:
    arguments, message = ARGUMENTS[name]
    with pytest.raises(InputError, match=message):
        kag.minor_moments(J, **arguments)


SELECTIONS: dict[str, Any] = {
    "negative radius": lambda: kag.Ball(-1),
    "nan radius": lambda: kag.Ball(float("nan")),
    "infinite distance": lambda: kag.Apart(float("inf")),
    "text radius": lambda: kag.Ball("7"),
    "boolean": lambda: kag.Ball(True),
    "empty shell": lambda: kag.Shell(2, 2),
    "reversed shell": lambda: kag.Shell(3, 2),
    "window radius": lambda: kag.Window((0, 0), -1),
    "window center": lambda: kag.Window(("a", 0), 1),
    "no subsets": lambda: kag.Subsets([]),
    "ragged subsets": lambda: kag.Subsets([(0, 1), (0, 1, 2)]),
    "repeated column": lambda: kag.Subsets([(1, 1)]),
    "repeated subset": lambda: kag.Subsets([(0, 1), (1, 0)]),
    "negative column": lambda: kag.Subsets([(-1, 1)]),
    "float column": lambda: kag.Subsets([(0.0, 1.0)]),
    "not subsets": lambda: kag.Subsets([1, 2]),
    "unclosed": lambda: kag.parse_selection("ball(7"),
    "no number": lambda: kag.parse_selection("ball(x)"),
    "all of": lambda: kag.parse_selection("all(3)"),
    "empty name": lambda: kag.parse_selection(""),
    "threads": lambda: kag.limit_threads(0).__enter__(),
}


THRESHOLDS: dict[str, tuple[Any, str]] = {
    "text": ("J", "'J'"),
    "negative": (-1, "threshold=-1"),
    "nan": (float("nan"), "threshold=nan"),
    "matrix": (J, r"shape \(4, 6\)"),
    "two": ([0.0, 1.0], r"shape \(2,\)"),
    "complex": (np.ones(1, dtype=complex), "complex128"),  # its imaginary part was dropped
    "masked": (np.ma.masked_less([1.0], 2), "masked"),
    "without data": (torch.empty((), device="meta"), "meta"),
    "sparse": (torch.eye(3).to_sparse(), "to_dense"),
    "nothing": ({}, "dict"),
}


@pytest.mark.parametrize("name", list(THRESHOLDS))
def test_thresholds(name: str) -> None:
    value, message = THRESHOLDS[name]
    with pytest.raises(InputError, match=f"{message}.*expected a number of at least 0") as caught:
        kag.zero_rows(J, threshold=value)
    assert "\n" not in str(caught.value)


def test_matrices_inside_transforms() -> None:
    with pytest.raises(InputError, match="numbers cannot be read"):
        torch.vmap(lambda one: one * kag.minor_moments(one).s1)(torch.ones(2, 3, 3))


@pytest.mark.parametrize("name", list(SELECTIONS))
def test_selections(name: str) -> None:
    with pytest.raises(InputError):
        SELECTIONS[name]()


FACTORED: dict[str, tuple[tuple[Any, Any, dict[str, Any]], str]] = {
    "d too short": ((J, np.ones(3), {}), r"\(3,\)"),
    "d of three axes": ((J, np.ones((1, 1, 4)), {}), "d has shape"),
    "d integers": ((J, np.ones(4, dtype=int), {}), "d has dtype"),
    "d nan": ((J, np.full(4, np.nan), {}), "d holds 4 NaN"),
    "d empty": ((J, np.ones((0, 4)), {}), "d has shape"),
    "W a batch": ((J[None], np.ones(4), {}), "W has shape"),
    "W nan": ((bad(np.nan), np.ones(4), {}), "W holds 1 NaN"),
    "histogram": ((J, np.ones(4), {"moments": ("histogram",)}), "histogram"),
    "k four": ((J, np.ones(4), {"k": 4}), "k=4"),
    "more row triples than memory": ((np.ones((800, 4)), np.ones(800), {"k": 3}), "3 GiB"),
}


@pytest.mark.parametrize("name", list(FACTORED))
def test_factored(name: str) -> None:
    (W, d, arguments), message = FACTORED[name]
    with pytest.raises(InputError, match=message):
        kag.factored_minor_moments(W, d, **arguments)


@pytest.mark.parametrize("seed", [-1, 0.5, True, None, "a"])
@pytest.mark.parametrize(
    "function",
    [kag.haar_mean_s1, kag.rotation_ratio, lambda J, seed: kag.rotation_ratio(J, 2, "max", seed=seed), kag.published_scores],
)
def test_seeds_of_rotations(function: Any, seed: Any) -> None:
    with pytest.raises(InputError, match=f"seed={seed!r}"):
        function(J, seed=seed)


@pytest.mark.parametrize("rotations", [0, 2.5, True, "3", None])
def test_numbers_of_rotations(rotations: Any) -> None:
    with pytest.raises(InputError, match=f"rotations={rotations!r}"):
        kag.rotation_ratio(J, 2, "max", rotations=rotations)


@pytest.mark.parametrize("rel_error", [0, float("nan"), "x"])
def test_errors_that_haar_means_cannot_aim_at(rel_error: Any) -> None:
    with pytest.raises(InputError, match="rel_error="):
        kag.haar_mean_s1(J, 3, rel_error=rel_error)


def test_what_was_known_is_of_these_minors() -> None:
    other = kag.minor_moments(J, 3, moments=("s1",))
    with pytest.raises(InputError, match="known: expected moments of k=2"):
        kag.minor_moments(J, 2, known=other)
    with pytest.raises(InputError, match="each of 2 selections"):
        kag.minor_moments(J, 3, [kag.All(), kag.Ball(1)], known=[other], **IMAGE)


def test_kinds_of_rotation() -> None:
    with pytest.raises(InputError, match="'mean'"):
        kag.rotation_ratio(J, kind="mean")
    with pytest.raises(InputError, match="rotations=1"):
        kag.rotation_ratio(J, kind="max", rotations=1)
    with pytest.raises(InputError, match="k=3"):
        kag.rotation_ratio(J, k=3, kind="max")


@pytest.mark.parametrize(
    "centers", [["a"], [(0, 0), (1,)], [(0.0, np.nan)], [(0, 0, 0)], torch.ones(1, 2, dtype=torch.complex64)]
)
def test_centers_of_windows(centers: Any) -> None:
    with pytest.raises(InputError, match="center"):
        kag.window_moments(J, centers, 1, (2, 3))


def test_minor_matrix_beyond_memory() -> None:
    with pytest.raises(InputError, match="3-minor matrix"):
        kag.column_divergence(np.ones((300, 300)), k=3)


def test_threads_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGSCOPE_THREADS", "many")
    with pytest.raises(InputError, match="KAGSCOPE_THREADS='many'"):
        kag.minor_moments(J)


def test_exact_beyond_memory() -> None:
    with pytest.raises(InputError, match=r"GiB and .* s a matrix, beyond memory_budget"):
        kag.minor_moments(np.ones((5, 500)), 3, method="exact")
    with pytest.raises(InputError, match="memory_budget=1000"):
        kag.minor_moments(J, 2, method="exact", memory_budget=1000)
    listed = 70 * 4 * 8  # bytes of all sets of four of eight columns, or rows
    for some in (np.random.default_rng(0).normal(size=shape) for shape in ((5, 8), (8, 5))):
        assert kag.minor_moments(some, 4, method="exact", memory_budget=listed).exact
        with pytest.raises(InputError, match=f"memory_budget={listed - 1}"):
            kag.minor_moments(some, 4, method="exact", memory_budget=listed - 1)
