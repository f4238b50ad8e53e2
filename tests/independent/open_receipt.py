#!/usr/bin/env python3
"""Opens a receipt from bytes alone: `open_receipt.py REQUEST ANSWER VKEY`, two files and the log's verifier key.

Written from schemas/README.md, sections 4 and 5, and the C2SP texts they name. Exit 0: the receipt belongs to this
request, this answer and this log; 1: it does not, and the last line says why.
"""

import base64
import hashlib
import json
import struct
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

DECISIONS = {1: "permit", 2: "denial", 3: "system entry"}


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def need(holds, otherwise):
    if not holds:
        raise ValueError(otherwise)


def open_note(note, vkey):
    """C2SP signed-note: the text, if the key signed it."""
    name, key_hash, key = vkey.strip().split("+", 2)
    key = base64.b64decode(key, validate=True)
    need(key[0] == 1 and sha256(name.encode(), b"\n", key)[:4].hex() == key_hash, "no Ed25519 verifier key")
    text, separator, signatures = note.rpartition("\n\n")
    need(separator, "no signed note")
    for line in signatures.splitlines():
        dash, signer, value = line.split(" ")
        value = base64.b64decode(value, validate=True)
        if (dash, signer, value[:4].hex()) == ("\u2014", name, key_hash):
            try:
                Ed25519PublicKey.from_public_bytes(key[1:]).verify(value[4:], (text + "\n").encode())
            except InvalidSignature:
                raise ValueError("the note's signature does not verify") from None
            return text + "\n"
    raise ValueError("the note is not signed by this key")


def fold(leaf, index, size, path, node=lambda left, right: sha256(b"\1", left, right)):
    """RFC 9162, 2.1.3.2: the root that an inclusion path leads to."""
    need(index < size, "an index outside the tree")
    last, result = size - 1, leaf
    for sibling in path:
        need(last > 0, "an inclusion path that is too long")
        if index & 1 or index == last:
            result = node(sibling, result)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            result = node(result, sibling)
        index, last = index >> 1, last >> 1
    need(last == 0, "an inclusion path that is too short")
    return result


def open_receipt(request, answer, vkey):
    cut = answer.rindex(b',"receipt":{')
    receipt, hashed = json.loads(answer[cut + len(b',"receipt":') : -1]), answer[:cut] + answer[-1:]
    opened, salt, inner = (base64.b64decode(receipt[part], validate=True) for part in ("open", "salt", "C"))
    layout, route, decision, labels, code, stage, acting, index, time = struct.unpack_from(">BBBBHBBQQ", opened)
    organisation = opened[24:42].decode()
    length = 176 + (32 if labels == 255 else 16 * labels) + (32 if acting == 255 else 19 * acting)
    need(layout == 2 and stage < 3 and len(opened) == length + 8 * (stage == 2), "an unknown layout")
    need(index == receipt["index"], "the receipt is of another index")
    request_salt = base64.b64decode(receipt["requestSalt"], validate=True)
    need(len(request_salt) == 32, "no request salt")
    need(opened[48:80] == sha256(request_salt, request), "the receipt is of another request")
    need(opened[80:112] == sha256(hashed), "the receipt is of another answer")
    blank = sha256(opened[:8], bytes(16), opened[24:])
    leaf_hash = sha256(b"\0", b"\2\1", sha256(salt, opened[8:24], blank, inner))
    need(base64.b64encode(leaf_hash).decode() == receipt["leafHash"], "the parts do not make the leaf")
    head, _, checkpoint = receipt["proof"].partition("\n\n")
    version, extra, place, *path = head.split("\n")
    need(version == "c2sp.org/tlog-proof@v1" and place == f"index {index}", "a proof of another entry")
    need(extra == "extra " + base64.b64encode(salt + inner + opened).decode(), "a proof of other parts")
    origin, size, root = open_note(checkpoint, vkey).splitlines()
    need(origin == receipt["log"] == vkey.split("+")[0], "another log")
    reached = fold(leaf_hash, index, int(size), [base64.b64decode(one, validate=True) for one in path])
    need(base64.b64encode(reached).decode() == root, "the leaf does not stand in the log")
    said = f"{DECISIONS[decision]}, code {code}, route {route}, organisation {organisation}, time {time} ms"
    return f"entry {index} of {origin} (size {size}): {said}, {labels} labels, policy {opened[112:120].hex()}"


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as request_file, open(sys.argv[2], "rb") as answer_file:
        try:
            print(open_receipt(request_file.read(), answer_file.read(), sys.argv[3]))
        except (ValueError, KeyError, struct.error) as error:
            sys.exit(f"invalid receipt: {error}")
