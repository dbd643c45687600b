// The whole check of a bundle: file, log, tree, entries, witnesses, pins, page. Everything that can be judged after a
// fault is judged, so that the report names all of them; whatever cannot be judged counts as failed.

const [SUMS, CHECKPOINT, LOG_KEY, POLICY, PAGE] = ["SHA256SUMS", "checkpoint", "log.vkey", "policy", "verify.html"];
const ATTACHMENTS = "attachments/";
const PAGE_SLOT = /<meta name="renmei-page" content="([0-9a-f]{64})">/;
const BREATH_MS = 24;

/** Let the page answer its user; a message, since a timer sleeps for a second in a tab behind others. */
const breathe = () => new Promise((resolve) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => {
    port1.close();
    resolve();
  };
  port2.postMessage(0);
});

/** What was found so far. A check is ok, bad or (a pin that was not given) open. */
class Report {
  constructor() {
    this.checks = [];
    this.rows = [];
    this.facts = {};
  }

  good(id, key, ...args) { this.checks.push({ id, state: "ok", key, args }); }

  open(id, key, ...args) { this.checks.push({ id, state: "open", key, args }); }

  bad(id, error) {
    if (error instanceof Refused) this.checks.push({ id, state: "bad", key: error.key, args: error.args });
    // Input that trips this program was not verified by it.
    else this.checks.push({ id, state: "bad", key: "unreadable", args: [String(error?.message ?? error)] });
  }

  async try(id, work) {
    try {
      const result = await work();
      return result === undefined ? true : result;
    } catch (error) {
      this.bad(id, error);
      return null;
    }
  }

  get verdict() {
    const states = new Set(this.checks.map(({ state }) => state));
    return states.has("bad") ? "bad" : states.has("open") ? "open" : "ok";
  }
}

/**
 * Verify a bundle's bytes. `pins` is {logVkey, genesis}, empty where not known; `self` the fingerprint of the page
 * that is open; `progress` is called with done and total now and then.
 */
async function verifyBundle(data, pins, self, progress = () => {}) {
  const report = new Report();
  report.facts.bundle = hexOf(sha256(data));
  const members = await report.try("file", () => unzip(data));
  if (!members) return report;
  const opened = await report.try("log", () => openLog(members, pins));
  if (opened) {
    const { log, head } = opened;
    Object.assign(report.facts, { origin: head.origin, size: head.size, root: hexOf(head.root), log: log.text });
    report.good("log", "logGood", log.name, log.id);
    const tree = await checkTree(report, members, head, progress);
    const history = await checkEntries(report, tree, progress);
    await checkWitnesses(report, opened, history, members);
    checkPins(report, pins, history);
  }
  await checkFile(report, data, members, opened?.head.size);
  checkPage(report, members, self);
  return report;
}

const memberOf = (members, name) => members.get(name) ?? refuse("fileMissing", name);

async function openLog(members, pins) {
  const text = textOf(memberOf(members, LOG_KEY)) ?? "";
  if (pins.logVkey && text !== `${pins.logVkey}\n`) refuse("pinLog");
  const log = readVkey(text.endsWith("\n") ? text.slice(0, -1) : refuse("vkeyForm"));
  return { log, ...(await openCheckpoint(memberOf(members, CHECKPOINT), log)) };
}

