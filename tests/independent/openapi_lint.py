#!/usr/bin/env python3
"""Lints an OpenAPI document: `openapi_lint.py FILE`. The document is valid OpenAPI 3.1, and every example of a request
is what its schema takes."""

import json
import sys

from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        document = json.load(file)
    validate(document)
    examples = 0
    for path, item in document["paths"].items():
        content = item.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        for name, example in content.get("examples", {}).items():
            validator = OAS31Validator({**content["schema"], "components": document["components"]})
            for error in validator.iter_errors(example["value"]):
                sys.exit(f"{path}, example {name}: {error.json_path}: {error.message}")
            examples += 1
    print(f"{len(document['paths'])} paths, {examples} examples")
    return 0 if examples else 1


if __name__ == "__main__":
    sys.exit(main())
