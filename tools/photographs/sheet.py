"""Lays the pictures of a folder out in lines of eight, each as large as it is, in the order of their names.

    python3 sheet.py DRAWN SHEET
"""

import sys
from pathlib import Path

from PIL import Image

COLUMNS = 8
GAP = 2


def main():
    """Writes the sheet."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    pictures = [Image.open(path) for path in sorted(Path(sys.argv[1]).glob("*.png"))]
    step = pictures[0].width + GAP
    lines = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * step + GAP, lines * step + GAP), (128, 128, 128))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (GAP + place % COLUMNS * step, GAP + place // COLUMNS * step))
    sheet.save(sys.argv[2], optimize=True)


if __name__ == "__main__":
    main()
