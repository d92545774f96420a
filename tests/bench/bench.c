/* Speed of what the program does on a device, as shares of peaks that are measured in the same run.
 *
 * Each sample of a case stands between two samples of its peak (peaks.h). Times are those of one call, of
 * many calls from an idle device to an idle device divided by their number: the median of the samples, and
 * their range. All calls of a case work on the same arrays, of which small ones stay in the caches. On the
 * CPU a case is marked as invalid where the peak, measured beside it, is below 90 % of what the clock allows,
 * or all threads together below 0.95 times as many threads as one: then something else used the cores.
 *
 * The CUDA device is found as by the program: ringgpt-cuda.so in the folder of this program, or what
 * RINGGPT_CUDA names. */
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "kernels/base/clock.h"
#include "kernels/comm/mpi.h"
#include "tests/bench/compare.h"
#include "tests/bench/machine.h"
#include "tests/bench/peaks.h"

typedef struct Part {
  const char *name;
  void (*run)(Bench *bench);
  double seconds; /* that the part has for beginning cases, unless -t says otherwise */
} Part;

static const Part parts[] = {{"peak", bench_peaks, 60},        {"attention", bench_attention, 180},
                             {"products", bench_products, 40}, {"rows", bench_rows, 40},
                             {"step", bench_steps, 60},        {"comm", bench_comm, 20},
                             {"files", bench_files, 40}};
enum { PARTS = sizeof parts / sizeof parts[0] };

/* With -l a part has so many times the time. */
#define LONG 120

typedef struct Options {
  bool chosen[PARTS];
  bool help;
  const char *json; /* a path, or NULL */
  double seconds;   /* of a part; 0: its own */
  int units;        /* of a core for multiply-adds; 0: to be found out */
  const char *compare[2];
} Options;

static void print_usage(FILE *file) {
  (void)fprintf(
      file,
      "usage: bench [options]\n"
      "       bench --compare A.json B.json\n"
      "       mpirun -n N bench -p comm [options]\n\n"
      "  -d cpu|cuda  the device (cpu)\n"
      "  -i N         which CUDA device (0)\n"
      "  -n N         threads (as many as there are cores)\n"
      "  -p PART      peak, attention, products, rows, step, comm or files; more than once for several "
      "(all)\n"
      "  -c TEXT      only cases with this in their name\n"
      "  -s N         samples of a case (5)\n"
      "  -r N         how often a case waits and measures again while something else uses the cores (10)\n"
      "  -t SECONDS   after which a part begins no more cases (20 to 180 by part)\n"
      "  -l           also training steps of 16,384 and 65,536 tokens, which take minutes each: an hour in "
      "all\n"
      "  -u N         multiply-adds that a core begins in a cycle (measured)\n"
      "  -j FILE      write a JSON object for each line there, too\n"
      "  -q           tiny sizes, to see everything run: the figures mean nothing\n\n"
      "--compare prints for each case of both files how many times as fast B is, marked where the ranges of\n"
      "both do not overlap.\n");
}

static bool choose(Options *options, const char *name) {
  for (int i = 0; i < PARTS; i++) {
    if (strcmp(parts[i].name, name) != 0) continue;
    options->chosen[i] = true;
    return true;
  }
  return false;
}

/* The options that are whole numbers. */
static bool parse_number(int option, Bench *bench, Options *options) {
  const struct {
    int letter, least, most;
    int *number;
  } numbers[] = {{'i', 0, INT_MAX, &bench->index},
                 {'n', 1, INT_MAX, &bench->threads},
                 {'s', 1, BENCH_MOST_SAMPLES, &bench->samples},
                 {'r', 0, INT_MAX, &bench->retries},
                 {'u', 1, INT_MAX, &options->units}};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    if (numbers[i].letter != option) continue;
    char *end = NULL;
    const long value = strtol(optarg, &end, 10);
    *numbers[i].number = (int)value;
    return end != optarg && *end == '\0' && value >= numbers[i].least && value <= numbers[i].most;
  }
  return false;
}

static bool parse_option(int option, Bench *bench, Options *options) {
  if (option == 'C') options->compare[0] = optarg;
  if (option == 'c') bench->only = optarg;
  if (option == 'l') bench->all = true;
  if (option == 'j') options->json = optarg;
  if (option == 'q') bench->quick = true;
  if (option == 'h') options->help = true;
  if (option == 'd') bench->cuda = strcmp(optarg, "cuda") == 0;
  if (option == 't') options->seconds = atof(optarg);
  if (strchr("Ccljqh", option) != NULL) return true;
  if (option == 'd') return bench->cuda || strcmp(optarg, "cpu") == 0;
  if (option == 't') return options->seconds > 0;
  return option == 'p' ? choose(options, optarg) : parse_number(option, bench, options);
}

