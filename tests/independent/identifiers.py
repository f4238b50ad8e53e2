#!/usr/bin/env python3
"""Compares our verdicts on identifiers, USCCs and citizen numbers with python-stdnum's.

Reads lines `kind<TAB>value<TAB>valid|invalid` from standard input, as the example `identifier_vectors` of the
crate `schemas` prints them. Prints `N checked`; exits 1 on a disagreement, 2 on input that cannot be read.

Only what both sides define alike is compared: of a citizen number ("ric") the check character, because region
tables differ.
"""

import sys

from stdnum.cn import uscc
from stdnum.iso7064 import mod_11_2, mod_37_36

CHECKS = {
    "identifier-check": mod_37_36.is_valid,
    "uscc": uscc.is_valid,
    "ric": mod_11_2.is_valid,
}


def main() -> int:
    checked = dict.fromkeys(CHECKS, 0)
    verdicts = set()
    disagreements = 0
    for number, line in enumerate(sys.stdin, start=1):
        parts = line.rstrip("\n").split("\t")
        if len(parts) != 3 or parts[0] not in CHECKS or parts[2] not in ("valid", "invalid"):
            print(f"line {number}: cannot be read", file=sys.stderr)
            return 2
        kind, value, ours = parts
        theirs = "valid" if CHECKS[kind](value) else "invalid"
        checked[kind] += 1
        verdicts.add((kind, ours))
        if ours != theirs:
            disagreements += 1
            print(f"line {number}: {kind} {value}: ours {ours}, theirs {theirs}", file=sys.stderr)
    # A stream without one of the kinds or verdicts has compared nothing there.
    if len(verdicts) != 2 * len(CHECKS):
        print("the input does not hold every kind with both verdicts", file=sys.stderr)
        return 2
    print(f"{sum(checked.values())} checked")
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
