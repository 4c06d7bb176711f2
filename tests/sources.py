"""What each source of the checkout needs, read from the source itself.

Paths are strings relative to the root, such as "mart_tf/losses.py".
"""

import ast
import pathlib
import re

_TOP = "mart_tf"
FOLDERS = ("benchmarks", "export", "mart_tf", "tests")

# Names that are put together at run time, which no reader of strings finds.
_PUT_TOGETHER = {
    "export/load.py": {"export/grpc_client.py", "export/rest_client.py"}
}
_FROM_ROOT = re.compile(r"\b_?ROOT$|\bparents?\b[^/]*$")
_IMPORT = re.compile(
    r"\b(?:from (mart_tf[\w.]*) import (\w+)|import (mart_tf[\w.]*))"
)


class Sources:
    """The sources below a root.

    Attributes:
        paths: All of them, sorted.
        imported: The sources that each names in import statements, those
            inside functions too.
        named: The sources that each names in strings: a module, an object
            ("mart_tf.models.small:cnn4"), or a script that imports.
        programs: Those that do something when they are run as a program.
    """

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.paths = sorted(
            path.relative_to(root).as_posix()
            for folder in FOLDERS
            for path in (self.root / folder).rglob("*.py")
        )
        self.modules = {
            path.removesuffix(".py")
            .removesuffix("/__init__")
            .replace("/", "."): path
            for path in self.paths
            if path.startswith("mart_tf/")
        }
        self._parsed = {
            path: ast.parse((self.root / path).read_text(encoding="utf-8"))
            for path in self.paths
        }
        self.programs = {
            path
            for path, tree in self._parsed.items()
            if any(map(_is_main, tree.body))
        }
        self.imported = {path: self._imports(path) for path in self.paths}
        self.named = {path: self._names(path) for path in self.paths}

    def reached(self, start):
        """All sources that one leads to, itself among them."""
        found, todo = set(), {start}
        while todo:
            path = todo.pop()
            found.add(path)
            todo |= (self.imported[path] | self.named[path]) - found
        return found

    def beside(self, path):
        """The names of the files beside a source that its strings name."""
        files = {
            place.name
            for place in (self.root / path).parent.iterdir()
            if place.is_file() and place.suffix not in ("", ".py")
        }
        return files & set(self._strings(path))

    def from_root(self, path):
        """What a source reads of the root: `ROOT / "flags"` gives "flags".

        A name that is not a literal gives "".
        """
        found = set()
        for node in ast.walk(self._parsed[path]):
            if not (
                isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
            ):
                continue
            rooted = _FROM_ROOT.search(ast.unparse(node.left))
            if isinstance(node.right, ast.Constant):
                # A folder that a test makes has such names too.
                if rooted or not path.startswith("tests/"):
                    found.add(str(node.right.value))
            elif rooted:
                found.add("")
        known = {"", "docs", "flags", *FOLDERS}
        return {
            name
            for name in found
            if name.split("/")[0] in known or (self.root / name).is_file()
        }

    def _imports(self, path):
        found = set()
        for node in ast.walk(self._parsed[path]):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    found.add(self._source(path, alias.name))
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    found.add(self._source(path, node.module, alias.name))
        return found - {None, path}

    def _names(self, path):
        found = set(_PUT_TOGETHER.get(path, ()))
        if path.startswith("tests/") and any(
            ast.unparse(node).startswith("f'mart_tf.{")
            for node in ast.walk(self._parsed[path])
            if isinstance(node, ast.JoinedStr)
        ):
            # The programs are run by name.
            found |= {p for p in self.programs if p.rpartition("/")[0] == _TOP}
        for text in self._strings(path):
            if text != "mart_tf":
                found.add(self.modules.get(text.partition(":")[0]))
            for module, name, other in _IMPORT.findall(text):
                found.add(self._source(path, module or other, name))
        for node in self._parsed[path].body:
            # The modules that mart_tf/__init__.py imports on first use.
            if isinstance(node, ast.Assign) and (
                ast.unparse(node.targets) == "_MODULES"
            ):
                names = ast.literal_eval(node.value)
                found |= {self.modules[_TOP + "." + name] for name in names}
        return found - {None, path}

    def _source(self, path, module, name=""):
        """The source of `from module import name`; None if it is not ours."""
        folder = path.rpartition("/")[0]
        beside = f"{folder}/{module}.py"
        if not path.startswith("mart_tf/") and beside in self.paths:
            return beside
        inner = self.modules.get(f"{module}.{name}")
        return inner or self.modules.get(module)

    def _strings(self, path):
        """The strings of the code: no docstrings."""
        tree = self._parsed[path]
        prose = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)
        }
        return [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node not in prose
        ]


def _is_main(node):
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
