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
  TRY(mpi_life_hear(hub, error));
  for (MpiGroup *group = hub->groups; group != NULL; group = group->next) {
    TRY(mpi_group_hear(group, moved, error));
    for (MpiOperation *operation = group->operations; operation != NULL; operation = operation->next) {
      TRY(mpi_operation_advance(group, operation, moved, error));
    }
  }
  return STATUS_OK;
}

/* Counts the time since the last turn. */
static void count_turn(MpiHub *hub) {
  const double now = clock_seconds();
  const double turn = now - hub->moved_at;
  hub->moved_at = now;
  hub->clock += turn < TURN_SECONDS ? turn : TURN_SECONDS;
  if (turn > SPEAK_SECONDS) hub->woke_at = now;
}

void mpi_progress(MpiHub *hub) {
  bool moved = true;
  count_turn(hub);
  for (int round = 0; moved && round < MOST_ROUNDS && !mpi_ended(hub); round++) {
    moved = false;
    (void)move(hub, &moved, &hub->fault);
    if (moved) hub->advanced_at = hub->clock;
  }
  count_turn(hub);
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
  char distance[32] = "";
  const unsigned long long amount = header->amount;
  if (header->kind == KIND_BARRIER || header->kind == KIND_SPLIT) {
    (void)snprintf(text, bytes, "a %s", kinds[header->kind]);
    return;
  }
  if (header->kind == KIND_SHIFT) {
    (void)snprintf(distance, sizeof distance, " by %d rank%s", (int)header->argument,
                   header->argument == 1 ? "" : "s");
  }
  (void)snprintf(text, bytes, "%s %s%s%s (%llu %s)",
                 strchr("ae", kinds[header->kind][0]) == NULL ? "a" : "an", kinds[header->kind],
                 label == NULL ? "" : label, distance, amount, header->width == 0 ? "bytes" : "elements");
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

/* Whether it waits for the header of `rank`. */
static bool awaits(const MpiGroup *group, const MpiOperation *operation, int rank) {
  return mpi_operation_connects(group, &operation->header, rank) && !operation->joined[rank];
}

/* Ends the program: says who waited for what. */
static void give_up(const MpiGroup *group, const MpiOperation *operation) {
  Error *cause = &group->hub->cause;
  const int waiting = group->hub->rank;
  char what[96];
  mpi_describe(&operation->header, what, sizeof what);
  const double seconds = group->hub->timeout;
  RankList list = {.count = 0};
  for (int rank = 0; rank < group->size; rank++) {
    if (awaits(group, operation, rank)) list_rank(&list, group->world_ranks[rank]);
  }
  if (list.count > 0) {
    (void)fail(cause, STATUS_SYSTEM, "rank %d waited %g s for %s: rank%s %s %s not joined it", waiting,
               seconds, what, list.count == 1 ? "" : "s", list.text, list.count == 1 ? "has" : "have");
    return;
  }
  list = under_way(group, operation, true);
  if (list.count > 0) {
    (void)fail(cause, STATUS_SYSTEM,
               "rank %d waited %g s for %s: all have joined; the data of rank%s %s do not arrive", waiting,
               seconds, what, list.count == 1 ? "" : "s", list.text);
    return;
  }
  list = under_way(group, operation, false);
  (void)fail(cause, STATUS_SYSTEM,
             "rank %d waited %g s for %s: all have joined; rank%s %s %s not take the data", waiting, seconds,
             what, list.count == 1 ? "" : "s", list.text, list.count == 1 ? "does" : "do");
}

/* ---------------------------------------------------------------- waiting */

/* Counts a wait from `begin` to `end`: until the last rank came it was for ranks, then for data. */
static void count_wait(CommWaits *waits, const MpiOperation *operation, double begin, double end) {
  const double ready = operation->ready_at;
  const double skew = ready <= begin ? 0.0 : (ready < end ? ready : end) - begin;
  waits->skew += skew;
  waits->exposed += end - begin - skew;
}

/* hub->clock when there was last computing, of this rank, which has waited since `begin`, or behind the ranks
 * that it waits for. Messages that move show it too; of a rank that has joined only they do. */
static double alive_at(const MpiGroup *group, const MpiOperation *operation, double begin) {
  const MpiHub *hub = group->hub;
  double last = hub->advanced_at > begin ? hub->advanced_at : begin;
  for (int rank = 0; operation->awaited > 0 && rank < group->size; rank++) {
    if (!awaits(group, operation, rank)) continue;
    const double theirs = hub->signs[group->world_ranks[rank]].alive_at;
    if (theirs > last) last = theirs;
  }
  return last;
}

/* The watchdog, at every turn of a wait. */
static void watch(const MpiGroup *group, const MpiOperation *operation, double begin) {
  MpiHub *hub = group->hub;
  if (hub->timeout <= 0.0) return;
  const double alive = alive_at(group, operation, begin);
  if (hub->clock - alive > hub->timeout) {
    give_up(group, operation);
  } else if (alive > begin) {
    mpi_life_give(hub, alive);
  }
}

Status mpi_await(MpiGroup *group, uint64_t id, CommWaits *waits, Error *error) {
  MpiHub *hub = group->hub;
  MpiOperation *operation = mpi_group_find(group, id);
  if (operation == NULL) {
    return fail(error, STATUS_INTERNAL, "operation %llu of a group is not under way", (unsigned long long)id);
  }
  count_turn(hub);
  const double begin = hub->moved_at;
  const double begin_clock = hub->clock;
  while (!operation->complete) {
    mpi_progress(hub);
    /* What is complete counts, also when a rank has failed since. */
    if (operation->complete) break;
    if (!mpi_ended(hub)) watch(group, operation, begin_clock);
    TRY(mpi_alive(hub, error));
    if (hub->moved_at - begin > SPIN_SECONDS) (void)sched_yield();
  }
  count_wait(waits, operation, begin, clock_seconds());
  mpi_operation_remove(group, operation);
  return STATUS_OK;
}

#endif
