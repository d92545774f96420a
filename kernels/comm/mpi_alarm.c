/* Failures of the MPI transport. A rank that fails, or hears of a failure, tells every other rank why, once,
 * over a communicator of its own. Then it waits a moment until it has heard from all: by then nobody moves
 * messages any more, and each rank may release its buffers. From there on it keeps out of MPI until the
 * program is ended by comm_mpi_kill, because MPI would go on with the messages that were under way. */
#include "kernels/comm/comm.h"

#if RINGGPT_MPI

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "kernels/comm/mpi_state.h"

/* How long a rank waits for the others to hear of a failure: one that computes without polling, or hangs,
 * does not hold up the end for longer. */
#define FAREWELL_SECONDS 1.0

Status mpi_check(int code, const char *what, Error *error) {
  if (code == MPI_SUCCESS) return STATUS_OK;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) {
    (void)snprintf(text, sizeof text, "error %d", code);
  }
  return fail(error, STATUS_SYSTEM, "MPI: %s: %s", what, text);
}

Status mpi_check_some(int code, int count, const MPI_Status *statuses, const char *what, Error *error) {
  if (code == MPI_SUCCESS) return STATUS_OK;
  for (int i = 0; code == MPI_ERR_IN_STATUS && i < count; i++) {
    const int one = statuses[i].MPI_ERROR;
    if (one != MPI_ERR_PENDING) TRY(mpi_check(one, what, error));
  }
  return mpi_check(code, what, error);
}

/* ---------------------------------------------------------------- alarms */

Status mpi_alarm_listen(MpiHub *hub, Error *error) {
  TRY(mpi_check(MPI_Recv_init(&hub->heard, (int)sizeof hub->heard, MPI_BYTE, MPI_ANY_SOURCE, TAG_ALARM,
                              hub->control, &hub->hearing),
                "receiving", error));
  return mpi_check(MPI_Start(&hub->hearing), "receiving", error);
}

void mpi_receive_end(MPI_Request *request) {
  int done = 0;
  (void)MPI_Cancel(request);
  while (done == 0 && MPI_Test(request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS) continue;
  (void)MPI_Request_free(request);
}

void mpi_alarm_deafen(MpiHub *hub) {
  mpi_receive_end(&hub->hearing);
}

Status mpi_alarm_hear(MpiHub *hub, Error *error) {
  int came = 0;
  MPI_Status from;
  TRY(mpi_check(MPI_Test(&hub->hearing, &came, &from), "an alarm", error));
  if (came == 0) return STATUS_OK;
  hub->alarms += 1;
  hub->answered[from.MPI_SOURCE] = true;
  if (hub->cause.status == STATUS_OK) {
    (void)fail(&hub->cause, (Status)hub->heard.status, "%s", hub->heard.text);
  }
  return mpi_check(MPI_Start(&hub->hearing), "receiving", error);
}

static void tell(MpiHub *hub) {
  hub->told.status = (int32_t)hub->cause.status;
  memcpy(hub->told.text, hub->cause.text, sizeof hub->told.text);
  for (int rank = 0; rank < hub->size; rank++) {
    if (rank == hub->rank) continue;
    (void)MPI_Isend(&hub->told, (int)sizeof hub->told, MPI_BYTE, rank, TAG_ALARM, hub->control,
                    &hub->telling[rank]);
  }
}

/* Tells the others and waits until they have stopped. What fails here is not reported: there is a cause. */
static void leave(MpiHub *hub) {
  if (hub->left) return;
  hub->left = true;
  tell(hub);
  Error ignored = {0};
  const double end = clock_seconds() + FAREWELL_SECONDS;
  int sent = 0;
  while (ignored.status == STATUS_OK && (sent == 0 || hub->alarms < hub->size - 1) && clock_seconds() < end) {
    (void)mpi_alarm_hear(hub, &ignored);
    (void)mpi_check(MPI_Testall(hub->size, hub->telling, &sent, MPI_STATUSES_IGNORE), "an alarm", &ignored);
    (void)sched_yield();
  }
}

bool mpi_ended(const MpiHub *hub) {
  return hub->cause.status != STATUS_OK || hub->fault.status != STATUS_OK;
}

Status mpi_alive(MpiHub *hub, Error *error) {
  if (!mpi_ended(hub)) return STATUS_OK;
  if (!hub->left) hub->late = hub->moved_at - hub->woke_at < SPEAK_SECONDS;
  /* A rank that ended may be the reason of a fault: its word goes first. */
  if (hub->fault.status != STATUS_OK && hub->cause.status == STATUS_OK) {
    Error ignored = {0};
    (void)mpi_alarm_hear(hub, &ignored);
  }
  if (hub->cause.status != STATUS_OK) {
    leave(hub);
    return fail(error, hub->cause.status, "%s", hub->cause.text);
  }
  return fail(error, hub->fault.status, "%s", hub->fault.text);
}

void mpi_alarm_raise(MpiHub *hub, const Error *cause) {
  if (hub->cause.status == STATUS_OK) {
    (void)fail(&hub->cause, cause->status, "rank %d: %s", hub->rank, cause->text);
  }
  leave(hub);
}

#endif
