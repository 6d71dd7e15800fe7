#!/usr/bin/env python3
"""What the guard did, hour by hour: reads audit lines from files or standard input.

    python3 examples/audit/summary.py /var/lib/replyguard/audit.jsonl
    journalctl -t replyguard -o cat | python3 examples/audit/summary.py
"""

import collections
import fileinput
import json

hours = collections.defaultdict(collections.Counter)
for line in fileinput.input():
    try:
        record = json.loads(line)
    except ValueError:
        continue  # a line that is no record stops no reader
    if record.get("v") != 1:
        continue
    # While it only observes, `would` says what it would have done.
    done = record["would"] or record["action"]
    hours[record["time"][:13]][done] += 1

for hour in sorted(hours):
    counts = "  ".join(f"{action} {count}" for action, count in sorted(hours[hour].items()))
    print(f"{hour}  {counts}")
