#!/usr/bin/env python3
"""A second verifier: `second_verifier.py license|receipt|trace|report|log --trust BUNDLE [--anchor VKEY] --at SECONDS FILE...`.

Written from schemas/README.md alone, sections 1 to 5 and 8, and the C2SP texts that it names, with Python's
`cryptography`. Prints a line of JSON for each file, or for the folder of a log: the verdict and the codes of the reasons,
in the order of the page. Knows neither witnesses nor policies.
"""

import argparse
import base64
import binascii
import calendar
import datetime
import functools
import hashlib
import json
import pathlib
import re
import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

PAGE = pathlib.Path(__file__).resolve().parents[2] / "schemas" / "README.md"
MIB = 1 << 20
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# Sections 2 and 3: what makes a verdict no more than "cannot tell".
UNKNOWN = set(
    "no-anchor trust-expired trust-rollback malformed-trust bad-trust-signature unsupported-suite key-compromised "
    "no-trust-for-issuer request-not-recorded no-proof unknown-log reformatted told-missing other-chain not-whole no-index-root "
    "log-incomplete report-incomplete".split()
)
ON_TRUST = set(
    "unknown-signer issuer-mismatch not-entitled-to-type key-not-yet-valid key-past-end required-suite-missing "
    "bad-checkpoint".split()
)
ON_ANCHOR = ON_TRUST | set(
    "bad-cosignature inconsistent split-view two-labels entries-missing bad-index-root bad-tile".split()
)


class Bad(Exception):
    """Something that cannot be read."""


class End(Exception):
    """The check ends here."""


class Report:
    """The reasons, in the order in which they were found."""

    def __init__(self):
        self.reasons = []
        self.ended = {}

    def add(self, reason):
        self.reasons.append(reason)

    def end(self, reason):
        self.add(reason)
        raise End

    def verdict(self):
        harmless = set(UNKNOWN)
        if "trust-expired" in self.reasons:
            harmless |= ON_TRUST
        if "no-anchor" in self.reasons:
            harmless |= ON_ANCHOR
        if any(reason not in harmless for reason in self.reasons):
            return "invalid"
        return "unknown" if self.reasons else "valid"


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def need(holds):
    if not holds:
        raise Bad


def b64(text, length=None):
    need(isinstance(text, str))
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Bad from None
    need(base64.b64encode(value).decode() == text and length in (None, len(value)))
    return value


def lower_hex(text, length):
    need(isinstance(text, str) and re.fullmatch(f"[0-9a-f]{{{2 * length}}}", text))
    return bytes.fromhex(text)


def decimal(text):
    need(re.fullmatch(r"0|[1-9][0-9]*", text) and int(text) < 1 << 64)
    return int(text)


# --- strict JSON


class Twice(Bad):
    """A member stands twice."""


def members(pairs):
    if len(dict(pairs)) != len(pairs):
        raise Twice
    return dict(pairs)


def refuse(_):
    raise Bad


def load(data):
    """JSON in bytes or text."""
    try:
        text = data.decode() if isinstance(data, bytes) else data
        need(not text.startswith("\ufeff"))
        value = json.loads(text, object_pairs_hook=members, parse_constant=refuse)
        text_of(value)
        return value
    except (ValueError, RecursionError):
        raise Bad from None


def text_of(value):
    """Every text is one: half of a surrogate pair is none."""
    if isinstance(value, str):
        value.encode()
    for one in value.items() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        text_of(one)


def shaped(value, required, optional=()):
    need(isinstance(value, dict) and set(required) <= set(value) <= set(required) | set(optional))
    return value


def number(value):
    need(isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64)
    return value


def string(value):
    need(isinstance(value, str))
    return value


def array(value):
    need(isinstance(value, list))
    return value


# --- section 1


