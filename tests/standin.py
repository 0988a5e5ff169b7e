"""A strict stand-in for a GPU array library, so that array code for CuPy is tested without a GPU.

:class:`StandInArray` hides a NumPy array and behaves as a CuPy array would, or stricter. It refuses
what fails on a GPU, or is slow there without a word: implicit copies to the host, host arrays
among its operands, iteration, functions and keywords that CuPy lacks. What makes the host wait for
the device is allowed and counted::

    with syncs() as count:
        result = fit(on_device)
    assert count() == 0

The module :data:`xp` plays the part of ``cupy``. It holds what ``cupy_functions.txt`` lists.
"""

import contextlib
import operator
import types
from pathlib import Path

import numpy as np

_SCALARS = (bool, int, float, complex, np.generic)
_SYNCS = {  # the size or the value of the result is decided by the host
    "argwhere", "bincount", "compress", "extract", "flatnonzero", "histogram", "histogram2d",
    "histogramdd", "intersect1d", "nonzero", "place", "polyfit", "roots", "setdiff1d", "setxor1d",
    "trim_zeros", "union1d", "unique", "unique_all", "unique_counts", "unique_inverse",
    "unique_values", "linalg.lstsq", "linalg.matrix_rank",
}  # fmt: skip
_UFUNC_METHODS = {  # the others raise NotImplementedError in CuPy
    "reduce": {"add", "multiply"},
    "accumulate": {"add", "multiply"},
    "reduceat": {"add"},
    "at": {"add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"},
}

_n_syncs = 0


@contextlib.contextmanager
def syncs():
    """Count how often the host waits for the device: yields a function that returns the count."""
    before = _n_syncs
    after = None
    try:
        yield lambda: (_n_syncs if after is None else after) - before
    finally:
        after = _n_syncs


def _wait() -> None:
    global _n_syncs
    _n_syncs += 1


def _unwrap(value):
    """Take arrays out of their wrappers, in lists and tuples too; host arrays are refused."""
    if isinstance(value, StandInArray):
        return value._hidden
    if isinstance(value, np.ndarray):
        raise TypeError("a host array meets a device array: upload it first, with xp.asarray")
    if isinstance(value, list | tuple):
        return type(value)(_unwrap(item) for item in value)
    if isinstance(value, slice) and any(
        isinstance(bound, StandInArray) for bound in (value.start, value.stop, value.step)
    ):
        raise TypeError("a device array cannot be a bound of a slice")
    return value


def _wrap(value):
    """Hide arrays and NumPy scalars: reductions give 0-d device arrays, as in CuPy."""
    if isinstance(value, np.ndarray | np.generic):
        return StandInArray(value)
    if isinstance(value, tuple):  # named ones (slogdet, eigh) become plain
        return tuple(_wrap(item) for item in value)
    if isinstance(value, list):
        return [_wrap(item) for item in value]
    return value


class _Ufunc:
    """A universal function with the keywords and the methods that CuPy has."""

    def __init__(self, name, host):
        self.__name__ = name
        self._host = host

    def __call__(self, *args, **kwargs):
        refused = set(kwargs) - {"out", "dtype", "casting"}
        if refused:
            raise TypeError(f"{self.__name__}: CuPy has no {', '.join(sorted(refused))}")
        return _result(self._host(*_unwrap(args), **_unwrap_out(kwargs)), kwargs)

    def outer(self, a, b, **kwargs):
        return _wrap(self._host.outer(_unwrap(a), _unwrap(b), **kwargs))

    def __getattr__(self, method):
        if self.__name__ not in _UFUNC_METHODS.get(method, ()):
            raise NotImplementedError(f"CuPy has no {self.__name__}.{method}")
        host = getattr(self._host, method)

        def call(array, *args, **kwargs):
            if method == "at" and array.dtype.itemsize == 1:
                raise TypeError(f"CuPy has no {self.__name__}.at for {array.dtype}")
            refused = set(kwargs) - {"axis", "dtype", "out", "keepdims"}
            if refused:
                raise TypeError(f"{self.__name__}.{method}: CuPy has no {', '.join(refused)}")
            hidden = [_unwrap(arg) for arg in (array, *args)]
            return _result(host(*hidden, **_unwrap_out(kwargs)), kwargs)

        return call


def _unwrap_out(kwargs):
    return {name: _unwrap(value) for name, value in kwargs.items()}


def _result(value, kwargs):
    """The wrapped result of a call: the very array that was given as `out`, where one was."""
    return kwargs["out"] if kwargs.get("out") is not None else _wrap(value)


