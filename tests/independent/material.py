#!/usr/bin/env python3
"""Talks to a serving exchange as its contract says, and keeps what the other checks need.

`material.py DATA OUT DATA_ADDRESS PUBLIC_ADDRESS OPENAPI`: DATA is the data folder of a development exchange, OPENAPI
the document it should serve. Every request is an example of the document with the identifiers of this run put in; every
answer must have the documented status and shape. OUT gets:

    before.checkpoint            the checkpoint before the first request
    trust-bundle.note, log.vkey  the trust bundle, and the log's key from it, opened with the anchor in DATA
    exchanged/N.{request,answer} the bytes of every request and answer on the data listener
    envelopes/N.mxl              the envelope of every license issued
    control/                     an answer with another answer's receipt
    report.ndjson                the report of a batch
"""

import base64
import concurrent.futures
import copy
import http.client
import itertools
import json
import pathlib
import secrets
import ssl
import sys
import threading
import time

from cryptography import x509
from open_receipt import open_note
from openapi_schema_validator import OAS31Validator

# Licenses issued, and connections that issue them at once: what is queued together is signed together.
LICENSES = 160
ISSUING = 16


class Exchange:
    """The data listener, as seen by one participant."""

    def __init__(self, run, name):
        self.run, self.local = run, threading.local()
        clients = run.data / "pki" / "clients"
        self.context = ssl.create_default_context(cafile=run.data / "pki" / "ca.pem")
        self.context.load_cert_chain(clients / f"{name}.pem", clients / f"{name}.key")
        certificate = x509.load_pem_x509_certificate((clients / f"{name}.pem").read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        self.organisation = uri.removeprefix("urn:miaoxiang:org:")

    def post(self, path, body, status):
        """Sends a body; checks status and shape of the answer, keeps both, returns the answer."""
        operation = self.run.document["paths"][path]["post"]
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPSConnection(self.run.address, context=self.context)
        request = json.dumps(body, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json", "Receipt": "inline", "Idempotency-Key": secrets.token_hex(16)}
        self.local.connection.request("POST", path, request, headers)
        response = self.local.connection.getresponse()
        answer = response.read()
        value = json.loads(answer)
        if response.status != status:
            sys.exit(f"{path}: status {response.status} {value.get('code')} instead of {status}")
        self.run.check_shape(path, operation["responses"][str(status)], response, value)
        self.run.keep(request, answer, value)
        return value


    def post_lines(self, path, lines):
        """Sends documents as the lines of one body, and gives the answer as it came."""
        connection = http.client.HTTPSConnection(self.run.address, context=self.context)
        body = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode()
        connection.request("POST", path, body, {"Content-Type": "application/x-ndjson"})
        response = connection.getresponse()
        if (response.status, response.headers["Content-Type"]) != (200, "application/x-ndjson"):
            sys.exit(f"{path}: status {response.status}, {response.headers['Content-Type']}")
        return response.read()


class Run:
    """One run: where things lie, the document, and what was kept."""

    def __init__(self, data, out, address, public, openapi):
        self.data, self.out, self.address, self.public = pathlib.Path(data), pathlib.Path(out), address, public
        self.served = pathlib.Path(openapi).read_bytes()
        self.document = json.loads(self.served)
        self.number, self.lock = itertools.count(), threading.Lock()
        for folder in ("exchanged", "envelopes", "control"):
            (self.out / folder).mkdir(parents=True)

    def get(self, path):
        context = ssl.create_default_context(cafile=self.data / "pki" / "ca.pem")
        connection = http.client.HTTPSConnection(self.public, context=context)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        media_type = response.headers["Content-Type"]
        documented = self.document["paths"][path]["get"]["responses"]["200"]["content"]
        if response.status != 200 or media_type not in documented:
            sys.exit(f"{path}: status {response.status}, {media_type}")
        if media_type == "application/json":
            self.check_schema(path, documented[media_type]["schema"], json.loads(body))
        return body

    def check_shape(self, path, documented, response, value):
        if "$ref" in documented:
            documented = self.document["components"]["responses"][documented["$ref"].rpartition("/")[2]]
        media_type = response.headers["Content-Type"]
        if media_type not in documented["content"] or response.headers["Cache-Control"] != "no-store":
            sys.exit(f"{path}: headers that are not documented: {media_type}")
        self.check_schema(path, documented["content"][media_type]["schema"], value)

    def check_schema(self, path, schema, value):
        validator = OAS31Validator({**schema, "components": self.document["components"]})
        for error in validator.iter_errors(value):
            sys.exit(f"{path}: the answer is not as documented: {error.json_path}: {error.message[:200]}")
        self.check_members(path, schema, value)

    def check_members(self, path, schema, value):
        """Answers may grow, but not without the document, at any depth."""
        if "$ref" in schema:
            schema = self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        for one in schema.get("anyOf", []) if value is not None else []:
            if one.get("type") != "null":
                self.check_members(path, one, value)
        if isinstance(value, list):
            for item in value if isinstance(schema.get("items"), dict) else []:
                self.check_members(path, schema["items"], item)
        if isinstance(value, dict) and "properties" in schema:
            if set(value) - set(schema["properties"]):
                sys.exit(f"{path}: members that are not documented: {sorted(set(value) - set(schema['properties']))}")
            for name, member in value.items():
                self.check_members(path, schema["properties"][name], member)

    def keep(self, request, answer, value):
        with self.lock:
            number = next(self.number)
        (self.out / "exchanged" / f"{number}.request").write_bytes(request)
        (self.out / "exchanged" / f"{number}.answer").write_bytes(answer)
        if "envelope" in value:
            (self.out / "envelopes" / f"{number}.mxl").write_bytes(base64.b64decode(value["envelope"]))

    def example(self, path, name, **put):
        """An example of the document, with members put in; `a__b` is member b of member a."""
        content = self.document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        value = copy.deepcopy(content["examples"][name]["value"])
        for place, member in put.items():
            *outer, last = place.split("__")
            target = value
            for step in outer:
                target = target[step]
            target[last] = member
        return value

    def enum(self, name):
        return self.document["components"]["schemas"][name]["enum"]


def issue_many(run, issuer):
    """Issues licenses of both examples over several connections at once."""

    def one(number):
        name = ("businessLicense", "identityCard")[number % 2]
        put = {"license__serial": secrets.token_hex(12).upper(), "license__certificateNumber": f"CS{number:08}"}
        return name, issuer.post("/v1/licenses", run.example("/v1/licenses", name, **put), 201)["identifier"]

    with concurrent.futures.ThreadPoolExecutor(ISSUING) as pool:
        issued = list(pool.map(one, range(LICENSES)))
    for name, identifier in issued[:2]:
        yield name, identifier


def whole_round(run):
    """Every route of the data listener with the document's own examples, every value of the enums that it takes."""
    issuer, portal, approval, bank, operator = (
        Exchange(run, name) for name in ("issuer", "portal", "approval", "bank", "operator")
    )
    identifiers = dict(issue_many(run, issuer))
    business, card = identifiers["businessLicense"], identifiers["identityCard"]
    licenses, verify, retrieve = "/v1/licenses", "/v1/verify", "/v1/licenses/retrieve"

    # Grants, with every mode there is and one that is none.
    put = {"grantee": approval.organisation, "identifier": card, "modes": run.enum("Mode")}
    grant = portal.post("/v1/grants", run.example("/v1/grants", "license", **put), 201)["grant"]
    put["modes"] = ["everything"]
    portal.post("/v1/grants", run.example("/v1/grants", "license", **put), 400)
    put = {"grantee": approval.organisation, "modes": run.enum("Mode"), "fields": ["certificateNumber"]}
    by_type = portal.post("/v1/grants", run.example("/v1/grants", "type", **put), 201)["grant"]

    # Uses: by the holder, by grant, without a right.
    portal.post("/v1/licenses/search", run.example("/v1/licenses/search", "portal"), 200)
    approval.post("/v1/licenses/search", run.example("/v1/licenses/search", "grant", grant=by_type), 200)
    named = {"license__identifier": card}
    approval.post(retrieve, run.example(retrieve, "fields", grant=grant, **named), 200)
    bank.post(retrieve, run.example(retrieve, "fields", grant=grant, **named), 403)
    by_number = {"license__certificateNumber": "CS00000001"}
    approval.post(retrieve, run.example(retrieve, "copy", grant=by_type, **by_number), 200)
    approval.post(verify, run.example(verify, "number", grant=by_type, **by_number), 200)
    bank.post(verify, {**run.example(verify, "identifier", **named), "expect": {}}, 403)

    # Verification, in every stage there is and in one that is none.
    for stage in run.enum("Stage"):
        put = {"license__identifier": business, "use__stage": stage}
        answer = bank.post(verify, run.example(verify, "identifier", **put), 200)
        if (answer["verdict"], answer["matches"]) != ("valid", True):
            sys.exit(f"a license just issued is {answer['verdict']}")
    bank.post(verify, run.example(verify, "identifier", **{**put, "use__stage": "收件"}), 422)

    # Many in one call: with a right, without one, and what is no request.
    batch = "/v1/verify/batch"
    line = run.example(batch, "identifier", license__identifier=business)
    lines = [line] * 20 + [run.example(batch, "identifier", **named), {"license": {}}] + [line] * 20
    report = bank.post_lines(batch, lines)
    (run.out / "report.ndjson").write_bytes(report)
    end = json.loads(report.splitlines()[-1])
    run.check_schema(batch, {"$ref": "#/components/schemas/BatchEnd"}, end)
    if (end["lines"], end["permitted"], end["refused"]) != (42, 40, 2):
        sys.exit(f"a batch of 42 lines ends with {end}")

    # State changes.
    for name, status in (("suspend", 200), ("renew", 409), ("revoke", 200), ("suspend", 409)):
        put = {"identifier": business}
        if name == "renew":
            put["license__serial"] = business.split(".")[7]
        issuer.post(f"{licenses}/transition", run.example(f"{licenses}/transition", name, **put), status)
    portal.post("/v1/grants/revoke", run.example("/v1/grants/revoke", "revoke", grant=grant), 200)
    approval.post(retrieve, run.example(retrieve, "fields", grant=grant, **named), 403)

    # The register, with every role there is and one that is none. Who watches over the others is for two operators.
    add, change, suspend = "/v1/participants", "/v1/participants/change", "/v1/participants/suspend"
    watching = ("operator", "auditor", "portal")
    others = [role for role in run.enum("Role") if role not in watching]
    operator.post(add, run.example(add, "relying", participant__roles=run.enum("Role")), 403)
    operator.post(add, run.example(add, "relying", participant__roles=others), 201)
    operator.post(add, run.example(add, "relying"), 409)
    operator.post(change, run.example(change, "quota"), 200)
    operator.post(change, run.example(change, "quota", participant__roles=["everything"]), 400)
    operator.post(suspend, run.example(suspend, "suspend"), 200)
    bank.post(suspend, run.example(suspend, "suspend"), 403)

    traces_and_queries(run, portal, bank)
    proposals(run, operator, bank)


def traces_and_queries(run, portal, bank):
    """A holder's trace, in one page and in several, by a guardian with a link and without; an auditor's queries."""
    auditor = Exchange(run, "auditor")
    trace, query, link, end = "/v1/trace", "/v1/log/query", "/v1/links", "/v1/links/end"
    # Pages reach as far as the published checkpoint, which follows the log within a second.
    newest = portal.post(trace, run.example(trace, "own"), 200)["receipt"]["index"]
    while int(run.get("/v1/log/checkpoint").split(b"\n")[1]) <= newest:
        time.sleep(0.1)
    page = portal.post(trace, {**run.example(trace, "own"), "limit": 20}, 200)
    if len(page["entries"]) != 20 or page["next"] is None:
        sys.exit("the trace of a holder with many entries is on one page")
    portal.post(trace, {**run.example(trace, "own"), "before": page["next"]}, 200)
    portal.post(trace, {**run.example(trace, "own"), "limit": 0}, 400)
    bank.post(trace, run.example(trace, "own"), 403)
    portal.post(trace, run.example(trace, "guardian"), 403)
    portal.post(link, run.example(link, "guardian"), 201)
    portal.post(trace, run.example(trace, "guardian"), 200)
    bank.post(link, run.example(link, "guardian"), 403)
    portal.post(end, run.example(end, "end"), 200)
    portal.post(end, run.example(end, "end"), 422)
    portal.post(link, run.example(link, "guardian", kind="agent"), 201)
    portal.post(link, run.example(link, "guardian", kind="friend"), 400)
    if not auditor.post(query, run.example(query, "case"), 200)["entries"]:
        sys.exit("a query for the examples' case finds nothing")
    auditor.post(query, {"purpose": "演示审计", "userName": "演示审计员", "code": "not-permitted", "limit": 2}, 200)
    auditor.post(query, run.example(query, "case", purpose=" "), 422)
    bank.post(query, run.example(query, "case"), 403)


def proposals(run, operator, bank):
    """What needs two operators, in every kind there is."""
    second = Exchange(run, "operator2")
    propose, approve = "/v1/admin/proposals", "/v1/admin/approve"
    # The holder's license is in force, so nothing of theirs can be erased.
    holder = run.example("/v1/trace", "own")["holder"]
    operator.post(propose, run.example(propose, "erase", holder=holder), 409)
    for name, put in (("erase", {"kind": "hold-holder"}), ("erase", {"kind": "release-hold"}), ("rotate", {})):
        made = operator.post(propose, run.example(propose, name, **put), 201)["proposal"]
        operator.post(approve, run.example(approve, "approve", proposal=made), 409)
        bank.post(approve, run.example(approve, "approve", proposal=made), 403)
        answer = second.post(approve, run.example(approve, "approve", proposal=made), 200)
        if answer["state"] != "approved":
            sys.exit(f"an approved proposal is {answer['state']}")
    everything = {"participant__roles": run.enum("Role")}
    made = operator.post(propose, run.example(propose, "register", **everything), 201)["proposal"]
    second.post(approve, run.example(approve, "register", proposal=made), 409)
    answer = second.post(approve, run.example(approve, "register", proposal=made, **everything), 200)
    if answer["kind"] != "register-participant":
        sys.exit(f"an approved registration is {answer['kind']}")
    second.post(approve, run.example(approve, "approve"), 409)
    bank.post(propose, run.example(propose, "rotate"), 403)


def controls(run):
    """What the checks must refuse: a receipt beside another answer."""
    marker = b',"receipt":{'
    one, other = ((run.out / "exchanged" / f"{number}.answer").read_bytes() for number in (0, 1))
    crossed = one[: one.rindex(marker)] + other[other.rindex(marker) :]
    (run.out / "control" / "crossed.answer").write_bytes(crossed)


def main():
    run = Run(*sys.argv[1:])
    (run.out / "before.checkpoint").write_bytes(run.get("/v1/log/checkpoint"))
    bundle = run.get("/v1/trust-bundle").decode()
    (run.out / "trust-bundle.note").write_text(bundle)
    anchor = (run.data / "pki" / "trust-anchor.vkey").read_text()
    (log,) = json.loads(open_note(bundle, anchor))["logs"]
    (run.out / "log.vkey").write_text(log["key"])
    run.get("/v1/types")
    if run.get("/openapi.json") != run.served:
        sys.exit("the document served is another one")
    whole_round(run)
    controls(run)
    print(f"{next(run.number)} requests answered as documented")


if __name__ == "__main__":
    main()
