/* Streams of the MPI transport: runs of bytes that go between two ranks in pieces, two at a time. */
#include "kernels/comm/comm.h"

#if RINGGPT_MPI

#include "kernels/comm/mpi_state.h"

void mpi_stream_add(MpiOperation *operation, MpiStream stream) {
  if (stream.bytes == 0) return;
  stream.pieces = (int64_t)((stream.bytes + stream.piece - 1) / stream.piece);
  operation->streams[operation->stream_count++] = stream;
}

bool mpi_streams_done(const MpiOperation *operation) {
  for (int i = 0; i < operation->stream_count; i++) {
    if (operation->streams[i].done < operation->streams[i].pieces) return false;
  }
  return true;
}

Status mpi_streams_test(MpiOperation *operation, bool *moved, Error *error) {
  int done = 0;
  const int code = MPI_Testsome(2 * operation->stream_count, operation->requests, &done, operation->indices,
                                operation->statuses);
  TRY(mpi_check_some(code, done, operation->statuses, "a message", error));
  if (done == MPI_UNDEFINED || done == 0) return STATUS_OK;
  *moved = true;
  for (int i = 0; i < done; i++) {
    const int index = operation->indices[i] / 2;
    MpiStream *stream = &operation->streams[index];
    const MPI_Request *slots = &operation->requests[2 * index];
    while (stream->done < stream->begun && slots[stream->done % 2] == MPI_REQUEST_NULL) stream->done += 1;
  }
  return STATUS_OK;
}

/* Pieces that the stream may have posted by now. */
static int64_t allowed(const MpiOperation *operation, const MpiStream *stream) {
  if (stream->receives && !operation->joined[stream->peer]) return 0;
  switch (stream->rule) {
  case STREAM_FREE:
    break;
  case STREAM_AFTER:
    return operation->streams[stream->after].done;
  case STREAM_STAGED:
    return operation->staging == NULL ? 0 : operation->sum.done + 2;
  case STREAM_SUMMED:
    return operation->sum.done;
  }
  return stream->pieces;
}

static Status post(MpiGroup *group, MpiOperation *operation, int index, Error *error) {
  MpiStream *stream = &operation->streams[index];
  const int64_t k = stream->begun;
  const size_t from = (size_t)k * stream->piece;
  const size_t bytes = stream->bytes - from < stream->piece ? stream->bytes - from : stream->piece;
  char *data =
      stream->rule == STREAM_STAGED ? mpi_staged(group, operation, stream->peer, k) : stream->data + from;
  MPI_Request *request = &operation->requests[2 * index + k % 2];
  const int code =
      stream->receives
          ? MPI_Irecv(data, (int)bytes, MPI_BYTE, stream->peer, stream->tag, group->mpi, request)
          : MPI_Isend(data, (int)bytes, MPI_BYTE, stream->peer, stream->tag, group->mpi, request);
  TRY(mpi_check(code, stream->receives ? "receiving" : "sending", error));
  stream->begun += 1;
  return STATUS_OK;
}

Status mpi_streams_post(MpiGroup *group, MpiOperation *operation, bool *moved, Error *error) {
  for (int i = 0; i < operation->stream_count; i++) {
    MpiStream *stream = &operation->streams[i];
    const int64_t limit = allowed(operation, stream);
    while (stream->begun < stream->pieces && stream->begun < limit && stream->begun - stream->done < 2) {
      TRY(post(group, operation, i, error));
      *moved = true;
    }
  }
  return STATUS_OK;
}

#endif
