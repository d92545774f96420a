/* Timing of what the program does: see the header. */
#include "tests/bench/measure.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/clock.h"
#include "kernels/base/median.h"
#include "tests/bench/peaks.h"

#define MOST_CALLS 100000
/* A call that takes this many samples needs no second one to warm up. */
#define LONG_CALL 5
/* The pace of short cases says little of long ones: these are given so many times the time that is left. */
#define PATIENCE 2
/* Below: something else took the threads' units, their caches or their time. */
#define LEAST_OF_CLOCK 0.90
#define LEAST_OF_PAIR 0.95
/* Above: the clock or the peak was measured while something else ran. */
#define MOST_OF_ALL 1.05
#define PAUSE_MICROSECONDS 50000

Limit bench_limit(ElementType type) {
  return type == ELEMENT_BF16 ? LIMIT_BF16 : LIMIT_F32;
}

const char *bench_type_name(ElementType type) {
  return type == ELEMENT_BF16 ? "bf16" : "fp32";
}

/* ---------------------------------------------------------------- time of calls */

double bench_time_calls(const Bench *bench, Device *device, Call *call, void *context, int64_t calls) {
  uint32_t word = 0;
  const bool bf16 = device == bench->devices[ELEMENT_BF16] || device == bench->alone[ELEMENT_BF16];
  const void *memory = bench->words[bf16 ? ELEMENT_BF16 : ELEMENT_F32];
  const double start = clock_seconds();
  for (int64_t i = 0; i < calls; i++) call(device, context);
  device_read(device, &word, memory, sizeof word);
  return clock_seconds() - start;
}

int64_t bench_find_calls(const Bench *bench, Device *device, Call *call, void *context, double seconds) {
  int64_t calls = 1;
  double taken = bench_time_calls(bench, device, call, context, 1);
  if (taken > LONG_CALL * seconds && !bench->cuda) return 1;
  for (taken = bench_time_calls(bench, device, call, context, 1); taken < seconds && calls < MOST_CALLS;
       taken = bench_time_calls(bench, device, call, context, calls)) {
    const double more = taken > 0 ? 1.2 * seconds / taken : 10;
    calls = (int64_t)((double)calls * (more < 10 ? more : 10)) + 1;
  }
  return calls;
}

/* ---------------------------------------------------------------- lines */

/* Why the machine was not the case's own while it was measured; empty: it was. */
static void judge(const Bench *bench, const Case *c, double pair, double of_clock, double share, char *why,
                  size_t bytes) {
  why[0] = '\0';
  if (of_clock < LEAST_OF_CLOCK || of_clock > MOST_OF_ALL) {
    (void)snprintf(why, bytes, "the peak is %.0f %% of what the clock allows", 100 * of_clock);
  } else if (pair < LEAST_OF_PAIR * bench->threads) {
    (void)snprintf(why, bytes, "%d threads reach %.2f times the peak of one", bench->threads, pair);
  } else if (c->limit < LIMIT_MEMORY && share > MOST_OF_ALL) {
    (void)snprintf(why, bytes, "it passes the peak");
  }
}

static bool disturbed(const Bench *bench, const PeakSample *sample) {
  return sample->of_clock < LEAST_OF_CLOCK || sample->of_clock > MOST_OF_ALL ||
         sample->pair < LEAST_OF_PAIR * bench->threads;
}

/* Rates are given in `scale` of `name`. */
typedef struct Unit {
  const char *name;
  double scale;
} Unit;

static Unit unit_of(const Bench *bench, Limit limit) {
  if (limit >= LIMIT_MEMORY) return (Unit){"GB/s", 1e9};
  return bench->cuda ? (Unit){"TFLOP/s", 1e12} : (Unit){"GFLOP/s", 1e9};
}

/* What a line says, in the units of a reader. */
typedef struct Line {
  double ms, rate, share, pair, of_clock;
  Unit unit;
  char why[BENCH_NAME_BYTES]; /* it is invalid; empty: it is not */
} Line;

