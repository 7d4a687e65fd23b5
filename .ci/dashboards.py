"""Checks the dashboards and what Grafana and the collector are provisioned with, and writes the dashboards' expressions to
the file that is named, as rules that promtool can check."""

import glob
import json
import sys

import yaml

VARIABLES = {"$__rate_interval": "1m", "$__range": "6h"}

sources = {source["uid"] for source in yaml.safe_load(open(".docker/grafana/datasources.yml"))["datasources"]}
yaml.safe_load(open(".docker/grafana/dashboards.yml"))
collector = yaml.safe_load(open(".docker/otel-collector.yaml"))
for name, pipeline in collector["service"]["pipelines"].items():
    for part in ("receivers", "processors", "exporters"):
        missing = [it for it in pipeline[part] if it not in collector[part]]
        assert not missing, f"otel-collector.yaml, {name}: no such {part}: {missing}"

rules = []
boards = {}
for path in sorted(glob.glob(".docker/grafana/*.json")):
    board = json.load(open(path))
    boards[board["uid"]] = path
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) and panels, f"{path}: panels share an id, or there is none"
    for panel in panels:
        where = f"{path}, {panel['title']}"
        assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"], f"{where}: no description or unit"
        for target in panel["targets"]:
            assert target["datasource"]["uid"] in sources, f"{where}: no such data source"
            expression = target["expr"]
            for variable, value in VARIABLES.items():
                expression = expression.replace(variable, value)
            assert "$" not in expression, f"{where}: an unknown variable"
            rules.append({"record": f"panel:{len(rules)}", "expr": expression})
for path in boards.values():
    for link in json.load(open(path))["links"]:
        assert link["url"].removeprefix("/d/") in boards, f"{path}: a link to no dashboard: {link['url']}"
json.dump({"groups": [{"name": "dashboards", "rules": rules}]}, open(sys.argv[1], "w"))
