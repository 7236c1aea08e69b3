"""Finds what the code uses of other packages that their makers do not document.

By the source alone, so by names: a private name that this project defines as well, in whatever
place, is taken for its own.
"""

import ast
import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.sounds import ROOT

# Names with an underscore that are documented.
DOCUMENTED = {
    *("_meta", "_default_manager"),  # Django: model _meta API, managers
    *("_replace", "_asdict", "_fields", "_make"),  # named tuples
    "_exit",  # os
}
# Modules that hold no documented name.
INTERNAL = (
    *("gunicorn.workers.gthread", "prometheus_client.mmap_dict", "prometheus_client.values"),
    "schemathesis.core.file_samples",
)
OWN = ("separations", "stemsite", "tests")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@dataclass
class Module:
    """A source file: what it imports by which name, and its classes."""

    path: str
    tree: ast.Module
    imported: dict[str, str] = field(default_factory=dict)  # name here: whole name

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name if alias.asname else alias.name.partition(".")[0]
                    self.imported[alias.asname or top] = top
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    self.imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def whole_name(self, node: ast.expr) -> str:
        """`gunicorn.workers.gthread.TConn` for `gthread.TConn`; "" where nothing is imported."""
        if isinstance(node, ast.Subscript):
            return self.whole_name(node.value)
        if isinstance(node, ast.Attribute):
            before = self.whole_name(node.value)
            return f"{before}.{node.attr}" if before else ""
        if not isinstance(node, ast.Name):
            return ""
        if any(isinstance(each, ast.ClassDef) and each.name == node.id for each in self.tree.body):
            return f"{self.path.removesuffix('.py').replace('/', '.')}.{node.id}"
        return self.imported.get(node.id, "")


def modules() -> list[Module]:
    found = []
    for top in OWN:
        for path in sorted((ROOT / top).rglob("*.py")):
            if "migrations" not in path.parts:
                name = str(path.relative_to(ROOT))
                found.append(Module(name, ast.parse(path.read_text())))
    return found


def own_names(all_modules: list[Module]) -> set[str]:
    """Every private name that this project itself defines."""
    found: set[str] = set()
    for node in (node for module in all_modules for node in ast.walk(module.tree)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found |= {node.attr} if ast.unparse(node.value) in ("self", "cls") else set()
    return found


def is_foreign(whole_name: str) -> bool:
    return bool(whole_name) and whole_name.split(".")[0] not in OWN


def names_used(module: Module, own: set[str]) -> Iterator[str]:
    """Private names of others, internal modules, and what is set in others' modules."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            if is_private(node.attr) and node.attr not in own | DOCUMENTED:
                yield node.attr
            whole_name = module.whole_name(node)
            is_set = isinstance(node.ctx, ast.Store) and is_foreign(whole_name)
            if is_set and not whole_name.startswith("django.conf.settings."):  # a tests' fixture
                yield whole_name
            if whole_name == "sys.modules" and not module.path.startswith("tests/"):
                yield whole_name
    for whole_name in module.imported.values():
        last = whole_name.rpartition(".")[2]
        if is_foreign(whole_name) and is_private(last) and last not in DOCUMENTED:
            yield last
        for internal in INTERNAL:
            if f"{whole_name}.".startswith(f"{internal}."):
                yield internal


def overrides(module: Module, bases: dict[str, list[str]]) -> Iterator[str]:
    """Private methods and attributes that a class of ours takes over from a class of others."""
    for node in module.tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        private = {
            each.name
            for each in node.body
            if isinstance(each, ast.FunctionDef) and is_private(each.name)
        }
        private |= {
            target.id
            for each in node.body
            if isinstance(each, ast.Assign)
            for target in each.targets
            if isinstance(target, ast.Name) and is_private(target.id)
        }
        if private:
            for base in foreign_bases(module.whole_name(ast.Name(node.name)), bases):
                yield from (f"{node.name}.{name}" for name in private if hasattr(base, name))


def foreign_bases(name: str, bases: dict[str, list[str]]) -> Iterator[type]:
    for base in bases.get(name, ()):
        if is_foreign(base):
            place, _, last = base.rpartition(".")
            yield getattr(importlib.import_module(place), last)
        else:
            yield from foreign_bases(base, bases)


def classes(all_modules: list[Module]) -> dict[str, list[str]]:
    """The bases of each class of ours, by whole names."""
    return {
        module.whole_name(ast.Name(node.name)): [module.whole_name(base) for base in node.bases]
        for module in all_modules
        for node in module.tree.body
        if isinstance(node, ast.ClassDef)
    }


def found_in(all_modules: list[Module]) -> set[tuple[str, str]]:
    own, bases = own_names(all_modules), classes(all_modules)
    return {
        (module.path, name)
        for module in all_modules
        for name in (*names_used(module, own), *overrides(module, bases))
    }
