/* What moves the MPI transport: one function that advances every operation of every group, and the wait that
 * calls it, tells apart what it waits for, and gives up after a while. */
#include "kernels/comm/comm.h"

#if RINGGPT_MPI

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "kernels/comm/mpi_state.h"

/* How often one call goes round while things move: whatever has come is then taken in and followed up, and a
 * poll still returns soon. */
enum { MOST_ROUNDS = 4 };

/* How long a wait keeps its core before it offers it to other ranks at every turn. */
#define SPIN_SECONDS 10e-6

/* After an alarm everything is looked at once more: what a rank sent before its alarm has come before it, and
 * an operation that is complete on the rank that failed should be so here. */
static Status move(MpiHub *hub, bool *moved, Error *error) {
  TRY(mpi_alarm_hear(hub, error));
  for (MpiGroup *group = hub->groups; group != NULL; group = group->next) {
    TRY(mpi_group_hear(group, moved, error));
    for (MpiOperation *operation = group->operations; operation != NULL; operation = operation->next) {
      TRY(mpi_operation_advance(group, operation, moved, error));
    }
  }
  return STATUS_OK;
}

void mpi_progress(MpiHub *hub) {
  bool moved = true;
  for (int round = 0; moved && round < MOST_ROUNDS; round++) {
    if (hub->cause.status != STATUS_OK || hub->fault.status != STATUS_OK) break;
    moved = false;
    (void)move(hub, &moved, &hub->fault);
  }
  hub->moved_at = clock_seconds();
}

/* ---------------------------------------------------------------- words */

void mpi_describe(const MpiHeader *header, char *text, size_t bytes) {
  static const char *const kinds[] = {
      [KIND_SHIFT] = "shift",
      [KIND_BARRIER] = "barrier",
      [KIND_BROADCAST] = "broadcast",
      [KIND_ALL_GATHER] = "all-gather",
      [KIND_GATHER_PARTS] = "gather",
      [KIND_ALL_REDUCE] = "all-reduce",
      [KIND_SPLIT] = "split of a group",
      [KIND_REDUCE_SCATTER] = "reduce-scatter",
  };
  static const char *const labels[COMM_LABELS] = {
      [COMM_KEYS_VALUES] = " of keys and values",
      [COMM_KEY_VALUE_GRADIENTS] = " of gradients of keys and values",
      [COMM_GRADIENTS] = " of gradients",
      [COMM_WEIGHTS] = " of weights",
  };
  const char *label = labels[header->label];
  const unsigned long long amount = header->amount;
  if (header->kind == KIND_BARRIER || header->kind == KIND_SPLIT) {
    (void)snprintf(text, bytes, "a %s", kinds[header->kind]);
    return;
  }
  (void)snprintf(text, bytes, "%s %s%s (%llu %s)", strchr("ae", kinds[header->kind][0]) == NULL ? "a" : "an",
                 kinds[header->kind], label == NULL ? "" : label, amount,
                 header->width == 0 ? "bytes" : "elements");
}

/* Ranks in words: "0, 3". */
typedef struct RankList {
  char text[512];
  size_t used;
  int count;
} RankList;

static void list_rank(RankList *list, int rank) {
  const int written = snprintf(list->text + list->used, sizeof list->text - list->used, "%s%d",
                               list->count == 0 ? "" : ", ", rank);
  if (written > 0 && (size_t)written < sizeof list->text - list->used) list->used += (size_t)written;
  list->count += 1;
}

/* The ranks with which a message in one direction is under way. */
static RankList under_way(const MpiGroup *group, const MpiOperation *operation, bool receives) {
  RankList list = {.count = 0};
  for (int rank = 0; rank < group->size; rank++) {
    bool open = false;
    for (int i = 0; i < operation->stream_count; i++) {
      const MpiStream *stream = &operation->streams[i];
      open = open || (stream->peer == rank && stream->receives == receives && stream->done < stream->begun);
    }
    if (open) list_rank(&list, group->world_ranks[rank]);
  }
  return list;
}

static Status give_up(const MpiGroup *group, const MpiOperation *operation, Error *error) {
  char what[96];
  mpi_describe(&operation->header, what, sizeof what);
  const double seconds = group->hub->timeout;
  RankList list = {.count = 0};
  for (int rank = 0; rank < group->size; rank++) {
    if (!mpi_operation_connects(group, &operation->header, rank) || operation->joined[rank]) continue;
    list_rank(&list, group->world_ranks[rank]);
  }
  if (list.count > 0) {
    return fail(error, STATUS_SYSTEM, "waited %g s for %s: rank%s %s %s not joined it", seconds, what,
                list.count == 1 ? "" : "s", list.text, list.count == 1 ? "has" : "have");
  }
  list = under_way(group, operation, true);
  if (list.count > 0) {
    return fail(error, STATUS_SYSTEM,
                "waited %g s for %s: all have joined; the data of rank%s %s do not arrive", seconds, what,
                list.count == 1 ? "" : "s", list.text);
  }
  list = under_way(group, operation, false);
  return fail(error, STATUS_SYSTEM, "waited %g s for %s: all have joined; rank%s %s %s not take the data",
              seconds, what, list.count == 1 ? "" : "s", list.text, list.count == 1 ? "does" : "do");
}

/* ---------------------------------------------------------------- waiting */

/* Counts a wait from `begin` to `end`: until the last rank came it was for ranks, then for data. */
static void count_wait(CommWaits *waits, const MpiOperation *operation, double begin, double end) {
  const double ready = operation->ready_at;
  const double skew = ready <= begin ? 0.0 : (ready < end ? ready : end) - begin;
  waits->skew += skew;
  waits->exposed += end - begin - skew;
}

Status mpi_await(MpiGroup *group, uint64_t id, CommWaits *waits, Error *error) {
  MpiHub *hub = group->hub;
  MpiOperation *operation = mpi_group_find(group, id);
  if (operation == NULL) {
    return fail(error, STATUS_INTERNAL, "operation %llu of a group is not under way", (unsigned long long)id);
  }
  const double begin = clock_seconds();
  while (!operation->complete) {
    mpi_progress(hub);
    /* What is complete counts, also when a rank has failed since. */
    if (operation->complete) break;
    TRY(mpi_alive(hub, error));
    const double waited = hub->moved_at - begin;
    if (hub->timeout > 0.0 && waited > hub->timeout) return give_up(group, operation, error);
    if (waited > SPIN_SECONDS) (void)sched_yield();
  }
  count_wait(waits, operation, begin, clock_seconds());
  mpi_operation_remove(group, operation);
  return STATUS_OK;
}

#endif
