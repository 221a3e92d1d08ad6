"""Read the user's matrices; every way in which they can be unusable is reported here, before any work starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


class SupportsDLPack(Protocol):
    """An array of any library that shares its memory, such as JAX or CuPy."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...


FloatArray = NDArray[np.float64]
MatrixLike: TypeAlias = "NDArray[Any] | Tensor | SupportsDLPack"
"""A matrix or batch of matrices, (m, n) or (B, m, n), real floating point: NumPy, torch, or anything with ``__dlpack__``."""
Values: TypeAlias = "float | FloatArray | Tensor"
"""A float for one matrix, (B,) for a batch: an array, or a tensor on the device of the matrices if that is CUDA."""
DEVICES = ("cuda",)  # devices whose tensors get tensors as results
MOMENTS = ("s1", "s2", "s4", "entropy", "top", "histogram")


def is_torch(value: Any) -> bool:
    """Whether ``value`` is a torch tensor, without importing torch."""
    return type(value).__module__.partition(".")[0] == "torch" or any(
        c.__module__.startswith("torch") for c in type(value).__mro__
    )


def device_of(value: Any) -> Any:
    """The torch device on which results for ``value`` belong: that of a CUDA tensor; None for NumPy arrays and CPU tensors."""
    device = getattr(value, "device", None) if is_torch(value) else None
    return device if device is not None and device.type in DEVICES else None


def to_device(values: Any, device: Any) -> Any:
    """NumPy arrays, in lists and dictionaries too, as tensors on ``device``; the rest, and all if it is None, unchanged."""
    if device is None:
        return values
    if isinstance(values, list):
        return [to_device(value, device) for value in values]
    if isinstance(values, dict):
        return {name: to_device(value, device) for name, value in values.items()}
    if not isinstance(values, np.ndarray):
        return values
    import torch

    return torch.from_numpy(np.ascontiguousarray(values)).to(device)


def check_tensor(value: Any, name: str) -> None:
    """Raise :class:`InputError` for a tensor that does not hold its entries one by one as real floating-point numbers."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor

    if value.is_nested or value.is_meta or isinstance(value, FakeTensor):
        raise InputError(
            f"{name} is a {'nested tensor' if value.is_nested else 'tensor without data (meta or fake)'}, expected a plain one"
        )
    if value.is_quantized:
        raise InputError(f"{name} is a quantised tensor ({value.dtype}); pass {_of(name, 'dequantize()')}")
    if value.layout != torch.strided:
        raise InputError(f"{name} is a sparse tensor ({value.layout}); pass {_of(name, 'to_dense()')}")
    if not value.is_floating_point():
        raise _not_real(name, value.dtype, "to(torch.float64)", value.is_complex())


def as_tensor(value: Any, name: str) -> Any:
    """A float64 tensor with the values of a real floating-point one, where it lies, without gradients.

    Raises:
        InputError: sparse, quantised, nested, without data, integer or complex.
    """
    import torch

    check_tensor(value, name)
    if value.device.type == "mps":  # lacks float64
        value = value.cpu()
    return value.detach().to(torch.float64).resolve_neg()


def _of(name: str, call: str) -> str:
    """``J.call``; of a name that is several words the call alone."""
    return f"{name}.{call}" if name.isidentifier() else f"its .{call}"


def _not_real(name: str, dtype: Any, convert: str, is_complex: bool) -> InputError:
    what = f"{name} has dtype {dtype}, expected a real floating-point one"
    if is_complex:
        return InputError(f"{what}; where all imaginary parts are zero, give {_of(name, 'real')}")
    return InputError(f"{what}; convert with {_of(name, convert)}")


def _from_dlpack(value: Any, name: str) -> Any:
    """Another library's array, such as JAX's or CuPy's, as a NumPy array; what lies on a device by way of torch."""
    try:
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, ValueError, TypeError):
            from torch.utils.dlpack import from_dlpack

            return as_tensor(from_dlpack(value), name).cpu().numpy()
    except (BufferError, RuntimeError, ValueError, TypeError) as error:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise InputError(f"{name} is a {kind} that cannot be read through __dlpack__ ({error}); convert it to NumPy") from error


