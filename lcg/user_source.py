"""The source of users' own classes: which files it consists of, its hash, its copy, its import.

A user's module comes with the modules of its folder that it imports, directly or indirectly, but
without installed modules. It is imported under a separate name, in which its imports of neighbours
are found too. So two folders may each have a `helper.py`, and the copy in a run directory does not
collide with either.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import re
import site
import sys
import sysconfig
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

# Their versions are in provenance.json of every run, and are no part of what a class is.
COMMON = ("lcg", "torch", "lightning", "numpy", "einops", "omegaconf", "wandb")
PROVIDED = sys.stdlib_module_names.union(COMMON)


@dataclass(frozen=True)
class UserModule:
    """A module that is not installed, with the modules of its folder that it imports.

    root: the folder of its neighbours. name: its dotted name below that folder. alone: neighbours
    take precedence over installed modules, as in a copy; otherwise installed modules do, so that a
    neighbour shadows nothing.
    """

    root: Path
    name: str
    alone: bool = False

    @property
    def package(self) -> str:
        """The name under which the folder's modules are imported."""
        return f"lcg_user_{zlib.crc32(f'{self.alone} {self.root}'.encode()):08x}"

    def find(self, name: str) -> Path | None:
        """Return the file, or the folder without `__init__.py`, that an import of `name` finds.

        None for a module that is installed, part of Python, or missing.
        """
        top = name.partition(".")[0]
        if top in PROVIDED:
            return None
        own = _below(self.root, name)
        if self.alone and top != self.name:  # the module may be called as something installed is
            return own
        if (spec := _spec(top)) is not None:
            place = _place(spec)
            if place is None:
                return None
            if _below(self.root, top) is None:
                return _below(place.parent, name)
        return own

    def file_of(self, name: str) -> Path | None:
        """Return the file of a module of the folder, without regard to installed modules."""
        return self.find(name) or _below(self.root, name)

    @property
    def files(self) -> dict[str, Path]:
        """Return its Python files by module name, its own first.

        Raises ValueError for a file that cannot be read or is not Python.
        """
        return self._reached[0]

    @property
    def packages(self) -> dict[str, str]:
        """Return the version of each installed distribution that these files import, except
        COMMON."""
        names = {name for top in self._reached[2] for name in owners(top)}
        return {name: importlib.metadata.version(name) for name in sorted(names)}

    @property
    def unknown(self) -> list[str]:
        """Return the top-level modules that these files import and that no distribution has."""
        return sorted(top for top in self._reached[2] if not owners(top) and _is_importable(top))

    @cached_property
    def _reached(self) -> tuple[dict[str, Path], dict[str, bytes], set[str]]:
        """Return the files, and their contents, of all modules that imports lead to, each read
        once.

        Also the top-level names of modules that are not the user's.
        """
        files, contents, others = {}, {}, set()
        pending = [self.name]
        while pending:
            name = pending.pop()
            path = None if name in files else self.file_of(name)
            if path is None or path.is_dir():
                continue
            files[name], contents[name] = path, _read(path)
            pending += _parents(name)
            for target in _imported(_parsed(contents[name], path), name, path):
                top = target.partition(".")[0]
                if self.find(top) is not None:
                    pending += [target, *_parents(target)]
                elif top not in PROVIDED:
                    others.add(top)
        return files, contents, others

    @cached_property
    def digest(self) -> str:
        """Return twelve hex digits of the code, without docstrings and comments, and of `packages`.

        The folder and the module's own name are not part of it. Raises ValueError as `files` does.
        """
        files, contents, _ = self._reached
        code = {
            "" if name == self.name else name: _canonical(_parsed(content, files[name]))
            for name, content in contents.items()
        }
        text = repr((sorted(code.items()), sorted(self.packages.items())))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def copied(self) -> dict[str, bytes]:
        """Return each file's relative path in a copy, with slashes, and its content."""
        files, contents, _ = self._reached
        return {place_of(name, path): contents[name] for name, path in files.items()}

    def load(self) -> ModuleType:
        """Import the module, once per process, and return it. Raises what its code raises."""
        if self.package not in sys.modules:
            package = ModuleType(self.package, "A folder of the user's own modules.")
            package.__path__ = []
            sys.modules[self.package] = package
            sys.meta_path.insert(0, self)
        return importlib.import_module(f"{self.package}.{self.name}")

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find `lcg_user_….module` in the folder, as a finder of `sys.meta_path`."""
        package, _, name = fullname.partition(".")
        if package != self.package or not name or (file := self.file_of(name)) is None:
            return None
        if file.is_dir():
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(file)]
            return spec
        inside = [str(file.parent)] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname,
            file,
            loader=_Loader(fullname, str(file), self),
            submodule_search_locations=inside,
        )


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a file so that its imports of neighbours find the same package.

    No bytecode is cached on disk: a copy contains only what its originals contain.
    """

    def __init__(self, fullname: str, path: str, folder: UserModule) -> None:
        super().__init__(fullname, path)
        self.folder = folder

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._import}
        super().exec_module(module)

    def _import(
        self, name: str, globals: Any = None, locals: Any = None, names: Any = (), level: int = 0
    ) -> ModuleType:
        top = name.partition(".")[0]
        if level or self.folder.find(top) is None:
            return __import__(name, globals, locals, names, level)
        package = self.folder.package
        if names:
            return __import__(f"{package}.{name}", globals, locals, names)
        importlib.import_module(f"{package}.{name}")
        return sys.modules[f"{package}.{top}"]


