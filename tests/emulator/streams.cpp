/* The queues of streams, worked off in random order. Streams run ahead of each other as far as events let
 * them, so that a missing wait shows. */
#include "streams.h"

#include <algorithm>
#include <time.h>
#include <vector>

#include "block.h"
#include "device.h"
#include "random.h"
#include "report.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

struct CUstream_st {
  int device;
  bool blocking;  /* ordered against the default stream */
  bool destroyed; /* only its queue is left */
  std::deque<emulator::Operation> queue;
};

namespace emulator {

struct Streams {
  std::vector<CUstream_st *> all;
  std::vector<CUstream_st *> defaults; /* by device */
  CUstream_st *favourite;              /* the one that ran last */
};

/* Never released: host threads may still be in a call when the process ends. */
static Streams *streams(void) {
  static Streams *all = new Streams{};
  return all;
}

std::recursive_mutex &global_lock(void) {
  static std::recursive_mutex *lock = new std::recursive_mutex;
  return *lock;
}

static CUstream_st *make_stream(bool blocking) {
  CUstream_st *stream = new CUstream_st{current_device(), blocking, false, {}};
  streams()->all.push_back(stream);
  return stream;
}

static CUstream_st *default_stream(int device) {
  std::vector<CUstream_st *> *defaults = &streams()->defaults;
  if (defaults->size() <= (size_t)device) defaults->resize((size_t)device + 1);
  if (!(*defaults)[device]) (*defaults)[device] = make_stream(true);
  return (*defaults)[device];
}

CUstream_st *find_stream(cudaStream_t handle) {
  if (!handle) return default_stream(current_device());
  const std::vector<CUstream_st *> *all = &streams()->all;
  const bool known = std::find(all->begin(), all->end(), handle) != all->end();
  return known && !handle->destroyed ? handle : nullptr;
}

int stream_device(const CUstream_st *stream) {
  return stream->device;
}

static void forget(CUstream_st *stream) {
  std::vector<CUstream_st *> *all = &streams()->all;
  all->erase(std::find(all->begin(), all->end(), stream));
  if (streams()->favourite == stream) streams()->favourite = nullptr;
  delete stream;
}

static bool can_go_on(const CUstream_st *stream) {
  if (stream->queue.empty()) return false;
  const Operation *next = &stream->queue.front();
  return next->kind != Operation::WAIT || next->event->reached >= next->number;
}

static double now_in_milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

/* A GPU knows nothing of the rounding and denormal modes that the host thread may have set. */
static void run_work(const std::function<void()> &work) {
#if defined(__x86_64__)
  const unsigned mode = _mm_getcsr();
  _mm_setcsr(0x1F80);
  work();
  _mm_setcsr(mode);
#else
  work();
#endif
}

static void run_next(CUstream_st *stream) {
  const Operation operation = std::move(stream->queue.front());
  stream->queue.pop_front();
  if (operation.kind == Operation::WORK) run_work(operation.work);
  if (operation.kind == Operation::RECORD) {
    operation.event->reached = operation.number;
    operation.event->milliseconds = now_in_milliseconds();
  }
  if (stream->destroyed && stream->queue.empty()) forget(stream);
}

/* One operation of some stream, mostly of the one that ran last. False where there is none. */
static bool run_any(void) {
  Streams *s = streams();
  if (s->favourite && can_go_on(s->favourite) && random_below(8) != 0) {
    run_next(s->favourite);
    return true;
  }
  CUstream_st *choice = nullptr;
  uint32_t seen = 0;
  for (CUstream_st *stream : s->all)
    if (can_go_on(stream) && random_below(++seen) == 0) choice = stream;
  if (!choice) return false;
  s->favourite = choice;
  run_next(choice);
  return true;
}

void work_a_little(void) {
  for (uint32_t left = random_below(4); left > 0 && run_any(); left--) {
  }
}

/* A wait stands behind the record that it waits for, so some stream can always go on. */
static void run_one(void) {
  if (!run_any()) die("streams wait for each other");
}

void drain_stream(CUstream_st *stream) {
  while (!stream->queue.empty()) run_one();
}

static bool has_work(int device, bool blocking_only) {
  for (const CUstream_st *stream : streams()->all)
    if (stream->device == device && !stream->queue.empty() && (stream->blocking || !blocking_only))
      return true;
  return false;
}

void drain_device(int device) {
  while (has_work(device, false)) run_one();
}

void drain_until(const EventState *event, uint64_t number) {
  while (event->reached < number) run_one();
}

/* The default stream and the blocking ones of its device never overtake each other. */
static void keep_default_order(const CUstream_st *stream) {
  if (!stream->blocking) return;
  CUstream_st *common = default_stream(stream->device);
  if (stream != common)
    drain_stream(common);
  else
    while (has_work(stream->device, true)) run_one();
}

void put(CUstream_st *stream, Operation operation) {
  if (current) die("a kernel calls the runtime API");
  keep_default_order(stream);
  stream->queue.push_back(std::move(operation));
  if (random_below(4) == 0) work_a_little();
}

cudaError_t enqueue(cudaStream_t handle, std::function<void()> work) {
  Lock lock(global_lock());
  CUstream_st *stream = find_stream(handle);
  if (!stream) return fail(cudaErrorInvalidResourceHandle);
  put(stream, {Operation::WORK, std::move(work), nullptr, 0});
  return cudaSuccess;
}

} // namespace emulator

using namespace emulator;

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int) {
  Lock lock(global_lock());
  if (device_count() == 0) return fail(cudaErrorNoDevice);
  *stream = make_stream(!(flags & cudaStreamNonBlocking));
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
  return cudaStreamCreateWithPriority(stream, cudaStreamDefault, 0);
}

/* What is in the queue is still done. */
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  Lock lock(global_lock());
  CUstream_st *stream = handle ? find_stream(handle) : nullptr;
  if (!stream) return fail(cudaErrorInvalidResourceHandle);
  stream->destroyed = true;
  if (stream->queue.empty()) forget(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  Lock lock(global_lock());
  CUstream_st *stream = find_stream(handle);
  if (!stream) return fail(cudaErrorInvalidResourceHandle);
  drain_stream(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  Lock lock(global_lock());
  CUstream_st *stream = find_stream(handle);
  if (!stream) return fail(cudaErrorInvalidResourceHandle);
  work_a_little();
  return stream->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize(void) {
  Lock lock(global_lock());
  drain_device(current_device());
  return cudaSuccess;
}
