/* Watches over an evaluation from the middle of its computations, by the device's poll hook: shows how far it
 * is and how long it will still take, and ends it soon after a signal.
 *
 * Progress is counted in work, that is operations on numbers, of which a window's are known before. Within a
 * window it follows the pairs of queries and keys that attention has been through, where the device counts
 * them. On a terminal it is a bar, elsewhere a line now and then, on standard error; an evaluation of seconds
 * shows nothing. */
#ifndef RINGGPT_TRAIN_EVAL_WATCH_H
#define RINGGPT_TRAIN_EVAL_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "train/grid.h"
#include "train/stop.h"

typedef struct EvalWatch {
  Rank *rank;
  StopWatch *stop; /* NULL: signals are not watched */
  bool shows;      /* this rank shows the progress */
  bool terminal;   /* as a bar */
  double quiet;    /* seconds from the start to the first sign */
  double interval; /* seconds from one line to the next at least */

  double total;       /* work of all that is to come */
  double done;        /* before the window at hand */
  double window;      /* work of that window */
  int64_t pairs;      /* its pairs so far, of all layers: device->pairs */
  int64_t pairs_due;  /* its pairs in the end */
  char what[96];      /* what is at hand, "context 65,536, window 3 of 16" */
  double what_total;  /* work of the part of the evaluation that `what` is in, */
  double what_before; /* and what was done before it */

  double begin;      /* when it started */
  double next;       /* when to look again */
  double shown;      /* when a line was printed last */
  double shown_part; /* what part of the work was done then */
  bool bar;          /* a bar is on the terminal */

  void (*poll)(void *context); /* the hook before */
  void *poll_context;
} EvalWatch;

/* Begins with `total` work before it, from the thread of the rank; rank 0 of the world shows. `stop` may be
 * NULL. From then on the rank's computations fail with STATUS_STOPPED soon after a signal, and with the cause
 * when another rank has ended the program. */
void eval_watch_begin(EvalWatch *watch, Rank *rank, StopWatch *stop, double total);

/* A part of the evaluation begins, such as one context, of so much work; it is named when the watch speaks of
 * how far it came. */
void eval_watch_part(EvalWatch *watch, double work);

/* A window of `work` and `pairs` begins; `what` names it. And it has ended. */
void eval_watch_window(EvalWatch *watch, double work, int64_t pairs, const char *what);
void eval_watch_window_end(EvalWatch *watch);

/* Says how far it came: "context 65,536, window 3 of 16, 40 % of this context, 12 % of all, after 3 min". */
void eval_watch_place(const EvalWatch *watch, char *text, size_t bytes);

/* The end of an evaluation that a signal ended at `place` of eval_watch_place (empty: before it began), with
 * `finished` of `contexts`: STATUS_STOPPED, in place of what `error` said. */
Status eval_watch_stopped(const char *place, int64_t finished, int64_t contexts, Error *error);

/* Ends the watch; the hook is as before. */
void eval_watch_end(EvalWatch *watch);

#endif
