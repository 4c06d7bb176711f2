"""Tables in pages: written as text, and into the places that a page has."""

import re


def filled(text, found, page):
    """The text of a page with its tables anew.

    Args:
        text: What the page says now; `<!-- NAME -->` and `<!-- end -->` are
            around each of its tables.
        found: Tables by those names.
        page: What the page is called.
    """
    for name, table in found.items():
        place = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(
            place,
            lambda at, t=table: f"{at[1]}{t}\n{at[2]}",
            text,
            flags=re.DOTALL,
        )
        if count != 1:
            raise ValueError(f"{page} has {count} places for {name}, not one.")
    return text


def table(head, rows, texts=1):
    """A markdown table, its numbers to the right.

    Args:
        head: The names of its columns, with | between them.
        rows: Lists of texts.
        texts: How many of its first columns are no numbers.
    """
    head = head.split("|")
    sides = ["---"] * texts + ["---:"] * (len(head) - texts)
    lines = [head, sides, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
