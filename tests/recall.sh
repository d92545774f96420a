#!/usr/bin/env bash
# Is the context used, across the ring? A small model learns key-value recall over a ring of four ranks, on sequences
# that are made as it trains, until it answers at 8,192 tokens; then with the keys of the other ranks masked, by which
# what they hold must be lost; then at contexts beyond those it was trained on. `make recall` calls it.
#
#   tests/recall.sh PROGRAM [CONFIG]
set -euo pipefail
program="$1"
config="${2:-configs/recall.yaml}"
run=runs/recall
start=$SECONDS

say() {
  printf '\n== %s\n' "$*"
}

# The number `name` of `part` ("own", "remote", or "all" for the questions as a whole) at the first context of results.
# Of json_dump_file's lines, those of the first context come before its list of distances.
result() {
  awk -v part="$2" -v name="$3" '
    /"distances"/ { exit }
    /"(own|remote)": \{/ { split($0, words, "\""); inside = words[2] }
    /\}/ { if (inside != "") inside = "" }
    $0 ~ "\"" name "\":" && (part == "all" ? inside == "" : inside == part) { sub(/.*: */, ""); sub(/,.*/, ""); print; exit }
  ' "$1"
}

rm -rf "$run"
say "1. Training over a ring of 4: 32 tokens first, 8,192 last"
"$program" train "$config"
trained=$((SECONDS - start))
checkpoint="$(ls -d "$run"/checkpoints/step_* | tail -n 1)"

say "2. What it answers at 8,192 tokens"
"$program" eval "$config" --checkpoint "$checkpoint" --task mqar --context 8192 --samples 8 --json "$run/recall.json"

say "3. The same with the keys of other ranks masked"
"$program" eval "$config" --checkpoint "$checkpoint" --task mqar --context 8192 --samples 8 --local-keys-only \
  --json "$run/local.json"

say "4. Beyond the length it was trained on"
"$program" eval "$config" --checkpoint "$checkpoint" --task mqar --context 8192,16384,32768,65536 --samples 2 \
  --json "$run/beyond.json"

accuracy=$(result "$run/recall.json" all accuracy)
remote=$(result "$run/recall.json" remote accuracy)
masked=$(result "$run/local.json" remote accuracy)
asked=$(result "$run/recall.json" all asked)
elsewhere=$(result "$run/recall.json" remote asked)
say "Done in $((SECONDS - start)) s, of which $trained s training"
awk -v a="$accuracy" -v r="$remote" -v m="$masked" -v n="$asked" -v e="$elsewhere" 'BEGIN {
  printf "  answers right at 8,192 tokens             %6.2f %% of %d\n", 100 * a, n
  printf "  of those whose pair is on another rank    %6.2f %% of %d\n", 100 * r, e
  printf "  the same without the keys of other ranks  %6.2f %% (chance: %.2f %%)\n", 100 * m, 100 / 256
  if (2 * e < n) { print "less than half of the questions are answered by another rank"; exit 1 }
  if (a < 0.95) { print "it answers less than 95 % at 8,192 tokens"; exit 1 }
  if (m > 0.03) { print "it answers more than chance without the keys of other ranks"; exit 1 }
}'
