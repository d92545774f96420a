/* Measurements of a ring: the block that a hop computes, the transfers alone, and both together.
 *
 * Floating-point operations of a block of c queries and c keys, being half visible: 2 c^2 D per head forward,
 * and 2.5 times as many backward. */
#include "tests/bench/ring_measure.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "kernels/base/philox.h"
#include "model/ring_attention.h"
#include "tests/bench/median.h"

#define HOP_SAMPLES 9
#define BLOCK_SECONDS 0.4

/* ---------------------------------------------------------------- one rank */

typedef struct Bench {
  const RingTask *task;
  Rank *rank;
  int64_t local;   /* c, tokens of a rank */
  int64_t columns; /* of qkv */
  size_t message[2];
  float *qkv; /* (c, columns) */
  float *dqkv;
  float *out; /* (c, H D) */
  float *dout;
  float *lse; /* (H, c) */
  void *send;
  void *receive;
  void *state; /* of a run of c / 2 queries */
  int64_t *first_key;
} Bench;

static Status allocate(const Bench *bench, size_t bytes, void *out, Error *error) {
  void *memory = NULL;
  TRY(device_alloc(bench->rank->device, bytes, "the benchmark", &memory, error));
  memcpy(out, &memory, sizeof memory);
  return STATUS_OK;
}

/* Uniform numbers in [-1, 1). */
static void fill(float *x, int64_t count, uint32_t stream) {
  for (int64_t i = 0; i < count; i++) {
    uint32_t words[4];
    philox_draw(1, PHILOX_WEIGHTS, stream, (uint64_t)i, words);
    x[i] = (float)words[0] * 0x1p-31F - 1.0F;
  }
}

static Status prepare(Bench *bench, Error *error) {
  const AttentionDims *dims = &bench->task->dims;
  const AttentionOps *ops = &bench->rank->device->ops.attention;
  bench->local = bench->task->tokens / bench->rank->ring->size;
  bench->columns = (dims->heads + 2 * dims->kv_heads) * dims->head_dim;
  const int64_t run = bench->local / 2;
  const int64_t row = dims->heads * dims->head_dim;
  const size_t qkv = (size_t)(bench->local * bench->columns) * sizeof(float);
  const size_t out = (size_t)(bench->local * row) * sizeof(float);
  const size_t states[2] = {ops->forward_bytes(dims, run), ops->backward_bytes(dims, run)};
  bench->message[0] = 2 * ops->kv_bytes(dims, run);
  bench->message[1] = 2 * ops->dkv_bytes(dims, run);
  const size_t largest = bench->message[bench->message[1] > bench->message[0]];
  TRY(allocate(bench, qkv, &bench->qkv, error));
  TRY(allocate(bench, qkv, &bench->dqkv, error));
  TRY(allocate(bench, out, &bench->out, error));
  TRY(allocate(bench, out, &bench->dout, error));
  TRY(allocate(bench, (size_t)(bench->local * dims->heads) * sizeof(float), &bench->lse, error));
  TRY(allocate(bench, largest, &bench->send, error));
  TRY(allocate(bench, largest, &bench->receive, error));
  TRY(allocate(bench, states[states[1] > states[0]], &bench->state, error));
  TRY(allocate(bench, (size_t)run * sizeof(int64_t), &bench->first_key, error));
  fill(bench->qkv, bench->local * bench->columns, 1);
  fill(bench->dout, bench->local * row, 2);
  return STATUS_OK;
}

static void release(Bench *bench) {
  void *blocks[] = {bench->qkv,  bench->dqkv,    bench->out,   bench->dout,     bench->lse,
                    bench->send, bench->receive, bench->state, bench->first_key};
  for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) device_free(bench->rank->device, blocks[i]);
}

/* ---------------------------------------------------------------- the block alone */

/* One block of a hop: the queries of one run against both runs of a rank before. Writes to what a real hop
 * would, so `send` holds packed keys and `receive` their gradient. */
