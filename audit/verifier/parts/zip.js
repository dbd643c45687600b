// The one zip layout of a bundle (audit/archive.py): stored, undated, in order. Because its bytes follow from its
// members, a byte that differs anywhere is found, even in a header that other programs ignore.

const ZIP_LOCAL = 0x04034b50, ZIP_CENTRAL = 0x02014b50, ZIP_END = 0x06054b50;

/** Return the members in order, a Map from name to bytes; a changed member is still handed out. */
function unzip(data) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const members = new Map();
  let at = 0;
  const mark = () => (at + 4 <= data.length ? view.getUint32(at, true) : 0);
  while (mark() !== ZIP_CENTRAL) {
    if (mark() !== ZIP_LOCAL || at + 30 > data.length) refuse("zipDamaged", at);
    const length = view.getUint32(at + 22, true), nameLength = view.getUint16(at + 26, true);
    const start = at + 30 + nameLength;
    const name = String.fromCharCode(...data.subarray(at + 30, start));
    if (start + length > data.length || members.has(name)) refuse("zipDamaged", at);
    members.set(name, data.subarray(start, start + length));
    at = start + length;
  }
  return members;
}

/** What a member's own header and the directory both say of it, from the flags on: neither flag, method nor time. */
function zipFields(name, bytes) {
  const date = 0x21; // 1 January 1980, the earliest that the format knows
  const length = bytes.length;
  return littleEndian([0, 6], [date, 2], [crc32(bytes), 4], [length, 4], [length, 4], [name.length, 2], [0, 2]);
}

function littleEndian(...values) {
  const bytes = [];
  for (const [value, width] of values) {
    for (let i = 0; i < width; i++) bytes.push(Math.floor(value / 256 ** i) % 256);
  }
  return Uint8Array.from(bytes);
}

/** Return the first byte at which the file is not what its members make, or -1. */
function layoutFault(data, members) {
  let at = 0, fault = -1;
  const expect = (bytes) => {
    for (let i = 0; fault < 0 && i < bytes.length; i++) if (data[at + i] !== bytes[i]) fault = at + i;
    at += bytes.length;
  };
  const listed = [];
  for (const [name, bytes] of members) {
    const encoded = Uint8Array.from(name, (char) => char.charCodeAt(0));
    const fields = zipFields(name, bytes);
    listed.push({ offset: at, encoded, fields });
    expect(concat(littleEndian([ZIP_LOCAL, 4], [20, 2]), fields, encoded));
    at += bytes.length;
  }
  const directory = at;
  for (const { offset, encoded, fields } of listed) {
    expect(concat(littleEndian([ZIP_CENTRAL, 4], [(3 << 8) | 20, 2], [20, 2]), fields));
    expect(concat(littleEndian([0, 6], [0o100644 * 65536, 4], [offset, 4]), encoded));
  }
  const count = members.size;
  expect(littleEndian([ZIP_END, 4], [0, 2], [0, 2], [count, 2], [count, 2], [at - directory, 4], [directory, 4], [0, 2]));
  if (fault < 0 && at !== data.length) fault = Math.min(at, data.length);
  return fault;
}