def _function(name, parameters, host):
    """A function of NumPy that takes only what CuPy's takes, and device arrays only."""
    open_ended = any(p.startswith("*") for p in parameters)

    def call(*args, **kwargs):
        if not open_ended:
            refused = sorted(set(kwargs) - set(parameters))
            if refused:
                raise TypeError(f"{name}: CuPy has no {', '.join(refused)}")
            if len(args) > len(parameters):
                raise TypeError(f"{name}: CuPy takes {len(parameters)} arguments, got {len(args)}")
        if name in _SYNCS or (name == "where" and len(args) == 1):
            _wait()
        if name == "repeat" and isinstance(kwargs.get("repeats", args[-1]), StandInArray):
            raise TypeError("repeat: CuPy takes repeats as whole numbers only")
        if name == "searchsorted" and kwargs.get("sorter") is not None:
            raise TypeError("searchsorted: CuPy has no sorter")
        return _result(host(*_unwrap(args), **_unwrap_out(kwargs)), kwargs)

    def as_device_bool(*args, **kwargs):  # NumPy answers these with a bool of the host
        return _wrap(np.asarray(call(*args, **kwargs)))

    chosen = as_device_bool if name in ("allclose", "array_equal", "array_equiv") else call
    chosen.__name__ = name.rpartition(".")[2]
    return chosen


def _upload(obj, dtype=None, order=None, *, copy=None, blocking=False):
    """A device array of anything: host arrays are copied, device arrays pass through."""
    if isinstance(obj, StandInArray):
        hidden = obj._hidden
        if copy or (dtype is not None and hidden.dtype != dtype):
            return StandInArray(np.array(hidden, dtype=dtype))
        return obj
    if isinstance(obj, list | tuple) and any(isinstance(item, StandInArray) for item in obj):
        obj = [_unwrap(item) for item in obj]
    host = np.array(obj, dtype=dtype)
    return StandInArray(host.astype(host.dtype.newbyteorder("="), copy=False))


class StandInArray:
    """An array that lives on a pretended device.

    Parameters
    ----------
    hidden : numpy.ndarray or scalar
        The values; not copied, so that views and read-only arrays stay what they are.
    """

    __slots__ = ("_hidden",)
    __hash__ = None

    def __init__(self, hidden):
        hidden = np.asarray(hidden)
        if hidden.dtype.kind not in "biufc" or hidden.dtype.itemsize > 16 or hidden.dtype == "g":
            raise TypeError(f"a device array cannot hold {hidden.dtype}")
        self._hidden = hidden

    def __array_namespace__(self, *, api_version=None):
        return xp

    # --- what a device array must not do by itself
    def __array__(self, *args, **kwargs):
        raise TypeError("implicit copy to the host: use to_host")

    def __array_ufunc__(self, ufunc, *args, **kwargs):  # CuPy imports scipy.sparse for scalars
        what = f"np.{ufunc.__name__} got a device array"
        raise TypeError(f"{what}, perhaps as an operator with a NumPy scalar or array before it")

    def __array_function__(self, function, *args, **kwargs):
        raise TypeError(f"np.{function.__name__} got a device array: use xp.{function.__name__}")

    def __iter__(self):
        raise TypeError("iterating over a device array waits for it item by item")

    # --- what waits for the device
    def get(self, stream=None, order="C", out=None, blocking=True):
        _wait()
        if out is None:
            return self._hidden.copy(order=order)
        np.copyto(out, self._hidden)
        return out

    def item(self, *args):
        _wait()
        return self._hidden.item(*args)

    def tolist(self):
        _wait()
        return self._hidden.tolist()

    def __bool__(self):
        _wait()
        return bool(self._hidden)

    def __int__(self):
        _wait()
        return int(self._hidden)

    def __float__(self):
        _wait()
        return float(self._hidden)

    def __len__(self):
        return len(self._hidden)

    def __repr__(self):  # pytest prints arrays when a test fails: not counted
        return f"StandInArray({self._hidden!r})"

    # --- indexing
    def __getitem__(self, index):
        if _boolean(index):
            _wait()
        return _wrap(self._hidden[_unwrap(index)])

    def __setitem__(self, index, value):
        if _boolean(index) and np.ndim(_unwrap(value)):
            _wait()
        self._hidden[_unwrap(index)] = _unwrap(value)

    # --- facts
    shape = property(lambda self: self._hidden.shape)
    ndim = property(lambda self: self._hidden.ndim)
    size = property(lambda self: self._hidden.size)
    dtype = property(lambda self: self._hidden.dtype)
    nbytes = property(lambda self: self._hidden.nbytes)
    itemsize = property(lambda self: self._hidden.itemsize)
    strides = property(lambda self: self._hidden.strides)
    flags = property(lambda self: self._hidden.flags)
    base = property(lambda self: self._hidden.base)
    T = property(lambda self: _wrap(self._hidden.T))
    mT = property(lambda self: _wrap(self._hidden.mT))
    real = property(lambda self: _wrap(self._hidden.real))
    imag = property(lambda self: _wrap(self._hidden.imag))

    # --- methods that CuPy has and that are no function of the module
    def astype(self, dtype, order="K", casting="unsafe", subok=True, copy=True):
        return _wrap(self._hidden.astype(dtype, order=order, casting=casting, copy=copy))

    def view(self, dtype=None):
        return _wrap(self._hidden.view() if dtype is None else self._hidden.view(dtype))

    def flatten(self, order="C"):
        return _wrap(self._hidden.flatten(order))

    def fill(self, value):
        self._hidden.fill(_unwrap(value))

    def sort(self, axis=-1, *, kind=None):
        self._hidden.sort(axis=axis, kind=kind)

    def partition(self, kth, axis=-1):
        self._hidden.partition(kth, axis=axis)

    def reshape(self, *shape, order="C"):
        return _wrap(self._hidden.reshape(*shape, order=order))

    def transpose(self, *axes):
        return _wrap(self._hidden.transpose(*axes))


