#!/usr/bin/env python3
"""Verifies license envelopes from the documented byte strings: `envelope_check.py BUNDLE ANCHOR ENVELOPE...`.

BUNDLE is the signed trust bundle, ANCHOR a file with the trust authority's verifier key. Written from
schemas/README.md, sections 2 and 3, with Python's `cryptography` and the FlatBuffers runtime, and no generated code:
tables are read by the field order of schemas/fbs. Exit 0: every envelope verifies; 1: the last line says what does
not; 2: the envelopes do not hold both suites and a path, so too little was compared.
"""

import base64
import collections
import hashlib
import json
import pathlib
import struct
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from flatbuffers import number_types, table
from open_receipt import fold, need, open_note

SUITES = {1: "ed25519", 2: "es256"}
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Table:
    """A FlatBuffers table, read by field number."""

    def __init__(self, buffer, position):
        self.table = table.Table(buffer, position)

    @classmethod
    def root(cls, buffer, identifier):
        need(buffer[4:8] == identifier, f"no {identifier.decode()} buffer")
        return cls(buffer, struct.unpack_from("<I", buffer)[0])

    def at(self, field, required=True):
        offset = self.table.Offset(4 + 2 * field)
        need(offset or not required, f"field {field} is missing")
        return offset

    def number(self, field, flags):
        offset = self.at(field, required=False)
        return self.table.Get(flags, offset + self.table.Pos) if offset else 0

    def bytes(self, field):
        offset = self.at(field)
        start = self.table.Vector(offset)
        return bytes(self.table.Bytes[start : start + self.table.VectorLen(offset)])

    def text(self, field):
        return self.table.String(self.at(field) + self.table.Pos).decode()

    def tables(self, field):
        offset = self.at(field)
        start = self.table.Vector(offset)
        for number in range(self.table.VectorLen(offset)):
            yield Table(self.table.Bytes, self.table.Indirect(start + 4 * number))


def check_signature(suite, spki, message, value):
    key = serialization.load_der_public_key(spki)
    need(len(value) == 64, "a signature of another length")
    try:
        if suite == 1:
            need(isinstance(key, ed25519.Ed25519PublicKey), "a key of another suite")
            key.verify(value, message)
        else:
            need(isinstance(key, ec.EllipticCurvePublicKey), "a key of another suite")
            r, s = (int.from_bytes(half, "big") for half in (value[:32], value[32:]))
            need(s <= P256_ORDER // 2, "an s above half the order")
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise ValueError("the signature does not verify") from None


def check_envelope(envelope, bundle, seen):
    need(struct.unpack_from("<I", envelope)[0] == len(envelope) - 4, "another length than its prefix says")
    root = Table.root(envelope[4:], b"MXL1")
    body = root.bytes(0)
    leaf = hashlib.sha256(b"\0" + body).digest()
    signed = {}
    suites = [signature.number(0, number_types.Uint8Flags) for signature in root.tables(1)]
    need(0 not in suites and sorted(set(suites)) == suites and len(suites) <= 8, "suites that do not ascend")
    for suite, signature in zip(suites, root.tables(1)):
        size, index = (signature.number(field, number_types.Uint64Flags) for field in (2, 3))
        path = signature.bytes(4)
        need(len(path) % 32 == 0 and len(path) // 32 <= 63, "a path of another length")
        nodes = [path[start : start + 32] for start in range(0, len(path), 32)]
        message = b"miaoxiang license v2\0" + struct.pack(">B8sQ", suite, bytes(suites), size)
        message += fold(leaf, index, size, nodes)
        keys = [
            (issuer, key)
            for issuer in bundle["issuers"]
            for key in issuer["keys"]
            if key["suite"] == suite and key["keyId"] == signature.bytes(1).hex()
        ]
        need(suite in SUITES and len(keys) == 1, "a key that the trust bundle does not know")
        issuer, key = keys[0]
        spki = base64.b64decode(key["spki"], validate=True)
        need(hashlib.sha256(spki).digest()[:16].hex() == key["keyId"], "a key id that is not the key's")
        check_signature(suite, spki, message, signature.bytes(5))
        signed[suite] = issuer, key
        seen[SUITES[suite]] += 1
        seen["path"] += bool(nodes)
    content = Table.root(body, b"MXB1")
    identifier, issued_at = content.text(1), content.number(8, number_types.Uint64Flags)
    license_type, organisation = identifier.removeprefix("1.2.156.3005.2.").split(".")[:2]
    need(signed, "no signature")
    for issuer, key in signed.values():
        need(issuer["organisation"] == organisation, "signed by another organisation than its identifier names")
        need(license_type in issuer["types"], "the issuer may not issue this type")
        need(key["from"] <= issued_at < key["until"], "signed outside the key's time")
        for required in issuer["requiredSuites"]:
            need(required["from"] > issued_at or required["suite"] in signed, "a required suite is missing")


def main():
    bundle, anchor, *envelopes = (pathlib.Path(name) for name in sys.argv[1:])
    seen = collections.Counter()
    try:
        bundle = json.loads(open_note(bundle.read_text(), anchor.read_text()))
        for envelope in envelopes:
            check_envelope(envelope.read_bytes(), bundle, seen)
    except (ValueError, KeyError, struct.error) as error:
        sys.exit(f"invalid envelope: {error}")
    counts = ", ".join(f"{seen[name]} {name}" for name in ("ed25519", "es256"))
    print(f"{len(envelopes)} envelopes, signatures: {counts}, {seen['path']} of them with a path")
    return 0 if all(seen[name] for name in ("ed25519", "es256", "path")) else 2


if __name__ == "__main__":
    sys.exit(main())
