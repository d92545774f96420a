/* How fast the ranks of a ring compute and send: see the header. */
#include "train/ring_speed.h"

#include <stdlib.h>

#include "kernels/base/clock.h"
#include "kernels/base/median.h"
#include "kernels/base/memory.h"
#include "kernels/base/philox.h"

double ring_speed_block_work(const AttentionDims *dims, int64_t tokens, RingPassKind pass) {
  const double products = pass == RING_BACKWARD ? 5.0 : 2.0;
  return products * (double)tokens * (double)tokens * (double)(dims->heads * dims->head_dim);
}

/* ---------------------------------------------------------------- inputs */

static void draw(uint32_t stream, int64_t count, float *x) {
  uint32_t words[4];
  for (int64_t i = 0; i < count; i++) {
    if (i % 4 == 0) philox_draw(1, PHILOX_WEIGHTS, stream, (uint64_t)(i / 4), words);
    x[i] = (float)words[i % 4] * 0x1p-31F - 1.0F;
  }
}

Status ring_speed_fill(Device *device, uint32_t stream, int64_t count, elem *x, Error *error) {
  const size_t bytes = (size_t)count * sizeof(float);
  void *host = NULL;
  void *floats = NULL;
  Status status = STATUS_OK;
  TRY_GOTO(memory_alloc((size_t)count, sizeof(float), "a measurement", &host, error), done);
  TRY_GOTO(device_alloc(device, bytes, "a measurement", &floats, error), done);
  draw(stream, count, host);
  device_write(device, floats, host, bytes);
  device->ops.from_floats(device, count, floats, x);
done:
  device_free(device, floats);
  free(host);
  return status;
}

/* Waits until the device has done what it was given. */
static Status finish(Device *device, DeviceEvent *mark, Error *error) {
  if (mark != NULL) {
    device->table->queues->record(device, QUEUE_COMPUTE, mark);
    device->table->queues->event_finish(mark);
  }
  return device_check(device, error);
}

/* A mark for a device that works on its own; NULL for others. */
static Status create_mark(Device *device, DeviceEvent **mark, Error *error) {
  *mark = NULL;
  if (device->table->queues == NULL) return STATUS_OK;
  return device->table->queues->event_create(device, mark, error);
}

static void destroy_mark(Device *device, DeviceEvent *mark) {
  if (mark != NULL) device->table->queues->event_destroy(mark);
}

/* ---------------------------------------------------------------- the block */

/* What a block is computed from and into: a rank has two runs of `run` tokens; the queries are one of its
 * runs, the keys both runs of a rank before. */
enum {
  QKV,       /* (2 run, columns) */
  OUT,       /* (run, H D) */
  DOUT,      /* (run, H D) */
  LSE,       /* (H, run) floats */
  FIRST_KEY, /* (run) int64_t: all keys are seen */
  STATE,     /* of the queries */
  KV,        /* packed keys and values of the one run, and of the other */
  DKV = KV + 2,
  PARTS = DKV + 2
};

typedef struct Block {
  Device *device;
  const AttentionDims *dims;
  int64_t run;
  int64_t columns; /* of qkv */
  void *part[PARTS];
  DeviceEvent *mark;
} Block;

static void release(Block *block) {
  for (int i = 0; i < PARTS; i++) device_free(block->device, block->part[i]);
  destroy_mark(block->device, block->mark);
}

static Status prepare(Block *block, Error *error) {
  Device *device = block->device;
  const AttentionDims *dims = block->dims;
  const AttentionOps *ops = &device->ops.attention;
  const int64_t run = block->run;
  const size_t row = (size_t)(dims->heads * dims->head_dim) * device->ops.elem_size;
  const size_t forward = ops->forward_bytes(dims, run), backward = ops->backward_bytes(dims, run);
  const size_t kv = ops->kv_bytes(dims, run), dkv = ops->dkv_bytes(dims, run);
  const size_t bytes[PARTS] = {[QKV] = (size_t)(2 * run * block->columns) * device->ops.elem_size,
                               [OUT] = (size_t)run * row,
                               [DOUT] = (size_t)run * row,
                               [LSE] = (size_t)(run * dims->heads) * sizeof(float),
                               [FIRST_KEY] = (size_t)run * sizeof(int64_t),
                               [STATE] = forward > backward ? forward : backward,
                               [KV] = kv,
                               [KV + 1] = kv,
                               [DKV] = dkv,
                               [DKV + 1] = dkv};
  for (int i = 0; i < PARTS; i++) {
    TRY(device_alloc(device, bytes[i], "a measurement", &block->part[i], error));
  }
  TRY(create_mark(device, &block->mark, error));
  TRY(ring_speed_fill(device, 1, 2 * run * block->columns, block->part[QKV], error));
  return ring_speed_fill(device, 2, run * dims->heads * dims->head_dim, block->part[DOUT], error);
}

/* The element of qkv at a row and a column. */
static const elem *qkv_at(const Block *block, int64_t row, int64_t column) {
  return (const char *)block->part[QKV] +
         (size_t)(row * block->columns + column) * block->device->ops.elem_size;
}

/* The queries of one run against both runs of keys. */
static void compute(const Block *block, RingPassKind pass) {
  Device *device = block->device;
  const AttentionOps *ops = &device->ops.attention;
  const int64_t run = block->run;
  for (int64_t i = 0; i < 2; i++) {
    if (pass == RING_BACKWARD) {
      ops->backward_block(device, block->dims, run, 2 * run, block->part[FIRST_KEY], block->part[STATE], run,
                          i * run, block->part[KV + i], block->part[DKV + i]);
    } else {
      ops->forward_block(device, block->dims, run, 2 * run, block->part[FIRST_KEY], block->part[STATE], run,
                         i * run, block->part[KV + i]);
    }
  }
}

