/* Measurements of a ring: the block that a hop computes, the transfers alone, and both together. */
#include "tests/bench/ring_measure.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "kernels/base/median.h"
#include "model/ring_attention.h"
#include "train/ring_speed.h"

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
} Bench;

static Status allocate(const Bench *bench, size_t bytes, void *out, Error *error) {
  void *memory = NULL;
  TRY(device_alloc(bench->rank->device, bytes, "the benchmark", &memory, error));
  memcpy(out, &memory, sizeof memory);
  return STATUS_OK;
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
  bench->message[0] = 2 * ops->kv_bytes(dims, run);
  bench->message[1] = 2 * ops->dkv_bytes(dims, run);
  TRY(allocate(bench, qkv, &bench->qkv, error));
  TRY(allocate(bench, qkv, &bench->dqkv, error));
  TRY(allocate(bench, out, &bench->out, error));
  TRY(allocate(bench, out, &bench->dout, error));
  TRY(allocate(bench, (size_t)(bench->local * dims->heads) * sizeof(float), &bench->lse, error));
  TRY(ring_speed_fill(bench->rank->device, 1, bench->local * bench->columns, bench->qkv, error));
  return ring_speed_fill(bench->rank->device, 2, bench->local * row, bench->dout, error);
}

static void release(Bench *bench) {
  void *blocks[] = {bench->qkv, bench->dqkv, bench->out, bench->dout, bench->lse};
  for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) device_free(bench->rank->device, blocks[i]);
}

/* ---------------------------------------------------------------- block and transfer alone */

/* The block of a pass while every rank computes its own. */
static Status measure_block(const Bench *bench, RingPassKind kind, RingPass *pass, Error *error) {
  const AttentionDims *dims = &bench->task->dims;
  TRY(ring_speed_block(bench->rank, dims, bench->local, kind, BLOCK_SECONDS, &pass->flops, error));
  pass->block = ring_speed_block_work(dims, bench->local, kind) / pass->flops;
  return STATUS_OK;
}

/* Blocks of both passes; seconds of each message of the ring. */
static Status measure_alone(const Bench *bench, RingResult *result, double messages[2], Error *error) {
  TRY(measure_block(bench, RING_FORWARD, &result->forward, error));
  TRY(measure_block(bench, RING_BACKWARD, &result->backward, error));
  for (int i = 0; i < 2; i++) {
    TRY(ring_speed_message(bench->rank, bench->message[i], HOP_SAMPLES, &messages[i], error));
  }
  return STATUS_OK;
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
    TRY_GOTO(measure_alone(bench, result, alone, error), done);
  }
  TRY_GOTO(
      ring_attention_create(bench->rank->device, bench->rank->ring, &bench->task->dims, &attention, error),
      done);
  const Layout layout = layout_zigzag(bench->task->tokens, bench->rank->ring->size);
  TRY_GOTO(ring_attention_prepare(attention, 1, &layout, NULL, 0, true, error), done);
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
