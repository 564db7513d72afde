"""The site: ``python -m sphinx -W --keep-going -n -b html docs docs/_build/html``, offline."""

import os
import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.math import get_node_equation_number

os.environ.setdefault("MPLBACKEND", "Agg")

import skiehercl

project = "skiehercl"
author = "The skiehercl developers"
copyright = "The skiehercl developers, BSD-3-Clause"
release = version = skiehercl.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/README.rst", "gallery/*.py"]
templates_path = ["_templates"]

default_role = "code"  # `labels_` in our docstrings
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
toc_object_entries_show_parents = "hide"
# Pages of other projects, which are not fetched: the build needs no network.
nitpick_ignore_regex = [(r"py:.*", r"(sklearn|numpy|scipy|pandas|torch|anndata|matplotlib)\..*")]

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("skiehercl",),
    "reference_url": {"skiehercl": None},
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "parallel": 2,
    "write_computation_times": False,
}

html_theme = "pydata_sphinx_theme"
html_title = f"skiehercl {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_sidebars = {"index": [], "start": [], "faq": [], "peers": []}
html_theme_options = {
    "github_url": "https://github.com/skiehercl/skiehercl",
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
}
html_math_renderer = "mathml"


def _skip_member(app, what, name, value, skip, options):
    """Leave out what scikit-learn's base classes bring: their pages describe it."""
    inherited = (getattr(value, "__module__", None) or "").startswith("sklearn")
    ours = not inherited and not isinstance(value, type)
    return skip or not ours or bool(re.fullmatch(r"set_\w+_request", name)) or None


def _find_by_last_name(app, env, node, contnode):
    """Resolve a name that is documented under another module, as SpatialKNNGraph is."""
    domain = env.get_domain("py")
    last = node.get("reftarget", "").rpartition(".")[2]
    found = [
        name
        for name, entry in domain.objects.items()
        if not entry.aliased and name.rpartition(".")[2] == last
    ]
    if node.get("refdomain") != "py" or len(found) != 1:
        return None
    where = node.get("refdoc"), app.builder, node["reftype"], found[0], node, contnode
    return domain.resolve_xref(env, *where)


def _visit_math(self, node):
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _visit_math_block(self, node):
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})</span>')
    self.body.append(tex2mathml(node.astext(), as_block=True) + "</div>")
    raise nodes.SkipNode


def setup(app):
    """Connect what Sphinx calls."""
    # Formulas that the browser draws by itself: MathJax would have to be fetched.
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math_block, None))
    app.connect("autodoc-skip-member", _skip_member)
    app.connect("missing-reference", _find_by_last_name)