static void compute_block(Bench *bench, bool backward) {
  Device *device = bench->rank->device;
  const AttentionOps *ops = &device->ops.attention;
  const AttentionDims *dims = &bench->task->dims;
  const int64_t run = bench->local / 2;
  for (int64_t i = 0; i < 2; i++) {
    const char *kv = (const char *)bench->send + (size_t)i * (bench->message[0] / 2);
    char *dkv = (char *)bench->receive + (size_t)i * (bench->message[1] / 2);
    if (backward) {
      ops->backward_block(device, dims, run, bench->local, bench->first_key, bench->state, run, i * run, kv,
                          dkv);
    } else {
      ops->forward_block(device, dims, run, bench->local, bench->first_key, bench->state, run, i * run, kv);
    }
  }
}

static void begin_block(Bench *bench) {
  Device *device = bench->rank->device;
  const AttentionOps *ops = &device->ops.attention;
  const AttentionDims *dims = &bench->task->dims;
  const float *keys = bench->qkv + dims->heads * dims->head_dim;
  const float *values = keys + dims->kv_heads * dims->head_dim;
  const int64_t run = bench->local / 2;
  for (int64_t i = 0; i < 2; i++) {
    ops->pack_kv(device, dims, run, keys + i * run * bench->columns, values + i * run * bench->columns,
                 bench->columns, (char *)bench->send + (size_t)i * (bench->message[0] / 2));
  }
  ops->forward_begin(device, dims, run, bench->qkv, bench->columns, bench->state);
}

/* The block while every rank computes its own. */
static Status measure_block(Bench *bench, bool backward, RingPass *pass, Error *error) {
  const AttentionDims *dims = &bench->task->dims;
  const double tokens = (double)bench->local;
  const double work = (backward ? 5.0 : 2.0) * tokens * tokens * (double)(dims->heads * dims->head_dim);
  int count = 0;
  compute_block(bench, backward);
  TRY(comm_barrier(bench->rank->ring, error));
  const double start = clock_seconds();
  double seconds = 0.0;
  while (seconds < BLOCK_SECONDS || count < 2) {
    compute_block(bench, backward);
    count++;
    seconds = clock_seconds() - start;
  }
  pass->flops = work * count / seconds;
  TRY(comm_all_reduce(bench->rank->ring, COMM_F64, COMM_MAX, &pass->flops, 1, error));
  pass->block = work / pass->flops;
  return STATUS_OK;
}

static Status measure_blocks(Bench *bench, RingResult *result, Error *error) {
  Device *device = bench->rank->device;
  const AttentionOps *ops = &device->ops.attention;
  const int64_t run = bench->local / 2;
  begin_block(bench);
  TRY(measure_block(bench, false, &result->forward, error));
  /* Statistics of one block, so that the backward block meets ordinary numbers. */
  begin_block(bench);
  compute_block(bench, false);
  ops->forward_end(device, &bench->task->dims, run, bench->state, bench->out, bench->lse);
  ops->backward_begin(device, &bench->task->dims, run, bench->qkv, bench->columns, bench->out, bench->dout,
                      bench->lse, bench->state);
  device_zero(device, bench->receive, bench->message[1]);
  return measure_block(bench, true, &result->backward, error);
}

/* ---------------------------------------------------------------- the transfer alone */

/* Seconds that one message takes from a rank to the next when nothing is computed. */
static Status measure_transfer(Bench *bench, CommLabel label, double *seconds, Error *error) {
  Comm *ring = bench->rank->ring;
  const size_t bytes = bench->message[label == COMM_KEY_VALUE_GRADIENTS];
  double samples[HOP_SAMPLES];
  for (int i = -1; i < HOP_SAMPLES; i++) { /* the first one warms up */
    CommRequest request = {0};
    TRY(comm_barrier(ring, error));
    const double start = clock_seconds();
    TRY(comm_shift_start(ring, label, 1, bench->send, bench->receive, bytes, &request, error));
    TRY(comm_wait(ring, &request, error));
    if (i >= 0) samples[i] = clock_seconds() - start;
  }
  *seconds = median(samples, HOP_SAMPLES);
  return comm_all_reduce(ring, COMM_F64, COMM_MAX, seconds, 1, error);
}

