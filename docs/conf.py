"""How the docs are built: `tox -e docs`, or `sphinx-build -W -n docs docs/_build/html`.

    docs/**/*.md          MyST Markdown, also readable as it is
    docs/reference/api    directives of autodoc: names, signatures and docstrings of the public modules
    this file             settings, and two additions

The additions: diagrams in docstrings keep their shape, and code in running text links to the reference where it is a
public name.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

import relay_mp

project = "relay_mp"
author = "the relay_mp authors"
copyright = author
version = release = relay_mp.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]
templates_path: list[str] = []
nitpicky = True
default_role = "code"
highlight_language = "text"

# ---- Markdown ----

myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline", "fieldlist"]
myst_heading_anchors = 3

# ---- the reference ----

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
nitpick_ignore_regex = [
    # The standard library's, and names that signatures have from a type variable or a private module.
    ("py:.*", r"(collections|contextlib|concurrent|datetime|enum|multiprocessing|os|threading|types|typing)(\..*)?"),
    ("py:.*", r"(bool|bytes|dict|float|frozenset|int|list|object|set|str|tuple|type|None|Any|BaseException)"),
    ("py:.*", r"([A-Za-z]*(Error|Exception)|Callable|Iterable|Mapping|Sequence)"),
    ("py:.*", r"relay_mp\._.*"),
    ("py:.*", r"relay_mp\.codecs\.response\..*"),
    ("py:.*", r"(.*\.)?_?[A-Z][A-Za-z]{0,8}"),
]

# ---- the site ----

html_theme = "furo"
html_title = "relay_mp"
html_static_path = ["_static"]
html_css_files = ["relay_mp.css"]
html_favicon = "_static/mark.svg"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "sidebar_hide_name": False,
    "navigation_with_keys": True,
    "light_logo": "mark.svg",
    "dark_logo": "mark.svg",
    "light_css_variables": {
        "color-brand-primary": "#0b6e63",
        "color-brand-content": "#0b6e63",
        "color-brand-visited": "#3d5a80",
        "color-api-name": "#0b6e63",
        "color-api-pre-name": "#5b6b70",
    },
    "dark_css_variables": {
        "color-brand-primary": "#4fd1bd",
        "color-brand-content": "#4fd1bd",
        "color-brand-visited": "#9db8dc",
        "color-api-name": "#4fd1bd",
        "color-api-pre-name": "#93a4a9",
    },
}
copybutton_selector = "div:not(.highlight-output) > div.highlight pre"  # what is printed is not to be pasted


# ---- docstrings ----

GOOGLE = Config(napoleon_use_ivar=True, napoleon_use_rtype=False, napoleon_attr_annotations=False)


def read_docstring(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Docstrings have Google's sections. Those of the standard library and of builtin types are left out."""
    if not str(getattr(found, "__module__", "relay_mp")).startswith("relay_mp"):
        lines.clear()
    keep_diagrams(lines)
    if what not in {"attribute", "data", "property"}:  # of these napoleon takes what is before a colon for a type
        lines[:] = GoogleDocstring(lines, GOOGLE, app, what, name, found, options).lines()


def keep_diagrams(lines: list[str]) -> None:
    """An indented block under a paragraph is a diagram or an example: it keeps its shape, as a literal block."""
    found: list[str] = []
    margin_before = False  # whether the newest line with text was at the margin
    is_literal = False
    for line in lines:
        if line and not line.startswith(" "):
            margin_before, is_literal = True, False
        elif line.strip() and margin_before and found and not found[-1].strip() and not is_literal:
            found += ["::", ""]
            margin_before, is_literal = False, True
        elif line.strip():
            margin_before = False
        found.append(line)
    lines[:] = found


def show_factories(
    _app: Sphinx, _what: str, _name: str, _found: Any, _options: Any, arguments: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """A dataclass's default that is made anew each time is shown as `...`: `<factory>` cannot be parsed."""
    return (arguments.replace("<factory>", "...") if arguments else arguments), returned


# ---- code that is a public name links to its entry ----


class LinkNames(SphinxPostTransform):
    """Makes `relay_mp.scope.event`, `scope.event` or `ScopeType` in running text a link, wherever it stands."""

    default_priority = 900
    formats = ("html",)

    def run(self, **_: Any) -> None:
        objects = self.env.domains.python_domain.objects
        for literal in list(self.document.findall(nodes.literal)):
            name = self._full_name(literal.astext(), objects)
            if name is None or isinstance(literal.parent, nodes.reference | nodes.title):
                continue
            entry = objects[name]
            if entry.docname == self.env.docname and isinstance(literal.parent, nodes.term):
                continue
            content = nodes.literal("", literal.astext(), classes=["xref", "py"])
            builder = self.app.builder
            link = make_refnode(builder, self.env.docname, entry.docname, entry.node_id, content, name)
            literal.replace_self(link)

    @staticmethod
    def _full_name(text: str, objects: Any) -> str | None:
        text = re.sub(r"\(.*\)$", "", text)
        if not re.fullmatch(r"[A-Za-z_][\w.]*", text):
            return None
        is_telling = "." in text or text[0].isupper()
        candidates = [text, f"relay_mp.{text}"] if is_telling else []
        return next((name for name in candidates if name in objects), None)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", show_factories)
    app.add_post_transform(LinkNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
