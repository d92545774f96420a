/* Reductions of the MPI transport. Each rank sends every other the part that is the other's to sum, straight
 * from the buffer. The owner receives pieces of all ranks into staging memory, a piece ahead of the one being
 * summed, and adds them in the order of ranks: the order of the local transport, so the same bits. An
 * all-reduce then sends the summed pieces round. What is small is exchanged whole instead and summed by
 * everyone, which is one message less in a row.
 *
 * The staging memory of a group is lent to one reduction at a time, the oldest first: memory does not grow
 * with the number of reductions under way. That cannot block, since sends need none. */
#include "kernels/comm/comm.h"

#if RINGGPT_MPI

#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "kernels/comm/combine.h"
#include "kernels/comm/mpi_state.h"

enum {
  STAGING_BYTES = 16 << 20, /* of one piece from every rank, up to 256 ranks; above, LEAST_PIECE a rank */
  MOST_PIECE = 1 << 20,
  LEAST_PIECE = 64 << 10,
  WHOLE_BYTES = 64 << 10, /* all ranks' buffers together that are exchanged whole */
  SUM_BYTES = 16 << 10    /* summed at a time: stays in the cache */
};

static size_t piece_bytes(int size) {
  size_t piece = STAGING_BYTES / (size_t)size / LEAST_PIECE * LEAST_PIECE;
  if (piece > MOST_PIECE) piece = MOST_PIECE;
  return piece < LEAST_PIECE ? LEAST_PIECE : piece;
}

static void part(const MpiGroup *group, const MpiHeader *header, int rank, size_t *begin, size_t *bytes) {
  int64_t first = 0;
  int64_t last = 0;
  comm_part((int64_t)header->amount, rank, group->size, &first, &last);
  *begin = (size_t)first * header->width;
  *bytes = (size_t)(last - first) * header->width;
}

/* Everyone gets everything. */
static Status create_whole(MpiGroup *group, MpiOperation *operation, char *buffer, size_t bytes,
                           Error *error) {
  operation->sum = (MpiSum){.target = buffer, .bytes = bytes, .piece = bytes, .pieces = 1, .whole = true};
  operation->staging = malloc(2 * bytes * (size_t)(group->size - 1));
  if (operation->staging == NULL) return fail(error, STATUS_SYSTEM, "no memory for a collective operation");
  for (int i = 1; i < group->size; i++) {
    const int peer = (group->rank + i) % group->size;
    const MpiStream stream = {
        .peer = peer, .tag = mpi_tag(&operation->header, 0), .data = buffer, .bytes = bytes, .piece = bytes};
    MpiStream back = stream;
    back.receives = true;
    back.rule = STREAM_STAGED;
    mpi_stream_add(operation, stream);
    mpi_stream_add(operation, back);
  }
  return STATUS_OK;
}

Status mpi_reduce_create(MpiGroup *group, MpiOperation *operation, char *buffer, Error *error) {
  const MpiHeader *header = &operation->header;
  const size_t total = header->amount * header->width;
  const bool everywhere = header->kind == KIND_ALL_REDUCE;
  if (total == 0 || group->size == 1) return STATUS_OK;
  if (everywhere && total <= WHOLE_BYTES / (size_t)group->size) {
    return create_whole(group, operation, buffer, total, error);
  }
  const size_t piece = piece_bytes(group->size);
  size_t own_begin = 0;
  size_t own_bytes = 0;
  part(group, header, group->rank, &own_begin, &own_bytes);
  operation->sum = (MpiSum){.target = buffer + own_begin,
                            .bytes = own_bytes,
                            .piece = own_bytes < piece ? own_bytes : piece,
                            .pieces = (int64_t)((own_bytes + piece - 1) / piece)};
  for (int i = 1; i < group->size; i++) {
    const int peer = (group->rank + i) % group->size;
    size_t begin = 0;
    size_t bytes = 0;
    part(group, header, peer, &begin, &bytes);
    const MpiStream theirs = {.peer = peer, .data = buffer + begin, .bytes = bytes, .piece = piece};
    const MpiStream own = {.peer = peer, .data = buffer + own_begin, .bytes = own_bytes, .piece = piece};
    MpiStream stream = theirs;
    const int sent = operation->stream_count;
    stream.tag = mpi_tag(header, 0);
    mpi_stream_add(operation, stream);
    stream = own;
    stream.tag = mpi_tag(header, 0);
    stream.receives = true;
    stream.rule = STREAM_STAGED;
    mpi_stream_add(operation, stream);
    if (!everywhere) continue;
    stream = own;
    stream.tag = mpi_tag(header, 1);
    stream.rule = STREAM_SUMMED;
    mpi_stream_add(operation, stream);
    stream = theirs;
    stream.tag = mpi_tag(header, 1);
    stream.receives = true;
    stream.rule = STREAM_AFTER;
    stream.after = sent;
    mpi_stream_add(operation, stream);
  }
  return STATUS_OK;
}