def place_of(name: str, path: Path) -> str:
    """Return the place of a module's file in a copy, relative to its folder and with slashes."""
    return name.replace(".", "/") + ("/__init__.py" if path.name == "__init__.py" else ".py")


def same_code(one: Path, other: Path) -> bool:
    """True for two files that differ in comments, docstrings and layout at most."""
    try:
        first, second = (_canonical(_parsed(_read(path), path)) for path in (one, other))
    except ValueError:
        return False
    return repr(first) == repr(second)


@cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def owners(module: str) -> list[str]:
    """Return the installed distributions that provide a module."""
    return sorted(set(_distributions().get(module.partition(".")[0], ())))


def version_of(module: str) -> str:
    """Return the version of the distribution that provides a module; '' if unknown."""
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in owners(module))


def is_for_lcg(module: str) -> bool:
    """True for a module of an installed distribution that requires lcg."""
    required = [line for name in owners(module) for line in importlib.metadata.requires(name) or ()]
    return any(re.match(r"lcg\b(?![-.])", line) for line in required)


def without_prefix(text: str) -> str:
    """Return a message with the names of the user's modules as the user wrote them."""
    return re.sub(r"\blcg_user_[0-9a-f]{8}\.", "", text)


def local_root(name: str) -> Path | None:
    """Return the folder below which a dotted module lies; None if it is installed.

    A module that Python does not find is looked up in the current folder.
    """
    top = name.partition(".")[0]
    spec = None if top in PROVIDED else _spec(top)
    if spec is None:
        return Path.cwd() if _below(Path.cwd(), top) is not None else None
    place = _place(spec)
    return None if place is None else place.parent


# ---- where modules are


_PATH = tuple(sys.path)  # as it is before a user's code may change it


def _spec(top: str) -> ModuleSpec | None:
    """Find a module on the initial path of Python, ignoring modules already imported."""
    changed, sys.path[:] = sys.path[:], _PATH
    try:
        specs = (f.find_spec(top, None) for f in sys.meta_path if not isinstance(f, UserModule))
        return next((spec for spec in specs if spec is not None), None)
    except ImportError:
        return None
    finally:
        sys.path[:] = changed


def _is_importable(top: str) -> bool:
    """True for a top-level module that Python finds by its path as it is now."""
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):  # ValueError: a module without a spec, such as __main__
        return False


def _place(spec: ModuleSpec) -> Path | None:
    """The file of a top-level module of the user's own, of a package its folder.

    None for one that is of Python itself or installed.
    """
    inside = spec.submodule_search_locations
    if not inside and not (spec.origin and spec.has_location):
        return None
    place = Path(next(iter(inside)) if inside else spec.origin)
    libraries = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib")]
    libraries += [*site.getsitepackages(), site.getusersitepackages()]
    is_installed = not {"site-packages", "dist-packages"}.isdisjoint(place.parts)
    return None if is_installed or any(map(place.is_relative_to, libraries)) else place


def _below(root: Path, name: str) -> Path | None:
    base = root.joinpath(*name.split("."))
    for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
        if path.is_file():
            return path
    return base if base.is_dir() else None


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


# ---- what files say


def _read(path: Path) -> bytes:
    """The content of a source file. Raises ValueError for a device, a folder, or 10 MB and more."""
    try:
        if not path.is_file() or path.stat().st_size > 10**7:
            raise ValueError(f"{path} is not a source file")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _parsed(content: bytes, path: Path) -> ast.Module:
    try:
        return ast.parse(content)
    except SyntaxError as error:
        raise ValueError(f"{path}:{error.lineno}: {type(error).__name__}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path} is not Python: {error}") from None


def _imported(tree: ast.Module, name: str, path: Path) -> Iterator[str]:
    """Dotted names that a module may import, wherever in it the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                inside = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
                kept = inside[: len(inside) - node.level + 1]
                base = ".".join([*kept, *filter(None, [node.module])])
            yield from filter(None, [base])
            yield from (".".join(filter(None, [base, alias.name])) for alias in node.names)


def _canonical(node: Any) -> Any:
    """A syntax tree as tuples, without positions, strings that stand alone, and empty fields.

    It is the same in every version of Python that can read the file.
    """
    if isinstance(node, list):
        return tuple(_canonical(item) for item in node if not _stands_alone(item))
    if not isinstance(node, ast.AST):
        return node
    fields = [
        (name, _canonical(value))
        for name, value in ast.iter_fields(node)
        if value not in (None, []) and name not in ("ctx", "kind", "type_comment", "type_ignores")
    ]
    return (type(node).__name__, *fields)


def _stands_alone(node: Any) -> bool:
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    return False
