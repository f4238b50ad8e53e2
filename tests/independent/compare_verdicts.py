#!/usr/bin/env python3
"""Compares our verifier with the second one over genuine items and changed ones.

`compare_verdicts.py VERIFIER OUT ANCHOR TRACE PUBLIC CA`: OUT as `material.py` leaves it, ANCHOR a file with the trust
authority's key, TRACE a holder's whole trace, PUBLIC the address of the public listener and CA its authority. Of each item
both must say the same verdict and the same leading reason: the first one that the verdict follows from. Exit 1 where they do
not, 2 where the items do not show enough different reasons.
"""

import base64
import http.client
import json
import pathlib
import shutil
import ssl
import subprocess
import sys
import time

import second_verifier as second

# Files of changed traces without a receipt, about.
TRACES = 400
# Changed bytes of a report, about.
REPORTS = 300


class Corpus:
    """Items of one kind, each a file."""

    def __init__(self, folder, kind):
        self.folder, self.kind, self.count = folder / kind, kind, 0
        self.folder.mkdir(parents=True)

    def add(self, what, data):
        (self.folder / f"{self.count:05}-{what}").write_bytes(data)
        self.count += 1

    def flips(self, what, data, places, all_bits=False):
        for place in places:
            for bit in range(8) if all_bits else [place % 8]:
                changed = bytearray(data)
                changed[place] ^= 1 << bit
                self.add(f"{what}-{place}.{bit}", bytes(changed))


def licenses(corpus, envelopes):
    single = next(one for one in envelopes if not second.open_envelope(one)[1][0][4])
    batch = next(one for one in envelopes if second.open_envelope(one)[1][0][4])
    body, signatures = second.open_envelope(batch)
    start = batch.index(body)
    outside = [place for place in range(len(batch)) if not start <= place < start + len(body)]
    for envelope in envelopes:
        corpus.add("issued", envelope)
    corpus.flips("batch", batch, outside, all_bits=True)
    corpus.flips("body", batch, range(start, start + len(body), 3))
    corpus.flips("single", single, range(0, len(single), 2))
    for length in range(0, len(batch), 37):
        corpus.add("short", batch[:length])
    corpus.add("longer", batch + b"\0")
    corpus.add("twice", batch + single)

    def put(what, changed, body=body):
        corpus.add(what, second.write_envelope(body, changed))

    first, last = signatures[0], signatures[-1]
    put("reversed", signatures[::-1])
    put("none", [])
    put("other-body", signatures, second.open_envelope(single)[0])
    for suite in (0, 3, 9, 255):
        put("suite", [(suite, *first[1:])])
        put("suite-more", [*signatures, (suite, *first[1:])])
    for one in signatures:
        put("alone", [one])
        put("again", [one, one])
        for field, values in ((2, (0, 1, 1 << 40)), (3, (0, 1, 7, 1 << 63)), (4, (b"", one[4] + bytes(32), one[4][:-32]))):
            for value in values:
                put("field", [(*one[:field], value, *one[field + 1 :]) if each is one else each for each in signatures])
        put("value", [(*one[:5], one[5][:63]) if each is one else each for each in signatures])
    if last[0] == 2:
        turned = second.P256_ORDER - int.from_bytes(last[5][32:], "big")
        put("high-s", [*signatures[:-1], (*last[:5], last[5][:32] + turned.to_bytes(32, "big"))])


