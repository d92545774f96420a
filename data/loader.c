/* Batches of sequences, read ahead by a thread. */
#include "data/loader.h"

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "data/batch.h"
#include "kernels/base/arena.h"
#include "kernels/base/memory.h"

/* Batch m lies in slot m mod slot_count. The thread fills batches taken ... taken + read_ahead - 1, the
 * caller holds batch taken - 1; with read_ahead + 1 slots these never meet. */
struct Loader {
  BatchReader reader; /* once the thread runs, only it reads batches */
  Batch *slots;       /* (slot_count) */
  int64_t slot_count;
  void *own;      /* the block of a loader that was given none */
  int64_t filled; /* batches that were read */
  int64_t taken;  /* batches that were given to the caller */
  Error failure;  /* what ended the reading */
  bool closing;
  pthread_t thread;
  pthread_mutex_t mutex;  /* guards filled, taken, failure and closing */
  pthread_cond_t changed; /* one of them did */
};

/* Waits for a free slot; false when the loader is closing. */
static bool wait_for_slot(Loader *loader) {
  (void)pthread_mutex_lock(&loader->mutex);
  while (!loader->closing && loader->filled - loader->taken >= loader->slot_count - 1) {
    (void)pthread_cond_wait(&loader->changed, &loader->mutex);
  }
  const bool go_on = !loader->closing;
  (void)pthread_mutex_unlock(&loader->mutex);
  return go_on;
}

/* The thread: reads batch after batch until the loader closes or a batch cannot be read. */
static void *read_batches(void *argument) {
  Loader *loader = argument;
  Error error = {0};
  /* Not that of the thread that opened the loader, whose device takes subnormal numbers as zero. */
  (void)fesetenv(FE_DFL_ENV);
  for (int64_t index = 0; error.status == STATUS_OK && wait_for_slot(loader); index++) {
    (void)batch_read(&loader->reader, index, &loader->slots[index % loader->slot_count], &error);
    (void)pthread_mutex_lock(&loader->mutex);
    if (error.status == STATUS_OK) loader->filled++;
    loader->failure = error;
    (void)pthread_cond_broadcast(&loader->changed);
    (void)pthread_mutex_unlock(&loader->mutex);
  }
  return NULL;
}

/* Starts the thread with all signals blocked: they are for the threads that train. */
static Status start_thread(Loader *loader, Error *error) {
  sigset_t all;
  sigset_t before;
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  const int result = pthread_create(&loader->thread, NULL, read_batches, loader);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (result == 0) return STATUS_OK;
  return fail_errno(error, STATUS_SYSTEM, result, "%s: no thread to read it ahead", loader->reader.pattern);
}

/* Cuts the block into the reader's piece and the batches. */
static Status place_slots(Loader *loader, Error *error) {
  const LoaderOptions *options = &loader->reader.options;
  const int64_t count = (int64_t)options->read_ahead + 1;
  char *place = options->memory;
  if (place == NULL) {
    TRY(memory_alloc(loader_bytes(options), 1, "batches", &loader->own, error));
    place = loader->own;
  }
  loader->slots = calloc((size_t)count, sizeof *loader->slots);
  if (loader->slots == NULL)
    return fail(error, STATUS_SYSTEM, "no memory left for %lld batches", (long long)count);
  loader->reader.piece = (void *)place;
  place += batch_piece_bytes(options);
  for (; loader->slot_count < count; loader->slot_count++) {
    loader->slots[loader->slot_count] = batch_place(&loader->reader, place);
    place += batch_bytes(options);
  }
  return STATUS_OK;
}

/* Releases a loader whose thread does not run. */
static void release_loader(Loader *loader) {
  free(loader->slots);
  free(loader->own);
  batch_reader_close(&loader->reader);
  (void)pthread_mutex_destroy(&loader->mutex);
  (void)pthread_cond_destroy(&loader->changed);
  free(loader);
}

Status loader_open(const LoaderOptions *options, Loader **out, Error *error) {
  *out = NULL;
  Status status = STATUS_OK;
  Loader *loader = calloc(1, sizeof *loader);
  if (loader == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left to open it", options->pattern);
  (void)pthread_mutex_init(&loader->mutex, NULL);
  (void)pthread_cond_init(&loader->changed, NULL);
  TRY_GOTO(batch_reader_open(options, &loader->reader, error), release);
  TRY_GOTO(place_slots(loader, error), release);
  TRY_GOTO(start_thread(loader, error), release);
  *out = loader;
  return STATUS_OK;
release:
  release_loader(loader);
  return status;
}

Status loader_next(Loader *loader, const Batch **batch, Error *error) {
  Status status = STATUS_OK;
  *batch = NULL;
  (void)pthread_mutex_lock(&loader->mutex);
  while (loader->filled == loader->taken && loader->failure.status == STATUS_OK) {
    (void)pthread_cond_wait(&loader->changed, &loader->mutex);
  }
  if (loader->filled > loader->taken) {
    *batch = &loader->slots[loader->taken % loader->slot_count];
    loader->taken++;
    (void)pthread_cond_broadcast(&loader->changed);
  } else {
    status = fail(error, loader->failure.status, "%s", loader->failure.text);
  }
  (void)pthread_mutex_unlock(&loader->mutex);
  return status;
}

size_t loader_bytes(const LoaderOptions *options) {
  return arena_plus(arena_times((size_t)options->read_ahead + 1, batch_bytes(options)),
                    batch_piece_bytes(options));
}

int64_t loader_samples(const Loader *loader) {
  return loader->reader.samples;
}

void loader_close(Loader *loader) {
  if (loader == NULL) return;
  (void)pthread_mutex_lock(&loader->mutex);
  loader->closing = true;
  (void)pthread_cond_broadcast(&loader->changed);
  (void)pthread_mutex_unlock(&loader->mutex);
  (void)pthread_join(loader->thread, NULL);
  release_loader(loader);
}
