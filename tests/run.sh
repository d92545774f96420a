#!/usr/bin/env bash
# Runs test programs, each in its own process and with a time limit, prints one line per program, the lines of it
# that begin with `figures: `, and the whole output of those that fail, and ends with the line `N passed, N failed`.
#
#   tests/run.sh PROGRAM...
#   TEST_TIMEOUT   seconds that one program may take (300)
#   TEST_JOBS      programs that run at a time (2)
#
# What is counted are cmocka's tests, by its closing lines. A program that crashes, runs out of time, ends with a
# failure that no test accounts for, or prints no closing line, counts as one failed test more. The exit status is
# 1 where anything failed or nothing ran.
set -uo pipefail
unset CMOCKA_MESSAGE_OUTPUT CMOCKA_XML_FILE CMOCKA_TEST_ABORT
# Programs share the processors: a thread that waits must not spin.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"

limit="${TEST_TIMEOUT:-300}"
jobs="${TEST_JOBS:-2}"
logs="$(mktemp -d "${TMPDIR:-/tmp}/ringgpt-tests.XXXXXX")" || exit 1

programs=("$@")
declare -A running=() # process id of the keeper of each program, by its index
passed=0
failed=0

stop_all() {
  local pid
  for pid in "${running[@]}"; do
    kill "$pid" 2>/dev/null
  done
  wait
}
trap 'rm -rf "$logs"' EXIT
trap 'stop_all; exit 130' INT TERM

# Programs that are done announce themselves here with their index, status and time.
mkfifo "$logs/done" || exit 1
exec 3<>"$logs/done"

microseconds() {
  echo "${EPOCHREALTIME/[.,]/}"
}

# Runs one program and announces its end. A shell lets what it starts in the background ignore SIGINT and SIGQUIT,
# which a program under test must not inherit.
keep() { # INDEX
  local start child status
  start="$(microseconds)"
  timeout --kill-after=5 "$limit" env --default-signal=INT,QUIT "${programs[$1]}" \
    </dev/null >"$logs/$1" 2>&1 3>&- &
  child=$!
  trap 'kill "$child"; wait "$child"; exit 1' TERM
  wait "$child"
  status=$?
  echo "$1 $status $(($(microseconds) - start))" >&3
}

# Adds up the numbers in cmocka's closing lines of one kind. Other output may stand before one on its line.
count_tests() { # LOG PATTERN
  grep -aoE "$2" "$1" | grep -oE '[0-9]+' | awk '{ sum += $1 } END { print sum + 0 }'
}

# Why a program counts as one failed test more; nothing where its closing lines say it all.
find_fault() { # LOG STATUS MICROSECONDS FAILED
  if (($2 == 124 || ($2 == 137 && $3 >= limit * 1000000))); then
    echo "stopped after $limit s"
  elif (($2 > 128)); then
    echo "died of signal $(($2 - 128))"
  elif (($2 != 0 && $4 == 0)); then
    echo "ended with status $2"
  elif ! grep -aqE '\[  (PASSED|FAILED)  \] [0-9]+ test' "$1"; then
    echo "ran no test"
  fi
}

report() { # INDEX STATUS MICROSECONDS
  local name="${programs[$1]##*/}" log="$logs/$1"
  local good bad fault
  good="$(count_tests "$log" '\[  PASSED  \] [0-9]+ test')"
  bad="$(count_tests "$log" '\[  FAILED  \] [0-9]+ test\(s\), listed below')"
  fault="$(find_fault "$log" "$2" "$3" "$bad")"
  if [[ -n $fault ]]; then
    bad=$((bad + 1))
  fi
  passed=$((passed + good))
  failed=$((failed + bad))
  printf '%-32s %4d passed %4d failed %5d.%02d s%s\n' "$name" "$good" "$bad" \
    $(($3 / 1000000)) $(($3 / 10000 % 100)) "${fault:+  ($fault)}"
  if ((bad > 0)); then
    printf -- '---- output of %s\n' "$name"
    cat "$log"
    printf '\n---- end of output of %s\n' "$name"
  else
    sed -n 's/^figures: /    /p' "$log"
  fi
}

report_next() {
  local index status elapsed
  read -r index status elapsed <&3
  unset "running[$index]"
  report "$index" "$status" "$elapsed"
}

for index in "${!programs[@]}"; do
  if ((${#running[@]} >= jobs)); then
    report_next
  fi
  # The shell itself would announce each program that a signal ended.
  keep "$index" 2>/dev/null &
  running[$index]=$!
done
while ((${#running[@]} > 0)); do
  report_next
done

echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
