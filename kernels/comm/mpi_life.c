/* Signs of life of the MPI transport. A rank that computes says so to every other rank now and then, so that
 * a rank that waits for it tells a long computation from a hang. A rank that waits hands on what the ranks it
 * waits for have given, so that chains of waiting ranks hold. A sign says how long ago there was computing
 * behind it, on the clocks of the ranks that it came through: in a deadlock it may go round, but it grows
 * older, and keeps nobody waiting for longer. Nobody has more than one sign of a rank to take in, however
 * long it keeps out of MPI: a send is synchronous, and the next one follows when it has been received. */
#include "kernels/comm/comm.h"

#if RINGGPT_MPI

#include <sched.h>

#include "kernels/comm/mpi_state.h"

/* Seconds between the signs of a rank: at most this, and several within the time of the watchdog. */
#define MOST_INTERVAL 10.0
#define SIGNS_PER_TIMEOUT 4.0

Status mpi_life_listen(MpiHub *hub, Error *error) {
  TRY(mpi_check(MPI_Recv_init(&hub->heard_age, (int)sizeof hub->heard_age, MPI_BYTE, MPI_ANY_SOURCE, TAG_LIFE,
                              hub->control, &hub->hearing_life),
                "receiving", error));
  return mpi_check(MPI_Start(&hub->hearing_life), "receiving", error);
}

Status mpi_life_hear(MpiHub *hub, Error *error) {
  for (int i = 1; i < hub->size; i++) {
    int came = 0;
    MPI_Status from;
    TRY(mpi_check(MPI_Test(&hub->hearing_life, &came, &from), "a sign of life", error));
    if (came == 0) break;
    const double alive_at = hub->clock - hub->heard_age;
    MpiSign *sign = &hub->signs[from.MPI_SOURCE];
    if (alive_at > sign->alive_at) sign->alive_at = alive_at;
    TRY(mpi_check(MPI_Start(&hub->hearing_life), "receiving", error));
  }
  return STATUS_OK;
}

static Status give(MpiHub *hub, double alive_at, Error *error) {
  for (int i = 1; i < hub->size; i++) {
    const int rank = (hub->rank + i) % hub->size;
    MpiSign *sign = &hub->signs[rank];
    int sent = 0;
    TRY(mpi_check(MPI_Test(&sign->request, &sent, MPI_STATUS_IGNORE), "a sign of life", error));
    if (sent == 0) continue;
    sign->age = hub->clock - alive_at;
    TRY(mpi_check(
        MPI_Issend(&sign->age, (int)sizeof sign->age, MPI_BYTE, rank, TAG_LIFE, hub->control, &sign->request),
        "a sign of life", error));
  }
  return STATUS_OK;
}

void mpi_life_give(MpiHub *hub, double alive_at) {
  const double share = hub->timeout / SIGNS_PER_TIMEOUT;
  const double interval = share < MOST_INTERVAL ? share : MOST_INTERVAL;
  if (hub->timeout <= 0.0 || mpi_ended(hub)) return;
  if (alive_at <= hub->given_alive_at || hub->moved_at - hub->given_at < interval) return;
  hub->given_at = hub->moved_at;
  hub->given_alive_at = alive_at;
  (void)give(hub, alive_at, &hub->fault);
}

/* Whether every rank has received what this one gave. */
static bool all_received(MpiHub *hub, Error *error) {
  int received = 1;
  for (int rank = 0; rank < hub->size && received != 0 && error->status == STATUS_OK; rank++) {
    (void)mpi_check(MPI_Test(&hub->signs[rank].request, &received, MPI_STATUS_IGNORE), "ending", error);
  }
  return received != 0;
}

void mpi_life_end(MpiHub *hub) {
  Error ignored = {0};
  MPI_Request barrier = MPI_REQUEST_NULL;
  int done = 0;
  /* What this rank gave is received by all, then what all gave is received by this rank. */
  while (ignored.status == STATUS_OK && !all_received(hub, &ignored)) {
    (void)mpi_life_hear(hub, &ignored);
    (void)sched_yield();
  }
  (void)mpi_check(MPI_Ibarrier(hub->control, &barrier), "ending", &ignored);
  while (ignored.status == STATUS_OK && done == 0) {
    (void)mpi_life_hear(hub, &ignored);
    (void)mpi_check(MPI_Test(&barrier, &done, MPI_STATUS_IGNORE), "ending", &ignored);
    (void)sched_yield();
  }
  mpi_receive_end(&hub->hearing_life);
}

#endif
