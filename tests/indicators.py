#!/usr/bin/env python3
"""Counts the indicators of data sharing from `exchange application list`, apart from `exchange indicators`.

Reads applications as JSON, one a line, from standard input, lines of `exchange item list demands` among them, and calendars from the files named. Takes nothing from the exchange's own counts:
working days follow from the moments and the calendars. Prints the same document, to be compared.
"""
import datetime
import json
import sys

CST = datetime.timezone(datetime.timedelta(hours=8))


def day(moment):
    return datetime.datetime.fromisoformat(moment.replace("Z", "+00:00")).astimezone(CST).date()


def working_days(start, end, calendars):
    counted = 0
    while start < end:
        start += datetime.timedelta(days=1)
        if start.year not in calendars:
            return None
        off, work = calendars[start.year]
        name = start.isoformat()
        counted += name in work if start.weekday() >= 5 else name not in off
    return counted


def demands(cases):
    items = {}
    for case in cases:
        row = items.setdefault(case["item"], {"cases": 0, "materials": 0, "demanded": 0, "needless": 0, "again": 0, "needlessMaterials": {}})
        row["cases"] += 1
        row["materials"] += case["materials"]
        seen = [demand for stage in case["stages"] for demand in stage["demanded"]]
        row["demanded"] += len({demand["material"] for demand in seen})
        row["again"] += len({demand["material"] for demand in seen if demand["again"]})
        for material in {demand["material"] for demand in seen if demand["needless"]}:
            row["needless"] += 1
            row["needlessMaterials"][material] = row["needlessMaterials"].get(material, 0) + 1
    for row in items.values():
        if row["materials"]:
            row["sparedPermille"] = max(row["materials"] - row["demanded"], 0) * 1000 // row["materials"]
    return items


def main():
    calendars = {}
    for path in sys.argv[2:]:
        with open(path, encoding="utf-8") as file:
            calendar = json.load(file)
        calendars[calendar["year"]] = (set(calendar["off"]), set(calendar["work"]))
    now = day(sys.argv[1])
    groups = {}
    cases = []
    for line in sys.stdin:
        one = json.loads(line)
        if "stages" in one:
            cases.append(one)
            continue
        made = day(one["madeAt"])
        end = one.get("providedAt") or (one.get("answeredAt") if one["state"] == "refused" else None)
        days = working_days(made, day(end) if end else now, calendars)
        for name in ("", one["provider"]):
            row = groups.setdefault(name, dict.fromkeys(("applications", "grantedByRule", "counted", "withinThreeDays", "overdue", "undeterminable"), 0))
            row["applications"] += 1
            row["grantedByRule"] += "rule" in one
            clock = one.get("clock")
            if clock and clock["due"]["determinable"] == "yes":
                row["overdue"] += now.isoformat() > clock["due"]["day"]
            if days is None:
                row["undeterminable"] += 1
            elif end:
                row["counted"] += 1
                row["withinThreeDays"] += days <= 3
            elif days > 3 and one["state"] != "stopped":
                row["counted"] += 1
    for row in groups.values():
        if row["counted"]:
            row["connectedPermille"] = row["withinThreeDays"] * 1000 // row["counted"]
        if row["applications"]:
            row["instantPermille"] = row["grantedByRule"] * 1000 // row["applications"]
    empty = dict.fromkeys(("applications", "grantedByRule", "counted", "withinThreeDays", "overdue", "undeterminable"), 0)
    report = {"all": groups.pop("", empty), "providers": groups, "items": demands(cases)}
    print(json.dumps(report, ensure_ascii=False, indent=2, sort_keys=True))


main()
