// Ledgerverify checks a published log with the libraries of Go's checksum database, which others wrote:
// golang.org/x/mod/sumdb/note for signatures and golang.org/x/mod/sumdb/tlog for the tree.
//
//	ledgerverify [keys] log DIRECTORY [OLDER-CHECKPOINT...]
//	ledgerverify [keys] proof TLOG-PROOF ENTRY
//
// It exits with 0 and one line about what it verified, or with 1 and one line about what it refused.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	height      = 8
	width       = 1 << height
	cosigner    = 0x04
	proofHeader = "c2sp.org/tlog-proof@v1"
)

type vkeys []string

func (v *vkeys) String() string     { return strings.Join(*v, " ") }
func (v *vkeys) Set(s string) error { *v = append(*v, s); return nil }

// policy is a log, its witnesses, and how many of them are enough.
type policy struct {
	log       note.Verifier
	witnesses []note.Verifier
	quorum    int
}

func main() {
	var witnesses vkeys
	log := flag.String("log", "", "verifier key of the log")
	flag.Var(&witnesses, "witness", "verifier key of a witness; may be repeated")
	quorum := flag.Int("quorum", 0, "number of witnesses that are enough")
	flag.Parse()
	told, err := run(*log, witnesses, *quorum, flag.Args())
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
	fmt.Println(told)
}

func run(log string, witnesses []string, quorum int, args []string) (string, error) {
	pinned, err := newPolicy(log, witnesses, quorum)
	if err != nil {
		return "", err
	}
	switch {
	case len(args) >= 2 && args[0] == "log":
		return pinned.checkLog(args[1], args[2:])
	case len(args) == 3 && args[0] == "proof":
		return pinned.checkProof(args[1], args[2])
	}
	return "", errors.New("usage: ledgerverify [keys] log DIRECTORY [CHECKPOINT...] | proof PROOF ENTRY")
}

func newPolicy(log string, witnesses []string, quorum int) (*policy, error) {
	verifier, err := note.NewVerifier(log)
	if err != nil {
		return nil, err
	}
	pinned := &policy{log: verifier, quorum: quorum}
	for _, vkey := range witnesses {
		witness, err := newWitness(vkey)
		if err != nil {
			return nil, err
		}
		pinned.witnesses = append(pinned.witnesses, witness)
	}
	return pinned, nil
}

// witness verifies cosignature/v1 of c2sp.org/tlog-cosignature, which x/mod does not know.
type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newWitness(vkey string) (*witness, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("malformed witness key")
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != cosigner {
		return nil, errors.New("not a key for cosignature/v1")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	hash := binary.BigEndian.Uint32(sum[:4])
	if fmt.Sprintf("%08x", hash) != parts[1] {
		return nil, errors.New("a witness key with another key's id")
	}
	return &witness{parts[0], hash, key[1:]}, nil
}

func (w *witness) Name() string    { return w.name }
func (w *witness) KeyHash() uint32 { return w.hash }

func (w *witness) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	head := fmt.Sprintf("cosignature/v1\ntime %d\n", binary.BigEndian.Uint64(sig))
	return ed25519.Verify(w.key, append([]byte(head), msg...), sig[8:])
}

// open verifies a checkpoint's log signature and, if asked for, the quorum of its witnesses.
func (p *policy) open(data []byte, quorum int) (tlog.Tree, int, error) {
	opened, err := note.Open(data, note.VerifierList(append([]note.Verifier{p.log}, p.witnesses...)...))
	if err != nil {
		return tlog.Tree{}, 0, err
	}
	signed, keys := false, map[string]bool{}
	for _, sig := range opened.Sigs {
		if sig.Name == p.log.Name() && sig.Hash == p.log.KeyHash() {
			signed = true
			continue
		}
		for _, candidate := range p.witnesses {
			if w := candidate.(*witness); w.name == sig.Name && w.hash == sig.Hash {
				keys[string(w.key)] = true
			}
		}
	}
	if !signed {
		return tlog.Tree{}, 0, errors.New("the log did not sign")
	}
	if len(keys) < quorum {
		return tlog.Tree{}, 0, fmt.Errorf("%d of %d witnesses", len(keys), quorum)
	}
	tree, err := readBody(opened.Text, p.log.Name())
	return tree, len(keys), err
}

