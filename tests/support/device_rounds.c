/* Rounds of every operation between devices that work on their own: see the header. */
#include "tests/support/device_rounds.h"

enum { ELEMENTS = DEVICE_BUFFER_ELEMENTS, ROUNDS = 8 };

/* Element i of what rank `rank` hands out in a round: whole numbers, so that sums are exact. */
static float value(int rank, int round, int64_t i) {
  return (float)(rank * 1000 + round * 17 + i % 97);
}

static void fill(float *x, int rank, int round) {
  for (int64_t i = 0; i < ELEMENTS; i++) x[i] = value(rank, round, i);
}

Status device_buffers_create(Device *device, DeviceBuffers *buffers, Error *error) {
  *buffers = (DeviceBuffers){.device = device};
  TRY(device_alloc(device, sizeof buffers->host, "test", &buffers->send, error));
  return device_alloc(device, sizeof buffers->host, "test", &buffers->receive, error);
}

void device_buffers_free(DeviceBuffers *buffers) {
  device_free(buffers->device, buffers->receive);
  device_free(buffers->device, buffers->send);
}

static void write(DeviceBuffers *buffers, void *memory, int rank, int round) {
  fill(buffers->host, rank, round);
  device_write(buffers->device, memory, buffers->host, sizeof buffers->host);
}

/* Elements [begin, end) of a buffer must be `factor` times those of rank `rank`, plus `offset`. */
static Status expect_values(DeviceBuffers *buffers, const void *memory, int64_t begin, int64_t end, int rank,
                            int round, float factor, float offset, Error *error) {
  device_read(buffers->device, buffers->host, memory, sizeof buffers->host);
  for (int64_t i = begin; i < end; i++) {
    const float expected = factor * value(rank, round, i) + offset;
    if (buffers->host[i] == expected) continue;
    return fail(error, STATUS_INTERNAL, "round %d: element %lld is %g, not %g", round, (long long)i,
                (double)buffers->host[i], (double)expected);
  }
  return device_check(buffers->device, error);
}

static Status shift_round(TestRank *rank, DeviceBuffers *buffers, int distance, int round, Error *error) {
  const int size = rank->ring->size;
  const int from = (rank->ring->rank - distance + size) % size;
  CommRequest request = {0};
  write(buffers, buffers->send, rank->ring->rank, round);
  TRY(comm_shift_start(rank->ring, COMM_KEYS_VALUES, distance, buffers->send, buffers->receive,
                       sizeof buffers->host, &request, error));
  TRY(comm_wait(rank->ring, &request, error));
  device_zero(buffers->device, buffers->send, sizeof buffers->host);
  TRY(expect_values(buffers, buffers->receive, 0, ELEMENTS, from, round, 1.0F, 0.0F, error));
  device_zero(buffers->device, buffers->receive, sizeof buffers->host);
  return STATUS_OK;
}

/* Two shifts under way at once, as keys and gradients are: what came goes on at once. */
static Status chain_round(TestRank *rank, DeviceBuffers *buffers, int round, Error *error) {
  const int size = rank->ring->size;
  const int own = rank->ring->rank;
  write(buffers, buffers->send, own, round);
  for (int hop = 0; hop < size; hop++) {
    CommRequest request = {0};
    TRY(comm_shift_start(rank->ring, COMM_KEY_VALUE_GRADIENTS, 1, buffers->send, buffers->receive,
                         sizeof buffers->host, &request, error));
    TRY(comm_wait(rank->ring, &request, error));
    void *arrived = buffers->receive;
    buffers->receive = buffers->send;
    buffers->send = arrived;
    device_zero(buffers->device, buffers->receive, sizeof buffers->host);
  }
  return expect_values(buffers, buffers->send, 0, ELEMENTS, own, round, 1.0F, 0.0F, error);
}

/* The sum over ranks of value(rank, ...) is size value(0, ...) + 1000 (0 + 1 + ... + size - 1). */
static Status sum_round(TestRank *rank, DeviceBuffers *buffers, int round, Error *error) {
  Comm *world = rank->world;
  const int size = world->size;
  const float offset = 500.0F * (float)(size * (size - 1));
  int64_t begin = 0;
  int64_t end = 0;
  CommRequest request = {0};
  comm_part(ELEMENTS, world->rank, size, &begin, &end);
  write(buffers, buffers->send, world->rank, round);
  TRY(comm_reduce_scatter_start(world, COMM_GRADIENTS, COMM_F32, COMM_SUM, buffers->send, ELEMENTS, &request,
                                error));
  TRY(comm_wait(world, &request, error));
  TRY(expect_values(buffers, buffers->send, begin, end, 0, round, (float)size, offset, error));
  TRY(comm_gather_parts_start(world, COMM_WEIGHTS, buffers->send, ELEMENTS, sizeof(float), &request, error));
  TRY(comm_wait(world, &request, error));
  TRY(expect_values(buffers, buffers->send, 0, ELEMENTS, 0, round, (float)size, offset, error));
  device_zero(buffers->device, buffers->send, sizeof buffers->host);
  return STATUS_OK;
}

Status device_rounds(TestRank *rank, void *context, Error *error) {
  DeviceBuffers buffers;
  Status status = STATUS_OK;
  (void)context;
  TRY_GOTO(device_buffers_create(rank->device, &buffers, error), done);
  for (int round = 0; round < ROUNDS; round++) {
    for (int distance = 1; distance < rank->ring->size; distance++) {
      TRY_GOTO(shift_round(rank, &buffers, distance, round, error), done);
    }
    if (rank->ring->size > 1) TRY_GOTO(chain_round(rank, &buffers, round, error), done);
    TRY_GOTO(sum_round(rank, &buffers, round, error), done);
  }
done:
  device_buffers_free(&buffers);
  return status;
}
