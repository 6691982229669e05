// Frames as pictures: the latest one asked for comes first, neighbours are fetched ahead, a few are kept.

const KEPT = 48, AHEAD = 4;
const kept = new Map(); // frame -> promise of a picture
let wanted = null, loading = 0;

function fetchPicture(frame) {
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

// Calls `show` unless another frame has been asked for since; frames skipped while one is loading are never fetched.
export async function picture(frame, show, last) {
  wanted = frame;
  if (loading) return;
  while (wanted !== null) {
    const now = wanted;
    loading++;
    try {
      const image = await fetchPicture(now);
      show(now, image);
    } catch (error) {
      show(now, null, error);
    } finally {
      loading--;
    }
    if (wanted === now) wanted = null;
  }
  for (let next = frame + 1; next <= Math.min(last, frame + AHEAD) && wanted === null; next++) {
    await fetchPicture(next).catch(() => {});
  }
}