/* ---------------------------------------------------------------- the ring */

/* What is measured in each repetition. */
enum { WALL, EXPOSED, SKEW, QUANTITIES };

typedef struct Samples {
  double of[QUANTITIES][RING_MOST_REPETITIONS];
} Samples;

/* One pass from a common start; the largest quantities over all ranks. */
static Status run_pass(Bench *bench, RingAttention *attention, bool backward, double quantities[QUANTITIES],
                       Error *error) {
  Comm *ring = bench->rank->ring;
  TRY(comm_barrier(ring, error));
  const CommWaits before = ring->waits;
  const double start = clock_seconds();
  if (backward) {
    TRY(ring_attention_backward(attention, bench->qkv, bench->out, bench->lse, bench->dout, bench->dqkv,
                                error));
  } else {
    TRY(ring_attention_forward(attention, bench->qkv, bench->out, bench->lse, error));
  }
  quantities[WALL] = clock_seconds() - start;
  quantities[EXPOSED] = ring->waits.exposed - before.exposed;
  quantities[SKEW] = ring->waits.skew - before.skew;
  return comm_all_reduce(ring, COMM_F64, COMM_MAX, quantities, QUANTITIES, error);
}

static Status measure_pass(Bench *bench, RingAttention *attention, bool backward, const double alone[2],
                           RingPass *pass, Error *error) {
  const CommCounter *counters = bench->rank->ring->counters;
  const int64_t count = bench->task->repetitions;
  int64_t messages[2] = {0};
  Samples samples;
  for (int64_t i = -1; i < count; i++) { /* the first one warms up */
    double quantities[QUANTITIES];
    messages[0] = counters[COMM_KEYS_VALUES].messages;
    messages[1] = counters[COMM_KEY_VALUE_GRADIENTS].messages;
    TRY(run_pass(bench, attention, backward, quantities, error));
    for (int q = 0; q < QUANTITIES && i >= 0; q++) samples.of[q][i] = quantities[q];
  }
  pass->wall = median(samples.of[WALL], (size_t)count);
  pass->exposed = median(samples.of[EXPOSED], (size_t)count);
  pass->skew = median(samples.of[SKEW], (size_t)count);
  pass->transfers = alone[0] * (double)(counters[COMM_KEYS_VALUES].messages - messages[0]) +
                    alone[1] * (double)(counters[COMM_KEY_VALUE_GRADIENTS].messages - messages[1]);
  pass->hop = alone[0] + (backward ? alone[1] : 0.0);
  return device_check(bench->rank->device, error);
}

static Status measure(Bench *bench, RingResult *result, Error *error) {
  RingAttention *attention = NULL;
  double alone[2] = {0};
  Status status = STATUS_OK;
  TRY_GOTO(prepare(bench, error), done);
  result->local = bench->local;
  memcpy(result->message, bench->message, sizeof result->message);
  if (bench->rank->ring->size > 1) {
    TRY_GOTO(measure_blocks(bench, result, error), done);
    TRY_GOTO(measure_transfer(bench, COMM_KEYS_VALUES, &alone[0], error), done);
    TRY_GOTO(measure_transfer(bench, COMM_KEY_VALUE_GRADIENTS, &alone[1], error), done);
  }
  TRY_GOTO(
      ring_attention_create(bench->rank->device, bench->rank->ring, &bench->task->dims, &attention, error),
      done);
  TRY_GOTO(ring_attention_prepare(attention, 1, bench->task->tokens, NULL, 0, true, error), done);
  TRY_GOTO(measure_pass(bench, attention, false, alone, &result->forward, error), done);
  TRY_GOTO(measure_pass(bench, attention, true, alone, &result->backward, error), done);
done:
  ring_attention_destroy(attention);
  release(bench);
  return status;
}

Status ring_measure(Rank *rank, const RingTask *task, RingResult *result, Error *error) {
  Bench bench = {.task = task, .rank = rank};
  *result = (RingResult){0};
  return measure(&bench, result, error);
}
