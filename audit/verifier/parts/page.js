// The page itself: pins and a file in, checks and entries out. Whatever comes from a file is set as text, never as
// markup: a member's name is whatever its member wrote.

const MAX_FILE = 512 * 1024 * 1024, PAGE_ROWS = 200;
const $ = (id) => document.getElementById(id);
const SELF = document.querySelector('meta[name="renmei-page"]').content;

let lang = (navigator.language || "en").startsWith("ja") ? "ja" : "en";
let report = null, data = null, limit = PAGE_ROWS, run = 0;

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const words = (key, ...args) => say(lang, key, ...args);
const typeWords = (type) => (TYPE_WORDS[type] ?? [type, type])[lang === "ja" ? 1 : 0];
const utc = (ms) => (Number.isSafeInteger(ms) && ms < 8.64e15 ? `${new Date(ms).toISOString().slice(0, 19)}Z` : String(ms));

function translate() {
  document.documentElement.lang = lang;
  document.title = words("title");
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = words(node.dataset.say);
  $("language").textContent = words("language");
  $("language").lang = lang === "ja" ? "en" : "ja";
  if (report) show();
}

async function verify() {
  if (!data) return;
  const mine = ++run;
  report = null;
  $("result").hidden = true;
  $("progress").hidden = false;
  const progress = (done, total) => {
    $("bar").max = total;
    $("bar").value = done;
    $("doing").textContent = words("working", done, total);
  };
  progress(0, 1);
  const pins = { logVkey: $("vkey").value.trim(), genesis: $("genesis").value.trim().toLowerCase() };
  let found;
  try {
    found = await verifyBundle(data, pins, SELF, progress);
  } catch (error) {
    $("progress").hidden = true;
    $("trouble").textContent = error.name === "NotSupportedError" ? words("noEd25519") : String(error);
    return;
  }
  if (mine !== run) return;
  report = found;
  limit = PAGE_ROWS;
  $("progress").hidden = true;
  fillFilters();
  show();
  $("verdict").focus();
}

async function take(file) {
  if (!file) return;
  $("trouble").textContent = "";
  $("name").textContent = file.name;
  if (file.size > MAX_FILE) {
    $("trouble").textContent = words("tooLarge", MAX_FILE >> 20);
    return;
  }
  data = new Uint8Array(await file.arrayBuffer());
  await verify();
}

function show() {
  const { verdict } = report;
  $("result").hidden = false;
  $("verdict").className = `verdict ${verdict}`;
  $("verdictMark").textContent = { ok: "✔", open: "◐", bad: "✘" }[verdict];
  $("verdictWord").textContent = words(`verdict_${verdict}`);
  $("verdictSay").textContent = words(`verdictSay_${verdict}`);
  showChecks();
  showFacts();
  showRows();
}

function showChecks() {
  const order = ["pinLog", "genesis", "log", "witnesses", "tree", "entries", "file", "page"];
  const sorted = [...report.checks].sort((a, b) => order.indexOf(a.id) - order.indexOf(b.id));
  $("checkList").replaceChildren(...sorted.map(({ id, state, key, args }) => {
    const item = element("li", undefined, state);
    item.append(
      element("span", { ok: "✔", open: "◐", bad: "✘" }[state], "mark"),
      element("strong", words(`check_${id}`)),
      element("span", words(key, ...args), "said"));
    return item;
  }));
}

function showFacts() {
  const { origin, size, root, genesis, log, cosigned, validated, charter, bundle } = report.facts;
  const when = ({ member, seconds }) => `${member} (${utc(seconds * 1000)})`;
  const facts = {
    origin, size, root, genesis, log,
    witnesses: cosigned?.map(when).join(", "),
    validators: validated?.map(when).join(", ") || "–",
    members: charter?.members.map(({ id, name, roles }) => `${id}: ${name} (${roles.join(", ")})`).join("\n"),
    bundle,
  };
  const rows = Object.entries(facts).filter(([, value]) => value !== undefined).map(([key, value]) => {
    const row = element("div");
    row.append(element("dt", words(`fact_${key}`)), element("dd", String(value)));
    return row;
  });
  $("factList").replaceChildren(...rows);
}

function fillFilters() {
  const fill = (id, values) => {
    const any = element("option", words("all"));
    any.value = "";
    any.dataset.say = "all";
    $(id).replaceChildren(any, ...[...new Set(values)].sort().map((value) => {
      const option = element("option", value);
      option.value = value;
      return option;
    }));
  };
  fill("type", report.rows.map(({ event }) => String(event?.type ?? "")).filter(Boolean));
  fill("member", report.rows.map(({ event }) => String(event?.actor?.member ?? "")).filter(Boolean));
}

function matching() {
  const type = $("type").value, member = $("member").value, text = $("text").value.toLowerCase();
  return report.rows.filter(({ event, state, leaf }) =>
    (!type || event?.type === type) && (!member || event?.actor?.member === member) &&
    (!$("onlyBad").checked || state === "bad") &&
    (!text || leaf.includes(text) || JSON.stringify(event ?? {}).toLowerCase().includes(text)));
}

function showRows() {
  const found = matching();
  $("count").textContent = words("shown", found.length, report.rows.length);
  $("rows").replaceChildren(...found.slice(0, limit).map(rowOf));
  $("more").hidden = found.length <= limit;
}

function rowOf(row) {
  const { index, state, event } = row;
  const made = element("tr", undefined, state);
  const number = element("td");
  const open = element("button", String(index), "link");
  open.addEventListener("click", () => showEntry(row));
  number.append(open);
  made.append(
    number,
    element("td", `${state === "ok" ? "✔" : "✘"} ${words(`state_${state}`)}`, "state"),
    element("td", event ? utc(event.at) : "?"),
    element("td", String(event?.actor?.member ?? "?")),
    element("td", event ? typeWords(String(event.type)) : "?"));
  return made;
}

function showEntry({ index, leaf, event, bytes, state, reason, bracket }) {
  $("entryTitle").textContent = words("detail", index);
  const time = (seconds) => (seconds === null ? words("unbounded") : utc(seconds * 1000));
  const facts = [
    [words("colState"), words(`state_${state}`)],
    ...(reason ? [[words("why"), words(reason.key, ...reason.args)]] : []),
    [words("leaf"), leaf],
    [words("bracket"), words("between", time(bracket[0]), time(bracket[1]))],
  ];
  $("entryFacts").replaceChildren(...facts.map(([key, value]) => {
    const row = element("div");
    row.append(element("dt", key), element("dd", value));
    return row;
  }));
  $("entryJson").textContent = event ? JSON.stringify(event, null, 2) : textOf(bytes) ?? hexOf(bytes);
  $("entry").showModal();
}

function start() {
  $("language").addEventListener("click", () => {
    lang = lang === "ja" ? "en" : "ja";
    translate();
  });
  $("file").addEventListener("change", (event) => take(event.target.files[0]));
  for (const id of ["vkey", "genesis"]) $(id).addEventListener("change", verify);
  for (const id of ["type", "member", "text", "onlyBad"]) {
    $(id).addEventListener("input", () => {
      limit = PAGE_ROWS;
      showRows();
    });
  }
  $("more").addEventListener("click", () => {
    limit += PAGE_ROWS;
    showRows();
  });
  $("closeEntry").addEventListener("click", () => $("entry").close());
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
  document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  translate();
}

start();