char *mpi_staged(const MpiGroup *group, const MpiOperation *operation, int peer, int64_t k) {
  const size_t row = (size_t)(peer < group->rank ? peer : peer - 1);
  return operation->staging + (2 * row + (size_t)(k % 2)) * operation->sum.piece;
}

void mpi_reduce_release(MpiGroup *group, MpiOperation *operation) {
  if (group->staging_holder == operation) {
    group->staging_holder = NULL;
  } else if (operation->sum.whole) {
    free(operation->staging);
  }
  operation->staging = NULL;
}

static Status take_staging(MpiGroup *group, MpiOperation *operation, Error *error) {
  if (operation->staging != NULL || group->staging_holder != NULL) return STATUS_OK;
  const size_t bytes = 2 * operation->sum.piece * (size_t)(group->size - 1);
  if (bytes > group->staging_bytes) {
    free(group->staging);
    group->staging_bytes = 0;
    TRY(memory_alloc(bytes, 1, "memory for sums over ranks", &group->staging, error));
    group->staging_bytes = bytes;
  }
  group->staging_holder = operation;
  operation->staging = group->staging;
  return STATUS_OK;
}

/* Whether what is needed for the next piece of the sum is there. */
static bool piece_came(const MpiOperation *operation) {
  if (operation->sum.whole) return mpi_streams_done(operation);
  for (int i = 0; i < operation->stream_count; i++) {
    const MpiStream *stream = &operation->streams[i];
    if (stream->rule == STREAM_STAGED && stream->done <= operation->sum.done) return false;
  }
  return true;
}

static const char *source(const MpiGroup *group, const MpiOperation *operation, int rank, int64_t k) {
  if (rank == group->rank) return operation->sum.target + (size_t)k * operation->sum.piece;
  return mpi_staged(group, operation, rank, k);
}

/* Sums one piece, some cache lines at a time, in the order of ranks. */
static void sum_piece(const MpiGroup *group, MpiOperation *operation, int64_t k) {
  const MpiSum *sum = &operation->sum;
  const MpiHeader *header = &operation->header;
  union {
    float f32[SUM_BYTES / sizeof(float)];
    double f64[SUM_BYTES / sizeof(double)];
    int64_t i64[SUM_BYTES / sizeof(int64_t)];
  } part_sum;
  const size_t begin = (size_t)k * sum->piece;
  const size_t length = sum->bytes - begin < sum->piece ? sum->bytes - begin : sum->piece;
  for (size_t at = 0; at < length; at += SUM_BYTES) {
    const size_t bytes = length - at < SUM_BYTES ? length - at : SUM_BYTES;
    memcpy(&part_sum, source(group, operation, 0, k) + at, bytes);
    for (int rank = 1; rank < group->size; rank++) {
      comm_combine((CommType)header->type, (CommReduction)header->reduction, &part_sum,
                   source(group, operation, rank, k) + at, bytes / header->width);
    }
    memcpy(sum->target + begin + at, &part_sum, bytes);
  }
}

Status mpi_reduce_advance(MpiGroup *group, MpiOperation *operation, bool *moved, Error *error) {
  MpiSum *sum = &operation->sum;
  if (sum->done == sum->pieces) return STATUS_OK;
  TRY(take_staging(group, operation, error));
  while (sum->done < sum->pieces && piece_came(operation)) {
    sum_piece(group, operation, sum->done);
    sum->done += 1;
    *moved = true;
  }
  if (sum->done == sum->pieces) mpi_reduce_release(group, operation);
  return STATUS_OK;
}

#endif
