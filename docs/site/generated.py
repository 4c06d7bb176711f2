"""Pages that the source of the package is enough for: flags, Python API.

A page for each program, from its flags; a page for each package, from its
table of public names and the docstrings behind them, which mkdocstrings reads
from the source. Nothing of TensorFlow is imported.
"""

import importlib
import inspect

from mkdocs.structure.files import File

from mart_tf import lazy

# Each program, and the page that says more.
PROGRAMS = {
    "train": "own_model.md",
    "evaluate": "evaluation.md",
    "export": "serving.md",
    "label": "semi_supervised.md",
}
PACKAGES = (
    "mart_tf",
    "mart_tf.attacks",
    "mart_tf.data",
    "mart_tf.defenses",
    "mart_tf.evaluation",
    "mart_tf.labeling",
    "mart_tf.models",
    "mart_tf.training",
)
# A module: all that it has is imported with it.
LOSSES = "mart_tf.losses"


def on_files(files, config):
    """Adds the pages."""
    pages = {f"programs/mart-{name}.md": program(name) for name in PROGRAMS}
    pages |= {f"api/{name}.md": package(name) for name in PACKAGES}
    pages[f"api/{LOSSES}.md"] = "\n".join(
        [
            f"# {LOSSES}",
            "",
            f"::: {LOSSES}",
            "    options:",
            "      show_root_heading: false",
        ]
    )
    for place, content in pages.items():
        files.append(File.generated(config, place, content=content))
    return files


def program(name):
    """The page of a program: what it does, how it is called, its flags."""
    module = importlib.import_module(f"mart_tf.{name}")
    summary = module.SUMMARY[0].upper() + module.SUMMARY[1:]
    calls = inspect.getdoc(module).split("\n\n")[1:]
    rows = [
        f"| `--{flag}` | {_cell(_default(module.FLAGS[flag].default))} "
        f"| {_cell(module.FLAGS[flag].help)} |"
        for flag in sorted(module.FLAGS)
    ]
    return "\n".join(
        [
            f"# mart-{name}",
            "",
            summary,
            "",
            *(f"```bash\n{text}\n```\n" for text in calls),
            f"More: [{PROGRAMS[name]}](../{PROGRAMS[name]}).",
            "",
            "| flag | default | what it is |",
            "|---|---|---|",
            *rows,
        ]
    )


def package(name):
    """The page of a package: every public name, by its docstring."""
    imported = importlib.import_module(name)
    table = lazy.table_of(name)
    lines = [f"# {name}", "", inspect.getdoc(imported), ""]
    for public in dir(imported):
        path = table.get(public, f"{name}.{public}")
        if path in (*PACKAGES, LOSSES):
            lines.append(f"- [`{path}`]({path}.md)")
            continue
        lines += [
            "",
            f"::: {path.replace(':', '.')}",
            "    options:",
            f"      heading: {name}.{public}",
            f"      toc_label: {public}",
        ]
    return "\n".join(lines)


def _default(value):
    return "" if value is None else f"`{value}`"


def _cell(text):
    return text.replace("|", "\\|").replace("<", "&lt;")
