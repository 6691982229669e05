// COCO run lengths: counts of pixels outside, inside, outside, ... down the columns, each written as the difference to
// the count two before, in groups of five bits.

export function decode(rle) {
  const [height, width] = rle.size;
  const text = rle.counts;
  const counts = [];
  let at = 0;
  while (at < text.length) {
    let value = 0, shift = 0, bits;
    do {
      bits = text.charCodeAt(at++) - 48;
      value |= (bits & 31) << shift;
      shift += 5;
    } while (bits & 32);
    if (bits & 16) value |= -1 << shift;
    if (counts.length > 2) value += counts[counts.length - 2];
    counts.push(value);
  }
  return { height, width, spans: spans(counts) };
}

// [first, end) of each stretch of object pixels, counted down the columns
function spans(counts) {
  const found = [];
  let at = 0;
  for (let i = 0; i < counts.length; i++) {
    if (i % 2 && counts[i]) found.push(at, at + counts[i]);
    at += counts[i];
  }
  return found;
}

export function fill(mask, pixels, colour) {
  const { height, width, spans } = mask;
  for (let i = 0; i < spans.length; i += 2) {
    let x = Math.floor(spans[i] / height), y = spans[i] - x * height;
    for (let left = spans[i + 1] - spans[i]; left > 0; left--) {
      pixels[y * width + x] = colour;
      if (++y === height) { y = 0; x++; }
    }
  }
}

// The edges between object and background pixels, as a path in pixel coordinates.
export function outline(mask) {
  const { height, width, spans } = mask;
  const columns = Array.from({ length: width + 1 }, () => []);
  for (let i = 0; i < spans.length; i += 2) {
    for (let from = spans[i]; from < spans[i + 1];) {
      const x = Math.floor(from / height);
      const to = Math.min(spans[i + 1], (x + 1) * height);
      columns[x].push(from - x * height, to - x * height);
      from = to;
    }
  }
  const path = new Path2D();
  let before = [];
  for (let x = 0; x <= width; x++) {
    const here = columns[x];
    for (const y of here) { path.moveTo(x, y); path.lineTo(x + 1, y); }
    // Between two columns there is an edge wherever exactly one of them has the object.
    const turns = [...before, ...here].sort((a, b) => a - b);
    for (let i = 0; i < turns.length; i += 2) {
      if (turns[i] !== turns[i + 1]) { path.moveTo(x, turns[i]); path.lineTo(x, turns[i + 1]); }
    }
    before = here;
  }
  return path;
}