/** Hash all entries and tiles up to the signed root. Returns each entry with its hash and its fault, if any. */
async function checkTree(report, members, head, progress) {
  const { entries, fault } = readEntries(members, head.size);
  const tileFault = (key, ...args) => report.bad("tree", new Refused(key, ...args));
  let last = performance.now();
  for (const entry of entries) {
    entry.hash = leafHash(entry.bytes);
    if (performance.now() - last > BREATH_MS) {
      progress(0, head.size);
      await breathe();
      last = performance.now();
    }
  }
  const sized = hashTiles(head.size).map((tile) => ({ ...tile, bytes: members.get(tile.path) }));
  const torn = sized.find(({ bytes, width }) => bytes?.length !== 32 * width);
  if (torn) tileFault("tileTorn", torn.path);
  const hashes = sized.filter(({ level, bytes }) => level === 0 && bytes).flatMap(({ bytes }) => splitHashes(bytes));
  const tilesLead = hashes.length === head.size && equalBytes(rootOf(hashes), head.root);
  const entriesLead = !fault && equalBytes(rootOf(entries.map(({ hash }) => hash)), head.root);
  if (fault) report.bad("tree", new Refused("entryChanged", fault.index, { key: fault.key }));
  const differing = entries.filter((entry) => !hashes[entry.index] || !equalBytes(entry.hash, hashes[entry.index]));
  if (tilesLead) {
    for (const entry of differing) {
      entry.fault = new Refused("entryHash");
      // Later acts name the history before them, as it was signed.
      entry.hash = hashes[entry.index];
    }
    if (differing.length) report.bad("tree", new Refused("entryChanged", differing[0].index, { key: "entryHash" }));
  } else if (entriesLead) {
    const [first] = differing;
    if (first) tileFault("tileItem", first.index % WIDTH, sized[Math.floor(first.index / WIDTH)].path, first.index);
  } else {
    for (const entry of entries) entry.fault = new Refused("entryUnrooted");
    tileFault("treeBroken", head.size, differing[0]?.index ?? -1);
  }
  const wrong = tilesLead && !torn && upperTileFault(sized, hashes);
  if (wrong) tileFault("tileUpper", wrong);
  if (report.checks.every(({ id }) => id !== "tree")) report.good("tree", "treeGood", head.size, sized.length);
  return { entries, size: head.size };
}

function rootOf(hashes) {
  const frontier = new Frontier();
  for (const hash of hashes) frontier.add(hash);
  return frontier.root();
}

function readEntries(members, size) {
  const entries = [];
  for (const { n, width } of widths(size)) {
    const data = members.get(bundlePath(n, width));
    if (!data) return { entries, fault: { index: n * WIDTH, key: "bundleMissing" } };
    const found = splitBundle(data, n * WIDTH, width);
    found.entries.forEach((bytes, i) => entries.push({ index: n * WIDTH + i, bytes, fault: null }));
    if (found.fault) return { entries, fault: found.fault };
  }
  return { entries, fault: null };
}

/** Return the path of the first tile above the leaves that does not hold the roots of those below it. */
function upperTileFault(sized, hashes) {
  let level = hashes;
  for (const { level: height, n, width, bytes, path } of sized) {
    if (height === 0) continue;
    if (n === 0) {
      level = Array.from({ length: Math.floor(level.length / WIDTH) },
        (_, i) => tileRoot(level.slice(i * WIDTH, (i + 1) * WIDTH)));
    }
    if (!equalBytes(bytes, concat(...level.slice(n * WIDTH, n * WIDTH + width)))) return path;
  }
  return null;
}

/** Verify each act in turn; a row for each entry tells what became of it. */
async function checkEntries(report, { entries, size }, progress) {
  const history = new History();
  let last = performance.now();
  for (const { index, bytes, hash, fault } of entries) {
    const row = { index, bytes, leaf: hexOf(hash), state: "ok", reason: null, event: null };
    try {
      if (fault) throw fault;
      row.event = await history.take(bytes, row.leaf);
    } catch (error) {
      row.state = "bad";
      row.reason = error instanceof Refused ? error : new Refused("unreadable", String(error?.message ?? error));
      row.event = peek(bytes);
    }
    history.integrate(hash);
    report.rows.push(row);
    if (performance.now() - last > BREATH_MS) {
      progress(index + 1, size);
      await breathe();
      last = performance.now();
    }
  }
  progress(size, size);
  for (const row of report.rows) row.bracket = history.bracket(row.index);
  const failed = report.rows.filter(({ state }) => state === "bad");
  if (failed.length) {
    const [{ index, reason }] = failed;
    report.bad("entries", new Refused("entriesBad", failed.length, index, { key: reason.key, args: reason.args }));
  } else if (entries.length !== size) {
    report.bad("entries", new Refused("entriesMissing", entries.length, size));
  } else {
    report.good("entries", "entriesGood", size);
  }
  return history;
}

