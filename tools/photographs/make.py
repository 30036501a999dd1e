"""Makes a folder of captioned pictures of what lies inside two packages: docs/own-data.md trains on it.

    python3 make.py WHEELS PICTURES

WHEELS holds the files of scikit-learn 1.9.1 and scikit-image 0.26.0, as `pip download --no-deps` leaves them; which Python they are for
does not matter. PICTURES gets PNGs of 64 pixels and metadata.jsonl. The same wheels and the same Pillow give the same pictures.
"""

import csv
import gzip
import io
import json
import random
import sys
import zipfile
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

SIDE = 64
SEED = 1

# What a whole crop shows: caption, file, middle and side of the crop in pixels, and whether its mirror image shows the same.
THINGS = [
    ("a cup of coffee", "skimage/data/coffee.png", (294, 190, 360), True),
    ("a cat", "skimage/data/chelsea.png", (225, 150, 290), True),
    ("the eye of a cat", "skimage/data/chelsea.png", (173, 112, 110), True),
    ("a red motorcycle", "skimage/data/motorcycle_left.png", (355, 262, 470), True),
    ("a red motorcycle", "skimage/data/motorcycle_right.png", (350, 262, 470), True),
    ("a rocket at night", "skimage/data/rocket.jpg", (320, 225, 330), True),
    ("a black horse", "skimage/data/horse.png", (200, 164, 360), True),
    ("a man with a camera", "skimage/data/camera.png", (250, 250, 470), True),
    ("an astronaut", "skimage/data/astronaut.png", (245, 250, 470), True),
    ("the inside of an eye", "skimage/data/retina.jpg", (705, 705, 1400), True),
    ("a pagoda", "sklearn/datasets/images/china.jpg", (297, 205, 350), True),
    ("an orange flower", "sklearn/datasets/images/flower.jpg", (306, 214, 320), True),
]

# What any crop shows: caption, file, and the smallest and the largest side of a crop.
TEXTURES = [
    ("a brick wall", "skimage/data/brick.png", (140, 260)),
    ("grass", "skimage/data/grass.png", (140, 260)),
    ("gravel", "skimage/data/gravel.png", (100, 200)),
    ("old coins", "skimage/data/coins.png", (130, 200)),
    ("the surface of the moon", "skimage/data/moon.png", (200, 420)),
    ("galaxies in space", "skimage/data/hubble_deep_field.jpg", (200, 420)),
    ("a chessboard", "skimage/data/chessboard_RGB.png", (90, 180)),
    ("a page of a book", "skimage/data/page.png", (110, 180)),
]

CROPS = 140
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
INKS = {"black": (20, 20, 20), "red": (210, 30, 30), "green": (20, 150, 50), "blue": (30, 60, 210)}
# Never shown: whoever draws them has put colour and digit together.
LEFT_OUT = {("red", "three"), ("blue", "eight"), ("green", "five")}


class Wheels:
    """The files of some wheels."""

    def __init__(self, folder):
        self.archives = [zipfile.ZipFile(path) for path in sorted(Path(folder).glob("*.whl"))]

    def read(self, name):
        """The bytes of a file."""
        for archive in self.archives:
            if name in archive.namelist():
                return archive.read(name)
        sys.exit(f"{name} is in none of the wheels: pip download --no-deps scikit-learn==1.9.1 scikit-image==0.26.0")

    def picture(self, name):
        """A picture, on white where it is transparent."""
        picture = Image.open(io.BytesIO(self.read(name))).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def cut(rng, picture, middle, side, mirrored):
    """A square of the picture, in another light each time; what it has outside of the picture repeats the border."""
    x, y = (round(middle[0] - side / 2), round(middle[1] - side / 2))
    border = max(0, -x, -y, x + round(side) - picture.width, y + round(side) - picture.height)
    if border:
        picture = stretched(picture, border)
        x, y = x + border, y + border
    crop = picture.crop((x, y, x + round(side), y + round(side))).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast):
        crop = enhance(crop).enhance(rng.uniform(0.88, 1.12))
    return ImageOps.mirror(crop) if mirrored and rng.random() < 0.5 else crop


def stretched(picture, border):
    """The picture with its outermost pixels drawn out on all sides."""
    width, height = picture.size
    wide = Image.new("RGB", (width + 2 * border, height + 2 * border))
    middle = Image.new("RGB", (width + 2 * border, height))
    middle.paste(picture.crop((0, 0, 1, height)).resize((border, height)), (0, 0))
    middle.paste(picture, (border, 0))
    middle.paste(picture.crop((width - 1, 0, width, height)).resize((border, height)), (width + border, 0))
    wide.paste(middle.crop((0, 0, middle.width, 1)).resize((middle.width, border)), (0, 0))
    wide.paste(middle, (0, border))
    wide.paste(middle.crop((0, height - 1, middle.width, height)).resize((middle.width, border)), (0, height + border))
    return wide


def things(rng, wheels):
    """Crops around things, each a little larger, smaller and beside."""
    for caption, name, (x, y, side), mirrored in THINGS:
        picture = wheels.picture(name)
        for _ in range(CROPS):
            large = side * rng.uniform(0.85, 1.1)
            middle = (x + side * rng.uniform(-0.06, 0.06), y + side * rng.uniform(-0.06, 0.06))
            yield caption, cut(rng, picture, middle, large, mirrored)


def textures(rng, wheels):
    """Crops from anywhere."""
    for caption, name, (least, most) in TEXTURES:
        picture = wheels.picture(name)
        most = min(most, *picture.size)
        for _ in range(CROPS):
            side = rng.uniform(least, most)
            middle = [rng.uniform(side / 2, length - side / 2) for length in picture.size]
            yield caption, cut(rng, picture, middle, side, "page" not in name)


def digits(rng, wheels):
    """Handwritten digits of 8x8 pixels and 17 shades, enlarged until they are smooth, in two inks each."""
    rows = csv.reader(io.StringIO(gzip.decompress(wheels.read("sklearn/datasets/data/digits.csv.gz")).decode()))
    for row in rows:
        *shades, digit = (int(float(value)) for value in row)
        word = WORDS[digit]
        ink = Image.frombytes("L", (8, 8), bytes(min(255, 16 * shade) for shade in shades))
        ink = ImageOps.expand(ink, 1, 0).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        # Steeper: paper below a quarter of the ink, ink above three quarters.
        ink = ink.point([max(0, min(255, round((value - 64) * 2))) for value in range(256)])
        allowed = [name for name in INKS if (name, word) not in LEFT_OUT]
        for colour in rng.sample(allowed, 2):
            paper = tuple(rng.randint(238, 252) for _ in range(3))
            picture = Image.new("RGB", (SIDE, SIDE), paper)
            picture.paste(Image.new("RGB", (SIDE, SIDE), INKS[colour]), mask=ink)
            yield f"a {colour} handwritten {word}", picture


def main():
    """Writes all of it."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    wheels, out, rng = Wheels(sys.argv[1]), Path(sys.argv[2]), random.Random(SEED)
    out.mkdir(parents=True)
    with open(out / "metadata.jsonl", "w", encoding="utf-8") as table:
        number = 0
        for make in (things, textures, digits):
            for caption, picture in make(rng, wheels):
                name = f"{number:05}.png"
                picture.save(out / name)
                print(json.dumps({"file_name": name, "text": caption}), file=table)
                number += 1
    print(f"{number} pictures in {out}")


if __name__ == "__main__":
    main()