def as_numpy(value: Any, name: str) -> FloatArray:
    """A float64 NumPy array with the values of a real floating-point NumPy array or torch tensor.

    Raises:
        InputError: other types, integer, complex, sparse or quantised input.
    """
    if is_torch(value) and hasattr(value, "layout"):
        try:
            return np.asarray(as_tensor(value, name).cpu().numpy(), order="C")
        except RuntimeError as error:  # of torch.func's transforms, and of subclasses of the user's own
            why = str(error).splitlines()[0]
            raise InputError(
                f"{name} is a {type(value).__name__} whose numbers cannot be read ({why}); give a plain tensor"
            ) from error
    if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__"):
        value = _from_dlpack(value, name)
    if not isinstance(value, np.ndarray):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        calls = [f"{call}()" for call in ("toarray", "to_numpy") if hasattr(value, call)]
        hint = f", such as {_of(name, calls[0])} gives" if calls else ""
        raise InputError(f"{name} is a {kind}, expected a NumPy array or a torch tensor of floating-point numbers{hint}")
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(
            f"{name} is a masked array; fill the masked entries first, with {_of(name, 'filled(0.0)')} if zero is meant"
        )
    if value.dtype.kind != "f" and value.dtype.name not in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        raise _not_real(name, value.dtype, "astype(float)", value.dtype.kind == "c")
    with np.errstate(over="ignore", under="ignore"):
        converted = np.asarray(value, dtype=np.float64, order="C")  # the bits of sums do not depend on the memory layout
    if value.dtype.itemsize > 8 and ((converted != value) & ~np.isnan(value)).any():
        raise InputError(
            f"{name} holds {value.dtype} entries that float64 does not have; if rounding them is meant, scale the matrix to its "
            f"range and pass {name}.astype(float)"
        )
    return converted


def require_finite(array: FloatArray, name: str) -> None:
    """Raise :class:`InputError` saying how many entries are NaN or infinite, and where the first few are."""
    if np.isfinite(array).all():
        return
    bad = np.argwhere(~np.isfinite(array))
    positions = ", ".join(str(tuple(int(i) for i in index)) for index in bad[:3])
    nans = int(np.isnan(array).sum())
    raise InputError(
        f"{name} holds {nans} NaN and {len(bad) - nans} infinite entries, first at {positions}{', …' if len(bad) > 3 else ''}; "
        "minors need finite entries: find out why the Jacobian is not finite, or leave that point out"
    )


def as_matrices(J: Any) -> tuple[FloatArray, bool]:
    """(B, m, n) float64, and whether a batch was given.

    Raises:
        InputError: not a finite real (m, n) or (B, m, n) array, or empty.
    """
    array = as_numpy(J, "J")
    if array.ndim not in (2, 3):
        raise InputError(f"J has shape {array.shape}, expected a matrix (m, n) or a batch of matrices (B, m, n)")
    if array.size == 0:
        raise InputError(f"J has shape {array.shape}, which holds no entry; expected at least one row, one column, one matrix")
    require_finite(array, "J")
    batched = array.ndim == 3
    return (array if batched else array[None]), batched


def as_device_matrices(J: Any) -> tuple[Any, bool]:
    """(B, m, n) float64 on the device of the tensor J, and whether a batch was given; the same errors as :func:`as_matrices`."""
    tensor = as_tensor(J, "J")
    if tensor.ndim not in (2, 3) or tensor.numel() == 0 or not bool(tensor.isfinite().all()):
        as_matrices(J)  # raises the error
    return (tensor if tensor.ndim == 3 else tensor[None]), tensor.ndim == 3


def check_k(k: Any, rows: int, columns: int) -> int:
    """k as an int in 1 … min(m, n). Raises :class:`InputError`."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise InputError(f"k={k!r}, expected a whole number from 1 to {min(rows, columns)}, the order of the minors")
    if not 1 <= k <= min(rows, columns):
        raise InputError(f"k={k}, expected 1 to {min(rows, columns)} for a matrix of {rows} rows and {columns} columns")
    return int(k)


def check_moments(moments: Any) -> frozenset[str]:
    """The requested moments. Raises :class:`InputError` for unknown names."""
    if isinstance(moments, str):
        moments = MOMENTS if moments == "all" else (moments,)
    if not isinstance(moments, Sequence | set | frozenset) or not moments:
        raise InputError(f'moments={moments!r}, expected "all" or some of {", ".join(MOMENTS)}')
    unknown = [name for name in moments if name not in MOMENTS]
    if unknown:
        raise InputError(f'moments has {", ".join(map(repr, unknown))}, expected "all" or some of {", ".join(MOMENTS)}')
    return frozenset(moments)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """``value`` if it is one of ``choices``. Raises :class:`InputError`."""
    if value not in choices:
        raise InputError(f"{name}={value!r}, expected {' or '.join(repr(choice) for choice in choices)}")
    return str(value)


def check_seed(value: Any) -> int:
    """``value`` as an int of at least 0. Raises :class:`InputError`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise InputError(f"seed={value!r}, expected a whole number of at least 0")
    return int(value)


def check_positive(name: str, value: Any, meaning: str) -> float:
    """``value`` as a positive finite float. Raises :class:`InputError`."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)) or not 0 < value < float("inf"):
        raise InputError(f"{name}={value!r}, expected a positive number: {meaning}")
    return float(value)
