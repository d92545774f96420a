/* Watches over an evaluation: progress, time left and signals. */
#include "train/eval_watch.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/clock.h"
#include "train/progress.h"

/* Seconds between two looks at the signals and the progress. */
#define LOOK_SECONDS 0.1
/* Seconds after which an evaluation is worth a sign on a terminal, and those between two lines elsewhere. */
#define QUIET_SECONDS 1.0
#define LINE_SECONDS 30.0
/* The part of the work that lies between two lines at least. */
#define LINE_PART 0.02

/* ---------------------------------------------------------------- how far */

/* Work done so far, with the part of the window at hand. */
static double work_done(const EvalWatch *watch) {
  const double pairs = (double)__atomic_load_n(&watch->pairs, __ATOMIC_RELAXED);
  double part = watch->pairs_due > 0 ? pairs / (double)watch->pairs_due : 0.0;
  if (part > 1.0) part = 1.0;
  return watch->done + part * watch->window;
}

static double part_of(double done, double total) {
  return total > 0.0 ? done / total : 1.0;
}

void eval_watch_place(const EvalWatch *watch, char *text, size_t bytes) {
  char elapsed[32];
  const double done = work_done(watch);
  progress_duration(clock_seconds() - watch->begin, elapsed, sizeof elapsed);
  (void)snprintf(text, bytes, "%s, %.0f %% of this context, %.0f %% of all, after %s", watch->what,
                 100.0 * part_of(done - watch->what_before, watch->what_total),
                 100.0 * part_of(done, watch->total), elapsed);
}

Status eval_watch_stopped(const char *place, int64_t finished, int64_t contexts, Error *error) {
  *error = (Error){0};
  return fail(error, STATUS_STOPPED, "stopped by a signal in %s; %lld of %lld contexts are finished",
              place[0] == '\0' ? "its beginning" : place, (long long)finished, (long long)contexts);
}

/* ---------------------------------------------------------------- showing */

static void show_bar(EvalWatch *watch, double part, double left) {
  enum { COLUMNS = 78 }; /* what a line of a terminal surely holds */
  char bar[COLUMNS];
  progress_bar((int64_t)(1000.0 * part), 1000, left, bar, sizeof bar);
  const int room = COLUMNS - (int)strlen(bar);
  (void)fprintf(stderr, "\r%s  %.*s\033[K", bar, room, watch->what);
  watch->bar = true;
}

static void show_line(EvalWatch *watch, double now, double part, double left) {
  char elapsed[32];
  char remaining[32];
  progress_duration(now - watch->begin, elapsed, sizeof elapsed);
  progress_duration(left, remaining, sizeof remaining);
  (void)fprintf(stderr, "evaluation %.0f %%, %s, %s elapsed, %s left\n", 100.0 * part, watch->what, elapsed,
                remaining);
  watch->shown = now;
  watch->shown_part = part;
}

static void show(EvalWatch *watch, double now) {
  const double elapsed = now - watch->begin;
  const double part = part_of(work_done(watch), watch->total);
  if (part <= 0.0 || elapsed < watch->quiet) return;
  const double left = elapsed * (1.0 - part) / part;
  if (watch->terminal) {
    show_bar(watch, part, left);
  } else if (now - watch->shown >= watch->interval && part - watch->shown_part >= LINE_PART) {
    show_line(watch, now, part, left);
  }
}

/* ---------------------------------------------------------------- the hook */

/* Ends what is computed when a signal came, or when another rank has ended the program. */
static void look_for_the_end(const EvalWatch *watch) {
  Error cause = {0};
  Rank *rank = watch->rank;
  if (watch->stop != NULL && stop_requested(watch->stop)) {
    device_fail(rank->device, STATUS_STOPPED, "stopped by a signal");
  } else if (comm_ended(rank->world) && comm_barrier(rank->world, &cause) != STATUS_OK) {
    device_fail(rank->device, cause.status, "%s", cause.text);
  }
}

static void poll(void *context) {
  EvalWatch *watch = context;
  if (watch->poll != NULL) watch->poll(watch->poll_context);
  const double now = clock_seconds();
  if (now < watch->next) return;
  watch->next = now + LOOK_SECONDS;
  if (!device_failed(watch->rank->device)) look_for_the_end(watch);
  if (watch->shows && !device_failed(watch->rank->device)) show(watch, now);
}

void eval_watch_begin(EvalWatch *watch, Rank *rank, StopWatch *stop, double total) {
  const double now = clock_seconds();
  *watch = (EvalWatch){.rank = rank,
                       .stop = stop,
                       .shows = rank->world->rank == 0,
                       .terminal = isatty(STDERR_FILENO) != 0,
                       .quiet = QUIET_SECONDS,
                       .interval = LINE_SECONDS,
                       .total = total,
                       .begin = now,
                       .next = now,
                       .shown = now,
                       .poll = rank->device->poll,
                       .poll_context = rank->device->poll_context};
  rank->device->poll = poll;
  rank->device->poll_context = watch;
  rank->device->pairs = &watch->pairs;
}

void eval_watch_part(EvalWatch *watch, double work) {
  watch->what_total = work;
  watch->what_before = watch->done;
}

void eval_watch_window(EvalWatch *watch, double work, int64_t pairs, const char *what) {
  watch->window = work;
  watch->pairs_due = pairs;
  __atomic_store_n(&watch->pairs, 0, __ATOMIC_RELAXED);
  (void)snprintf(watch->what, sizeof watch->what, "%s", what);
}

void eval_watch_window_end(EvalWatch *watch) {
  watch->done += watch->window;
  watch->window = 0.0;
}

void eval_watch_end(EvalWatch *watch) {
  if (watch->rank == NULL) return;
  if (watch->bar) (void)fputs("\r\033[K", stderr);
  watch->rank->device->poll = watch->poll;
  watch->rank->device->poll_context = watch->poll_context;
  watch->rank->device->pairs = NULL;
}