/* As many as this process may use. */
static int count_cores(void) {
#ifdef _OPENMP
  return omp_get_num_procs();
#else
  return 1;
#endif
}

static bool parse(int argc, char **argv, Bench *bench, Options *options) {
  static const struct option names[] = {
      {"compare", required_argument, NULL, 'C'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
  bool some = false;
  *bench = (Bench){.samples = 5, .retries = 10, .sample = 0.02, .threads = count_cores()};
  *options = (Options){.json = NULL};
  for (int option = getopt_long(argc, argv, "p:c:d:i:n:s:r:t:u:lj:qh", names, NULL); option != -1;
       option = getopt_long(argc, argv, "p:c:d:i:n:s:r:t:u:lj:qh", names, NULL)) {
    if (!parse_option(option, bench, options)) return false;
    if (option == 'p') some = true;
  }
  for (int i = 0; i < PARTS && !some; i++) options->chosen[i] = true;
  if (bench->quick) {
    bench->sample = 0;
    bench->retries = 0;
  }
  if (options->compare[0] != NULL && optind + 1 == argc) options->compare[1] = argv[optind++];
  return optind == argc && (options->compare[0] == NULL) == (options->compare[1] == NULL);
}

static void run_parts(Bench *bench, const Options *options) {
  for (int i = 0; i < PARTS; i++) {
    if (!options->chosen[i] || stop_requested(bench->stop)) continue;
    const double own = parts[i].seconds * (bench->all ? LONG : 1);
    bench->part = parts[i].name;
    bench->part_end = clock_seconds() + (options->seconds > 0 ? options->seconds : own);
    memset(bench->pace, 0, sizeof bench->pace);
    parts[i].run(bench);
  }
}

/* Several processes measure nothing but what they send each other, all of it: they must agree on the cases.
 */
static void choose_for_processes(Bench *bench, Options *options) {
  memset(options->chosen, 0, sizeof options->chosen);
  (void)choose(options, "comm");
  options->seconds = INFINITY;
  bench->threads = 1;
  if (bench->processes->rank != 0 && freopen("/dev/null", "w", stdout) == NULL) (void)fclose(stdout);
}

static Status measure(Bench *bench, Options *options, Error *error) {
  if (bench->processes != NULL) choose_for_processes(bench, options);
  TRY(machine_open(bench, options->units, error));
  run_parts(bench, options);
  machine_close(bench);
  if (bench->invalid > 0) {
    printf("%d of %d lines are invalid: something else used the cores meanwhile\n", bench->invalid,
           bench->measured);
  }
  if (stop_requested(bench->stop)) return fail(error, STATUS_STOPPED, "stopped by a signal");
  if (bench->broken == 0 && bench->measured > 0) return STATUS_OK;
  return fail(error, STATUS_INTERNAL, "%d cases failed, %d were measured", bench->broken, bench->measured);
}

static Status run(Bench *bench, Options *options, Error *error) {
  if (options->compare[0] != NULL) return bench_compare(options->compare[0], options->compare[1], error);
  TRY(stop_watch_start(&bench->stop, error));
  if (comm_mpi_launched()) TRY(comm_mpi_start(&bench->processes, error));
  const bool writes = bench->processes == NULL || bench->processes->rank == 0;
  if (options->json != NULL && writes) {
    bench->json = fopen(options->json, "w");
    if (bench->json == NULL) return fail(error, STATUS_IO, "%s: cannot be written", options->json);
  }
  const Status status = measure(bench, options, error);
  if (bench->json != NULL && fclose(bench->json) != 0 && status == STATUS_OK) {
    return fail(error, STATUS_IO, "%s: cannot be written", options->json);
  }
  return status;
}

int main(int argc, char **argv) {
  Bench bench;
  Options options;
  Error error = {0};
  const bool good = parse(argc, argv, &bench, &options);
  if (!good || options.help) {
    print_usage(good ? stdout : stderr);
    return good ? STATUS_OK : STATUS_USAGE;
  }
  const Status status = run(&bench, &options, &error);
  if (status != STATUS_OK) (void)fprintf(stderr, "bench: %s\n", error.text);
  if (status != STATUS_OK && bench.processes != NULL) comm_mpi_kill(bench.processes, status);
  comm_mpi_end(bench.processes);
  stop_watch_end(bench.stop);
  return (int)status;
}
