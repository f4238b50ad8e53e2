#!/usr/bin/env bash
# schemathesis 4.32.5, OpenAPI 3.1 links in the stateful phase.
#
# Expected: an operation may list two request media types. A link to it that gives the whole body
# (`x-schemathesis: {merge_body: false}`) is followed like one to an operation with a single type.
# Seen: with one type the link is covered and the phase passes. A second type ends the whole phase
# with "Can not detect appropriate media type": the link is not covered, nor is any other walk.
#
# Installs the pinned package in a temporary folder. Succeeds while the behavior is as seen.
set -euo pipefail

folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet schemathesis==4.32.5

cat > server.py <<'PY'
import http.server
import json


class Answers(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        made = self.path == "/items"
        body = json.dumps({"id": "a1"} if made else {"ok": True}).encode()
        self.send_response(201 if made else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
print(server.server_address[1], flush=True)
server.serve_forever()
PY

cat > contract.py <<'PY'
import json
import sys

checked = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"], "additionalProperties": False}
content = {"application/json": {"schema": checked}}
if sys.argv[1] == "two":
    content["application/vnd.example.binary"] = {"schema": {"type": "string", "format": "binary"}}
link = {
    "operationId": "check",
    "requestBody": {"id": "$response.body#/id"},
    "x-schemathesis": {"merge_body": False},
}
item = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
answer = {"description": "ok", "content": {"application/json": {"schema": {"type": "object"}}}}
made = {"description": "made", "content": {"application/json": {"schema": item}}, "links": {"check": link}}
empty = {"application/json": {"schema": {"type": "object", "additionalProperties": False}}}
make = {"operationId": "make", "requestBody": {"required": True, "content": empty}, "responses": {"201": made}}
check = {"operationId": "check", "requestBody": {"required": True, "content": content}, "responses": {"200": answer}}
print(json.dumps({
    "openapi": "3.1.0",
    "info": {"title": "links", "version": "1"},
    "paths": {"/items": {"post": make}, "/check": {"post": check}},
}))
PY

venv/bin/python server.py > port &
server=$!
until [ -s port ]; do sleep 0.1; done

for types in one two; do
    venv/bin/python contract.py "$types" > "$types.json"
    venv/bin/schemathesis run "$types.json" --url "http://127.0.0.1:$(cat port)" --phases stateful \
        --max-examples 10 --seed 1 --checks not_a_server_error > "$types.out" 2>&1 && echo "$types: exit 0" || echo "$types: exit $?"
    grep -E "API Links:|Can not detect appropriate media type|Runtime Error" "$types.out" || true
done
venv/bin/schemathesis --version

grep -q "API Links:    1 covered" one.out
grep -q "Can not detect appropriate media type" two.out
grep -q "API Links:    0 covered" two.out
echo "as seen"
