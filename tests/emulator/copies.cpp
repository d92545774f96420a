/* Copies and fills in the queues of streams. What comes from pageable memory of the host is read at the call,
 * and what goes to it is there after the call; pinned memory is read and written when the queue comes to it.
 */
#include <memory>
#include <string.h>
#include <vector>

#include "device.h"
#include "device_memory.h"
#include "report.h"
#include "streams.h"

namespace emulator {

/* `height` rows of `width` bytes. */
struct Rows {
  unsigned char *to;
  size_t to_pitch;
  const unsigned char *from;
  size_t from_pitch;
  size_t width, height;
};

static size_t extent(size_t pitch, const Rows *rows) {
  return rows->height == 0 || rows->width == 0 ? 0 : (rows->height - 1) * pitch + rows->width;
}

static void copy_rows(const Rows &rows) {
  for (size_t i = 0; i < rows.height; i++)
    memcpy(rows.to + i * rows.to_pitch, rows.from + i * rows.from_pitch, rows.width);
}

static bool is_direction(cudaMemcpyKind kind, MemoryKind to, MemoryKind from) {
  switch (kind) {
  case cudaMemcpyHostToHost:
    return to != MEMORY_DEVICE && from != MEMORY_DEVICE;
  case cudaMemcpyHostToDevice:
    return to == MEMORY_DEVICE && from != MEMORY_DEVICE;
  case cudaMemcpyDeviceToHost:
    return to != MEMORY_DEVICE && from == MEMORY_DEVICE;
  case cudaMemcpyDeviceToDevice:
    return to != MEMORY_PAGEABLE && from != MEMORY_PAGEABLE;
  case cudaMemcpyDefault:
    return true;
  }
  return false;
}

static bool overlap(const Rows *rows) {
  const unsigned char *to_end = rows->to + extent(rows->to_pitch, rows);
  const unsigned char *from_end = rows->from + extent(rows->from_pitch, rows);
  return rows->to < from_end && rows->from < to_end && rows->to_pitch == rows->width &&
         rows->from_pitch == rows->width;
}

static std::function<void()> copy_from_snapshot(const Rows &rows) {
  const auto snapshot = std::make_shared<std::vector<unsigned char>>(rows.width * rows.height);
  copy_rows({snapshot->data(), rows.width, rows.from, rows.from_pitch, rows.width, rows.height});
  return [rows, snapshot] {
    copy_rows({rows.to, rows.to_pitch, snapshot->data(), rows.width, rows.width, rows.height});
  };
}

static cudaError_t queue_copy(const Rows &rows, cudaMemcpyKind kind, cudaStream_t handle, bool wait) {
  Lock lock(global_lock());
  CUstream_st *stream = find_stream(handle);
  if (!stream) return fail(cudaErrorInvalidResourceHandle);
  if (rows.width > rows.to_pitch || rows.width > rows.from_pitch) return fail(cudaErrorInvalidValue);
  if (rows.width == 0 || rows.height == 0) return cudaSuccess;
  const MemoryPlace to = find_memory(rows.to, extent(rows.to_pitch, &rows));
  const MemoryPlace from = find_memory(rows.from, extent(rows.from_pitch, &rows));
  if (!to.whole || !from.whole || !is_direction(kind, to.kind, from.kind)) return fail(cudaErrorInvalidValue);
  if (overlap(&rows)) die("a copy of %zu bytes overlaps its source", rows.width * rows.height);
  std::function<void()> work = [rows] { copy_rows(rows); };
  if (from.kind == MEMORY_PAGEABLE) work = copy_from_snapshot(rows);
  put(stream, {Operation::WORK, std::move(work), nullptr, 0});
  const bool within_devices = to.kind == MEMORY_DEVICE && from.kind == MEMORY_DEVICE;
  if (to.kind == MEMORY_PAGEABLE || (wait && !within_devices)) drain_stream(stream);
  return cudaSuccess;
}

static Rows one_row(void *to, const void *from, size_t bytes) {
  return {(unsigned char *)to, bytes, (const unsigned char *)from, bytes, bytes, 1};
}

} // namespace emulator

using namespace emulator;

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  return queue_copy(one_row(to, from, bytes), kind, nullptr, true);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return queue_copy(one_row(to, from, bytes), kind, stream, false);
}

cudaError_t cudaMemcpyPeerAsync(void *to, int, const void *from, int, size_t bytes, cudaStream_t stream) {
  return queue_copy(one_row(to, from, bytes), cudaMemcpyDeviceToDevice, stream, false);
}

cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                         size_t height, cudaMemcpyKind kind) {
  const Rows rows = {(unsigned char *)to, to_pitch, (const unsigned char *)from, from_pitch, width, height};
  return queue_copy(rows, kind, nullptr, true);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  const Rows rows = {(unsigned char *)to, to_pitch, (const unsigned char *)from, from_pitch, width, height};
  return queue_copy(rows, kind, stream, false);
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t handle) {
  Lock lock(global_lock());
  CUstream_st *stream = find_stream(handle);
  if (!stream) return fail(cudaErrorInvalidResourceHandle);
  if (bytes == 0) return cudaSuccess;
  const MemoryPlace place = find_memory(memory, bytes);
  if (place.kind == MEMORY_PAGEABLE || !place.whole) return fail(cudaErrorInvalidValue);
  put(stream, {Operation::WORK, [=] { memset(memory, value, bytes); }, nullptr, 0});
  return cudaSuccess;
}

cudaError_t cudaMemset(void *memory, int value, size_t bytes) {
  return cudaMemsetAsync(memory, value, bytes, nullptr);
}