static void print_line(const Bench *bench, const Case *c, const Results *results, const Line *line) {
  const int last = results->count - 1;
  printf("%-10s %-58s %10.4f ms (%.4f-%.4f) %9.2f %-7s", bench->part, c->name, line->ms,
         1e3 * results->seconds[0], 1e3 * results->seconds[last], line->rate, line->unit.name);
  if (c->limit != LIMIT_NONE) {
    printf(" %5.1f %% of %s (%.1f-%.1f)", 100 * line->share, c->clock ? "what the clock allows" : "the peak",
           100 * results->shares[0], 100 * results->shares[last]);
  }
  if (c->tokens > 0) printf(", %.0f tokens/s", 1e3 * c->tokens / line->ms);
  if (line->why[0] != '\0') printf("  INVALID: %s", line->why);
  printf("\n");
  (void)fflush(stdout);
}

static void write_line(const Bench *bench, const Case *c, const Results *results, const Line *line) {
  const int last = results->count - 1;
  const bool held = c->limit != LIMIT_NONE;
  FILE *json = bench->json;
  if (json == NULL) return;
  (void)fprintf(json,
                "{\"part\": \"%s\", \"case\": \"%s\", \"type\": \"%s\", \"ms\": %.6g, \"ms_least\": %.6g, "
                "\"ms_most\": %.6g, \"work\": %.9g, \"rate\": %.6g, \"unit\": \"%s\", ",
                bench->part, c->name, bench_type_name(c->type), line->ms, 1e3 * results->seconds[0],
                1e3 * results->seconds[last], c->work, line->rate, line->unit.name);
  if (held) {
    (void)fprintf(json, "\"share\": %.4f, \"share_least\": %.4f, \"share_most\": %.4f, ", line->share,
                  results->shares[0], results->shares[last]);
  }
  if (!bench->cuda && held) {
    (void)fprintf(json, "\"pair\": %.3f, \"of_clock\": %.3f, ", line->pair, line->of_clock);
  }
  if (c->tokens > 0) (void)fprintf(json, "\"tokens\": %.9g, ", c->tokens);
  (void)fprintf(json,
                "\"samples\": %d, \"disturbed\": %d, \"calls\": %lld, \"threads\": %d, \"device\": \"%s\", "
                "\"invalid\": ",
                results->count, results->disturbed, (long long)results->calls, c->alone ? 1 : bench->threads,
                bench->devices[c->type]->summary);
  (void)fprintf(json, line->why[0] == '\0' ? "null}\n" : "\"%s\"}\n", line->why);
  (void)fflush(json);
}

void bench_report(Bench *bench, const Case *c, Results *results) {
  const size_t count = (size_t)results->count;
  Line line = {.unit = unit_of(bench, c->limit), .ms = 1e3 * median(results->seconds, count)};
  line.rate = 1e3 * c->work / line.ms / line.unit.scale;
  if (c->limit != LIMIT_NONE) {
    line.share = median(results->shares, count);
    line.pair = median(results->pairs, count);
    line.of_clock = median(results->of_clock, count);
    judge(bench, c, line.pair, line.of_clock, line.share, line.why, sizeof line.why);
  }
  if (line.rate * line.unit.scale > bench->pace[c->limit]) {
    bench->pace[c->limit] = line.rate * line.unit.scale;
  }
  bench->measured++;
  if (line.why[0] != '\0') bench->invalid++;
  print_line(bench, c, results, &line);
  write_line(bench, c, results, &line);
}

void bench_leave_out(Bench *bench, const char *name, bool broken, const char *why) {
  printf("%-10s %-58s left out: %s\n", bench->part, name, why);
  (void)fflush(stdout);
  if (broken) bench->broken++;
}

/* ---------------------------------------------------------------- cases */

bool bench_begin(Bench *bench, Case *c, ElementType type, Limit limit, const char *format, ...) {
  va_list arguments;
  *c = (Case){.type = type, .limit = limit};
  va_start(arguments, format);
  (void)vsnprintf(c->name, sizeof c->name, format, arguments);
  va_end(arguments);
  if (bench->devices[type] == NULL || stop_requested(bench->stop)) return false;
  if (bench->only != NULL && strstr(c->name, bench->only) == NULL) return false;
  if (clock_seconds() < bench->part_end) return true;
  bench_leave_out(bench, c->name, false, "no time is left");
  return false;
}