func readBody(text, origin string) (tlog.Tree, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[0] != origin || lines[3] != "" {
		return tlog.Tree{}, errors.New("not a checkpoint of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || strconv.FormatInt(size, 10) != lines[1] || size < 0 {
		return tlog.Tree{}, errors.New("malformed size")
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// directory reads tiles where c2sp.org/tlog-tiles puts them: x/mod's paths, without the height.
type directory struct{ root string }

func (d directory) Height() int                         { return height }
func (d directory) SaveTiles(_ []tlog.Tile, _ [][]byte) {}

func (d directory) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	found := make([][]byte, 0, len(tiles))
	for _, tile := range tiles {
		path := "tile/" + strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/", height))
		data, err := os.ReadFile(filepath.Join(d.root, path))
		if err != nil {
			return nil, err
		}
		if len(data) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s has %d bytes", path, len(data))
		}
		found = append(found, data)
	}
	return found, nil
}

func (d directory) entries(n int64, count int) ([][]byte, error) {
	// The path of a hash tile of level 0, in another folder.
	path := tlog.Tile{H: height, L: 0, N: n, W: count}.Path()
	path = "tile/entries/" + strings.TrimPrefix(path, fmt.Sprintf("tile/%d/0/", height))
	data, err := os.ReadFile(filepath.Join(d.root, path))
	if err != nil {
		return nil, err
	}
	found := make([][]byte, 0, count)
	for i := 0; i < count; i++ {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
			return nil, fmt.Errorf("%s ends within entry %d", path, n*width+int64(i))
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		found = append(found, data[2:end])
		data = data[end:]
	}
	if len(data) != 0 {
		return nil, fmt.Errorf("%s has bytes after its last entry", path)
	}
	return found, nil
}

// checkLog verifies everything that is published, then proofs made from the tiles.
func (p *policy) checkLog(root string, older []string) (string, error) {
	data, err := os.ReadFile(filepath.Join(root, "checkpoint"))
	if err != nil {
		return "", err
	}
	tree, witnesses, err := p.open(data, p.quorum)
	if err != nil {
		return "", err
	}
	dir := directory{root}
	reader := tlog.TileHashReader(tree, dir)
	leaves, err := checkTiles(tree.N, reader)
	if err != nil {
		return "", err
	}
	if err := checkEntries(tree.N, dir, leaves); err != nil {
		return "", err
	}
	for _, index := range []int64{0, tree.N / 2, tree.N - 1} {
		proof, err := tlog.ProveRecord(tree.N, index, reader)
		if err != nil {
			return "", err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaves[index]); err != nil {
			return "", err
		}
	}
	if err := p.checkOlder(tree, reader, older); err != nil {
		return "", err
	}
	return fmt.Sprintf("log size=%d root=%x witnesses=%d older=%d", tree.N, tree.Hash[:], witnesses, len(older)), nil
}

// checkTiles reads every hash of every tile; the reader proves each up to the signed root.
func checkTiles(size int64, reader tlog.HashReader) ([]tlog.Hash, error) {
	var indexes []int64
	for level := 0; size>>(height*level) > 0; level++ {
		for n := int64(0); n < size>>(height*level); n++ {
			indexes = append(indexes, tlog.StoredHashIndex(height*level, n))
		}
	}
	hashes, err := reader.ReadHashes(indexes)
	if err != nil {
		return nil, err
	}
	return hashes[:size], nil
}

func checkEntries(size int64, dir directory, leaves []tlog.Hash) error {
	for first := int64(0); first < size; first += width {
		count := width
		if size-first < width {
			count = int(size - first)
		}
		entries, err := dir.entries(first/width, count)
		if err != nil {
			return err
		}
		for i, entry := range entries {
			if tlog.RecordHash(entry) != leaves[first+int64(i)] {
				return fmt.Errorf("entry %d was changed", first+int64(i))
			}
		}
	}
	return nil
}

func (p *policy) checkOlder(tree tlog.Tree, reader tlog.HashReader, older []string) error {
	for _, path := range older {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		old, _, err := p.open(data, 0)
		if err != nil {
			return err
		}
		proof, err := tlog.ProveTree(tree.N, old.N, reader)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash); err != nil {
			return fmt.Errorf("size %d does not extend size %d: %w", tree.N, old.N, err)
		}
	}
	return nil
}

// checkProof verifies a c2sp.org/tlog-proof file.
func (p *policy) checkProof(path, entryPath string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	entry, err := os.ReadFile(entryPath)
	if err != nil {
		return "", err
	}
	head, checkpoint, found := bytes.Cut(data, []byte("\n\n"))
	rows := strings.Split(string(head), "\n")
	if !found || rows[0] != proofHeader {
		return "", errors.New("not a tlog-proof")
	}
	rows = rows[1:]
	if len(rows) > 0 && strings.HasPrefix(rows[0], "extra ") {
		rows = rows[1:]
	}
	if len(rows) == 0 || !strings.HasPrefix(rows[0], "index ") {
		return "", errors.New("a proof without an index")
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(rows[0], "index "), 10, 64)
	if err != nil {
		return "", err
	}
	var hashes tlog.RecordProof
	for _, row := range rows[1:] {
		hash, err := tlog.ParseHash(row)
		if err != nil {
			return "", err
		}
		hashes = append(hashes, hash)
	}
	tree, witnesses, err := p.open(checkpoint, p.quorum)
	if err != nil {
		return "", err
	}
	if err := tlog.CheckRecord(hashes, tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
		return "", err
	}
	return fmt.Sprintf("proof size=%d index=%d witnesses=%d", tree.N, index, witnesses), nil
}