def receipts(corpus, answers):
    def parts(answer):
        start = answer.rindex(b',"receipt":{')
        return start, json.loads(answer[start + len(b',"receipt":') : -1])

    seen = {}
    for answer in answers:
        seen.setdefault(second.read_open(second.cut(answer)[1]["open"])["decision"], answer)
    for decision, answer in sorted(seen.items()):
        start, receipt = parts(answer)
        corpus.add(f"genuine-{decision}", answer)
        corpus.flips(f"answer-{decision}", answer, range(0, start, 5))
        corpus.flips(f"receipt-{decision}", answer, range(start, len(answer), 2))
        write = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        corpus.add("alone", write(receipt))
        for name in receipt:
            without = {key: value for key, value in receipt.items() if key != name}
            corpus.add(f"without-{name}", answer[:start] + b',"receipt":' + write(without) + b"}")
            corpus.add(f"null-{name}", answer[:start] + b',"receipt":' + write({**receipt, name: None}) + b"}")
        corpus.add("more", answer[:start] + b',"receipt":' + write({**receipt, "more": 1}) + b"}")
        corpus.add("index", answer[:start] + b',"receipt":' + write({**receipt, "index": 1.0}) + b"}")
        value = json.loads(answer)
        corpus.add("pretty", json.dumps(value, indent=2, ensure_ascii=False).encode())
        corpus.add("first", write({"receipt": value["receipt"], **value}))
        corpus.add("twice", answer[:start] + b',"code":1,"code":2' + answer[start:])
        corpus.add("no-receipt", answer[:start] + b"}")
        other = next(one for one in answers if one != answer)
        corpus.add("crossed", answer[:start] + other[parts(other)[0] :])
        proof = receipt["proof"]
        for what, changed in (
            ("proof-index", proof.replace("index ", "index 1", 1)),
            ("proof-extra", "\n".join(line for line in proof.split("\n") if not line.startswith("extra "))),
            ("proof-path", proof.replace("\n\n", "\n" + base64.b64encode(bytes(32)).decode() + "\n\n", 1)),
            ("proof-note", proof.rstrip("\n")),
            ("proof-other", parts(other)[1]["proof"]),
        ):
            corpus.add(what, answer[:start] + b',"receipt":' + write({**receipt, "proof": changed}) + b"}")


