/* Stopping a run by a signal. A thread waits for the signals instead of a handler: no code runs in the middle
 * of other code, and the program needs no global flag. */
#include "train/stop.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "kernels/base/clock.h"
#include "kernels/base/memory.h"

/* Signals so soon after the first are the same request. */
#define SAME_SECONDS 1.0

struct StopWatch {
  pthread_t thread;
  sigset_t signals;  /* those watched, and SIGUSR2, which ends the watch */
  sigset_t previous; /* the mask before */
  atomic_bool requested;
  atomic_bool ending; /* SIGUSR2 came from stop_watch_end; from elsewhere it means nothing */
};

/* Dies of a signal, as without a watch. */
static void die(int signal_number) {
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, signal_number);
  (void)signal(signal_number, SIG_DFL);
  (void)raise(signal_number);
  (void)pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

static void *watch_signals(void *context) {
  StopWatch *watch = context;
  double first = 0.0; /* when the first came */
  for (;;) {
    int signal_number = 0;
    if (sigwait(&watch->signals, &signal_number) != 0 || atomic_load(&watch->ending)) return NULL;
    if (signal_number == SIGUSR2) continue;
    if (!atomic_exchange(&watch->requested, true)) {
      first = clock_seconds();
    } else if (clock_seconds() - first > SAME_SECONDS) {
      die(signal_number); /* the person means it */
    }
  }
}

Status stop_watch_start(StopWatch **out, Error *error) {
  void *memory = NULL;
  *out = NULL;
  TRY(memory_alloc(1, sizeof(StopWatch), "signal watch", &memory, error));
  StopWatch *watch = memory;
  atomic_init(&watch->requested, false);
  atomic_init(&watch->ending, false);
  sigemptyset(&watch->signals);
  sigaddset(&watch->signals, SIGTERM);
  sigaddset(&watch->signals, SIGINT);
  sigaddset(&watch->signals, SIGUSR1);
  sigaddset(&watch->signals, SIGUSR2);
  (void)pthread_sigmask(SIG_BLOCK, &watch->signals, &watch->previous);
  const int code = pthread_create(&watch->thread, NULL, watch_signals, watch);
  if (code != 0) {
    (void)pthread_sigmask(SIG_SETMASK, &watch->previous, NULL);
    free(watch);
    return fail_errno(error, STATUS_SYSTEM, code, "cannot start the thread that waits for signals");
  }
  *out = watch;
  return STATUS_OK;
}

bool stop_requested(StopWatch *watch) {
  return atomic_load(&watch->requested);
}

void stop_watch_end(StopWatch *watch) {
  if (watch == NULL) return;
  atomic_store(&watch->ending, true);
  (void)pthread_kill(watch->thread, SIGUSR2);
  (void)pthread_join(watch->thread, NULL);
  (void)pthread_sigmask(SIG_SETMASK, &watch->previous, NULL);
  free(watch);
}
