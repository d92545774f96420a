/* How much of a ring's traffic hides behind the attention that is computed meanwhile, and how fast all ranks
 * together are: what a ring costs shows beside a ring of one with as many threads.
 *
 *   bench_ring [options]                  ranks as threads of this process
 *   mpirun -n N bench_ring [options]      ranks as processes
 *
 * Measured by all ranks at once: the speed F of the block that a hop computes, with nothing under way; the
 * time of each message of the ring, with nothing computed; and the ring itself. From them, for the worst
 * rank: the tokens of a rank from which on a hop takes no longer than its block, so that it can hide (H. Liu
 * et al., "Ring attention", 2023, section 3, for the zigzag layout, in which a block has half the work), and
 *
 *     hidden = 1 - exposed time of the ring / time of the same transfers alone. */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/comm/mpi.h"
#include "tests/bench/ring_measure.h"
#include "train/config.h"

#define MOST_SIZE ((int64_t)1 << 24)

typedef struct Options {
  RingTask task;
  int64_t ranks; /* 0: as many as there are processes */
  int64_t threads;
  const char *json; /* NULL: none */
} Options;

/* ---------------------------------------------------------------- the report */

/* What follows from the worst rank's numbers. */
typedef struct Summary {
  double bandwidth; /* B, bytes/s each way */
  double bound;     /* tokens of a rank whose block takes as long as its hop */
  double hidden;    /* share of all transfers */
} Summary;

/* The bound is c hop / block: with bytes and operations put in, 4 F / (g B) forward and 3.2 F / (g B)
 * backward for g query heads to a key head. */
static Summary summarize(const RingResult *result, const RingPass *pass, bool backward) {
  if (pass->transfers <= 0.0) return (Summary){0}; /* a ring of one */
  const size_t bytes = result->message[0] + (backward ? result->message[1] : 0);
  return (Summary){.bandwidth = (double)bytes / pass->hop,
                   .bound = (double)result->local * pass->hop / pass->block,
                   .hidden = 1.0 - pass->exposed / pass->transfers};
}

/* `work` is that of all ranks, in floating-point operations. */
static void print_pass(int64_t local, const char *name, const RingPass *pass, const Summary *summary,
                       double work) {
  printf("%-8s  %.1f ms a pass, %.1f GFLOP/s in all ranks\n", name, 1e3 * pass->wall,
         1e-9 * work / pass->wall);
  if (pass->transfers <= 0.0) return;
  printf("          F %.1f GFLOP/s, B %.1f MB/s: a hop of %.2f ms hides from %.0f tokens a rank on; here "
         "%" PRId64 " (%s)\n",
         1e-9 * pass->flops, 1e-6 * summary->bandwidth, 1e3 * pass->hop, summary->bound, local,
         (double)local >= summary->bound ? "beyond" : "below");
  printf("          exposed %.2f of %.2f ms: %.1f %% hidden; skew %.2f ms\n", 1e3 * pass->exposed,
         1e3 * pass->transfers, 100.0 * summary->hidden, 1e3 * pass->skew);
}

static json_t *pass_as_json(const RingPass *pass, const Summary *summary) {
  return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "flops", pass->flops, "bandwidth",
                   summary->bandwidth, "hop_seconds", pass->hop, "bound_tokens", summary->bound,
                   "pass_seconds", pass->wall, "transfer_seconds", pass->transfers, "exposed_seconds",
                   pass->exposed, "hidden", summary->hidden, "skew_seconds", pass->skew);
}

static Status write_json(const Rank *rank, const Options *options, const RingResult *result,
                         const Summary summary[2], Error *error) {
  const AttentionDims *dims = &options->task.dims;
  json_t *root = json_pack(
      "{s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "transport", rank->world->table->name, "ranks",
      rank->ring->size, "threads", (json_int_t)options->threads, "tokens", (json_int_t)options->task.tokens,
      "heads", (json_int_t)dims->heads, "kv_heads", (json_int_t)dims->kv_heads, "head_dim",
      (json_int_t)dims->head_dim, "tokens_of_a_rank", (json_int_t)result->local, "forward",
      pass_as_json(&result->forward, &summary[0]), "backward", pass_as_json(&result->backward, &summary[1]));
  const bool written = root != NULL && json_dump_file(root, options->json, JSON_INDENT(2)) == 0;
  json_decref(root);
  return written ? STATUS_OK : fail(error, STATUS_IO, "%s: cannot be written", options->json);
}

static Status report(const Rank *rank, const Options *options, const RingResult *result, Error *error) {
  const RingTask *task = &options->task;
  const Summary summary[2] = {summarize(result, &result->forward, false),
                              summarize(result, &result->backward, true)};
  printf("ring of %d over %s: T %" PRId64 ", heads %" PRId64 "/%" PRId64 ", D %" PRId64
         ", %s; worst rank, median of %" PRId64 "\n",
         rank->ring->size, rank->world->table->name, task->tokens, task->dims.heads, task->dims.kv_heads,
         task->dims.head_dim, rank->device->summary, task->repetitions);
  const double work = 2.0 * (double)task->tokens * (double)task->tokens *
                      (double)(task->dims.heads * task->dims.head_dim); /* causal, forward */
  print_pass(result->local, "forward", &result->forward, &summary[0], work);
  print_pass(result->local, "backward", &result->backward, &summary[1], 2.5 * work);
  return options->json == NULL ? STATUS_OK : write_json(rank, options, result, summary, error);
}