def traces(corpus, trace):
    hashed, _ = second.cut(trace)
    corpus.add("genuine", trace)
    corpus.add("bare", hashed)
    corpus.flips("answer", trace, range(0, len(trace), max(1, len(trace) // 40)))
    corpus.flips("bare", hashed, range(0, len(hashed), max(1, len(hashed) // TRACES)))
    page = json.loads(hashed)
    write = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    corpus.add("pretty", json.dumps(page, indent=1).encode())
    corpus.add("empty", b"")
    corpus.add("object", b"{}\n")

    def put(what, change):
        changed = json.loads(hashed)
        change(changed)
        corpus.add(what, write(changed))

    put("no-label", lambda page: page.update(label=None))
    put("other-label", lambda page: page.update(label="00" * 16))
    put("no-root", lambda page: page.update(indexRoot=None))
    put("before", lambda page: page.update(before=5))
    put("next", lambda page: page.update(next=5))
    put("complete", lambda page: page.update(completeness="complete"))
    put("log", lambda page: page.update(log="log.example/other"))
    put("note", lambda page: page.update(checkpoint=page["checkpoint"].replace("\n", "\n\n", 1)))
    put("count", lambda page: page["indexRoot"].update(count=page["indexRoot"]["count"] + 1))
    put("absent", lambda page: page["indexRoot"].update(count=0))
    put("other", lambda page: page["indexRoot"].update(other=["A" * 43 + "=", "A" * 43 + "="]))
    put("statement", lambda page: page["indexRoot"].update(statement=page["indexRoot"]["statement"] + "\n"))
    put("reversed", lambda page: page["entries"].reverse())
    put("released", lambda page: page["entries"][0].update(released=page["entries"][1:2]))
    for number in range(min(4, len(page["entries"]))):
        put("missing", lambda page: page["entries"].pop(number))
        put("doubled", lambda page: page["entries"].insert(0, page["entries"][number]))
        one = lambda page: page["entries"][number]
        put("untold", lambda page: one(page).pop("told"))
        put("told", lambda page: one(page)["told"].update(document="{}"))
        put("holders", lambda page: one(page)["holders"].append(None))
        put("place", lambda page: one(page)["place"].update(sequence=0))
        put("chain", lambda page: one(page)["place"].update(previousChain=1))
        put("hidden", lambda page: one(page).update(place={"hidden": "A" * 43 + "="}))
        put("word", lambda page: one(page)["entry"].update(code="ok!"))
        put("time", lambda page: one(page)["entry"].update(time="2026-01-01T00:00:00.000Z"))
        put("path", lambda page: one(page)["entry"]["path"].pop())
        put("index", lambda page: one(page)["entry"].update(index=1))
    entries = page["entries"]
    middle = len(entries) // 2
    index = entries[middle - 1]["entry"]["index"]
    halves = {**page, "entries": entries[:middle], "next": index}, {**page, "entries": entries[middle:], "before": index}
    corpus.add("two-pages", write(halves[0]) + b"\n" + write(halves[1]) + b"\n")
    corpus.add("first-half", write(halves[0]))
    corpus.add("second-half", write(halves[1]))
    corpus.add("carriage-return", trace.rstrip(b"\n") + b"\r\n")
    corpus.add("swapped", write(halves[1]) + b"\n" + write(halves[0]))
    corpus.add("one-line", write(halves[0]) + write(halves[1]))


def reports(corpus, report):
    corpus.add("genuine", report)
    corpus.flips("report", report, range(0, len(report), max(1, len(report) // REPORTS)))
    lines = report.splitlines()
    write = lambda lines: b"".join(line + b"\n" for line in lines)
    for place in (0, 20, 21, len(lines) - 2, len(lines) - 1):
        corpus.add("missing", write(lines[:place] + lines[place + 1 :]))
        corpus.add("twice", write(lines[: place + 1] + lines[place:]))
        corpus.add("undecided", write([*lines[:place], b'{"code":"overloaded"}', *lines[place + 1 :]]))
        corpus.add("no-receipt", write([*lines[:place], second_cut(lines[place]), *lines[place + 1 :]]))
    for length in range(0, len(report), len(report) // 50):
        corpus.add("cut", report[:length])
    corpus.add("swapped", write([lines[1], lines[0], *lines[2:]]))
    corpus.add("other-ends", report.replace(b"\n", b"\r\n\r\n"))
    corpus.add("pretty", "\n".join(json.dumps(json.loads(line), indent=1) for line in lines).encode())
    proof = json.loads(lines[-2])["proof"]
    nodes = proof["nodes"]
    for changed in (nodes[1:], [*nodes, nodes[0]], nodes[::-1], ["A" * 43 + "=", *nodes[1:]], ["AAAA"]):
        other = json.dumps({"proof": {**proof, "nodes": changed}}).encode()
        corpus.add("nodes", write([*lines[:-2], other, lines[-1]]))
    note = json.dumps({"proof": {**proof, "checkpoint": proof["checkpoint"].replace("\n", "\n\n", 1)}}).encode()
    corpus.add("note", write([*lines[:-2], note, lines[-1]]))


def second_cut(line):
    """A line without its receipt, or as it is."""
    try:
        return second.cut(line)[0]
    except second.Bad:
        return line


def mirror(folder, public, ca):
    """Downloads the log as it is published."""
    connection = http.client.HTTPSConnection(public, context=ssl.create_default_context(cafile=ca))

    def get(name):
        connection.request("GET", f"/v1/log/{name}")
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            sys.exit(f"/v1/log/{name}: status {response.status}")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
        return body

    size = int(get("checkpoint").split(b"\n")[1])
    for start in range(0, size, 256):
        get(second.tile_name("entries", start // 256, min(256, size - start)))
    level, width = 0, size
    while width:
        for start in range(0, width, 256):
            get(second.tile_name(level, start // 256, min(256, width - start)))
        level, width = level + 1, width // 256
    return size


def logs(corpus, public, ca):
    genuine = corpus.folder / "genuine"
    size = mirror(genuine, public, ca)
    last = second.tile_name("entries", size // 256, size % 256)
    flips = ["checkpoint", "tile/entries/000", "tile/0/001", second.tile_name(1, 0, size // 256), last]
    for number, name in enumerate(name for name in flips if (genuine / name).is_file()):
        for what in ("flip", "short", "gone"):
            copy = corpus.folder / f"{what}-{number}"
            shutil.copytree(genuine, copy)
            data = bytearray((copy / name).read_bytes())
            if what == "gone":
                (copy / name).unlink()
            else:
                data[40] ^= 4
                (copy / name).write_bytes(data if what == "flip" else data[:35])
    copy = corpus.folder / "no-entries"
    shutil.copytree(genuine, copy)
    shutil.rmtree(copy / "tile/entries")
    (copy / "tile/0/001").unlink()
    corpus.count = len(list(corpus.folder.iterdir()))


def leading(verdict, reasons, harmless):
    """The first reason that the verdict follows from."""
    return next((one for one in reasons if (one in harmless) == (verdict == "unknown")), None)


def compare(corpus, run, trust, checks):
    """Both verdicts on every item."""
    if corpus.kind == "log":
        said = {str(item): run(corpus.kind, item) for item in sorted(corpus.folder.iterdir())}
        said = {item: json.loads(text) for item, text in said.items()}
    else:
        said = {one["item"]: one for one in map(json.loads, run(corpus.kind, corpus.folder).splitlines())}
    if len(said) != corpus.count:
        sys.exit(f"{corpus.kind}: {corpus.count} items, {len(said)} findings")
    counts, differences = {}, 0
    harmless = second.UNKNOWN
    for item, ours in sorted(said.items()):
        report = checks[corpus.kind](pathlib.Path(item), trust)
        reasons = [reason["code"] for reason in ours["reasons"]]
        one = ours["verdict"], leading(ours["verdict"], reasons, harmless)
        other = report.verdict(), leading(report.verdict(), report.reasons, harmless)
        counts[one] = counts.get(one, 0) + 1
        if one != other:
            differences += 1
            print(f"{item}: ours {one} of {reasons}, the second {other} of {report.reasons}", file=sys.stderr)
    told = ", ".join(f"{count} {reason or verdict}" for (verdict, reason), count in sorted(counts.items(), key=str))
    print(f"{corpus.kind}: {corpus.count} items: {told}")
    return counts, differences


def main():
    verifier, out, anchor, trace, public, ca = sys.argv[1:]
    out, at = pathlib.Path(out), int(time.time())
    folder, anchor = out / "corpus", pathlib.Path(anchor).read_text().strip()
    note = out / "trust-bundle.note"
    trust = second.Trust(note.read_text(), anchor, at)
    answers = [one.read_bytes() for one in sorted((out / "exchanged").glob("*.answer"), key=lambda one: int(one.stem))]
    corpora = [Corpus(folder, kind) for kind in ("license", "receipt", "trace", "log", "report")]
    licenses(corpora[0], [one.read_bytes() for one in sorted((out / "envelopes").glob("*.mxl"))])
    receipts(corpora[1], answers)
    traces(corpora[2], pathlib.Path(trace).read_bytes())
    logs(corpora[3], public, ca)
    reports(corpora[4], (out / "report.ndjson").read_bytes())

    def run(kind, path):
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
        command = [verifier, kind, path, "--trust", note, "--anchor", anchor, "--at", stamp, "--output", "json"]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout

    checks = {
        "license": lambda item, trust: second.check_license(item.read_bytes(), trust),
        "receipt": lambda item, trust: second.check_receipt(item.read_bytes(), trust),
        "trace": lambda item, trust: second.check_trace(item.read_bytes(), trust),
        "log": second.check_log,
        "report": lambda item, trust: second.check_report(item.read_bytes(), trust),
    }
    differences, shown = 0, {}
    for corpus in corpora:
        shown[corpus.kind], found = compare(corpus, run, trust, checks)
        differences += found
    if differences:
        sys.exit(f"{differences} different verdicts or reasons")
    # Without one valid item, or with few reasons, little was compared.
    least = {"license": 5, "receipt": 8, "trace": 10, "log": 3, "report": 6}
    if any(("valid", None) not in shown[kind] or len(shown[kind]) <= count for kind, count in least.items()):
        print("the items do not show enough", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
