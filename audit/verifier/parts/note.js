// Signed notes, checkpoints, cosignatures and the witness policy (C2SP signed-note, tlog-checkpoint,
// tlog-cosignature, tlog-policy). Strict: what is accepted has one spelling.

const NOTE_KEY = 0x01, ED25519_COSIGNER = 0x04, MLDSA_COSIGNER = 0x06;
const KEY_BYTES = { [NOTE_KEY]: 32, [ED25519_COSIGNER]: 32, [MLDSA_COSIGNER]: 1312 };
const MAX_NOTE = 262144, MAX_SIGNATURES = 130;
const KEY_NAME = /^[^+\s\u0000-\u001f]+$/u;

/** Verify Ed25519 (RFC 8032) with the browser's own WebCrypto; keys are imported once. */
const ED25519_KEYS = new Map();
async function verifyEd25519(raw, signature, message) {
  const name = hexOf(raw);
  try {
    if (!ED25519_KEYS.has(name)) {
      ED25519_KEYS.set(name, await crypto.subtle.importKey("raw", raw, "Ed25519", false, ["verify"]));
    }
  } catch (error) {
    if (error.name === "NotSupportedError") throw error;
    return false;
  }
  return crypto.subtle.verify("Ed25519", ED25519_KEYS.get(name), signature, message);
}

/** Read `name+keyid+base64(type || key)`; refuse an id that is not the key's. */
function readVkey(text) {
  const [, name, id, key] = /^([^+]*)\+([^+]*)\+([^]*)$/.exec(text) ?? refuse("vkeyForm");
  const data = fromBase64(key);
  if (!KEY_NAME.test(name) || data === null || KEY_BYTES[data[0]] !== data.length - 1) refuse("vkeyForm");
  const keyId = sha256(concat(utf8(`${name}\n`), data)).subarray(0, 4);
  if (hexOf(keyId) !== id) refuse("vkeyId", id.slice(0, 16));
  const kind = data[0];
  return { text, name, kind, id, keyId, raw: data.subarray(1), cosigns: kind !== NOTE_KEY };
}

/** Read a note into its signed text and its signature lines. */
function readNote(data) {
  if (data.length > MAX_NOTE) refuse("noteLong", MAX_NOTE);
  const whole = textOf(data);
  const split = whole === null ? -1 : whole.lastIndexOf("\n\n");
  if (split < 0 || !whole.endsWith("\n")) refuse("noteForm");
  const text = whole.slice(0, split + 1);
  if (/[\u0000-\u0009\u000b-\u001f]/.test(text)) refuse("noteForm");
  const rows = whole.slice(split + 2, -1).split("\n");
  if (rows.length > MAX_SIGNATURES) refuse("noteLong", MAX_SIGNATURES);
  const lines = rows.map((row) => {
    const [, name, encoded] = /^— ([^ ]+) (.*)$/u.exec(row) ?? refuse("noteForm");
    const bytes = fromBase64(encoded);
    if (!KEY_NAME.test(name) || bytes === null || bytes.length < 5) refuse("noteForm");
    return { name, id: hexOf(bytes.subarray(0, 4)), signature: bytes.subarray(4) };
  });
  // Counting one key twice is how a quorum is forged.
  if (new Set(lines.map(({ name, id }) => `${id} ${name}`)).size !== lines.length) refuse("noteTwice");
  return { text, body: utf8(text), lines };
}

const lineOf = (note, key) => note.lines.find((line) => line.name === key.name && line.id === key.id);

/** Read origin, size and root from a checkpoint's text. */
function readCheckpoint(text) {
  const [, origin, size, root] = /^([^\n]+)\n(0|[1-9][0-9]{0,17})\n([^\n]*)\n$/.exec(text) ?? refuse("checkpointForm");
  const bytes = fromBase64(root);
  if (bytes === null || bytes.length !== 32 || !Number.isSafeInteger(Number(size))) refuse("checkpointForm");
  return { origin, size: Number(size), root: bytes };
}

/** Verify the log's own line under a checkpoint and return what the checkpoint says. */
async function openCheckpoint(data, log) {
  const note = readNote(data);
  const line = lineOf(note, log);
  if (log.kind !== NOTE_KEY || !line) refuse("logUnsigned", log.name, log.id);
  if (line.signature.length !== 64 || !(await verifyEd25519(log.raw, line.signature, note.body))) {
    refuse("signatureWrong", log.name, log.id);
  }
  const head = readCheckpoint(note.text);
  if (head.origin !== log.name) refuse("originOther", head.origin, log.name);
  return { note, head };
}

/** Verify a witness's line over a checkpoint; return the witness's time in Unix seconds. */
async function verifyCosignature(key, line, note) {
  const time = line.signature.subarray(0, 8), signature = line.signature.subarray(8);
  const seconds = new DataView(time.buffer, time.byteOffset, time.length).getBigUint64(0);
  const inTime = seconds >= 1n && seconds < 1n << 63n;
  let good = false;
  if (inTime && key.kind === ED25519_COSIGNER && signature.length === 64) {
    good = await verifyEd25519(key.raw, signature, utf8(`cosignature/v1\ntime ${seconds}\n${note.text}`));
  } else if (inTime && key.kind === MLDSA_COSIGNER) {
    const { origin, size, root } = readCheckpoint(note.text);
    const [name, log] = [utf8(key.name), utf8(origin)];
    if (name.length > 255 || log.length > 255) refuse("signatureWrong", key.name, key.id);
    const message = concat(
      utf8("subtree/v1\n\0"), Uint8Array.of(name.length), name, time,
      Uint8Array.of(log.length), log, bigEndian(0, 8), bigEndian(size, 8), root);
    good = new MldsaKey(44, key.raw).verify(signature, message);
  }
  if (!good) refuse("signatureWrong", key.name, key.id);
  return Number(seconds);
}

/** Return who witnesses under a charter and how many are enough; refuse keys that are not fit for it. */
function policyOf(charter) {
  const log = readVkey(charter.log_vkey);
  if (log.kind !== NOTE_KEY || log.name !== charter.origin) refuse("policyLog");
  const listed = (field) => charter.members.filter((member) => member[field])
    .map((member) => ({ member: member.id, key: readVkey(member[field]) }));
  const witnesses = listed("witness"), validators = listed("validator");
  const all = [...witnesses, ...validators];
  if (!all.every(({ key }) => key.cosigns)) refuse("policyKind");
  // By public key, not by name: one key under two names is one witness.
  if (new Set([log, ...all.map(({ key }) => key)].map(({ raw }) => hexOf(raw))).size !== all.length + 1) {
    refuse("policyShared");
  }
  const quorum = charter.witness_quorum;
  if (!Number.isInteger(quorum) || quorum < 1 || quorum > witnesses.length) refuse("policyQuorum");
  const names = witnesses.map(({ member }) => member);
  const text = [
    `log ${log.text}`,
    ...witnesses.map(({ member, key }) => `witness ${member} ${key.text}`),
    `group witness_quorum ${quorum} ${names.join(" ")}`,
    "quorum witness_quorum", "",
  ].join("\n");
  return { log, witnesses, validators, quorum, text };
}
