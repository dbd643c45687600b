// Entry by entry: whose keys are in force, and whether each act was signed by them over this very history. Follows
// keys as audit/state.py does. The charter's other rules (votes, mandates, rounds, budgets, standing) are not here.

const ZERO_DIGEST = "0".repeat(64);

const CHARTER_FIELDS = ["version", "prev_sha256", "consortium", "origin", "log_vkey", "witness_quorum", "members",
  "actions", "limits", "retention", "disclosure"];
const MEMBER_FIELDS = ["id", "name", "roles", "key", "recovery", "witness", "validator"];

/** Refuse a charter whose keys and policy could not be followed. */
function checkCharter(charter) {
  const isText = (value) => typeof value === "string";
  const listed = hasFields(charter, ...CHARTER_FIELDS) && Array.isArray(charter.members) &&
    charter.members.every((member) => hasFields(member, ...MEMBER_FIELDS) && Array.isArray(member.roles) &&
      ["id", "name", "key", "recovery", "witness", "validator"].every((field) => isText(member[field])));
  const texts = ["prev_sha256", "consortium", "origin", "log_vkey"];
  if (!listed || !texts.every((field) => isText(charter[field]))) refuse("charterForm");
  if (charter.members.some(({ id }, i) => i > 0 && charter.members[i - 1].id >= id)) refuse("charterForm");
  policyOf(charter);
}

class History {
  constructor() {
    this.frontier = new Frontier();
    this.roots = [EMPTY_ROOT];
    this.leaves = new Set();
    this.ids = new Set();
    this.charters = [];
    this.keys = new Map();
    this.seats = new Map();
    this.anchors = [];
  }

  get size() { return this.roots.length - 1; }

  get charter() { return this.charters.at(-1)?.charter; }

  member(id) { return this.charter?.members.find((member) => member.id === id); }

  /** Return a key in force, of a member of the charter in force. */
  keyInForce(id) {
    const key = this.keys.get(id);
    return key && key.until === null && this.member(key.member) ? key : undefined;
  }

  /** Verify the next act and let its keys take effect; refuse it by its first fault. The tree is not moved. */
  async take(leaf, leafHex) {
    const { body, signatures } = readEnvelope(leaf);
    const message = signedBytes(body);
    let brought;
    for (const { keyId, bytes } of signatures) {
      brought ??= this.keyInForce(keyId) ? undefined : broughtBy(readCanonical(body));
      const key = this.keyInForce(keyId)?.verifyKey ?? brought?.find(({ id }) => id === keyId);
      if (!key) refuse("signerUnknown", keyId.slice(0, 32));
      await key.verify(bytes, message);
    }
    const event = readCanonical(body);
    checkEvent(event);
    this.#checkPlace(event, leafHex);
    this.#checkSigners(event, signatures.map(({ keyId }) => keyId));
    await this.#apply(event);
    this.ids.add(event.id);
    return event;
  }

  /** Add a leaf to the tree, whatever was found out about it. */
  integrate(hash) {
    this.frontier.add(hash);
    this.roots.push(hexOf(this.frontier.root()));
    this.leaves.add(hexOf(hash));
  }