/* Whether a case can be expected to end about when the part does. */
static bool fits(Bench *bench, const Case *c) {
  if (bench->pace[c->limit] <= 0) return true;
  const double seconds = c->work / bench->pace[c->limit] * (bench->samples + 1);
  if (seconds <= PATIENCE * (bench->part_end - clock_seconds())) return true;
  char why[BENCH_NAME_BYTES];
  (void)snprintf(why, sizeof why, "it takes %.1f s or more; -t gives a part more time", seconds);
  bench_leave_out(bench, c->name, false, why);
  return false;
}

/* Whether what a peak says of the machine is reason to measure again, which is counted. */
static bool again(const Bench *bench, const PeakSample *peak, Results *results) {
  if (!disturbed(bench, peak) || results->disturbed >= bench->retries) return false;
  if (clock_seconds() > bench->part_end || stop_requested(bench->stop)) return false;
  results->disturbed++;
  return true;
}

PeakSample bench_wait(Bench *bench, Limit limit, Results *results) {
  PeakSample peak = peaks_measure(bench, limit);
  while (again(bench, &peak, results)) {
    (void)usleep(PAUSE_MICROSECONDS);
    peak = peaks_measure(bench, limit);
  }
  return peak;
}

static void keep(const Case *c, double seconds, const PeakSample *before, const PeakSample *after,
                 Results *results) {
  const int i = results->count++;
  const double peak = 0.5 * (peaks_rate(before, c->alone) + peaks_rate(after, c->alone));
  results->seconds[i] = seconds;
  results->shares[i] = c->work / seconds / peak;
  results->pairs[i] = fmin(before->pair, after->pair);
  const bool first = fabs(before->of_clock - 1) > fabs(after->of_clock - 1);
  results->of_clock[i] = first ? before->of_clock : after->of_clock;
}

/* Every sample stands between two of the peak, of which each serves two samples. As long as there are
 * retries, none is begun while something else uses the cores, and one in which that has begun is taken again.
 * Stops at a failure. */
static void take_samples(Bench *bench, const Case *c, Repetition *repetition, void *context,
                         Results *results) {
  if (bench->error.status != STATUS_OK) return;
  PeakSample before = bench_wait(bench, c->limit, results);
  while (results->count < bench->samples && bench->error.status == STATUS_OK) {
    if (stop_requested(bench->stop)) {
      (void)fail(&bench->error, STATUS_STOPPED, "stopped by a signal");
      return;
    }
    const double seconds = repetition(bench, context);
    const PeakSample after = peaks_measure(bench, c->limit);
    if (again(bench, &after, results)) {
      before = bench_wait(bench, c->limit, results);
      continue;
    }
    keep(c, seconds, &before, &after, results);
    before = after;
  }
}

static void finish(Bench *bench, const Case *c, Results *results) {
  if (bench->error.status == STATUS_OK) {
    bench_report(bench, c, results);
  } else {
    bench_leave_out(bench, c->name, true, bench->error.text);
  }
}

void bench_repeat(Bench *bench, const Case *c, Repetition *repetition, void *context) {
  Results results = {.calls = 1};
  if (bench->error.status == STATUS_OK && !fits(bench, c)) return;
  if (bench->error.status == STATUS_OK) (void)repetition(bench, context);
  take_samples(bench, c, repetition, context, &results);
  finish(bench, c, &results);
}

/* Calls of a device as repetitions. */
typedef struct Calls {
  Device *device;
  Call *call;
  void *context;
  int64_t count;
} Calls;

static double time_call(Bench *bench, void *context) {
  const Calls *calls = context;
  const double seconds = bench_time_calls(bench, calls->device, calls->call, calls->context, calls->count) /
                         (double)calls->count;
  (void)device_check(calls->device, &bench->error);
  return seconds;
}

void bench_measure(Bench *bench, const Case *c, Call *call, void *context) {
  Device *device = c->alone ? bench->alone[c->type] : bench->devices[c->type];
  Calls calls = {.device = device, .call = call, .context = context};
  Results results = {0};
  if (bench->error.status == STATUS_OK) {
    if (!fits(bench, c)) return;
    calls.count = results.calls = bench_find_calls(bench, device, call, context, bench->sample);
  }
  take_samples(bench, c, time_call, &calls, &results);
  finish(bench, c, &results);
}
