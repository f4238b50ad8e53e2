#!/usr/bin/env python3
"""Signs state changes of a serving development exchange with libraries that share no code with it.

`signatures.py DATA DATA_ADDRESS OPENAPI NODE_FOLDER`: DATA is the data folder; NODE_FOLDER holds `sign.mjs` and what it needs.
Two operators give the issuer signing keys. Each library then signs a license to be issued with each kind of key: it is issued,
and refused when a byte of the body is another. In the end the keys are removed, and an unsigned request is taken again.
"""

import base64
import copy
import datetime
import hashlib
import http.client
import json
import pathlib
import ssl
import subprocess
import sys
import uuid

import http_message_signatures as signatures
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

DATA, ADDRESS, OPENAPI, NODE = sys.argv[1:]
PKI = pathlib.Path(DATA) / "pki"
CONTRACT = json.loads(pathlib.Path(OPENAPI).read_bytes())
COVERED = ("@method", "@authority", "@path", "@query", "content-digest")
KINDS = {
    "ed25519": (ed25519.Ed25519PrivateKey.generate, signatures.algorithms.ED25519),
    "ecdsa-p256-sha256": (lambda: ec.generate_private_key(ec.SECP256R1()), signatures.algorithms.ECDSA_P256_SHA256),
}


def send(name, path, body, headers):
    context = ssl.create_default_context(cafile=PKI / "ca.pem")
    context.load_cert_chain(PKI / f"clients/{name}.pem", PKI / f"clients/{name}.key")
    connection = http.client.HTTPSConnection(ADDRESS, context=context)
    connection.request("POST", path, body, {"content-type": "application/json", **headers})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def post(name, path, document):
    return send(name, path, json.dumps(document), {"idempotency-key": uuid.uuid4().hex})


def register(participant):
    """Two operators write a registration."""
    proposal = {"kind": "register-participant", "participant": participant, "reason": "签名密钥"}
    status, proposed = post("operator", "/v1/admin/proposals", proposal)
    assert status == 201, proposed
    status, approved = post("operator2", "/v1/admin/approve", {"proposal": proposed["proposal"], "participant": participant})
    assert status == 200, approved


class Message:
    """A request as the library of PyPI reads it."""

    def __init__(self, url, headers):
        self.method, self.url, self.headers = "POST", url, headers


class Resolver(signatures.HTTPSignatureKeyResolver):
    def __init__(self, key):
        self.key = key

    def resolve_private_key(self, key_id):
        return self.key


def by_pypi(url, headers, body, key, algorithm, nonce):
    signer = signatures.HTTPMessageSigner(signature_algorithm=KINDS[algorithm][1], key_resolver=Resolver(key))
    message = Message(url, headers)
    now = datetime.datetime.now(datetime.timezone.utc)
    signer.sign(message, key_id=algorithm, created=now, nonce=nonce, covered_component_ids=COVERED, body=body)
    return dict(message.headers)


def by_npm(url, headers, body, key, algorithm, nonce):
    digest = base64.b64encode(hashlib.sha512(body).digest()).decode()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    request = {
        "url": url,
        "headers": {**headers, "content-digest": f"sha-512=:{digest}:"},
        "key": pem,
        "algorithm": algorithm,
        "keyId": algorithm,
        "nonce": nonce,
        "fields": COVERED,
    }
    done = subprocess.run(
        ["node", "sign.mjs"], cwd=NODE, input=json.dumps(request), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def main():
    status, listed = post("operator", "/v1/participants/list", {})
    assert status == 200, listed
    issuer = next(one for one in listed["participants"] if one["roles"] == ["issuer"])
    unsigned = {member: value for member, value in issuer.items() if member != "suspended" and value is not None}
    keys = {algorithm: make() for algorithm, (make, _) in KINDS.items()}
    public = lambda key: key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()
    register({**unsigned, "signingKeys": [{"id": name, "publicKey": public(key)} for name, key in keys.items()]})

    example = CONTRACT["paths"]["/v1/licenses"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    url = f"https://{ADDRESS}/v1/licenses"
    for sign in (by_pypi, by_npm):
        for algorithm, key in keys.items():
            license = copy.deepcopy(example["businessLicense"]["value"])
            license["license"]["serial"] = uuid.uuid4().hex[:20].upper()
            body, nonce = json.dumps(license).encode(), uuid.uuid4().hex
            headers = {"host": ADDRESS, "idempotency-key": nonce}
            headers = sign(url, headers, body, key, algorithm, nonce)
            headers = {name: value for name, value in headers.items() if name.lower() not in ("host", "content-length")}
            status, refused = send("issuer", "/v1/licenses", body + b" ", headers)
            assert (status, refused["code"]) == (403, "bad-request-signature"), refused
            status, issued = send("issuer", "/v1/licenses", body, headers)
            assert status == 201, (sign.__name__, algorithm, issued)
            print(f"{sign.__name__}, {algorithm}: issued, and refused with another body")
    status, refused = post("issuer", "/v1/licenses", license)
    assert (status, refused["code"]) == (403, "bad-request-signature"), refused
    register(unsigned)
    license["license"]["serial"] = uuid.uuid4().hex[:20].upper()
    status, issued = post("issuer", "/v1/licenses", license)
    assert status == 201, issued


main()
