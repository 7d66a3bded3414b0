"""Draws the diagram of doc/how_it_works.rst: python doc/pictures/draw_method.py."""

from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LINE = 520, 790, 19
INK, BLUE, ORANGE, GREEN, GREY = "#1b2a3a", "#dcebf7", "#fbe6d0", "#dff0e2", "#eef0f2"
#: Left, top, width, colour and lines of each box; the first line is bold.
BOXES = [
    (20, 20, 230, GREY, ["static image", "T1, template ..."]),
    (270, 20, 230, GREY, ["moving image", "T1, b0, MD, FA ..."]),
    (
        20,
        100,
        480,
        BLUE,
        ["Affine registration", "centre of mass, rigid, affine: the prealign A"],
    ),
    (
        20,
        180,
        480,
        BLUE,
        ["How similar are the contrasts?", "mean signed local correlation r"],
    ),
    (20, 268, 150, GREY, ["r ≥ .45", "one contrast,", "close together:", "no network"]),
    (
        185,
        268,
        150,
        ORANGE,
        ["r < 0", "anatomy maps:", "intensities mapped", "to static's contrast"],
    ),
    (350, 268, 150, ORANGE, ["else", "network predicts", "a first", "displacement"]),
    (
        20,
        390,
        480,
        BLUE,
        [
            "Refinement, from coarse to fine voxels",
            "1. warp moving by u and static by v, compare with the other",
            "2. gradient of both, smoothed",
            "3. Adam: the displacement of this iteration",
            "4. compose u and v with it, smooth both",
            "5. halve the inverse error, repair folds",
            "↻ until the energy decreases by less than 1/200",
        ],
    ),
    (
        20,
        560,
        480,
        GREEN,
        [
            "Limits of every result",
            "no folds (J ≥ .01), inverse error ≤ .05 voxel on average",
        ],
    ),
    (
        20,
        640,
        480,
        GREEN,
        ["DiffeomorphicMap", "displacement u, inverse v, prealign A"],
    ),
    (20, 720, 230, GREY, ["verdict", "good, doubtful, failed"]),
    (270, 720, 230, GREY, ["uncertainty", "expected error, mm"]),
]
#: From and to, the points of each arrow.
ARROWS = [
    ((135, 74), (135, 100)),
    ((385, 74), (385, 100)),
    ((260, 154), (260, 180)),
    ((95, 234), (95, 268)),
    ((260, 234), (260, 268)),
    ((425, 234), (425, 268)),
    ((95, 360), (95, 390)),
    ((260, 360), (260, 390)),
    ((425, 360), (425, 390)),
    ((260, 539), (260, 560)),
    ((260, 614), (260, 640)),
    ((135, 694), (135, 720)),
    ((385, 694), (385, 720)),
]


def draw_box(left, top, width, colour, lines):
    """A rectangle with lines of text, centred."""
    height = 16 + LINE * len(lines)
    yield (
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="7" '
        f'fill="{colour}" stroke="{INK}" stroke-width="1"/>'
    )
    for number, text in enumerate(lines):
        weight = ' font-weight="bold"' if number == 0 else ""
        y = top + 22 + LINE * number
        x = left + width / 2
        yield f'<text x="{x:g}" y="{y}"{weight}>{escape(text)}</text>'


def draw():
    """The diagram as SVG."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="15" fill="{INK}" '
        'text-anchor="middle">',
        "<title>Steps of a registration</title>",
        '<defs><marker id="tip" markerWidth="9" markerHeight="9" refX="8" refY="4" '
        f'orient="auto"><path d="M0,0 L8,4 L0,8 Z" fill="{INK}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="white"/>',
    ]
    for box in BOXES:
        lines += draw_box(*box)
    for (x1, y1), (x2, y2) in ARROWS:
        lines.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{INK}" '
            'stroke-width="1.5" marker-end="url(#tip)"/>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("how_it_works.svg").write_text(draw())