/** Return what an entry that failed claims to be, for display only; null if it cannot be read. */
function peek(bytes) {
  try {
    const event = JSON.parse(textOf(fromBase64(JSON.parse(textOf(bytes)).payload)));
    return isObject(event) ? event : null;
  } catch {
    return null;
  }
}

/** Check the checkpoint's witnesses against the charter in force at its end. */
async function checkWitnesses(report, { log, note }, history, members) {
  await report.try("witnesses", async () => {
    const charter = history.charter ?? refuse("noCharter");
    const policy = policyOf(charter);
    if (policy.log.text !== log.text) refuse("charterLog");
    const cosigned = await cosignatures(policy.witnesses, note);
    const validated = await cosignatures(policy.validators, note);
    if (cosigned.length < policy.quorum) refuse("quorumMissed", cosigned.length, policy.quorum);
    if (note.lines.length !== 1 + cosigned.length + validated.length) refuse("noteStranger");
    if (!equalBytes(memberOf(members, POLICY), utf8(policy.text))) refuse("policyOther");
    Object.assign(report.facts, { cosigned, validated, quorum: policy.quorum });
    report.good("witnesses", "witnessesGood", cosigned.length, policy.witnesses.length, policy.quorum,
      validated.length);
  });
  const { charter, digest } = history.charters.at(-1) ?? {};
  Object.assign(report.facts, { charter, charterDigest: digest, seats: history.seats });
}

function checkPins(report, pins, history) {
  if (pins.logVkey) report.good("pinLog", "pinLogGood");
  else report.open("pinLog", "pinLogOpen");
  const first = history.charters[0];
  report.facts.genesis = first?.digest;
  if (!pins.genesis) report.open("genesis", "genesisOpen");
  else if (first?.digest === pins.genesis && first.index === 0) report.good("genesis", "genesisGood");
  else report.bad("genesis", new Refused("genesisOther", String(first?.digest ?? "?").slice(0, 16), pins.genesis.slice(0, 16)));
}

/** Check the file's own structure: the files of a bundle in their order, as listed, and no byte beside them. */
async function checkFile(report, data, members, size) {
  await report.try("file", () => {
    const sums = textOf(memberOf(members, SUMS)) ?? "";
    const rest = [...members].filter(([name]) => name !== SUMS);
    const listed = sums.split("\n");
    for (const [i, [name, bytes]] of rest.entries()) {
      if (listed[i] !== `${hexOf(sha256(bytes))}  ${name}`) refuse("sumOther", name);
    }
    if (listed.length !== rest.length + 1 || listed.at(-1) !== "") refuse("sumsOther");
    if (size !== undefined) checkNames([...members.keys()], size);
    const fault = layoutFault(data, members);
    if (fault >= 0) refuse("zipDamaged", fault);
    report.good("file", "fileGood", members.size, data.length);
  });
}

function checkNames(names, size) {
  const expected = [SUMS, CHECKPOINT, LOG_KEY, POLICY, PAGE,
    ...hashTiles(size).map(({ path }) => path), ...widths(size).map(({ n, width }) => bundlePath(n, width)),
    ...names.filter((name) => name.startsWith(ATTACHMENTS)).sort()];
  const stray = names.find((name) => !expected.includes(name));
  if (stray !== undefined) refuse("fileStray", stray);
  if (names.join("\n") !== expected.join("\n")) refuse("fileOrder");
}

/** A bundle brings a copy of this page; another page in its place could say anything to whoever opens it. */
function checkPage(report, members, self) {
  const page = textOf(members.get(PAGE) ?? new Uint8Array(0)) ?? "";
  const slot = PAGE_SLOT.exec(page)?.[1];
  const blank = page.replace(PAGE_SLOT, (meta) => meta.replace(slot, ZERO_DIGEST));
  if (slot === self && hexOf(sha256(utf8(blank))) === self) report.good("page", "pageGood");
  else report.bad("page", new Refused("pageOther"));
}
