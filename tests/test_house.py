"""The rules of the house, read from the syntax trees: who imports what, what the core may not."""

import ast
import importlib
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import miri_gpu
from miri_gpu.parameters import Parameters

PACKAGE = Path(miri_gpu.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
CORE_FOLDERS = {"numerics", "ramps", "rates", "spectra"}
CORE_FILES = {"area", "background", "containers", "detector", "errors", "parameters"}
CORE_IMPORTS = {
    "numpy", "scipy", "miri_gpu",
    "collections", "dataclasses", "enum", "functools", "itertools", "math", "types", "typing",
}  # fmt: skip
CORE_MAY_USE = {"backend", "kernels"}  # of miri_gpu, beside the core itself
HEAVY = ("jwst", "stdatamodels", "crds", "cupy", "matplotlib", "astropy", "xarray", "rich", "click")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_core(path: Path) -> bool:
    first = path.relative_to(PACKAGE).parts[0]
    return first in CORE_FOLDERS or first.removesuffix(".py") in CORE_FILES


CORE = [path for path in SOURCES if is_core(path)]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports_of(tree: ast.AST) -> set[str]:
    """Every module that is imported anywhere, also inside functions or by name."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return found


def functions_of(tree: ast.Module):
    """The functions and methods of a module, not those inside functions."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from (item for item in node.body if isinstance(item, ast.FunctionDef))


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=[module_name(path) for path in paths])


def all_parameters() -> list[type[Parameters]]:
    """Every settings class of the core."""
    for path in CORE:
        importlib.import_module(module_name(path))
    found, queue = [], [Parameters]
    while queue:
        below = [c for c in queue.pop().__subclasses__() if c.__module__.startswith("miri_gpu")]
        found += below
        queue += below
    return found


# --- who imports what


@each([path for path in SOURCES if path.name != "backend.py"])
def test_only_the_backend_imports_cupy(path):
    names = {name.split(".")[0] for name in imports_of(tree_of(path))}
    assert not names & {"cupy", "cupyx"}


@each(CORE)
def test_the_core_imports_array_maths_only(path):
    imported = imports_of(tree_of(path))
    assert {name.split(".")[0] for name in imported} <= CORE_IMPORTS
    allowed = CORE_FOLDERS | CORE_FILES | CORE_MAY_USE
    ours = {name.split(".")[1] for name in imported if name.startswith("miri_gpu.")}
    assert ours <= allowed


def test_importing_the_package_is_light():
    """No slow library is loaded, and the import is quick (the bound is generous)."""
    code = (
        "import sys, time; start = time.process_time(); import miri_gpu; "
        "print(time.process_time() - start); "
        f"print(*sorted({{n.split('.')[0] for n in sys.modules}} & set({HEAVY!r})))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    seconds, loaded = answer.stdout.split("\n")[:2]
    assert loaded == ""
    assert float(seconds) < 2.0


def test_the_core_runs_where_only_numpy_and_scipy_are_installed():
    names = [module_name(path) for path in CORE]
    code = (
        "import sys, importlib\n"
        f"for name in {HEAVY!r}: sys.modules[name] = None\n"  # importing them raises
        f"for name in {names!r}: importlib.import_module(name)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


# --- what the core does not do


@each(CORE)
def test_the_core_hides_no_warnings_and_speaks_to_nobody(path):
    text = {ast.unparse(n.func) for n in ast.walk(tree_of(path)) if isinstance(n, ast.Call)}
    assert not text & {"print", "open", "input"}
    attributes = {n.attr for n in ast.walk(tree_of(path)) if isinstance(n, ast.Attribute)}
    assert not attributes & {"errstate", "seterr", "filterwarnings", "simplefilter", "ma"}


@each(CORE)
def test_the_core_keeps_no_state(path):
    assert not [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Global)]


def writes_to_arguments(function: ast.FunctionDef) -> set[str]:
    """Arguments that a function changes in place: `a += 1` or `a[...] = 1`, not bound anew."""
    names = {a.arg for a in [*function.args.args, *function.args.kwonlyargs]} - {"self", "cls"}
    changed, rebound = set(), set()
    for node in ast.walk(function):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AugAssign):
            targets = [node.target]
            changed |= {n.id for n in targets if isinstance(n, ast.Name)}
        for target in targets:
            if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
                changed.add(target.value.id)
            if isinstance(node, ast.Assign):
                parts = target.elts if isinstance(target, ast.Tuple) else [target]
                rebound |= {part.id for part in parts if isinstance(part, ast.Name)}
    return names & changed - rebound


@each(CORE)
def test_public_functions_of_the_core_never_write_to_an_argument(path):
    found = {
        function.name: changed
        for function in functions_of(tree_of(path))
        if not function.name.startswith("_") and (changed := writes_to_arguments(function))
    }
    assert found == {}


def test_the_check_for_written_arguments_finds_them():
    source = (
        "def f(a, b, c, d):\n    a += 1\n    b[0] = 2\n    c = c.copy()\n    c[0] = 1\n    d = a"
    )
    assert writes_to_arguments(ast.parse(source).body[0]) == {"a", "b"}


@each([path for path in SOURCES if path.name != "__main__.py"])
def test_nothing_opens_a_window(path):
    imported = imports_of(tree_of(path))
    assert not {name for name in imported if name.startswith("matplotlib.pyplot")}


# --- what a reader may count on


@each(SOURCES)
def test_modules_and_public_functions_say_what_they_do(path):
    tree = tree_of(path)
    assert ast.get_docstring(tree), "the module has no docstring"
    public = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    silent = [n.name for n in public if not n.name.startswith("_") and not ast.get_docstring(n)]
    assert silent == []


def test_every_setting_has_help_and_a_default_that_is_allowed():
    for cls in all_parameters():
        cls()  # the defaults pass their own checks
        for f in fields(cls):
            assert f.metadata.get("help", "").strip(), f"{cls.__name__}.{f.name} has no help"


def test_every_settings_class_names_its_own_step():
    classes = [cls for cls in all_parameters() if "step" in vars(cls)]
    names = [cls.step for cls in classes]
    assert sorted(names) == sorted(set(names))
    assert all(name.isidentifier() and name == name.lower() for name in names)
