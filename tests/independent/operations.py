#!/usr/bin/env python3
"""Lets schemathesis call every operation of a serving development exchange with requests that it makes from the contract.

`operations.py DATA DATA_ADDRESS PUBLIC_ADDRESS OPENAPI`: DATA is the data folder. Each operation is called by a participant
with a role of its `x-roles`. Every answer must be one that the contract describes. The stateful phase follows the contract's
`links` from a license issued to its verification, its revocation and its verification again; what a verification says must
be what was done before.
"""

import collections
import copy
import hashlib
import json
import pathlib
import sys

import schemathesis
from schemathesis.cli import schemathesis as command

# Requests that are made for each operation.
REQUESTS = 5
# Walks along the links. Chance chooses each step, so more are made if none was whole.
WALKS, ROUNDS = 15, 4
SEED = 36904
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "the_verdict_is_what_was_done",
]
# A participant of a development folder for each role.
NAMES = {"relying": "approval"}
JSON = "application/json"
# Verdict and reasons that a verification gives after what was done last.
TOLD = {"issue": ("valid", []), "transition": ("invalid", ["revoked"])}

DATA, DATA_ADDRESS, PUBLIC_ADDRESS, OPENAPI = sys.argv[1:]
PKI = pathlib.Path(DATA) / "pki"
CONTRACT = json.loads(pathlib.Path(OPENAPI).read_bytes())
# Operations of each license that were answered with success, in their order.
done = collections.defaultdict(list)
answered = collections.Counter()


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Requests are JSON; what a link names is a whole request."""
    for item in raw_schema["paths"].values():
        operation = item.get("post", {})
        content = operation.get("requestBody", {}).get("content", {})
        for media_type in [one for one in content if one != JSON]:
            del content[media_type]
        for response in operation.get("responses", {}).values():
            for link in response.get("links", {}).values():
                link["x-schemathesis"] = {"merge_body": False}


@schemathesis.hook
def before_call(context, case, kwargs):
    """Sets the caller. In the stateful phase a license to be issued is the contract's example: no schema tells what its type asks."""
    definition = case.operation.definition.raw
    if "x-roles" in definition:
        role = definition["x-roles"][0]
        clients = PKI / "clients"
        name = NAMES.get(role, role)
        kwargs["cert"] = (str(clients / f"{name}.pem"), str(clients / f"{name}.key"))
    if definition["operationId"] == "issue" and case.meta.phase.name.value == "stateful":
        examples = definition["requestBody"]["content"][JSON]["examples"]
        case.body = copy.deepcopy(examples["businessLicense"]["value"])
        # The same for the same idempotency key: a walk that is walked again gets the same answers.
        headers = json.dumps(dict(case.headers or {}), sort_keys=True)
        case.body["license"]["serial"] = hashlib.sha256(headers.encode()).hexdigest()[:20].upper()


@schemathesis.check
def the_verdict_is_what_was_done(context, response, case):
    operation = case.operation.definition.raw.get("operationId")
    answered[operation, response.status_code] += 1
    if response.status_code not in (200, 201) or operation not in ("issue", "transition", "verify"):
        return
    answer = response.json()
    if operation == "verify":
        identifier = case.body["license"].get("identifier")
        told = TOLD.get(done[identifier][-1]) if done[identifier] else None
        if told:
            assert (answer["verdict"], answer["reasons"]) == told, f"{answer} after {done[identifier]}"
            done[identifier].append("verify " + done[identifier][-1])
    # A repeated request gives the answer that it gave before, and does nothing.
    elif operation not in done[answer["identifier"]]:
        done[answer["identifier"]].append(operation)


def whole_walks():
    """Licenses that were issued, verified, revoked and verified again, each by a link."""
    walk = ["issue", "verify issue", "transition", "verify transition"]
    return sum(list(dict.fromkeys(steps)) == walk for steps in done.values())


def run(*words, seed=SEED):
    config = pathlib.Path(__file__).with_name("schemathesis.toml")
    words = ["--config-file", str(config), "run", OPENAPI, *words, "--checks", ",".join(CHECKS), "--seed", str(seed)]
    try:
        command([*words, "--tls-verify", str(PKI / "ca.pem"), "--generation-database", "none", "--warnings", "off"])
    except SystemExit as ended:
        if ended.code:
            sys.exit(ended.code)


def main():
    data = ["--url", f"https://{DATA_ADDRESS}", "--include-method", "POST"]
    public = ["--url", f"https://{PUBLIC_ADDRESS}", "--include-method", "GET", "--exclude-tag", "operations"]
    for listener in (data, public):
        run(*listener, "--phases", "examples,fuzzing", "--max-examples", str(REQUESTS))
    for round in range(ROUNDS):
        if not whole_walks():
            run(*data, "--phases", "stateful", "--mode", "positive", "--max-examples", str(WALKS), seed=SEED + round)
    called = {operation for operation, _ in answered}
    missing = [
        operation["operationId"]
        for item in CONTRACT["paths"].values()
        for operation in [item.get("post") or item["get"]]
        if item["x-listener"] != "admin" and operation["operationId"] not in called
    ]
    if missing or not whole_walks():
        sys.exit(f"never called: {missing}; whole walks: {whole_walks()}")
    print(f"{sum(answered.values())} answers of {len(called)} operations as described, {whole_walks()} whole walks")


if __name__ == "__main__":
    main()
