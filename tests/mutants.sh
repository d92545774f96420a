#!/usr/bin/env bash
# Shows that the tests can fail: plants one fault at a time in a copy of the sources, builds the test that the fault
# names, and expects it to turn red. Ends with the line `N passed, N failed`, where a fault that was found counts as
# passed.
#
#   tests/mutants.sh PATCH...     each patch begins with the lines "Fault: ..." and "Test: NAME"
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

copy=build/mutants
found=0
missed=0

# The sources as they are, changes that are not committed included; what was built there before stays.
refresh() {
  mkdir -p "$copy"
  rm -rf "$copy/sources.new"
  mkdir "$copy/sources.new"
  tar -cf - --exclude=./build --exclude=./runs --exclude=./.git . | tar -xf - -C "$copy/sources.new"
  # Files that did not change keep their time, so that nothing is built again for them.
  update_by_content "$copy/sources.new" "$copy/sources"
  rm -rf "$copy/sources.new"
}

update_by_content() { # FROM TO
  mkdir -p "$2"
  (cd "$1" && find . -type f) | while read -r file; do
    if ! cmp -s "$1/$file" "$2/$file"; then
      mkdir -p "$2/$(dirname "$file")"
      cp "$1/$file" "$2/$file"
    fi
  done
  (cd "$2" && find . -path ./build -prune -o -type f -print) | while read -r file; do
    [ -e "$1/$file" ] || rm "$2/$file"
  done
}

build() { # TEST
  make --no-print-directory -C "$copy/sources" -j"$(nproc)" "build/release/tests/$1" >"$copy/build.log" 2>&1
}

run() { # TEST
  (cd "$copy/sources" && timeout 300 "build/release/tests/$1" >"../run.log" 2>&1 </dev/null)
}

# One fault: the test is green without it and red with it.
try() { # PATCH
  local patch="$1" fault test
  fault="$(sed -n 's/^Fault: *//p' "$patch")"
  test="$(sed -n 's/^Test: *//p' "$patch")"
  if ! build "$test" || ! run "$test"; then
    echo "  $test fails without any fault:"
    tail -n 20 "$copy/build.log" "$copy/run.log"
    return 1
  fi
  if ! patch -s -p1 -d "$copy/sources" <"$patch"; then
    echo "  $patch does not fit the sources any more"
    return 1
  fi
  local verdict=0
  if ! build "$test"; then
    echo "  $patch does not build:"
    tail -n 20 "$copy/build.log"
    verdict=1
  elif run "$test"; then
    echo "  MISSED by $test: $fault"
    verdict=1
  else
    echo "  found by $test: $fault"
  fi
  patch -s -R -p1 -d "$copy/sources" <"$patch"
  return "$verdict"
}

refresh
for patch in "$@"; do
  if try "$patch"; then found=$((found + 1)); else missed=$((missed + 1)); fi
done
echo "$found passed, $missed failed"
[ "$missed" = 0 ] && [ "$found" -gt 0 ]