def mod_37_36(text):
    p = 36
    for character in text:
        x = (p + "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(character)) % 36 or 36
        p = 2 * x % 37
    return "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[(37 - p) % 36]


def identifier(text):
    """Type and issuer."""
    found = re.fullmatch(
        r"1\.2\.156\.3005\.2\.([0-9A-Z]{18}[0-9]{3})\.([0-9A-Z]{18}|[0-9]{6})\.([0-9A-Z]{1,64})\.([0-9]{3})\.([0-9A-Z])",
        text,
    )
    need(found and found[4] != "000" and mod_37_36("".join(found.groups()[:4])) == found[5])
    return found[1], found[2]


# --- notes, trees, trust (sections 2, 3 and 5)


def read_vkey(vkey, kind=1):
    try:
        name, key_hash, key = vkey.split("+", 2)
    except ValueError:
        raise Bad from None
    key = b64(key)
    need(len(key) == 33 and key[0] == kind and sha256(name.encode(), b"\n", key)[:4].hex() == key_hash)
    return name, bytes.fromhex(key_hash), key[1:]


def split_note(note):
    """Text and signatures as (name, hash, value)."""
    need(len(note.encode()) <= MIB and not re.search("[\x00-\x09\x0b-\x1f]", note))
    text, separator, rest = note.rpartition("\n\n")
    need(separator and rest.endswith("\n"))
    signatures = []
    for line in rest[:-1].split("\n"):
        parts = line.split(" ")
        need(len(parts) == 3 and parts[0] == "\u2014" and parts[1] and not re.search(r"[\s+\x7f-\x9f]", parts[1]))
        value = b64(parts[2])
        need(len(value) > 4)
        signatures.append((parts[1], value[:4], value[4:]))
    need(len(signatures) <= 16)
    return text + "\n", signatures


def verify_note(note, vkey):
    """The text that the key signed. Nothing (None) when it signed none, or not this."""
    name, key_hash, key = read_vkey(vkey)
    text, signatures = split_note(note)
    own = [value for signer, signer_hash, value in signatures if (signer, signer_hash) == (name, key_hash)]
    public = ed25519.Ed25519PublicKey.from_public_bytes(key)
    if not own or not all(verifies(public.verify, value, text.encode()) for value in own):
        return None
    return text


def verifies(check, *arguments):
    try:
        check(*arguments)
    except InvalidSignature:
        return False
    return True


def node(left, right):
    return sha256(b"\1", left, right)


def fold(leaf, index, size, path):
    """RFC 9162, 2.1.3.2; nothing where the path does not fit."""
    if index >= size:
        return None
    last, result = size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            result = node(sibling, result)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            result = node(result, sibling)
        index, last = index >> 1, last >> 1
    return result if last == 0 else None


def tree(leaves):
    """RFC 9162, 2.1.1: a tree splits at the largest power of two below its size."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256()
    middle = 1 << (len(leaves) - 1).bit_length() - 1
    return node(tree(leaves[:middle]), tree(leaves[middle:]))


BUNDLE = "version sequence issuedAt expires journalIndex issuers logs witnesses peers".split()


class Trust:
    """A trust bundle, and what every report begins with."""

    def __init__(self, note, anchor, at):
        self.at, self.first = at, []
        try:
            text, _ = split_note(note)
            if anchor is None:
                self.first.append("no-anchor")
            elif verify_note(note, anchor) is None:
                raise_for("bad-trust-signature")
            need(text.endswith("\n") and text.count("\n") == 1)
            self.bundle = shaped(load(text[:-1]), BUNDLE, ["authority", "mirrors"])
            if anchor is not None and self.bundle.get("authority") not in (None, anchor):
                raise_for("bad-trust-signature")
            need(self.bundle["version"] == 1)
            self.read()
        except Bad:
            raise_for("malformed-trust")
        if at >= self.bundle["expires"]:
            self.first.append("trust-expired")

    def read(self):
        self.keys, self.issuers, self.logs = {}, {}, {}
        for issuer in self.bundle["issuers"]:
            need(issuer["organisation"] not in self.issuers)
            self.issuers[issuer["organisation"]] = issuer
            for key in issuer["keys"]:
                spki = b64(key["spki"])
                need(sha256(spki)[:16].hex() == key["keyId"] and key["keyId"] not in self.keys)
                public = serialization.load_der_public_key(spki) if key["suite"] in (1, 2) else None
                self.keys[key["keyId"]] = {**key, "organisation": issuer["organisation"], "public": public}
        for log in self.bundle["logs"]:
            need(log["origin"] not in self.logs and read_vkey(log["key"])[0] == log["origin"])
            self.logs[log["origin"]] = log["key"]

    def report(self):
        report = Report()
        report.reasons += self.first
        return report


class Untrusted(Exception):
    """No bundle to check with."""


def raise_for(reason):
    raise Untrusted(reason)


# --- licenses (section 2)


class Table:
    """A FlatBuffers table."""

    def __init__(self, buffer, place):
        self.buffer, self.place = buffer, place
        vtable = place - take("<i", buffer, place)
        length = take("<H", buffer, vtable)
        self.fields = [take("<H", buffer, vtable + at) for at in range(4, length - 1, 2)]

    def at(self, field):
        offset = self.fields[field] if field < len(self.fields) else 0
        return self.place + offset if offset else None

    def number(self, field, form):
        place = self.at(field)
        return 0 if place is None else take(form, self.buffer, place)

    def indirect(self, place):
        return place + take("<I", self.buffer, place)

    def bytes(self, field):
        need(self.at(field) is not None)
        start = self.indirect(self.at(field))
        length = take("<I", self.buffer, start)
        need(start + 4 + length <= len(self.buffer))
        return self.buffer[start + 4 : start + 4 + length]

    def text(self, field):
        try:
            return self.bytes(field).decode()
        except UnicodeDecodeError:
            raise Bad from None

    def tables(self, field):
        need(self.at(field) is not None)
        start = self.indirect(self.at(field))
        count = take("<I", self.buffer, start)
        need(start + 4 + 4 * count <= len(self.buffer))
        return [Table(self.buffer, self.indirect(start + 4 + 4 * one)) for one in range(count)]


def take(form, buffer, place):
    need(0 <= place and place + struct.calcsize(form) <= len(buffer))
    return struct.unpack_from(form, buffer, place)[0]


class Writer:
    """The one accepted form of an envelope, written from its end to its beginning."""

    def __init__(self):
        self.done, self.vtables, self.longest = b"", {}, 4

    def put(self, data):
        self.done = data + self.done
        return len(self.done)

    def align(self, boundary, length):
        self.done = b"\0" * (-(len(self.done) + length) % boundary) + self.done

    def vector(self, data):
        self.align(4, len(data))
        self.put(data)
        return self.number("<I", len(data))

    def number(self, form, value):
        length = struct.calcsize(form)
        self.longest = max(self.longest, length)
        self.align(length, length)
        return self.put(struct.pack(form, value))

    def offset(self, thing):
        self.align(4, 4)
        return self.put(struct.pack("<I", len(self.done) + 4 - thing))

    def offsets(self, things):
        self.align(4, 4 * len(things))
        for thing in reversed(things):
            self.offset(thing)
        return self.number("<I", len(things))

    def table(self, count, fields):
        """`fields`: (number, form or None for an offset, value)."""
        behind, places = len(self.done), {}
        for field, form, value in fields:
            if form is None:
                places[field] = self.offset(value)
            elif value:
                places[field] = self.number(form, value)
        self.align(4, 4)
        place = len(self.done) + 4
        entries = [place - places[field] if field in places else 0 for field in range(count)]
        vtable = struct.pack(f"<{count + 2}H", 4 + 2 * count, place - behind, *entries)
        known = self.vtables.get(vtable)
        if known is None:
            self.vtables[vtable] = known = place + len(vtable)
            self.put(struct.pack("<i", len(vtable)))
            self.put(vtable)
        else:
            self.put(struct.pack("<i", known - place))
        return place


def write_envelope(body, signatures):
    writer, tables = Writer(), []
    for suite, key_id, size, index, path, value in signatures:
        places = [writer.vector(one) for one in (key_id, path, value)]
        fields = [(3, "<Q", index), (2, "<Q", size), (5, None, places[2]), (4, None, places[1]), (1, None, places[0])]
        tables.append(writer.table(6, fields + [(0, "<B", suite)]))
    body = writer.vector(body)
    listed = writer.offsets(tables)
    root = writer.table(2, [(1, None, listed), (0, None, body)])
    writer.align(writer.longest, 12)
    writer.put(b"MXL1")
    writer.offset(root)
    return struct.pack("<I", len(writer.done)) + writer.done


def open_envelope(envelope):
    """Body and signatures; "trailing-bytes" where that is all that is wrong."""
    need(4 <= len(envelope) <= MIB and envelope[8:12] == b"MXL1")
    length = take("<I", envelope, 0)
    need(length <= len(envelope) - 4)
    if length < len(envelope) - 4:
        return "trailing-bytes"
    buffer = envelope[4:]
    root = Table(buffer, take("<I", buffer, 0))
    signatures = [
        (one.number(0, "<B"), one.bytes(1), one.number(2, "<Q"), one.number(3, "<Q"), one.bytes(4), one.bytes(5))
        for one in root.tables(1)
    ]
    suites = [signature[0] for signature in signatures]
    need(len(suites) <= 8 and 0 not in suites and suites == sorted(set(suites)))
    need(all(len(one[1]) == 16 and len(one[4]) % 32 == 0 and len(one[4]) <= 63 * 32 for one in signatures))
    need(write_envelope(root.bytes(0), signatures) == envelope)
    return root.bytes(0), signatures


def value_verifies(suite, public, message, value):
    if len(value) != 64:
        return False
    if suite == 1:
        return verifies(public.verify, value, message)
    r, s = (int.from_bytes(half, "big") for half in (value[:32], value[32:]))
    if not 0 < r < P256_ORDER or not 0 < s <= P256_ORDER // 2:
        return False
    return verifies(public.verify, encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))


def day(text):
    """First second of a day in UTC+8."""
    need(re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text))
    try:
        return calendar.timegm(datetime.date.fromisoformat(text).timetuple()) - 8 * 3600
    except ValueError:
        raise Bad from None


def read_body(body):
    need(body[4:8] == b"MXB1")
    root = Table(body, take("<I", body, 0))
    need(len(root.bytes(0)) == 16)
    for field in (1, 2, 3, 5, 6):
        root.text(field)
    for holder in root.tables(4):
        [holder.text(field) for field in (0, 1, 2)]
    for one in root.tables(9):
        [one.text(field) for field in (0, 1)]
    day(root.text(5))
    until = None if root.at(7) is None else day(root.text(7)) + 86_400
    return root.text(1), day(root.text(6)), until, root.number(8, "<Q")


def check_license(data, trust):
    report = trust.report()
    try:
        license_in_order(data, trust, report)
    except End:
        pass
    return report


def license_in_order(envelope, trust, report):
    try:
        opened = open_envelope(envelope)
    except Bad:
        report.end("malformed-envelope")
    if opened == "trailing-bytes":
        report.end("trailing-bytes")
    body, signatures = opened
    leaf = sha256(b"\0", body)
    suites = bytes(one[0] for one in signatures)

    def known(signature):
        key = trust.keys.get(signature[1].hex())
        return key if key and signature[0] in (1, 2) and key["suite"] == signature[0] else None

    broken = False
    for signature in signatures:
        suite, _, size, index, path, value = signature
        key = known(signature)
        if key is None:
            continue
        root = fold(leaf, index, size, [path[at : at + 32] for at in range(0, len(path), 32)])
        if root is None:
            report.add("bad-path")
            broken = True
            continue
        message = b"miaoxiang license v2\0" + struct.pack(">B8sQ", suite, suites, size) + root
        if not value_verifies(suite, key["public"], message, value):
            report.add("bad-signature")
            broken = True
    if broken:
        raise End
    try:
        named, valid_from, until, issued_at = read_body(body)
    except Bad:
        report.end("malformed-body")
    try:
        license_type, organisation = identifier(named)
    except Bad:
        report.end("bad-identifier")
    issuer = trust.issuers.get(organisation)
    mismatch = False
    for signature in signatures:
        key = known(signature)
        if signature[0] not in (1, 2):
            report.add("unsupported-suite")
        elif key is None:
            if issuer:
                report.add("unknown-signer")
        elif key["organisation"] != organisation:
            report.add("issuer-mismatch")
            mismatch = True
        elif issued_at < key["from"]:
            report.add("key-not-yet-valid")
        elif issued_at >= key["until"]:
            report.add("key-past-end")
        elif key["compromisedAtSize"] is not None:
            report.add("key-compromised")
    if issuer:
        if license_type not in issuer["types"]:
            report.add("not-entitled-to-type")
        required = [one["suite"] for one in issuer["requiredSuites"] if one["from"] <= issued_at]
        missing = [suite for suite in required if suite not in suites]
        report.reasons += ["required-suite-missing"] * (len(missing) or (not signatures))
    elif not mismatch:
        report.add("no-trust-for-issuer")
    if trust.at < valid_from:
        report.add("not-yet-valid")
    if until is not None and trust.at >= until:
        report.add("expired")


# --- receipts (section 4)

RECEIPT = "log index leafHash open salt C".split()


def read_receipt(value):
    shaped(value, RECEIPT, ["requestSalt", "proof"])
    return {
        "log": string(value["log"]),
        "index": number(value["index"]),
        "leafHash": b64(value["leafHash"], 32),
        "open": b64(value["open"]),
        "salt": b64(value["salt"], 32),
        "C": b64(value["C"], 32),
        "requestSalt": b64(value["requestSalt"], 32) if "requestSalt" in value else None,
        "proof": optional(value.get("proof"), string),
    }


def cut(answer):
    """The bytes that the answer digest covers, and the receipt."""
    end = answer.rfind(b"}")
    start = answer.rfind(b',"receipt":{', 0, max(end, 0))
    need(end >= 0 and start >= 0)
    return answer[:start] + answer[end:], read_receipt(load(answer[start + len(b',"receipt":') : end]))


def read_open(data):
    need(len(data) >= 176)
    layout, route, decision, labels, code, stage, acting, index, time = struct.unpack_from(">BBBBHBBQQ", data)
    need(layout == 2 and decision in (1, 2, 3) and stage < 3 and data[42:48] == bytes(6))
    need(labels in (0, 1, 2, 3, 4, 255) and acting in (0, 1, 2, 3, 4, 255))
    behind = 176 + (32 if labels == 255 else 16 * labels)
    end = behind + (32 if acting == 255 else 19 * acting)
    need(len(data) == end + (8 if stage == 2 else 0))
    listed = None if labels == 255 else [data[at : at + 16] for at in range(176, behind, 16)]
    for at in range(behind, end, 19) if acting != 255 else ():
        need(data[at] == 1 or (data[at] == 2 and data[at + 17 : at + 19] == bytes(2)))
    return {
        "intent": take(">Q", data, end) if stage == 2 else None,
        "route": route,
        "decision": decision,
        "code": code,
        "index": index,
        "time": time,
        "organisation": data[24:42].decode("utf-8", "replace").rstrip("\0"),
        "request": data[48:80],
        "answer": data[80:112],
        "labels": listed,
    }


def leaf_hash(receipt):
    opened = receipt["open"]
    stamp = opened[8:24]
    blank = sha256(opened[:8], bytes(len(stamp)), opened[24:])
    return sha256(b"\0", b"\2\1", sha256(receipt["salt"], stamp, blank, receipt["C"]))


def read_checkpoint(note, vkey):
    """Size and root."""
    text = verify_note(note, vkey)
    need(text is not None and text.count("\n") == 3)
    origin, size, root = text[:-1].split("\n")
    need(origin and origin == vkey.split("+")[0])
    return decimal(size), b64(root, 32)


def read_proof(text):
    need(len(text.encode()) <= MIB)
    head, separator, checkpoint = text.partition("\n\n")
    need(separator and checkpoint)
    version, *lines = head.split("\n")
    need(version == "c2sp.org/tlog-proof@v1" and lines)
    extra = b64(lines.pop(0)[6:]) if lines[0].startswith("extra ") else None
    need(lines and lines[0].startswith("index "))
    path = [b64(line, 32) for line in lines[1:]]
    need(len(path) <= 64)
    return extra, decimal(lines[0][6:]), path, checkpoint


def check_receipt(data, trust, request=None):
    report = trust.report()
    reformatted, answer = False, None
    try:
        try:
            receipt = read_receipt(load(data))
        except Bad:
            try:
                _, receipt = cut(data)
                answer = data
            except Bad:
                try:
                    value = load(data)
                    receipt = read_receipt(value.get("receipt") if isinstance(value, dict) else None)
                    reformatted = True
                except Bad:
                    # Nothing that a trust bundle says changes this.
                    report.reasons.clear()
                    report.end("malformed-receipt")
        receipt_in_order(receipt, request, answer, trust, report)
    except End:
        pass
    if reformatted:
        report.add("reformatted")
    if answer is not None:
        try:
            load(cut(answer)[0])
        except Twice:
            report.add("duplicate-member")
        except Bad:
            pass
    return report


def receipt_in_order(receipt, request, answer, trust, report):
    try:
        opened = read_open(receipt["open"])
    except Bad:
        report.end("malformed-open")
    if leaf_hash(receipt) != receipt["leafHash"]:
        report.add("leaf-mismatch")
    if opened["index"] != receipt["index"]:
        report.add("index-mismatch")
    if opened["intent"] is not None and opened["intent"] >= opened["index"]:
        report.add("index-mismatch")
    if request is not None:
        if opened["request"] == bytes(32) or receipt["requestSalt"] is None:
            report.add("request-not-recorded")
        elif sha256(receipt["requestSalt"], request) != opened["request"]:
            report.add("request-mismatch")
    if answer is not None:
        hashed, other = cut(answer)
        fixed = lambda one: [one[name] for name in RECEIPT]
        salts = {one["requestSalt"] for one in (receipt, other)} - {None}
        same = fixed(receipt) == fixed(other) and len(salts) < 2
        if sha256(answer) != opened["answer"] and not (same and sha256(hashed) == opened["answer"]):
            report.add("answer-mismatch")
    if receipt["proof"] is None:
        report.end("no-proof")
    try:
        extra, index, path, checkpoint = read_proof(receipt["proof"])
    except Bad:
        report.end("malformed-proof")
    if index != receipt["index"] or extra not in (None, receipt["salt"] + receipt["C"] + receipt["open"]):
        report.end("proof-mismatch")
    if receipt["log"] not in trust.logs:
        report.end("unknown-log")
    try:
        size, root = read_checkpoint(checkpoint, trust.logs[receipt["log"]])
    except Bad:
        report.end("bad-checkpoint")
    if fold(receipt["leafHash"], index, size, path) != root:
        report.end("not-included")


# --- reports of batches (section 4)

END_MEMBERS = "end lines permitted refused undecided digest asOf".split()


def check_report(data, trust, request=None):
    report = trust.report()
    try:
        report_in_order(data, request, trust, report)
    except End:
        pass
    return report


def split_lines(data):
    lines = (line.strip(b" \t\r\x0c") for line in data.split(b"\n"))
    return [line for line in lines if line]


def read_end(line):
    """The end, the bytes that its entry commits to, and its receipt."""
    hashed, receipt = cut(line)
    end = load(hashed)
    shaped(end, END_MEMBERS)
    need(end["end"] is True)
    counts = [number(end[name]) for name in END_MEMBERS[1:5]]
    return {"counts": counts, "digest": b64(end["digest"], 32), "hashed": hashed, "receipt": receipt}


def read_multiproof(line):
    value = load(line)
    shaped(value, ["proof"])
    shaped(value["proof"], ["checkpoint", "nodes"])
    return string(value["proof"]["checkpoint"]), [b64(node, 32) for node in array(value["proof"]["nodes"])]


def multiproof_root(leaves, size, nodes):
    """The root that leaves by index and nodes lead to."""
    nodes = iter(nodes)

    def subtree(start, end, leaves):
        if not leaves:
            return next(nodes)
        if end - start == 1:
            return leaves[0][1]
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        left = subtree(start, middle, [leaf for leaf in leaves if leaf[0] < middle])
        return node(left, subtree(middle, end, [leaf for leaf in leaves if leaf[0] >= middle]))

    need(leaves and leaves[-1][0] < size)
    try:
        root = subtree(0, size, leaves)
    except StopIteration:
        raise Bad from None
    need(next(nodes, None) is None)
    return root


def report_in_order(data, request, trust, report):
    lines = split_lines(data)
    if not lines:
        report.end("malformed-report")
    if texts_in(data) not in (None, len(lines)):
        report.end("reformatted")
    try:
        end = read_end(lines[-1])
        lines.pop()
    except Bad:
        end = None
        report.add("report-incomplete")
        try:
            json.loads(lines[-1])
        except ValueError:
            lines.pop()
    proof = None
    if lines:
        try:
            proof = read_multiproof(lines[-1])
            lines.pop()
        except Bad:
            pass
    answers = [report_answer(line, report) for line in lines]
    entries = [(place, answer) for place, answer in enumerate(answers) if answer not in (None, "undecided")]
    if end is not None:
        check_report_end(end, lines, answers, entries, report)
    if request is not None:
        check_report_request(end, split_lines(request), request, answers, entries, report)
    if end is None:
        return
    if proof is None:
        report.end("no-proof")
    log = end["receipt"]["log"]
    if log not in trust.logs:
        report.end("unknown-log")
    try:
        size, root = read_checkpoint(proof[0], trust.logs[log])
    except Bad:
        report.end("bad-checkpoint")
    leaves = sorted((one["index"], one["leafHash"]) for one in [end["receipt"]] + [one for _, (one, _) in entries])
    if len({index for index, _ in leaves}) != len(leaves):
        report.end("report-mismatch")
    try:
        included = multiproof_root(leaves, size, proof[1]) == root
    except Bad:
        included = False
    if not included:
        report.end("not-included")


def report_answer(line, report):
    try:
        hashed, receipt = cut(line)
    except Bad:
        try:
            value = load(line)
            need(isinstance(value, dict) and not {"verdict", "receipt"} & set(value))
            need(value.get("code") in names()["Public codes"].values())
            return "undecided"
        except Bad:
            report.add("malformed-receipt")
            return None
    try:
        opened = read_open(receipt["open"])
    except Bad:
        report.add("malformed-open")
        return None
    before = len(report.reasons)
    if leaf_hash(receipt) != receipt["leafHash"]:
        report.add("leaf-mismatch")
    if opened["index"] != receipt["index"]:
        report.add("index-mismatch")
    if opened["answer"] != sha256(hashed):
        report.add("answer-mismatch")
    return None if len(report.reasons) > before else (receipt, opened)


def check_report_end(end, lines, answers, entries, report):
    decisions = [opened["decision"] for _, (_, opened) in entries]
    counts = [len(lines), decisions.count(1), decisions.count(2), answers.count("undecided")]
    if end["counts"] != counts:
        report.add("report-mismatch")
    if end["digest"] != sha256(*(line + b"\n" for line in lines)):
        report.add("report-mismatch")
    receipt = end["receipt"]
    try:
        opened = read_open(receipt["open"])
    except Bad:
        return report.add("malformed-open")
    if leaf_hash(receipt) != receipt["leafHash"]:
        report.add("leaf-mismatch")
    permits = (names()["Routes"].get(opened["route"]), opened["decision"]) == ("verify-batch", 1)
    if opened["index"] != receipt["index"] or opened["answer"] != sha256(end["hashed"]) or not permits:
        report.add("answer-mismatch")
    mine = (receipt["log"], opened["organisation"], opened["route"])
    if any((one["log"], its["organisation"], its["route"]) != mine for _, (one, its) in entries):
        report.add("report-mismatch")


def check_report_request(end, asked, request, answers, entries, report):
    def is_for(receipt, opened, body):
        return receipt["requestSalt"] is None or sha256(receipt["requestSalt"], body) == opened["request"]

    good = all(place < len(asked) and is_for(*one, asked[place]) for place, one in entries)
    if good and end is not None:
        try:
            good = len(asked) == len(answers) and is_for(end["receipt"], read_open(end["receipt"]["open"]), request)
        except Bad:
            good = False
    receipts = [one[0] for _, one in entries] + ([end["receipt"]] if end is not None else [])
    if not good:
        report.add("request-mismatch")
    elif any(receipt["requestSalt"] is None for receipt in receipts):
        report.add("request-not-recorded")


# --- traces (section 4)


@functools.cache
def names():
    """Section 8: the names of routes, decisions and public codes."""
    page = " ".join(PAGE.read_text().split("## 8. Numbers")[1].split())
    lists = {}
    for title in ("Routes", "Routes of class 1", "Decisions", "Public codes"):
        listed = re.search(rf"{title}: ([^.]*)\.", page)[1]
        lists[title] = {int(one.split(" ")[0]): one.split(" ")[1] for one in listed.split(", ")}
    return lists


PAGE_MEMBERS = "log label before entries next indexRoot completeness delayed checkpoint".split()
PROVEN = "index leafHash open salt C path time organisation route decision code".split()


def optional(value, read):
    return None if value is None else read(value)


def digests(value):
    return [b64(one, 32) for one in array(value)]


def read_entry(value):
    shaped(value, ["entry", "R", "holders", "toldDigest", "place"], ["told", "fieldSalt", "released"])
    proven = shaped(value["entry"], PROVEN)
    words = {name: string(proven[name]) for name in PROVEN[6:]}
    place = value["place"]
    if isinstance(place, dict) and "hidden" in place:
        place = b64(shaped(place, ["hidden"])["hidden"], 32)
    else:
        names_of_numbers = ["sequence", "previousChain", "previousPosition", "previousIndex"]
        shaped(place, names_of_numbers + ["previousLeaf"])
        numbers = [number(place[name]) for name in names_of_numbers]
        need(numbers[1] < 1 << 32)
        place = (*numbers, b64(place["previousLeaf"], 32))
    optional(value.get("fieldSalt"), lambda one: b64(one, 32))
    told = value.get("told")
    if told is not None:
        shaped(told, ["salt", "document"])
        told = b64(told["salt"], 32), string(told["document"])
    return {
        "index": number(proven["index"]),
        "leafHash": b64(proven["leafHash"], 32),
        "open": b64(proven["open"]),
        "salt": b64(proven["salt"], 32),
        "C": b64(proven["C"], 32),
        "path": digests(proven["path"]),
        "words": words,
        "R": b64(value["R"], 32),
        "holders": [optional(one, lambda one: b64(one, 32)) for one in array(value["holders"])],
        "toldDigest": b64(value["toldDigest"], 32),
        "place": place,
        "told": told,
        "released": [read_entry(one) for one in array(value.get("released", []))],
    }


def read_page(data):
    value = shaped(load(data), PAGE_MEMBERS)
    delayed = shaped(value["delayed"], ["uses", "daysMax"])
    need(number(delayed["uses"]) is not None and number(delayed["daysMax"]) < 1 << 16)
    index_root = value["indexRoot"]
    if index_root is not None:
        shaped(index_root, "statement index path count lastLeaf siblings".split(), ["other"])
        other = index_root.get("other")
        if other is not None:
            other = digests(other)
            need(len(other) == 2)
        index_root = {
            "statement": string(index_root["statement"]),
            "index": number(index_root["index"]),
            "path": digests(index_root["path"]),
            "count": number(index_root["count"]),
            "lastLeaf": b64(index_root["lastLeaf"], 32),
            "siblings": digests(index_root["siblings"]),
            "other": other,
        }
    return {
        "log": string(value["log"]),
        "label": optional(value["label"], lambda one: lower_hex(one, 16)),
        "before": optional(value["before"], number),
        "entries": [read_entry(one) for one in array(value["entries"])],
        "next": optional(value["next"], number),
        "indexRoot": index_root,
        "completeness": string(value["completeness"]),
        "checkpoint": string(value["checkpoint"]),
    }


def texts_in(data):
    """How many JSON texts follow one another; nothing where they do not."""
    try:
        rest, count = data.decode().lstrip(" \t\r\n"), 0
        decoder = json.JSONDecoder(parse_constant=refuse)
        while rest:
            _, end = decoder.raw_decode(rest)
            rest, count = rest[end:].lstrip(" \t\r\n"), count + 1
        return count
    except (ValueError, Bad, RecursionError):
        return None


def check_trace(data, trust):
    report = trust.report()
    try:
        trace_in_order(data, trust, report)
    except End:
        pass
    return report


def trace_in_order(data, trust, report):
    lines = [line.removesuffix(b"\r") for line in data.split(b"\n") if line.strip(b" \t\r\x0c")]
    if texts_in(data) not in (None, len(lines)):
        report.end("reformatted")
    pages = []
    for line in lines:
        receipt = None
        try:
            line, receipt = check_page_receipt(line, trust, report)
        except Bad:
            pass
        try:
            page = read_page(line)
        except Bad:
            report.add("malformed-page")
            continue
        if receipt is not None and not is_of(page, *receipt):
            report.add("page-mismatch")
        pages.append(page)
    if not pages:
        report.end("malformed-page")
    checkpoints = []
    for page in pages:
        checkpoint = None
        if page["log"] not in trust.logs:
            report.add("unknown-log")
        else:
            try:
                checkpoint = read_checkpoint(page["checkpoint"], trust.logs[page["log"]])
            except Bad:
                report.add("bad-checkpoint")
        checkpoints.append(checkpoint)
        for entry in page["entries"]:
            check_entry(entry, page["label"], checkpoint, report)
    first = pages[0]
    for before, page in zip(pages, pages[1:]):
        if (page["log"], page["label"], page["before"]) != (first["log"], first["label"], before["next"]):
            report.add("sequence-broken")
    entries = [entry for page in pages for entry in page["entries"]]
    check_chain(entries, report)
    released = [one["index"] for entry in entries for one in entry["released"]]
    report.reasons += ["release-mismatch"] * (len(released) - len(set(released)))
    sequences = [sequence_of(entry) for entry in entries]
    if pages[-1]["next"] is not None or (entries and sequences[-1] not in (None, 1)):
        report.add("not-whole")
    check_index_root(first, entries, sequences, checkpoints[0], report)


def check_page_receipt(line, trust, report):
    hashed, receipt = cut(line)
    own = Report()
    try:
        receipt_in_order(receipt, None, line, trust, own)
    except End:
        pass
    for reason in own.reasons:
        if reason != "no-proof" and reason not in report.reasons:
            report.add(reason)
    try:
        opened = read_open(receipt["open"])
    except Bad:
        return hashed, None
    return hashed, (receipt, opened) if opened["answer"] == sha256(hashed) else None


def is_of(page, receipt, opened):
    shown = names()
    return (
        receipt["log"] == page["log"]
        and shown["Routes"].get(opened["route"]) == "trace"
        and shown["Decisions"][opened["decision"]] == "permit"
        and shown["Public codes"].get(opened["code"]) == "ok"
        and opened["labels"] == ([] if page["label"] is None else [page["label"]])
    )


def words_of(opened):
    shown = names()
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=opened["time"])
    return {
        "time": moment.isoformat(timespec="milliseconds") + "Z",
        "organisation": opened["organisation"],
        "route": shown["Routes"].get(opened["route"], str(opened["route"])),
        "decision": shown["Decisions"][opened["decision"]],
        "code": shown["Public codes"].get(opened["code"], str(opened["code"])),
    }


def check_entry(entry, label, checkpoint, report):
    try:
        opened = read_open(entry["open"])
        fits = opened["index"] == entry["index"] and words_of(opened) == entry["words"]
    except (Bad, OverflowError):
        fits = False
    if not fits or leaf_hash(entry) != entry["leafHash"]:
        report.add("entry-mismatch")
    if checkpoint is not None:
        size, root = checkpoint
        if len(entry["path"]) > 64 or fold(entry["leafHash"], entry["index"], size, entry["path"]) != root:
            report.add("not-included")
    if label is None:
        report.add("sequence-broken")
        return
    if isinstance(entry["place"], bytes):
        own = sha256(b"\2", label, entry["toldDigest"], entry["place"])
    else:
        *numbers, leaf = entry["place"]
        own = sha256(b"\1", label, entry["toldDigest"], struct.pack(">QIQQ", *numbers), leaf)
    held = [own if one is None else one for one in entry["holders"]]
    if entry["holders"].count(None) != 1 or sha256(entry["R"], *held) != entry["C"]:
        report.add("sequence-broken")
    tells = told_releases(entry, report)
    if [one["index"] for one in entry["released"]] != tells:
        report.add("release-mismatch")
    for one in entry["released"]:
        if one["index"] >= entry["index"]:
            report.add("sequence-broken")
        if not isinstance(one["place"], bytes) or one["released"]:
            report.add("sequence-broken")
        check_entry(one, label, checkpoint, report)


def route_and_year(entry):
    """The route of an entry and its year in China, from `open`; of no route where that cannot be read."""
    try:
        opened = read_open(entry["open"])
        moment = datetime.datetime(1970, 1, 1, 8) + datetime.timedelta(seconds=opened["time"] // 1000)
    except (Bad, OverflowError):
        return None, -1
    return opened["route"], moment.year


def is_ended(entry, report):
    """Whether an entry shown before tells the end of the uses of this one's year."""
    route, year = route_and_year(entry)
    known = route in names()["Routes"] and route not in names()["Routes of class 1"]
    return known and report.ended.get(year, -1) > entry["index"]


def tells_ends(entry, year):
    """Whether an entry may tell the end of a year: one of the exchange itself, of a later year."""
    route, now = route_and_year(entry)
    return names()["Routes"].get(route) == "system" and now > year


def told_releases(entry, report):
    if entry["told"] is None:
        if not is_ended(entry, report):
            report.add("told-missing")
        return []
    salt, document = entry["told"]
    if sha256(salt, document.encode()) != entry["toldDigest"]:
        report.add("told-mismatch")
        return []
    try:
        value = load(document)
        need(isinstance(value, dict))
        ended = value.get("destroyed")
        if isinstance(ended, dict) and ended.keys() == {"class", "year"} and ended["class"] == "uses":
            year = ended["year"]
            if type(year) is int and 0 <= year < 1 << 16 and tells_ends(entry, year):
                report.ended[year] = entry["index"]
        return [number(one) for one in array(value.get("released", []))]
    except Bad:
        report.add("told-mismatch")
        return []


def sequence_of(entry):
    return None if isinstance(entry["place"], bytes) else entry["place"][0]


def check_chain(entries, report):
    for entry, before in zip(entries, entries[1:] + [None]):
        if sequence_of(entry) is None:
            report.add("sequence-broken")
            continue
        sequence, chain, _, index, leaf = entry["place"]
        if chain != 0:
            report.add("other-chain")
            follows = sequence > 1
            if before is not None:
                older = before["index"] < entry["index"] and sequence_of(before) is not None
                follows = follows and older and sequence_of(before) + 1 < sequence
        elif before is not None:
            follows = (before["index"], before["leafHash"]) == (index, leaf) and index < entry["index"]
            follows = follows and sequence_of(before) is not None and sequence_of(before) + 1 == sequence
        elif sequence == 1:
            follows = (index, leaf) == (0, bytes(32))
        else:
            follows = sequence > 1
        if not follows:
            report.add("sequence-broken")


def check_index_root(first, entries, sequences, checkpoint, report):
    label, proof = first["label"], first["indexRoot"]
    if label is None or proof is None:
        report.add("no-index-root")
        return
    if checkpoint is None:
        return
    try:
        size = covered(proof, label, checkpoint)
    except Bad:
        report.add("bad-index-root")
        return
    newest = sequences[0] if sequences and sequences[0] is not None else 0
    if first["before"] is not None:
        report.add("not-whole")
    elif newest < proof["count"]:
        report.add("entries-missing")
    for entry, sequence in zip(entries, sequences):
        if sequence is None:
            continue
        right = (entry["index"] < size) == (sequence <= proof["count"])
        if not right or (sequence == proof["count"] and entry["leafHash"] != proof["lastLeaf"]):
            report.add("bad-index-root")
    if first["completeness"] != f"complete up to checkpoint {size}, except uses delayed by law":
        report.add("entry-mismatch")


def covered(proof, label, checkpoint):
    """The size that the index root covers."""
    lines = proof["statement"].split("\n")
    need(len(lines) == 4 and lines[0] == "miaoxiang index root v1" and lines[3] == "")
    size, root = decimal(lines[1]), b64(lines[2], 32)
    leaf = sha256(b"\0", b"\2\2", sha256(proof["statement"].encode()))
    need(len(proof["path"]) <= 64 and size <= proof["index"])
    need(fold(leaf, proof["index"], checkpoint[0], proof["path"]) == checkpoint[1])
    siblings = proof["siblings"]
    need(len(siblings) <= 256)
    key = sha256(b"miaoxiang index key v1\0", label)
    bits = lambda key: [key[depth // 8] >> 7 - depth % 8 & 1 for depth in range(len(siblings))]
    if proof["count"]:
        need(proof["other"] is None)
        value = sha256(label, struct.pack(">Q", proof["count"]), proof["lastLeaf"])
        below = sha256(b"\0", key, value)
    elif proof["other"] is None:
        below = bytes(32)
    else:
        other, value = proof["other"]
        need(other != key and bits(other) == bits(key))
        below = sha256(b"\0", other, value)
    for bit, sibling in zip(reversed(bits(key)), siblings):
        below = node(sibling, below) if bit else node(below, sibling)
    need(below == root)
    return size


# --- whole logs (section 5)


def tile_name(folder, index, width):
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03}")
    return f"tile/{folder}/" + "/".join(groups) + (f".p/{width}" if width < 256 else "")


def check_log(folder, trust):
    report = trust.report()
    try:
        log_in_order(pathlib.Path(folder), trust, report)
    except End:
        pass
    return report


def log_in_order(folder, trust, report):
    try:
        note = (folder / "checkpoint").read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        report.end("log-incomplete")
    try:
        origin = split_note(note)[0].split("\n")[0]
        if origin not in trust.logs:
            report.end("unknown-log")
        size, root = read_checkpoint(note, trust.logs[origin])
    except Bad:
        report.end("bad-checkpoint")

    def file(kind, index, width):
        for wide in (width, 256):
            try:
                return (folder / tile_name(kind, index, wide)).read_bytes()
            except FileNotFoundError:
                pass
        return None

    leaves, missing = [], False
    while len(leaves) < size:
        index, width = len(leaves) // 256, min(256, size - len(leaves))
        bundle = file("entries", index, width)
        if bundle is not None:
            for at in range(0, 36 * width, 36):
                leaf = bundle[at + 2 : at + 36]
                if bundle[at : at + 3] != b"\0\x22\2" or len(leaf) != 34 or leaf[1] not in (1, 2, 3, 4):
                    report.end("bad-tile")
                leaves.append(sha256(b"\0", leaf))
        else:
            missing = True
            tile = file(0, index, width)
            if tile is None or len(tile) < 32 * width:
                report.end("log-incomplete")
            leaves += [tile[at : at + 32] for at in range(0, 32 * width, 32)]
    level, hashed = 0, leaves
    while hashed:
        for index in range(0, len(hashed), 256):
            part = b"".join(hashed[index : index + 256])
            tile = file(level, index // 256, len(part) // 32)
            missing = missing or tile is None
            if tile is not None and tile[: len(part)] != part:
                report.add("bad-tile")
        hashed = [tree(hashed[at : at + 256]) for at in range(0, len(hashed) - 255, 256)]
        level += 1
    if tree(leaves) != root:
        report.end("bad-tile")
    if missing:
        report.add("log-incomplete")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["license", "receipt", "trace", "report", "log"])
    parser.add_argument("--trust", required=True)
    parser.add_argument("--anchor")
    parser.add_argument("--at", type=int, required=True)
    parser.add_argument("--request")
    parser.add_argument("files", nargs="+")
    given = parser.parse_args()
    try:
        trust = Trust(pathlib.Path(given.trust).read_bytes().decode("utf-8", "replace"), given.anchor, given.at)
    except Untrusted as refused:
        for file in given.files:
            print(json.dumps({"item": file, "verdict": "unknown", "reasons": [str(refused)]}))
        return
    checks = {"license": check_license, "trace": check_trace}
    for file in given.files:
        if given.kind == "log":
            report = check_log(file, trust)
        elif given.kind in ("receipt", "report"):
            request = pathlib.Path(given.request).read_bytes() if given.request else None
            check = check_receipt if given.kind == "receipt" else check_report
            report = check(pathlib.Path(file).read_bytes(), trust, request)
        else:
            report = checks[given.kind](pathlib.Path(file).read_bytes(), trust)
        print(json.dumps({"item": file, "verdict": report.verdict(), "reasons": report.reasons}))


if __name__ == "__main__":
    main()