/* The life of one rank. */
static Status bench_rank(Rank *rank, void *context, Error *error) {
  const Options *options = context;
  RingResult result;
  TRY(ring_measure(rank, &options->task, &result, error));
  return rank->ring->rank == 0 ? report(rank, options, &result, error) : STATUS_OK;
}

/* ---------------------------------------------------------------- the command line */

static void print_usage(FILE *file) {
  (void)fprintf(file, "usage: bench_ring [options], alone or under mpirun\n\n"
                      "  -r N         ranks, as threads of this process (2); under mpirun: its processes\n"
                      "  -t N         tokens of the sequence, a multiple of 2 x ranks (16384)\n"
                      "  -n N         heads (2)\n"
                      "  -k N         key and value heads (as many as heads)\n"
                      "  -d N         head size (64)\n"
                      "  -j N         threads of a rank (1)\n"
                      "  -s N         repetitions (5)\n"
                      "  --json FILE  write the numbers there too\n");
}

static Status parse_number(const char *text, char option, int64_t most, int64_t *out, Error *error) {
  char *end = NULL;
  const long long value = strtoll(text, &end, 10);
  if (end == text || *end != '\0' || value < 1 || value > most) {
    return fail(error, STATUS_USAGE, "-%c %s: a number from 1 to %" PRId64 " is needed", option, text, most);
  }
  *out = value;
  return STATUS_OK;
}

static Status parse(int argc, char **argv, Options *options, bool *help, Error *error) {
  static const struct option names[] = {
      {"json", required_argument, NULL, 'o'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
  static const char letters[] = "rtnkdjs";
  RingTask *task = &options->task;
  int64_t *const numbers[] = {&options->ranks,      &task->tokens,        &task->dims.heads,
                              &task->dims.kv_heads, &task->dims.head_dim, &options->threads,
                              &task->repetitions};
  opterr = 0;
  for (int c = getopt_long(argc, argv, "r:t:n:k:d:j:s:h", names, NULL); c != -1;
       c = getopt_long(argc, argv, "r:t:n:k:d:j:s:h", names, NULL)) {
    const char *letter = strchr(letters, c);
    if (c == 'h') {
      *help = true;
    } else if (c == 'o') {
      options->json = optarg;
    } else if (letter == NULL) {
      return fail(error, STATUS_USAGE, "%s: unknown, or without its value; --help lists all options",
                  argv[optind - 1]);
    } else {
      const int64_t most = c == 's' ? RING_MOST_REPETITIONS : MOST_SIZE;
      TRY(parse_number(optarg, (char)c, most, numbers[letter - letters], error));
    }
  }
  if (optind == argc) return STATUS_OK;
  return fail(error, STATUS_USAGE, "%s: unknown; --help lists all options", argv[optind]);
}

/* What follows from others, and what they demand of each other. */
static Status complete(Options *options, const Comm *processes, Error *error) {
  AttentionDims *dims = &options->task.dims;
  if (options->ranks == 0) options->ranks = processes != NULL && processes->size > 1 ? processes->size : 2;
  if (dims->kv_heads == 0) dims->kv_heads = dims->heads;
  dims->scale = 1.0F / sqrtf((float)dims->head_dim);
  if (options->task.tokens % (2 * options->ranks) != 0) {
    return fail(error, STATUS_USAGE, "-t %" PRId64 " is no multiple of 2 x %" PRId64 " ranks",
                options->task.tokens, options->ranks);
  }
  if (dims->heads % dims->kv_heads != 0 || dims->head_dim % 8 != 0) {
    return fail(error, STATUS_USAGE, "heads must divide by key heads, and the head size by 8");
  }
  return STATUS_OK;
}

static Status run(int argc, char **argv, Comm **processes, Error *error) {
  Options options = {.task = {.dims = {.heads = 2, .head_dim = 64}, .tokens = 16384, .repetitions = 5},
                     .threads = 1};
  bool help = false;
  TRY(parse(argc, argv, &options, &help, error));
  if (help) {
    print_usage(stdout);
    return STATUS_OK;
  }
  if (comm_mpi_launched()) TRY(comm_mpi_start(processes, error));
  TRY(complete(&options, *processes, error));
  const Config config = {
      .parallelism = {.ring = options.ranks, .data = 1, .timeout = 60.0, .threads = options.threads}};
  return grid_run(&config, *processes, bench_rank, &options, error);
}

int main(int argc, char **argv) {
  Error error = {0};
  Comm *processes = NULL;
  const Status status = run(argc, argv, &processes, &error);
  const bool speaks = processes == NULL || status == STATUS_OK || comm_mpi_speaks(processes);
  if (status != STATUS_OK && speaks) (void)fprintf(stderr, "bench_ring: %s\n", error.text);
  if (status != STATUS_OK && processes != NULL) comm_mpi_kill(processes, status);
  comm_mpi_end(processes);
  return (int)status;
}
