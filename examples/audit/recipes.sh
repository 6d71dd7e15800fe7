#!/bin/sh
# Questions to the audit log, with jq. Each line is a record; every field is always there.
log=${1:-/var/lib/replyguard/audit.jsonl}

echo "== what was held today, by reason"
jq -r 'select(.action == "quarantine") | .reason' "$log" | sort | uniq -c | sort -rn

echo "== what observe mode would have held, and why"
jq -r 'select(.would == "quarantine") | [.time, .rcpt, .text] | @tsv' "$log" | tail -20

echo "== what is not known most often"
jq -r '.gaps[]?.cause' "$log" | sort | uniq -c | sort -rn