def _boolean(index) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, StandInArray) and part.dtype == bool for part in parts)


def _operator(symbol, *, reflected=False):
    def method(self, other):
        if not isinstance(other, (StandInArray, *_SCALARS)):
            _unwrap(other)  # refuses host arrays with the reason
            return NotImplemented
        left, right = (other, self) if reflected else (self, other)
        return _wrap(symbol(_unwrap(left), _unwrap(right)))

    return method


def _in_place(symbol):
    def method(self, other):
        self._hidden = symbol(self._hidden, _unwrap(other))
        return self

    return method


def _method(name):
    return lambda self, *args, **kwargs: getattr(xp, name)(self, *args, **kwargs)


def _words(text):
    return text.split()


def _dress_class() -> None:
    """Give the array its operators, and the methods that are functions of the module too."""
    for name in _words("add sub mul truediv floordiv mod pow and_ or_ xor lshift rshift matmul"):
        plain = name.rstrip("_")
        symbol = getattr(operator, name)
        setattr(StandInArray, f"__{plain}__", _operator(symbol))
        setattr(StandInArray, f"__r{plain}__", _operator(symbol, reflected=True))
        if name != "matmul":
            setattr(StandInArray, f"__i{plain}__", _in_place(getattr(operator, f"i{plain}")))
    for name in ("lt", "le", "eq", "ne", "gt", "ge"):
        setattr(StandInArray, f"__{name}__", _operator(getattr(operator, name)))
    for name in ("neg", "pos", "abs", "invert"):
        symbol = getattr(operator, name)
        setattr(StandInArray, f"__{name}__", lambda self, s=symbol: _wrap(s(self._hidden)))
    for name in _words(
        "all any argmax argmin argpartition argsort choose clip compress conj copy cumprod cumsum "
        "diagonal dot max mean min nonzero prod ravel repeat round searchsorted squeeze std sum "
        "swapaxes take trace var"
    ):
        setattr(StandInArray, name, _method(name))


def _make_module() -> types.ModuleType:
    """The stand-in for the module `cupy`."""
    module = types.ModuleType("standin_xp", "Stands in for cupy.")
    for name in ("linalg", "fft"):
        setattr(module, name, types.ModuleType(f"standin_xp.{name}"))
    module.linalg.LinAlgError = np.linalg.LinAlgError
    for name in _words(
        "bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 intp float16 float32 float64 "
        "complex64 complex128 floating integer inexact number generic signedinteger "
        "unsignedinteger dtype finfo iinfo pi e inf nan newaxis euler_gamma can_cast promote_types "
        "issubdtype isdtype isscalar broadcast_shapes ndindex s_ index_exp"
    ):
        setattr(module, name, getattr(np, name))
    module.ndarray = StandInArray
    module.asarray = module.asanyarray = _upload
    module.array = lambda obj, dtype=None, copy=True, **_: _upload(obj, dtype, copy=copy)
    module.asnumpy = lambda array: array.get()
    module.result_type = lambda *given: np.result_type(*_unwrap(given))
    module.ndim = lambda a: np.ndim(_unwrap(a))
    module.shape = lambda a: np.shape(_unwrap(a))
    module.size = lambda a, axis=None: np.size(_unwrap(a), axis)
    for line in (Path(__file__).parent / "cupy_functions.txt").read_text().splitlines():
        name, has_parameters, rest = line.partition("(")
        if line.startswith(("#", "[")) or not line:
            continue
        folder, _, short = name.rpartition(".")
        host = getattr(getattr(np, folder) if folder else np, short, None)
        if host is None:  # newer than the NumPy at hand
            continue
        owner = getattr(module, folder) if folder else module
        if has_parameters:
            setattr(owner, short, _function(name, rest.rstrip(")").split(", "), host))
        else:
            setattr(owner, short, _Ufunc(name, host))
    return module


xp = _make_module()
_dress_class()
