// Painting into masks. Every function writes levels of 0 to 255 and takes lengths in pixels of the mask.
//
// The level of a pixel is its distance inside the shape, over `feather`: the width of the soft edge.

/** Where pixels of a mask are: { levels, width, height }. */
function each({ width, height }, box, act) {
  const [left, top] = [Math.max(0, Math.floor(box.left)), Math.max(0, Math.floor(box.top))];
  const [right, bottom] = [Math.min(width, Math.ceil(box.right)), Math.min(height, Math.ceil(box.bottom))];
  for (let y = top; y < bottom; y += 1) {
    for (let x = left; x < right; x += 1) act(y * width + x, x + 0.5, y + 0.5);
  }
}

/** Paints, or erases, what lies inside: `inside(x, y)` is the distance to the edge, negative outside. */
function fill(mask, box, inside, feather, erase) {
  const { levels } = mask;
  each(mask, box, (at, x, y) => {
    const share = Math.min(1, Math.max(0, 0.5 + inside(x, y) / feather));
    const level = Math.round(255 * share);
    levels[at] = erase ? Math.min(levels[at], 255 - level) : Math.max(levels[at], level);
  });
}

const boxOf = (points, margin) => ({
  left: Math.min(...points.map((p) => p.x)) - margin,
  top: Math.min(...points.map((p) => p.y)) - margin,
  right: Math.max(...points.map((p) => p.x)) + margin,
  bottom: Math.max(...points.map((p) => p.y)) + margin,
});

/** The distance of a point from a piece of a line. */
function distance(x, y, a, b) {
  const [dx, dy] = [b.x - a.x, b.y - a.y];
  const length = dx * dx + dy * dy;
  const along = length === 0 ? 0 : Math.min(1, Math.max(0, ((x - a.x) * dx + (y - a.y) * dy) / length));
  return Math.hypot(x - a.x - along * dx, y - a.y - along * dy);
}

/** A stroke from `a` to `b` with a round brush. `softness` is from 0, a sharp edge, to 1, soft up to the centre. */
export function stroke(mask, a, b, radius, softness, erase) {
  const feather = Math.max(1, softness * radius);
  // The soft edge lies inside the brush, so that a ring of its size shows what it reaches.
  const edge = radius - (feather - 1) / 2;
  fill(mask, boxOf([a, b], radius + 1), (x, y) => edge - distance(x, y, a, b), feather, erase);
}

/** A rectangle between two corners. */
export function rectangle(mask, a, b, feather, erase) {
  const box = boxOf([a, b], 0);
  const inside = (x, y) => Math.min(x - box.left, box.right - x, y - box.top, box.bottom - y);
  fill(mask, boxOf([a, b], feather), inside, feather, erase);
}

/** An ellipse inside the rectangle between two corners. */
export function ellipse(mask, a, b, feather, erase) {
  const [cx, cy] = [(a.x + b.x) / 2, (a.y + b.y) / 2];
  const [rx, ry] = [Math.max(0.5, Math.abs(a.x - b.x) / 2), Math.max(0.5, Math.abs(a.y - b.y) / 2)];
  const inside = (x, y) => (1 - Math.hypot((x - cx) / rx, (y - cy) / ry)) * Math.min(rx, ry);
  fill(mask, boxOf([a, b], feather), inside, feather, erase);
}

/** A polygon; what it winds around an odd number of times is inside. */
export function polygon(mask, points, feather, erase) {
  const inside = (x, y) => {
    let [within, nearest] = [false, Infinity];
    points.forEach((b, index) => {
      const a = points.at(index - 1);
      if ((a.y > y) !== (b.y > y) && x < a.x + ((y - a.y) / (b.y - a.y)) * (b.x - a.x)) within = !within;
      nearest = Math.min(nearest, distance(x, y, a, b));
    });
    return within ? nearest : -nearest;
  };
  fill(mask, boxOf(points, feather), inside, feather, erase);
}
