#!/usr/bin/env bash
# Two checkouts, their benches run in turns on the same disk: is any row slower than it was?
#   benches/compare.sh OLD NEW [ROW ...]     ROW as for cargo bench: W1 to W11, or checksum (default: all)
# OLD and NEW are checkouts, or bench programs that know --plain. A checkout whose bench does not is compiled with the
# benches of this one, in a clone of its commit beside its own target folder.
#
# A figure is slower if it is worse by more than 5 % (10 % where its name says NORMAL) in the median of the paired rounds,
# and worse at all in four of five rounds. What is close to nothing (idling, memory) must also be worse by a tenth (CPU: a
# fifth) of what it may be at the most. Parts of a row, such as its CPU, are shown and not judged. Exits with 1 if anything is slower.
#
# ROUNDS: paired rounds (default 5); TURNS: runs of each side in a round, in turns, of which the median counts (default 3);
# KILN_BENCH_DIR: the folder for the files (default: target/compare of this checkout).
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
[ $# -ge 2 ] || { sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
old="$1" new="$2"
shift 2
rows=("$@")
[ ${#rows[@]} -gt 0 ] || rows=(W1 W2 W3 W4 W5 W6 W7 W8 W9 W10 W11 checksum)
rounds="${ROUNDS:-5}" turns="${TURNS:-3}"
export KILN_BENCH_DIR="${KILN_BENCH_DIR:-$here/../target/compare}"
mkdir -p "$KILN_BENCH_DIR"

# Says which program is the bench of a checkout, and compiles it if needed.
program() {
  local checkout="$1"
  [ -d "$checkout" ] || { realpath "$checkout"; return; }
  checkout="$(cd "$checkout" && pwd)"
  if ! grep -q -- '"--plain"' "$checkout/benches/kiln.rs"; then
    local clone="$checkout/target/compare-clone"
    # Made once: cargo looks at the times of files.
    if [ "$(git -C "$clone" rev-parse HEAD 2>/dev/null)" != "$(git -C "$checkout" rev-parse HEAD)" ]; then
      rm -rf "$clone"
      git clone --quiet --shared "$checkout" "$clone" >&2
    fi
    if ! diff -rq --exclude peers "$here" "$clone/benches" >/dev/null; then
      rm -rf "$clone/benches"
      mkdir "$clone/benches"
      find "$here" -mindepth 1 -maxdepth 1 ! -name peers -exec cp -a {} "$clone/benches/" \;
    fi
    checkout="$clone"
  fi
  (cd "$checkout" && CARGO_TARGET_DIR="$checkout/target" cargo bench --bench kiln --no-run --message-format json) |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1
}

old="$(program "$old")"
new="$(program "$new")"
[ -x "$old" ] && [ -x "$new" ] || { echo "a bench could not be compiled" >&2; exit 2; }

figures="$(mktemp)"
trap 'rm -f "$figures"' EXIT
# side, row, program
run() { "$3" --plain --rounds "$each" "$2" | sed "s/^/$1\t$round\t/" >> "$figures"; }

printf '%-56s %12s %12s %-7s %-19s %-8s %s\n' figure old new unit 'new/old' worse verdict
status=0
for row in "${rows[@]}"; do
  : > "$figures"
  # Both sides alternate from run to run: a disk has moods that last for seconds.
  each=1 runs="$turns"
  # Those that have to fill a file with a million rows first have their turns within one process.
  case "$row" in [Ww]7 | [Ww]9) each="$turns" runs=1 ;; [Ww]8) runs=1 ;; esac
  for ((round = 1; round <= rounds; round++)); do
    for ((turn = 1; turn <= runs; turn++)); do
      if (((round + turn) % 2)); then
        run new "$row" "$new"
        run old "$row" "$old"
      else
        run old "$row" "$old"
        run new "$row" "$new"
      fi
    done
  done
  python3 - "$figures" <<'PY' || status=1
import sys
from statistics import median

sides, facts = {}, {}
for line in open(sys.argv[1]):
    side, turn, name, value, unit, least = line.rstrip("\n").split("\t")
    sides.setdefault(name, {"old": {}, "new": {}})[side].setdefault(turn, []).append(float(value))
    facts[name] = (unit, least)
slower = False
for name, found in sides.items():
    unit, least = facts[name]
    pairs = [(median(found["old"][turn]), median(new)) for turn, new in found["new"].items() if turn in found["old"]]
    if not pairs:
        print(f"{name:<56} on one side only")
        continue
    ratio = lambda old, new: new / old if old else (1.0 if new == old else float("inf"))
    is_rate = unit.endswith("/s")
    ratios = [ratio(old, new) for old, new in pairs]
    worse = [(old > new) if is_rate else (new > old) for old, new in pairs]
    old, new = (median(pair[n] for pair in pairs) for n in (0, 1))
    middle, limit = median(ratios), 1.10 if "NORMAL" in name else 1.05
    by_much = middle < 1 / limit if is_rate else middle > limit
    spread = f"{middle:.3f} ({min(ratios):.2f}–{max(ratios):.2f})"
    told = "-"
    if least != "-":
        is_slower = by_much and sum(worse) >= 0.8 * len(pairs) and abs(new - old) >= float(least)
        told = "SLOWER" if is_slower else "as before"
        slower |= is_slower
    print(f"{name:<56} {old:>12.5g} {new:>12.5g} {unit:<7} {spread:<19} {sum(worse)} of {len(pairs)}   {told}", flush=True)
sys.exit(slower)
PY
done
exit "$status"
