#!/usr/bin/env bash
# PyPI holidays 0.109, working days of China over New Year 2027, whose notice is not published.
#
# Expected: working days follow the yearly notice, which moves holidays and makes weekend days working days. The
# library has both for 2026, so for a year without a notice it says that it does not know.
# Seen: it counts on without a word. 2027 has holidays by rule, such as February 5 and 7 to 10, and no make-up day.
# A clock of a service counted with it ends on another day than by the notice, and nobody is told.
#
# Installs the pinned package in a temporary folder. Succeeds while the behavior is as seen.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet holidays==0.109

cat > count.py <<'PY'
import datetime
import importlib.metadata
import warnings

import holidays

warnings.simplefilter("error")
print("holidays", importlib.metadata.version("holidays"))
china = holidays.country_holidays("CN", years=range(2023, 2028))
for year in range(2023, 2028):
    off = sum(day.year == year for day in china)
    work = sum(day.year == year for day in china.weekend_workdays)
    print(year, "days off", off, "make-up days", work)
    assert (work == 0) == (year == 2027), "make-up days of another year are missing, or 2027 has some"
due = china.get_nth_working_day(datetime.date(2026, 12, 30), 5)
print("5 working days after 2026-12-30:", due)
assert due == datetime.date(2027, 1, 7), "another day"
PY
venv/bin/python count.py
