"""Elements of a page: everything that is put in is text, so a name can never become markup.

    element("p", "kept ", element("strong", name), {"class": "note"})

Documents are written by the standard library's own HTML writer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from xml.etree.ElementTree import Element, tostring


def element(tag: str, *parts: Element | str | Mapping[str, str] | Iterable[Element | str]) -> Element:
    """An element with these attributes (mappings), texts and children, in order."""
    made = Element(tag)
    for part in parts:
        if isinstance(part, Mapping):
            made.attrib.update(part)
        elif isinstance(part, str | Element):
            _add(made, part)
        else:
            for one in part:
                _add(made, one)
    return made


def document(root: Element) -> bytes:
    """The page as bytes, UTF-8."""
    written: bytes = tostring(root, encoding="utf-8", method="html")
    return b"<!DOCTYPE html>\n" + written + b"\n"


def _add(made: Element, part: Element | str) -> None:
    if isinstance(part, Element):
        made.append(part)
    elif len(made):
        made[-1].tail = (made[-1].tail or "") + printable(part)
    else:
        made.text = (made.text or "") + printable(part)


def printable(text: str) -> str:
    """Control characters and lone surrogates, which a page cannot hold, as escapes."""
    return "".join(one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode() for one in text)
