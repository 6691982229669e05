// Frames as pictures; a few are kept, and the next ones are fetched ahead.

const KEPT = 48, AHEAD = 4;
const kept = new Map(); // frame -> promise of a picture

export function pictureOf(frame) {
  const found = kept.get(frame);
  if (found) {
    kept.delete(frame);
    kept.set(frame, found);
    return found;
  }
  const promise = new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => { kept.delete(frame); reject(new Error(`frame ${frame} cannot be shown`)); };
    image.src = `/api/frames/${frame}.jpg`;
  });
  kept.set(frame, promise);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return promise;
}

// One after the other, as long as nothing else is wanted.
export async function fetchAhead(frame, last, stillIdle) {
  for (let next = frame + 1; next <= Math.min(last, frame + AHEAD) && stillIdle(); next++) {
    await pictureOf(next).catch(() => {});
  }
}
