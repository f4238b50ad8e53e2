#!/bin/sh
# A walk through this exchange, made by `exchange quickstart` for this folder and its ports. Run it while the exchange
# serves, with sh, bash or zsh, as often as you like. It needs curl. Where there is python3, answers are shown indented.
#
#   sh walkthrough.sh                                           shows each step
#   sh walkthrough.sh --masked | diff walkthrough.expected -    shows what is not as expected: nothing, when all is well
#
# All people here are generated, and their numbers are given to nobody. Requests and answers are kept byte for byte in
# answers/, because receipts are over bytes. What is printed is only for reading.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p answers

DATA=@DATA@
PUBLIC=@PUBLIC@
ADMIN=@ADMIN@
VERIFIER=@VERIFIER@
BUILD='@BUILD@'
PKI=../pki
ANCHOR=$(cat $PKI/trust-anchor.vkey)
APPROVAL=@APPROVAL@
# 测试 and two syllables: nobody's name. The license below is in force, and the three grants are about it.
HOLDER='@HOLDER@'
NAME='@NAME@'
NUMBER='@NUMBER@'
LICENSE='@LICENSE@'
CERTIFICATE='@CERTIFICATE@'
ACTIVE=@ACTIVE@
REVOKED=@REVOKED@
EXPIRED=@EXPIRED@
# Another holder, whose license was revoked.
OTHER='@OTHER@'
# Every use says who uses a license, in which matter and why.
USE='{"userName":"经办人","itemCode":"11440100MB2D0001","itemName":"示例事项","businessCode":"CASE-0001","cause":"核验材料","stage":"受理"}'
# Each run issues a license of its own.
RUN=$(date +%s)$$

say() { printf '\n== %s\n' "$1"; }

# One line of JSON from standard input becomes the request of a step.
request() { tr -d '\n' > "answers/$1.request.json"; }

# send STEP PARTICIPANT PATH: as a participant, with its certificate. The same idempotency key never acts twice.
send() {
  printf '%s: POST %s < answers/%s.request.json\n' "$2" "$3" "$1"
  curl -sS --cacert $PKI/ca.pem --cert "$PKI/clients/$2.pem" --key "$PKI/clients/$2.key" \
    -H 'content-type: application/json' -H "idempotency-key: walkthrough-$1-$RUN" -H 'receipt: inline' \
    --data-binary "@answers/$1.request.json" -o "answers/$1.json" -w 'HTTP %{http_code}\n' "https://$DATA$3"
}

# Shows an answer without its receipt, long values cut.
show() {
  if command -v python3 > answers/python; then
    python3 -c '
import json, sys
answer = json.load(open(sys.argv[1], encoding="utf-8"))
if "receipt" in answer:
    answer["receipt"] = "... in " + sys.argv[1]
for key, value in answer.items():
    if isinstance(value, str) and len(value) > 90:
        answer[key] = value[:40] + "..."
sys.stdout.buffer.write((json.dumps(answer, ensure_ascii=False, indent=2) + "\n").encode())' "answers/$1.json"
  else
    cat "answers/$1.json"
    echo
  fi
}

# The value of a member that stands once in an answer.
member() { grep -o "\"$2\":\"[^\"]*\"" "answers/$1.json" | cut -d '"' -f 4; }

# Checks from bytes alone: nothing of it asks the exchange. 0 is valid, 1 invalid, 2 cannot tell.
check() {
  if [ -x "$VERIFIER" ]; then
    "$VERIFIER" "$@" --trust $PKI/trust-bundle.note --anchor "$ANCHOR"
  else
    printf 'NOT CHECKED: there is no %s. Build it with: %s\n' "$VERIFIER" "$BUILD"
  fi
}

verify() { # verify STEP PARTICIPANT LICENSE GRANT: the license is as the request names it
  printf '{"license":%s,%s"use":%s}' "$3" "${4:+\"grant\":\"$4\",}" "$USE" | request "$1"
  send "$1" "$2" /v1/verify
  show "$1"
}

