#!/usr/bin/env bash
# Instructions a job, counted by callgrind, against what is expected: they do not depend on the machine's mood.
#   benches/instructions.sh           fails when a row takes a tenth more than benches/instructions.txt says
#   benches/instructions.sh --accept  writes down what was counted as what is expected from now on
# Needs valgrind.
set -euo pipefail
cd "$(dirname "$0")/.."
expected=benches/instructions.txt
command -v valgrind >/dev/null || { echo "valgrind is needed: apt-get install valgrind" >&2; exit 2; }
bench="$(cargo bench --bench kiln --no-run --message-format json 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)"
[ -x "$bench" ] || { echo "the bench could not be built: cargo bench --no-run" >&2; exit 2; }

# All threads together, of a run with so many jobs.
instructions() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null "$bench" --count "$1" "$2" 2>&1 |
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

counted="$(mktemp)"
trap 'rm -f "$counted"' EXIT
jobs=2000
for row in W1 W4 W4-one W11-unique W11-recorded raw-W1 raw-W4 raw-W4-one; do
  # What starting costs is in both, and goes away.
  once="$(instructions "$row" "$jobs")"
  thrice="$(instructions "$row" $((3 * jobs)))"
  echo "$row $(((thrice - once) / (2 * jobs)))" | tee -a "$counted"
done
if [ "${1:-}" = --accept ]; then
  # What raw takes is for orientation.
  grep -v raw "$counted" > "$expected"
  exit
fi
failed=0
while read -r row was; do
  now="$(sed -n "s/^$row //p" "$counted")"
  if [ "$now" -gt $((was + was / 10)) ]; then
    echo "$row takes $now instructions a job where $was were expected, a tenth more at the most" >&2
    failed=1
  elif [ "$now" -lt $((was - was / 10)) ]; then
    echo "$row takes $now instructions a job where $was were expected: write it down with --accept"
  fi
done < "$expected"
exit "$failed"