/* Up to the first block of the pass; backward gets the statistics of a forward block, so that it meets
 * ordinary numbers. */
static void begin(const Block *block, RingPassKind pass) {
  Device *device = block->device;
  const AttentionOps *ops = &device->ops.attention;
  const AttentionDims *dims = block->dims;
  const int64_t run = block->run, columns = block->columns;
  const int64_t keys = dims->heads * dims->head_dim, values = keys + dims->kv_heads * dims->head_dim;
  for (int64_t i = 0; i < 2; i++) {
    ops->pack_kv(device, dims, run, qkv_at(block, i * run, keys), qkv_at(block, i * run, values), columns,
                 block->part[KV + i]);
  }
  ops->forward_begin(device, dims, run, block->part[QKV], columns, block->part[STATE]);
  if (pass == RING_FORWARD) return;
  compute(block, RING_FORWARD);
  ops->forward_end(device, dims, run, block->part[STATE], block->part[OUT], keys, block->part[LSE]);
  ops->backward_begin(device, dims, run, block->part[QKV], columns, block->part[OUT], block->part[DOUT], keys,
                      block->part[LSE], block->part[STATE]);
}

/* Blocks a second of this rank, all ranks beginning together. A device that works on its own is given more
 * and more at a time, so that waiting for it costs little. */
static Status count_blocks(const Block *block, Comm *world, RingPassKind pass, double seconds, double *rate,
                           Error *error) {
  begin(block, pass);
  compute(block, pass); /* warms up */
  TRY(finish(block->device, block->mark, error));
  TRY(comm_barrier(world, error));
  const double start = clock_seconds();
  int64_t done = 0;
  double taken = 0.0;
  do {
    const int64_t more = block->mark != NULL ? 1 + done / 4 : 1;
    for (int64_t i = 0; i < more; i++) compute(block, pass);
    TRY(finish(block->device, block->mark, error));
    done += more;
    taken = clock_seconds() - start;
  } while (taken < seconds);
  *rate = (double)done / taken;
  return STATUS_OK;
}

Status ring_speed_block(const Rank *rank, const AttentionDims *dims, int64_t tokens, RingPassKind pass,
                        double seconds, double *flops, Error *error) {
  Block block = {.device = rank->device,
                 .dims = dims,
                 .run = tokens / 2,
                 .columns = (dims->heads + 2 * dims->kv_heads) * dims->head_dim};
  double rate = 0.0;
  Status status = STATUS_OK;
  TRY_GOTO(prepare(&block, error), done);
  TRY_GOTO(count_blocks(&block, rank->world, pass, seconds, &rate, error), done);
  *flops = rate * ring_speed_block_work(dims, tokens, pass);
  status = comm_all_reduce(rank->world, COMM_F64, COMM_MAX, flops, 1, error);
done:
  release(&block);
  return status;
}

/* ---------------------------------------------------------------- the message */

/* One message to the next rank, from a common start. */
static Status send_once(const Rank *rank, DeviceEvent *mark, const void *send, void *receive, size_t bytes,
                        double *seconds, Error *error) {
  Comm *ring = rank->ring;
  CommRequest request = {0};
  TRY(comm_barrier(rank->world, error));
  const double start = clock_seconds();
  TRY(comm_shift_start(ring, COMM_KEYS_VALUES, 1, send, receive, bytes, &request, error));
  TRY(comm_wait(ring, &request, error));
  TRY(finish(rank->device, mark, error));
  *seconds = clock_seconds() - start;
  return STATUS_OK;
}

static Status send_some(const Rank *rank, DeviceEvent *mark, const void *send, void *receive, size_t bytes,
                        int count, double *samples, Error *error) {
  CommCounter *counters = rank->ring->counters;
  const CommCounter before = counters[COMM_KEYS_VALUES];
  Status status = STATUS_OK;
  for (int i = -1; i < count && status == STATUS_OK; i++) { /* the first one warms up */
    status = send_once(rank, mark, send, receive, bytes, &samples[i < 0 ? 0 : i], error);
  }
  counters[COMM_CONTROL].messages += counters[COMM_KEYS_VALUES].messages - before.messages;
  counters[COMM_CONTROL].bytes += counters[COMM_KEYS_VALUES].bytes - before.bytes;
  counters[COMM_KEYS_VALUES] = before;
  return status;
}

Status ring_speed_message(Rank *rank, size_t bytes, int count, double *seconds, Error *error) {
  Device *device = rank->device;
  DeviceEvent *mark = NULL;
  void *samples = NULL;
  void *send = NULL;
  void *receive = NULL;
  Status status = STATUS_OK;
  TRY_GOTO(memory_alloc((size_t)count, sizeof(double), "a measurement", &samples, error), done);
  TRY_GOTO(device_alloc(device, bytes, "a measurement", &send, error), done);
  TRY_GOTO(device_alloc(device, bytes, "a measurement", &receive, error), done);
  TRY_GOTO(create_mark(device, &mark, error), done);
  TRY_GOTO(send_some(rank, mark, send, receive, bytes, count, samples, error), done);
  *seconds = median(samples, (size_t)count);
  status = comm_all_reduce(rank->world, COMM_F64, COMM_MAX, seconds, 1, error);
done:
  /* The next rank may still read what this one sends. */
  if (status != STATUS_OK) rank_abort(rank, error);
  destroy_mark(device, mark);
  device_free(device, receive);
  device_free(device, send);
  free(samples);
  return status;
}
