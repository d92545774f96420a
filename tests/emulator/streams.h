/* The queues of streams and what holds them back: events. */
#ifndef RINGGPT_EMULATOR_STREAMS_H
#define RINGGPT_EMULATOR_STREAMS_H

#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "emulator.h"

namespace emulator {

/* What records and waits know of an event; it lives on in queues after the event was destroyed. */
struct EventState {
  int device;
  bool timed;
  uint64_t recorded, reached; /* records so far: put into queues, and come to */
  double milliseconds;        /* when the last was come to */
};

/* What stands in a queue: work, or a record of or a wait for the record `number` of an event. */
struct Operation {
  enum Kind { WORK, RECORD, WAIT } kind;
  std::function<void()> work;
  std::shared_ptr<EventState> event;
  uint64_t number;
};

/* The one lock: held by every call of the API, and so while anything runs. */
typedef std::lock_guard<std::recursive_mutex> Lock;
std::recursive_mutex &global_lock(void);

/* The stream behind a handle, the default one of the current device for NULL; NULL for an unknown handle. */
CUstream_st *find_stream(cudaStream_t handle);
int stream_device(const CUstream_st *stream);

/* Puts an operation into the queue; now and then also works off some of all queues. */
void put(CUstream_st *stream, Operation operation);

/* Works off queues, in random order, until this one is empty, those of a device are, or the record is come
 * to. */
void drain_stream(CUstream_st *stream);
void drain_device(int device);
void drain_until(const EventState *event, uint64_t number);
/* A few operations of any queues. */
void work_a_little(void);

} // namespace emulator

#endif