main() {
  if ! curl -sS "http://$ADMIN/ready" -o answers/ready.json; then
    echo "nothing serves here: exchange quickstart, or exchange serve --development, with --data $(cd .. && pwd)" >&2
    exit 69
  fi

  say 'The portal lists what a holder has. The one license here is revoked (state 07)'
  printf '{"holder":%s,"use":%s}' "$OTHER" "$USE" | request search
  send search portal /v1/licenses/search
  show search

  say 'Without a grant of the holder nobody learns that a license exists. The log of a development exchange says why'
  verify without approval '{"identifier":"'"$LICENSE"'"}' ''
  say 'A grant that the holder revoked is like none'
  verify revoked approval '{"identifier":"'"$LICENSE"'"}' "$REVOKED"
  say 'A grant that has expired is like none'
  verify expired approval '{"identifier":"'"$LICENSE"'"}' "$EXPIRED"

  say 'With the active grant the approval system verifies a fact about it'
  printf '{"license":{"identifier":"%s"},"expect":{"certificateNumber":"%s"},"grant":"%s","use":%s}' \
    "$LICENSE" "$CERTIFICATE" "$ACTIVE" "$USE" | request granted
  send granted approval /v1/verify
  show granted
  say 'Anyone checks its receipt offline, and the receipt of a refusal too'
  check receipt answers/granted.json --request answers/granted.request.json
  check receipt answers/without.json --request answers/without.request.json

  say 'With the same grant it retrieves the signed license, which anyone checks offline'
  printf '{"license":{"identifier":"%s"},"mode":"envelope","grant":"%s","use":%s}' "$LICENSE" "$ACTIVE" "$USE" | request retrieve
  send retrieve approval /v1/licenses/retrieve
  show retrieve
  check license answers/retrieve.json

  say 'The issuing authority signs a new license'
  request issue <<END
{"license":{"typeCode":"11100000DE00000306002","serial":"WALK$RUN","certificateNumber":"Z$RUN",
"holders":[$HOLDER_NAMED],"issueDate":"2026-01-05","validFrom":"2026-01-05",
"fields":{"name":"$NAME","sex":"女","idNumber":"$NUMBER","profession":"电工","level":"三级/高级工",
"approvalDate":"2026-01-05","institutionName":"示例评价机构"}}}
END
  send issue issuer /v1/licenses
  show issue
  ID=$(member issue identifier)

  say 'The holder allows a use through the portal: this organisation, this license, one field, ten times'
  request grant <<END
{"holder":$HOLDER,"grantee":"$APPROVAL","identifier":"$ID","modes":["verify","fields"],"fields":["profession"],
"until":"2036-01-01T00:00:00Z","maxUses":10}
END
  send grant portal /v1/grants
  show grant
  GRANT=$(member grant grant)
  verify before approval '{"identifier":"'"$ID"'"}' "$GRANT"

  say 'The authority revokes it. From this moment every answer says so'
  printf '{"identifier":"%s","operation":"05","to":"07","reason":"示例吊销"}' "$ID" | request revoke
  send revoke issuer /v1/licenses/transition
  show revoke
  verify after approval '{"identifier":"'"$ID"'"}' "$GRANT"
  say 'Its signature stays genuine: only the exchange knows the state of today'
  check license answers/issue.json

  say 'A bank is shown a revoked license, and asks with its bytes. It needs no grant'
  cp presented.json answers/presented.request.json
  send presented bank /v1/verify
  show presented

  say 'The holder sees every use, with proof. It is whole up to an index root, which comes once a minute'
  printf '{"holder":%s,"use":%s}' "$HOLDER" "$USE" | request trace
  while :; do
    RUN=${RUN}0
    send trace portal /v1/trace > answers/status
    if check trace answers/trace.json > answers/verdict; then break; fi
    grep -q no-index-root answers/verdict || break
    sleep 3
  done
  cat answers/verdict

  say 'The log is public. Its checkpoint is what witnesses keep'
  curl -sS --cacert $PKI/ca.pem "https://$PUBLIC/v1/log/checkpoint"

  say 'Metrics, on the machine alone'
  curl -sS "http://$ADMIN/metrics" | grep '^miaoxiang_journal_entries_total'
}

# Hides all that differs between runs: numbers of entries and sizes, identifiers, times, keys, and an end that not every
# license has.
mask() {
  sed -E \
    -e 's/1\.2\.156\.3005\.2\.[0-9A-Z.]+/(identifier)/g' \
    -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z/(time)/g' \
    -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}/(date)/g' \
    -e 's/"[0-9a-f]{32}"/"(grant)"/g' \
    -e '/^ *"validUntil": "\(date\)"$/d' \
    -e 's/("validFrom": "\(date\)"),$/\1/' \
    -e 's/"(certificateNumber)": "[^"]*"/"\1": "(number)"/' \
    -e 's/"(envelope)": "[^"]*"/"\1": "(bytes)"/' \
    -e 's/^(  days +.* to ).*/\1(day)/' \
    -e 's/miaoxiang\.local\/[0-9a-f]{8}/(log)/g' \
    -e 's/^(  entr(y|ies) +)[0-9]+/\1(number)/' \
    -e 's/^(trace genuine: )[0-9]+/\1(number)/' \
    -e 's/(checkpoint|size|delayed|sequence|entries_total)( +)[0-9]+/\1\2(number)/g' \
    -e 's/^[0-9]+$/(size)/' \
    -e 's/^[A-Za-z0-9+\/]{43}=$/(root)/' \
    -e 's/^(— \(log\) ).*/\1(signature)/'
}

HOLDER_NAMED='{"name":"'"$NAME"'",'"${HOLDER#?}"
if [ "${1:-}" = --masked ]; then main | mask; else main; fi
