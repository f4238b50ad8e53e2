#!/usr/bin/env python3
"""Counts the indicators of data sharing apart from `exchange indicators`, from lists and an exported log.

Reads applications as JSON, one a line, from standard input, and lines of `exchange item list demands` among them; calendars, resources (`exchange resource list`) and the log
(`exchange log export`) from the files named. Takes nothing from the exchange's own counts: working days follow from the moments and the
calendars. Prints the same document, to be compared.
"""
import argparse
import base64
import collections
import datetime
import json
import sys

CST = datetime.timezone(datetime.timedelta(hours=8))
INTENT = 1
PROVIDERS_SIDE = {
    "resource-refused",
    "record-unavailable",
    "provider-unavailable",
    "provider-wrong",
    "provider-late",
    "outcome-unknown",
}


def day(moment):
    return datetime.datetime.fromisoformat(moment.replace("Z", "+00:00")).astimezone(CST).date()


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


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


def empty():
    zeros = ("applications", "grantedByRule", "counted", "withinThreeDays", "overdue", "undeterminable", "resources", "published")
    return dict.fromkeys(zeros, 0)


def count_applications(groups, applications, now, calendars):
    for one in applications:
        made = day(one["madeAt"])
        end = one.get("providedAt") or (one.get("answeredAt") if one["state"] == "refused" else None)
        days = working_days(made, day(end) if end else now, calendars)
        for row in (groups[""], groups[one["provider"]]):
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


def count_resources(groups, resources):
    scores = collections.defaultdict(list)
    for one in resources:
        published = one["state"] in ("published", "changed")
        for name in ("", one["provider"]):
            groups[name]["published"] += published
            groups[name]["resources"] += published or one["state"] == "suspended"
            score = one.get("quality", {}).get("score")
            if score is not None:
                scores[name].append(score)
    for name, values in scores.items():
        groups[name]["quality"] = sum(values) // len(values)


def named(entry):
    """The resource that an entry says it is about."""
    texts = [told["document"] for told in entry["told"] if told] + [entry.get("asked") or "{}"]
    return next((found for found in (json.loads(text).get("resource") for text in texts) if found), None)


def count_calls(groups, pages, providers):
    for row in groups.values():
        row["calls"] = {"calls": 0, "served": 0, "causes": {}}
    for entry in (entry for page in pages for entry in page["entries"]):
        proven = entry["entry"]
        if proven["route"] not in ("records-query", "records-call", "bundle"):
            continue
        if proven["route"] == "bundle" and not named(entry):
            continue
        if base64.b64decode(proven["open"])[6] == INTENT:
            continue
        provider = providers.get(named(entry))
        for name in {"", provider} - {None}:
            calls = groups[name]["calls"]
            calls["calls"] += 1
            calls["served"] += proven["code"] == "ok"
            if proven["code"] != "ok":
                calls["causes"][proven["code"]] = calls["causes"].get(proven["code"], 0) + 1


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


def rate(row):
    parts = []
    if row["resources"]:
        parts.append(row["published"] * 100 // row["resources"])
    if row["counted"]:
        row["connectedPermille"] = row["withinThreeDays"] * 1000 // row["counted"]
        parts.append(row["connectedPermille"] // 10)
    if row["applications"]:
        row["instantPermille"] = row["grantedByRule"] * 1000 // row["applications"]
    if "quality" in row:
        parts.append(row["quality"])
    calls = row.get("calls")
    if calls and calls["calls"]:
        calls["servedPermille"] = calls["served"] * 1000 // calls["calls"]
        right = calls["served"] + sum(calls["causes"].get(code, 0) for code in PROVIDERS_SIDE)
        if right:
            parts.append(calls["served"] * 100 // right)
    if parts:
        row["score"] = sum(parts) // len(parts)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--now", required=True)
    parser.add_argument("--resources")
    parser.add_argument("--log")
    parser.add_argument("calendars", nargs="*")
    asked = parser.parse_args()
    calendars = {}
    for path in asked.calendars:
        with open(path, encoding="utf-8") as file:
            calendar = json.load(file)
        calendars[calendar["year"]] = (set(calendar["off"]), set(calendar["work"]))
    groups = collections.defaultdict(empty)
    groups[""] = empty()
    given = [json.loads(line) for line in sys.stdin]
    count_applications(groups, [one for one in given if "stages" not in one], day(asked.now), calendars)
    resources = lines(asked.resources) if asked.resources else []
    count_resources(groups, resources)
    if asked.log:
        providers = {one["resource"]["code"]: one["provider"] for one in resources}
        count_calls(groups, lines(asked.log), providers)
    for row in groups.values():
        rate(row)
    report = {"all": groups.pop(""), "providers": dict(groups), "items": demands([one for one in given if "stages" in one])}
    print(json.dumps(report, ensure_ascii=False, indent=2, sort_keys=True))


main()
