"""Reads the files that `cargo run --example decode` has left in a folder by Pillow, with libjpeg-turbo: `python3 decode_pillow.py FOLDER`."""

import io
import sys
import time
from pathlib import Path

from PIL import Image, features

TURNS = 5


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).glob("*.jpg"))]
    begin = time.perf_counter()
    pixels = 0
    for data in files * TURNS:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            pixels += 3 * picture.width * picture.height
    rate = 1 / (time.perf_counter() - begin) / 1e6
    read = TURNS * sum(map(len, files))
    print(f"by libjpeg-turbo {features.version('libjpeg_turbo')}: {read * rate:.1f} MB/s of JPEG, {pixels * rate:.1f} MB/s of pixels")


if __name__ == "__main__":
    main()
