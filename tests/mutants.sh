#!/usr/bin/env bash
# Shows that the tests can fail: plants one fault at a time in a copy of the sources, builds the test that the fault
# names, and expects it to turn red; one that does not end in time is red too, and named as such. Ends with the line
# `N passed, N failed`, where a fault that was found counts as passed. `make check-mutants` calls it; the settings of
# that make hold in the copy as well.
#
#   tests/mutants.sh FOLDER VARIANT PATCH...   FOLDER keeps the copy, VARIANT is the folder of the build inside it;
#                                              each patch begins with the lines "Fault: ..." and "Test: NAME", where
#                                              the test runs over the emulated GPU too, "Device: emulated", or
#                                              "Device: races" with its check for races
#   MUTANT_TIMEOUT   seconds that one test may take (120)
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

mkdir -p "$1" || exit 1
folder="$(cd "$1" && pwd)"
built="$folder/build/$2"
tests="$built/tests"
limit="${MUTANT_TIMEOUT:-120}"
shift 2
sources="$folder/sources"
found=0
missed=0
declare -A green=() # tests that were seen to pass without any fault, with their device

# The sources as they are, changes that are not committed included; what was built from the copy before stays. Files
# that did not change keep their time, so that nothing is built again for them.
refresh() {
  local new="$folder/sources.new" file
  rm -rf "$new"
  mkdir -p "$new" "$sources"
  cp -R Makefile checkpoints configs data kernels model tests train "$new" || exit 1
  (cd "$new" && find . -type f) | while read -r file; do
    if ! cmp -s "$new/$file" "$sources/$file"; then
      mkdir -p "$sources/$(dirname "$file")"
      cp "$new/$file" "$sources/$file"
    fi
  done
  (cd "$sources" && find . -type f) | while read -r file; do
    [ -e "$new/$file" ] || rm "$sources/$file"
  done
  rm -rf "$new"
}

build() { # TEST [OBJECT]
  make --no-print-directory -C "$sources" -j"$(nproc)" BUILD="$folder/build" "$tests/$1" ${2:+"$2"} \
    >"$folder/build.log" 2>&1
}

# Status 124: out of time. A test that does not even heed SIGTERM is killed, and timeout says 137. What the shell says
# of one that aborts is nobody's concern.
run() { # TEST [OBJECT]
  local start=$SECONDS status=0
  (cd "$sources" && RINGGPT_TEST_CUDA="${2:-}" timeout --kill-after=5 "$limit" "$tests/$1" \
    >"$folder/run.log" 2>&1 </dev/null) 2>/dev/null || status=$?
  if [ "$status" = 137 ] && [ $((SECONDS - start)) -ge "$limit" ]; then status=124; fi
  return "$status"
}

# Whether the test is green without any fault, which is looked at once for each.
sound() { # TEST [OBJECT]
  local status=0
  if [ -n "${green["$*"]:-}" ]; then return 0; fi
  if ! build "$@"; then
    echo "  $1 does not build without any fault:"
    tail -n 20 "$folder/build.log"
    return 1
  fi
  run "$@" || status=$?
  if [ "$status" != 0 ]; then
    echo "  $1 fails without any fault (status $status; 124: not done after $limit s):"
    tail -n 20 "$folder/run.log"
    return 1
  fi
  green["$*"]=1
}

# One fault: the test is green without it and red with it.
try() { # PATCH
  local patch="$1" fault test device what status=0 verdict=0
  fault="$(sed -n 's/^Fault: *//p' "$patch")"
  test="$(sed -n 's/^Test: *//p' "$patch")"
  what=("$test")
  device="$(sed -n 's/^Device: *//p' "$patch")"
  if [ -n "$device" ]; then what+=("$built/$device/ringgpt-cuda.so"); fi
  sound "${what[@]}" || return 1
  if ! patch -s -p1 -d "$sources" <"$patch"; then
    echo "  $patch does not fit the sources any more"
    refresh
    return 1
  fi
  if build "${what[@]}"; then
    run "${what[@]}" || status=$?
    case "$status" in
    0) echo "  MISSED by $test: $fault" && verdict=1 ;;
    124) echo "  found by $test, which hung and was stopped after $limit s: $fault" ;;
    *) echo "  found by $test: $fault" ;;
    esac
  else
    echo "  $patch does not build:"
    tail -n 20 "$folder/build.log"
    verdict=1
  fi
  patch -s -R -p1 -d "$sources" <"$patch"
  return "$verdict"
}

refresh
for patch in "$@"; do
  if try "$patch"; then found=$((found + 1)); else missed=$((missed + 1)); fi
done
echo "$found passed, $missed failed"
[ "$missed" = 0 ] && [ "$found" -gt 0 ]
