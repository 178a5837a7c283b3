"""An SVG, put together piece by piece."""

INK, QUIET, LINE, PAPER = "#1f2430", "#5f6675", "#d5d9e2", "#ffffff"
BLUE, GREEN, ORANGE, RED = "#3f51b5", "#2e8b57", "#d9822b", "#c0392b"
OF_BITS = {2: "#c5cae9", 3: "#9fa8da", 4: "#7986cb", 8: "#3f51b5"}


class Picture:
    """Lines of an SVG on a white card, which is readable on dark pages too."""

    def __init__(self, width: int, height: int, title: str):
        self.lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-label="{title}" '
            'font-family="system-ui, -apple-system, Segoe UI, Roboto, sans-serif" font-size="14">',
            f"<title>{title}</title>",
            f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>',
        ]

    def text(self, x, y, words, size=14, fill=INK, anchor="start", weight="normal", turn=0):
        turned = f' transform="rotate({turn} {x:g} {y:g})"' if turn else ""
        self.lines.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
            f'font-weight="{weight}"{turned}>{words}</text>'
        )

    def box(self, x, y, width, height, fill, stroke="none", rx=3):
        self.lines.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{rx}" '
            f'fill="{fill}" stroke="{stroke}"/>'
        )

    def line(self, x1, y1, x2, y2, stroke=LINE, width=1.0, dashes=""):
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        self.lines.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{stroke}" '
            f'stroke-width="{width}"{dashed}/>'
        )

    def dot(self, x, y, fill, radius=7.0):
        self.lines.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius}" fill="{fill}"/>')

    def svg(self) -> str:
        return "\n".join([*self.lines, "</svg>"]) + "\n"
