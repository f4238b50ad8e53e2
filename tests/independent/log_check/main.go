// Log_check verifies a served log with golang.org/x/mod/sumdb, which shares no code with ours: the signatures of two
// checkpoints, the inclusion of random entries through the tiles, and the consistency of the two sizes.
//
// Exit 0: all holds; 1: a check failed; 2: a check could not be made.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	// Height of the tiles of C2SP tlog-tiles.
	height = 8
	// Entries of a full bundle.
	bundleWidth = 1 << height
	// Bytes of a leaf (schemas/README.md, section 4).
	leafSize = 34
	// A checkpoint is published every second; one that covers new entries comes within this time.
	patience = 15 * time.Second
)

var (
	base    = flag.String("url", "", "URL of the public listener")
	ca      = flag.String("ca", "", "file with the authority of its certificate, PEM")
	vkey    = flag.String("vkey", "", "the log's verifier key")
	before  = flag.String("before", "", "file with an earlier checkpoint")
	entries = flag.Int("entries", 100, "entries to check")
	seed    = flag.Int64("seed", 0, "seed of the choice; 0 = from the clock")
	flip    = flag.Bool("flip", false, "control run: flip one bit of one leaf, which must be found")
)

func main() {
	flag.Parse()
	client, err := newClient(*ca)
	unable(err)
	verifier, err := note.NewVerifier(*vkey)
	unable(err)
	text, err := os.ReadFile(*before)
	unable(err)
	old := openCheckpoint(text, verifier)

	log := &log{client: client, bundles: map[string][][]byte{}}
	current := old
	for deadline := time.Now().Add(patience); current.N == old.N; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			unable(fmt.Errorf("the published checkpoint stays at size %d", old.N))
		}
		text, err := log.get("checkpoint")
		unable(err)
		current = openCheckpoint(text, verifier)
	}
	reader := tlog.TileHashReader(current, log)

	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	fmt.Printf("seed %d\n", *seed)
	random := rand.New(rand.NewSource(*seed))
	for n := 0; n < *entries; n++ {
		index := random.Int63n(current.N)
		leaf, err := log.leaf(index, current.N)
		unable(err)
		if *flip && n == *entries/2 {
			bit := random.Intn(8 * leafSize)
			leaf = append([]byte(nil), leaf...)
			leaf[bit/8] ^= 1 << (bit % 8)
		}
		proof, err := tlog.ProveRecord(current.N, index, reader)
		check(err)
		if err := tlog.CheckRecord(proof, current.N, current.Hash, index, tlog.RecordHash(leaf)); err != nil {
			check(fmt.Errorf("entry %d is not included: %v", index, err))
		}
	}

	proof, err := tlog.ProveTree(current.N, old.N, reader)
	check(err)
	check(tlog.CheckTree(proof, current.N, current.Hash, old.N, old.Hash))
	// The proof says nothing if it holds for another old tree as well.
	other := old.Hash
	other[0] ^= 1
	if tlog.CheckTree(proof, current.N, current.Hash, old.N, other) == nil {
		check(fmt.Errorf("the consistency proof holds for another tree, too"))
	}
	fmt.Printf("%d entries included in size %d, consistent with size %d\n", *entries, current.N, old.N)
}

// check ends the program if a check has failed.
func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "failed:", err)
		os.Exit(1)
	}
}

// unable ends the program if a check cannot be made.
func unable(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot check:", err)
		os.Exit(2)
	}
}

func newClient(ca string) (*http.Client, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", ca)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
	return &http.Client{Transport: transport, Timeout: patience}, nil
}

// openCheckpoint verifies a C2SP tlog-checkpoint and returns its tree.
func openCheckpoint(text []byte, verifier note.Verifier) tlog.Tree {
	opened, err := note.Open(text, note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() || lines[3] != "" {
		check(fmt.Errorf("a checkpoint of another form or log"))
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	hash, err := tlog.ParseHash(lines[2])
	check(err)
	if size < 1 {
		unable(fmt.Errorf("an empty log"))
	}
	return tlog.Tree{N: size, Hash: hash}
}

// log reads a log through its public listener. It is the tlog.TileReader of this program.
type log struct {
	client  *http.Client
	bundles map[string][][]byte
}

func (l *log) get(path string) ([]byte, error) {
	answer, err := l.client.Get(*base + "/v1/log/" + path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, answer.Status)
	}
	return io.ReadAll(answer.Body)
}

// leaf reads one entry from its bundle: entries with a length of two bytes before each.
func (l *log) leaf(index, size int64) ([]byte, error) {
	number := index / bundleWidth
	width := int64(bundleWidth)
	if rest := size - number*bundleWidth; rest < width {
		width = rest
	}
	path := tilePath(tlog.Tile{H: height, L: -1, N: number, W: int(width)})
	if _, known := l.bundles[path]; !known {
		data, err := l.get(path)
		if err != nil {
			return nil, err
		}
		for from := bytes.NewReader(data); from.Len() > 0; {
			var length uint16
			if err := binary.Read(from, binary.BigEndian, &length); err != nil {
				return nil, err
			}
			entry := make([]byte, length)
			if _, err := io.ReadFull(from, entry); err != nil {
				return nil, err
			}
			if length != leafSize {
				return nil, fmt.Errorf("%s holds an entry of %d bytes", path, length)
			}
			l.bundles[path] = append(l.bundles[path], entry)
		}
		if int64(len(l.bundles[path])) != width {
			return nil, fmt.Errorf("%s holds %d entries", path, len(l.bundles[path]))
		}
	}
	return l.bundles[path][index%bundleWidth], nil
}

// tilePath is the path of a tile by C2SP tlog-tiles, which leaves out the height and calls the data entries.
func tilePath(t tlog.Tile) string {
	path := strings.TrimPrefix(t.Path(), fmt.Sprintf("tile/%d/", height))
	return "tile/" + strings.Replace(path, "data/", "entries/", 1)
}

// Height is the height of the tiles.
func (l *log) Height() int { return height }

// ReadTiles reads tiles; TileHashReader checks them against the checkpoint.
func (l *log) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, t := range tiles {
		data, err := l.get(tilePath(t))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

// SaveTiles keeps nothing.
func (l *log) SaveTiles([]tlog.Tile, [][]byte) {}
