"""Web pages of the templates here: one file each, that asks for nothing else.

TensorFlow is not imported.
"""

import base64

import jinja2

from mart_tf import bounds

# A longer list is cut: a thousand class names say nothing.
_LISTED = 20


def rendered(template, drawings, **values):
    """A page of a template of this folder, its figures inside it.

    Args:
        template: The file's name.
        drawings: `sheet.Drawing`s, which the template has as `figures`.
        values: What else it asks for.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mart_tf", "reports"),
        # Names come from users.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = [
        (drawing, base64.b64encode(drawing.png).decode())
        for drawing in drawings
    ]
    environment.filters["percent"] = bounds.percent
    return environment.get_template(template).render(figures=figures, **values)


def said(value):
    """A value of report.json in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(
            f"{key} = {said(inner)}" for key, inner in value.items()
        )
    if isinstance(value, list | tuple):
        more = len(value) - _LISTED
        listed = ", ".join(map(said, value[:_LISTED]))
        return f"{listed} and {more} more" if more > 0 else listed
    return str(value)
