"""Text that comes from elsewhere, such as names of layers, made safe to show."""

import html
import unicodedata

# They would turn the text behind them around.
_TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
# Control characters, and halves of characters, which UTF-8 cannot write.
_UNSEEN = ("Cc", "Cs")


def clean(text: object) -> str:
    """Returns text as one line that every page and terminal can show.

    What has no shape of its own, or turns other text around, becomes a replacement character.
    """
    return "".join(
        "\ufffd" if char in _TURNING or unicodedata.category(char) in _UNSEEN else char
        for char in str(text)
    )


def escaped(text: object) -> str:
    """Returns text as it may stand in HTML, between tags and in attributes."""
    return html.escape(clean(text), quote=True)


def name(text: object) -> str:
    """Returns the name of a layer or a file: apart from the direction of the words around it, and
    rather broken behind a slash than within a word.
    """
    return element("bdi", escaped(text).replace("/", "/<wbr>"))


def element(tag: str, content: str = "", **attributes: object) -> str:
    """Returns an element, its attributes escaped; `content` is HTML already.

    `class_` is the attribute `class`, `aria_label` is `aria-label`; those of `None` are left out.
    """
    told = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{told}>{content}</{tag}>"
