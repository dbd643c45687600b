// The envelope of every act: DSSE over canonical JSON, with hybrid signatures of which both halves must verify
// (fedproto/envelope.py, fedproto/identity.py).

const EVENT_TYPE = "application/vnd.renmei.event.v1+json";
const ALGORITHM = "ed25519+mldsa65";
const SIGNING_CONTEXT = utf8("renmei/v1");
const MAX_ENTRY = 65535;
const KEY_LENGTH = 32 + 1952, SIGNATURE_LENGTH = 64 + 3309;

/** A member's public key: its Ed25519 half, its ML-DSA-65 half, and the names that follow from both. */
class VerifyKey {
  constructor(publicKey) {
    const raw = hasFields(publicKey, "alg", "pub") && publicKey.alg === ALGORITHM ? fromBase64(publicKey.pub) : null;
    if (raw === null || raw.length !== KEY_LENGTH) refuse("keyForm");
    this.classic = raw.subarray(0, 32);
    this.digest = hexOf(taggedHash("renmei/v1/key-id", raw));
    this.id = this.digest.slice(0, 32);
    this.lattice = new MldsaKey(65, raw.subarray(32));
  }

  async verify(signature, message) {
    if (signature.length !== SIGNATURE_LENGTH) refuse("signatureLength", this.id);
    if (!(await verifyEd25519(this.classic, signature.subarray(0, 64), message))) refuse("classicWrong", this.id);
    if (!this.lattice.verify(signature.subarray(64), message, SIGNING_CONTEXT)) refuse("latticeWrong", this.id);
  }
}

/** Take an envelope apart, strictly; nothing in it is verified yet. */
function readEnvelope(leaf) {
  if (leaf.length > MAX_ENTRY) refuse("envelopeForm");
  const outer = readCanonical(leaf);
  if (!hasFields(outer, "payload", "payloadType", "signatures")) refuse("envelopeForm");
  if (outer.payloadType !== EVENT_TYPE) refuse("envelopeType");
  const listed = outer.signatures;
  if (!Array.isArray(listed) || !listed.length) refuse("envelopeForm");
  const signatures = listed.map((item) => {
    const bytes = hasFields(item, "keyid", "sig") ? fromBase64(item.sig) : null;
    if (bytes === null || typeof item.keyid !== "string") refuse("envelopeForm");
    return { keyId: item.keyid, bytes };
  });
  const ids = signatures.map(({ keyId }) => keyId);
  if (ids.some((id, i) => i > 0 && ids[i - 1] >= id)) refuse("envelopeOrder");
  const body = fromBase64(outer.payload);
  if (body === null) refuse("envelopeForm");
  return { body, signatures };
}

/** Return what the signatures are over: the pre-authentication encoding. */
function signedBytes(body) {
  return concat(utf8(`DSSEv1 ${EVENT_TYPE.length} ${EVENT_TYPE} ${body.length} `), body);
}

const HEX32 = /^[0-9a-f]{32}$/, HEX64 = /^[0-9a-f]{64}$/, HEX16 = /^[0-9a-f]{16}$/;

/** Refuse a payload that is not an event: what every act says besides its body. */
function checkEvent(event) {
  const fields = ["v", "log", "id", "type", "at", "actor", "charter", "head", "trace", "body"];
  const whole = hasFields(event, ...fields) && event.v === 1 && isObject(event.body) && event.type in TYPE_WORDS &&
    HEX32.test(event.id) && Number.isSafeInteger(event.at) && event.at >= 0 && HEX64.test(event.charter) &&
    hasFields(event.actor, "member", "key") && typeof event.actor.member === "string" &&
    hasFields(event.head, "size", "root") && Number.isSafeInteger(event.head.size) && HEX64.test(event.head.root) &&
    hasFields(event.trace, "trace_id", "span_id") && HEX32.test(event.trace.trace_id) &&
    HEX16.test(event.trace.span_id);
  if (!whole) refuse("eventForm");
}