  #checkPlace(event, leafHex) {
    if (this.leaves.has(leafHex) || this.ids.has(event.id)) refuse("eventTwice");
    if (!this.charter && event.type !== "charter.adopted") refuse("noCharter");
    const { charter, digest } = this.charters.at(-1) ?? { charter: event.body.charter, digest: event.body.sha256 };
    if (event.log !== charter?.origin) refuse("eventLog", event.log);
    if (event.charter !== digest) refuse("eventCharter", event.charter.slice(0, 16));
    if (event.head.size > this.size || event.head.root !== this.roots[event.head.size]) {
      refuse("eventHead", event.head.size);
    }
  }

  #checkSigners(event, signers) {
    const { body, type, actor } = event;
    const brought = broughtBy(event).map(({ id }) => id);
    const due = new Set([actor.key, ...brought]);
    if (signers.length !== due.size || !signers.every((id) => due.has(id))) refuse("signersOther");
    let held;
    if (type === "member.admitted" || (type === "charter.adopted" && body.operator_key !== null)) {
      held = actor.key === brought[0];
    } else {
      const key = this.keyInForce(actor.key);
      held = key?.member === actor.member && (key.use === "act" || type === "key.changed");
    }
    if (!held) refuse("actorKey", actor.member, actor.key.slice(0, 32));
  }

  async #apply(event) {
    switch (event.type) {
      case "charter.adopted": return this.#adopt(event);
      case "member.admitted": return this.#admit(event);
      case "key.changed": return this.#changeKey(event);
      case "anchor.made": return this.#anchor(event);
      default: return undefined;
    }
  }

  #adopt({ actor, body }) {
    const { charter, sha256: digest } = body;
    checkCharter(charter);
    if (hexOf(sha256(utf8(writeCanonical(charter)))) !== digest) refuse("charterDigest");
    const before = this.charters.at(-1);
    if (before) {
      const kept = ["consortium", "origin", "log_vkey"].every((field) => charter[field] === before.charter[field]);
      const next = charter.version === before.charter.version + 1 && charter.prev_sha256 === before.digest;
      if (!kept || !next || body.operator_key !== null) refuse("charterSuccession");
      this.charters.push({ index: this.size, charter, digest });
      this.#unseat();
      return;
    }
    const operator = charter.members.find(({ id }) => id === actor.member);
    const first = charter.version === 1 && charter.prev_sha256 === ZERO_DIGEST && body.operator_key !== null;
    if (!first || !operator?.roles.includes("operator") || operator.recovery) refuse("charterFirst");
    const key = new VerifyKey(body.operator_key);
    if (key.digest !== operator.key) refuse("keyDigest", actor.member);
    this.charters.push({ index: this.size, charter, digest });
    this.#seat(actor.member, key, null);
  }

  /** End the seats and keys of who is a member no longer. */
  #unseat() {
    for (const key of this.keys.values()) {
      if (!this.member(key.member) && key.until === null) key.until = this.size;
    }
    for (const id of [...this.seats.keys()]) if (!this.member(id)) this.seats.delete(id);
  }

  #admit({ actor, body }) {
    const member = this.member(actor.member) ?? refuse("memberUnknown", actor.member);
    if (this.seats.get(actor.member)?.acting) refuse("seatTaken", actor.member);
    const acting = new VerifyKey(body.acting);
    const recovery = body.recovery === null ? null : new VerifyKey(body.recovery);
    if (acting.digest !== member.key || (recovery?.digest ?? "") !== member.recovery) {
      refuse("keyDigest", actor.member);
    }
    this.#seat(actor.member, acting, recovery);
  }

  #seat(member, acting, recovery) {
    const kept = recovery && this.keyInForce(recovery.id);
    const keeps = kept?.member === member && kept.use === "recovery";
    // A key that was ended must not come back, by whomever.
    if (this.keys.has(acting.id) || (recovery && this.keys.has(recovery.id) && !keeps)) refuse("keyAgain");
    this.#begin(member, "act", acting);
    if (recovery && !keeps) this.#begin(member, "recovery", recovery);
    this.seats.set(member, { admitted: this.size, acting: acting.id, recovery: recovery?.id ?? null });
  }

  #begin(member, use, verifyKey) {
    this.keys.set(verifyKey.id, { member, use, verifyKey, since: this.size, until: null });
  }

  #changeKey({ actor, body }) {
    const old = this.keyInForce(body.key);
    if (!old || old.use !== body.use) refuse("keyNotInForce", String(body.key).slice(0, 32));
    const seat = this.seats.get(old.member);
    const slot = old.use === "act" ? "acting" : "recovery";
    if (body.op === "rotate") {
      const key = new VerifyKey(body.new);
      if (actor.member !== old.member || actor.key !== body.key) refuse("rotationSigner");
      if (this.keys.has(key.id)) refuse("keyAgain");
      this.#begin(old.member, old.use, key);
      seat[slot] = key.id;
    } else {
      const own = actor.member === old.member && actor.key === seat.recovery;
      if (body.op !== "revoke" || body.new !== null || !(own || body.proposal)) refuse("revocationSigner");
      seat[slot] = null;
    }
    old.until = this.size;
  }

  /** A cosigned checkpoint of this log is its clock: entries before it were there at its witnesses' median time. */
  async #anchor({ body }) {
    if (body.kind !== "witnessed") return;
    if (typeof body.note !== "string" || !(body.size >= 1 && body.size <= this.size)) refuse("anchorForm");
    const { charter } = this.charters.filter(({ index }) => index < body.size).at(-1);
    const policy = policyOf(charter);
    const { note, head } = await openCheckpoint(utf8(body.note), policy.log);
    if (head.size !== body.size || hexOf(head.root) !== this.roots[body.size]) refuse("anchorOther");
    const cosigned = await cosignatures(policy.witnesses, note);
    if (cosigned.length < policy.quorum || note.lines.length !== cosigned.length + 1) {
      refuse("quorumMissed", cosigned.length, policy.quorum);
    }
    const times = cosigned.map(({ seconds }) => seconds).sort((a, b) => a - b);
    this.anchors.push({ index: this.size, size: body.size, seconds: times[(times.length - 1) >> 1] });
  }

  /** Return between which witnessed times (Unix seconds) an entry was made; null where nothing bounds it. */
  bracket(index) {
    const before = this.anchors.filter(({ size }) => size <= index).at(-1);
    // An act that was made before an anchor's entry need not precede its checkpoint: only `size` counts.
    const after = this.anchors.find(({ size }) => size > index);
    return [before?.seconds ?? null, after?.seconds ?? null];
  }
}

/** Return the keys that an act brings, its own acting key first; read before it is verified by them. */
function broughtBy(event) {
  const body = isObject(event?.body) ? event.body : {};
  const keys = {
    "charter.adopted": [body.operator_key],
    "member.admitted": [body.acting, body.recovery],
    "key.changed": [body.new],
  }[event?.type] ?? [];
  return keys.filter((key) => key !== null && key !== undefined).map((key) => new VerifyKey(key));
}

/** Verify the line of each of `witnesses` under a note; refuse one that does not verify. */
async function cosignatures(witnesses, note) {
  const found = [];
  for (const { member, key } of witnesses) {
    const line = lineOf(note, key);
    if (line) found.push({ member, kind: key.kind, name: key.name, seconds: await verifyCosignature(key, line, note) });
  }
  return found;
}
