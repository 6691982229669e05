// Requests to the server. What it refuses is thrown as an Error with the server's own sentence.

const page = Math.random().toString(36).slice(2); // tells the pages that show one project apart
let seen = null; // the revision of the project that this page shows

export function show(revision) { seen = revision; }

async function request(method, path, body, type, seenThen = seen) {
  const options = { method, headers: { "x-page": page } };
  if (seenThen !== null) options.headers["x-seen"] = String(seenThen);
  if (body !== undefined) {
    options.headers["content-type"] = type ?? "application/json";
    options.body = type ? body : JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer; is `sam2long annotate` still running?");
  }
  let content = {};
  try {
    content = await response.json();
  } catch {
    // only an error without a sentence has no JSON
  }
  if (!response.ok) throw new Error(content.error ?? `the server answered ${response.status}`);
  return content;
}

export const api = {
  get: (path) => request("GET", path),
  post: (path, body = {}, seenThen) => request("POST", path, body, undefined, seenThen),
  put: (path, body) => request("PUT", path, body),
  patch: (path, body) => request("PATCH", path, body),
  remove: (path, seenThen) => request("DELETE", path, undefined, undefined, seenThen),
  upload: (path, file, type, seenThen) => request("PUT", path, file, type, seenThen),
  seen: () => seen, // when the user begins something, to be sent with it as `seenThen`
};

export function listen(onEvent, onLost) {
  const source = new EventSource("/api/events");
  source.onmessage = (message) => onEvent(JSON.parse(message.data));
  source.onerror = onLost;
}
