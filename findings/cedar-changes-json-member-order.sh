#!/usr/bin/env bash
# crates.io cedar-policy 4.14.1 beside serde_json 1.0.154, in a program that writes JSON of its own.
#
# Expected: a policy engine decides. What the program itself writes with serde_json stays the same byte for byte:
# members of a `Value` in alphabetical order, as without the feature `preserve_order`.
# Seen: cedar-policy-core turns that feature on, and Cargo gives it to the whole program. Members stand in the order of
# insertion, in answers, digests and signed texts that have nothing to do with policies. A program of the same workspace
# that is built alone still sorts them: two parties that hash the same `Value` then disagree.
#
# Builds two programs with pinned packages in a temporary folder. Succeeds while the behavior is as seen.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export CARGO_TARGET_DIR=$folder/target
mkdir src
cat > src/main.rs <<'RS'
fn main() {
    println!("{}", serde_json::json!({"use": 1, "asOf": 2}));
}
RS
package() {
  printf '[package]\nname = "answer"\nversion = "0.0.0"\nedition = "2024"\n[dependencies]\nserde_json = "=1.0.154"\n%s' "$1" > Cargo.toml
  rm -f Cargo.lock
  cargo run --quiet
}
without=$(package '')
with=$(package 'cedar-policy = "=4.14.1"')
echo "serde_json 1.0.154 alone:               $without"
echo "the same beside cedar-policy 4.14.1:    $with"
[ "$without" = '{"asOf":2,"use":1}' ]
[ "$with" = '{"use":1,"asOf":2}' ]
