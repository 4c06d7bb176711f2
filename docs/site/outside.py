"""Files of the repository outside docs/ that its pages link to, in the site.

The pages link to each other as they lie in the repository, which is what a
code host shows. In the site the README becomes the first page, every other
file outside docs/ that a page links to keeps its path, and links follow.
"""

import pathlib
import posixpath
import re

from mkdocs.structure.files import File

_LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
_DOCS = "docs/"
_FIRST = "README.md"


def on_files(files, config):
    """Adds the files that pages link to, and those that these link to."""
    root = pathlib.Path(config.config_file_path).parent
    there = [_path(file, config) for file in files.documentation_pages()]
    pages = [_FIRST, *there]
    seen = set(pages)
    while pages:
        path = pages.pop()
        if not path.startswith(_DOCS):
            place, source = _place(path), str(root / path)
            files.append(File.generated(config, place, abs_src_path=source))
        if path.endswith(".md") and (root / path).is_file():
            text = (root / path).read_text(encoding="utf-8")
            targets = {_resolved(m[2], path) for m in _LINK.finditer(text)}
            new = {t for t in targets - seen if (root / t).is_file()}
            seen |= new
            pages += sorted(new)
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links between files of the repository into links of the site."""
    path = _path(page.file, config)
    here = posixpath.dirname(page.file.src_uri) or "."

    def link(match):
        target = _place(_resolved(match[2], path))
        if files.get_file_from_path(target) is None:
            # mkdocs warns of it, in the author's words.
            return match[0]
        return match[1] + posixpath.relpath(target, here) + match[3]

    return _LINK.sub(link, markdown)


def _resolved(link, path):
    """What a link of a page points to: a path in the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def _place(path):
    """Where a file of the repository lies among the site's sources."""
    return "index.md" if path == _FIRST else path.removeprefix(_DOCS)


def _path(file, config):
    """Where a source of the site lies in the repository."""
    if file.abs_src_path is None:
        # Written while the site is built, as if it lay in docs/.
        return _DOCS + file.src_uri
    root = pathlib.Path(config.config_file_path).parent
    return pathlib.Path(file.abs_src_path).relative_to(root).as_posix()
