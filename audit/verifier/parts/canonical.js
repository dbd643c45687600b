// Canonical JSON as signed statements use it (fedproto/jcs.py): RFC 8785 with ASCII names, NFC strings, safe
// integers and no floats. One value has one spelling, so whoever re-encodes it gets the bytes that were signed.

const MAX_DEPTH = 24;
const LONE_SURROGATE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;

function writeCanonical(value, depth = 0) {
  if (depth > MAX_DEPTH) refuse("jsonDepth", MAX_DEPTH);
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "number") {
    if (!Number.isSafeInteger(value)) refuse("jsonNumber");
    return String(value);
  }
  if (typeof value === "string") {
    if (LONE_SURROGATE.test(value) || value.normalize("NFC") !== value) refuse("jsonText");
    return JSON.stringify(value);
  }
  if (Array.isArray(value)) return `[${value.map((item) => writeCanonical(item, depth + 1)).join(",")}]`;
  const names = Object.keys(value).sort();
  if (!names.every((name) => /^[ -~]*$/.test(name))) refuse("jsonName");
  return `{${names.map((name) => `${JSON.stringify(name)}:${writeCanonical(value[name], depth + 1)}`).join(",")}}`;
}

/** Parse canonical bytes; refuse any other spelling of the same value. */
function readCanonical(bytes) {
  const text = textOf(bytes);
  let value;
  try {
    value = JSON.parse(text ?? "");
  } catch {
    refuse("jsonSyntax");
  }
  // A name that stood twice, 1e2, -0 or a space is gone from `value`, and so shows here.
  if (writeCanonical(value) !== text) refuse("jsonForm");
  return value;
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** Say whether `value` is an object with just these names. */
function hasFields(value, ...names) {
  return isObject(value) && Object.keys(value).sort().join() === names.sort().join();
}
