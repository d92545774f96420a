/* Groups of the MPI transport: a communicator each, and the headers that come over it. Of every other rank
 * one header is received at a time; the next one only when this rank has started the operation it belongs to.
 */
#include "kernels/comm/comm.h"

#if RINGGPT_MPI

#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/clock.h"
#include "kernels/comm/mpi_state.h"

/* ---------------------------------------------------------------- headers */

MpiOperation *mpi_group_find(const MpiGroup *group, uint64_t id) {
  MpiOperation *operation = group->operations;
  while (operation != NULL && operation->header.id != id) operation = operation->next;
  return operation;
}

static bool agrees(const MpiHeader *a, const MpiHeader *b) {
  return a->amount == b->amount && a->width == b->width && a->argument == b->argument && a->kind == b->kind &&
         a->label == b->label && a->type == b->type && a->reduction == b->reduction;
}

static Status disagree(const MpiGroup *group, const MpiOperation *operation, int rank, Error *error) {
  const MpiHeader *header = &group->headers[rank];
  char theirs[96];
  char own[96] = "another operation";
  mpi_describe(header, theirs, sizeof theirs);
  if (operation != NULL) mpi_describe(&operation->header, own, sizeof own);
  return fail(error, STATUS_INTERNAL,
              "ranks disagree about collective operation %llu of their group: rank %d came with %s, rank %d "
              "with %s",
              (unsigned long long)header->id, group->world_ranks[rank], theirs,
              group->world_ranks[group->rank], own);
}

/* Gives the header of `rank` to its operation, if that has been started, and asks for the next. */
static Status match(MpiGroup *group, int rank, Error *error) {
  const MpiHeader *header = &group->headers[rank];
  if (header->id >= group->next_id) return STATUS_OK;
  MpiOperation *operation = mpi_group_find(group, header->id);
  if (operation == NULL || !agrees(header, &operation->header)) {
    return disagree(group, operation, rank, error);
  }
  operation->joined[rank] = true;
  operation->awaited -= 1;
  operation->ready_at = clock_seconds();
  group->held[rank] = false;
  return mpi_check(MPI_Start(&group->receives[rank]), "receiving", error);
}

Status mpi_group_match(MpiGroup *group, Error *error) {
  for (int rank = 0; rank < group->size; rank++) {
    if (group->held[rank]) TRY(match(group, rank, error));
  }
  return STATUS_OK;
}

Status mpi_group_hear(MpiGroup *group, bool *moved, Error *error) {
  int done = 0;
  const int code = MPI_Testsome(group->size, group->receives, &done, group->indices, group->statuses);
  TRY(mpi_check_some(code, done, group->statuses, "a header", error));
  if (done == MPI_UNDEFINED) return STATUS_OK;
  for (int i = 0; i < done; i++) {
    const int rank = group->indices[i];
    *moved = true;
    group->held[rank] = true;
    TRY(match(group, rank, error));
  }
  return STATUS_OK;
}

/* ---------------------------------------------------------------- life */

static Status translate_ranks(MpiGroup *group, Error *error) {
  MPI_Group world = MPI_GROUP_NULL;
  MPI_Group own = MPI_GROUP_NULL;
  int *places = calloc((size_t)group->size, sizeof *places);
  Status status = STATUS_OK;
  if (places == NULL) return fail(error, STATUS_SYSTEM, "no memory for a group of ranks");
  for (int rank = 0; rank < group->size; rank++) places[rank] = rank;
  TRY_GOTO(mpi_check(MPI_Comm_group(group->hub->control, &world), "making a group", error), done);
  TRY_GOTO(mpi_check(MPI_Comm_group(group->mpi, &own), "making a group", error), done);
  status = mpi_check(MPI_Group_translate_ranks(own, group->size, places, world, group->world_ranks),
                     "making a group", error);
done:
  if (own != MPI_GROUP_NULL) (void)MPI_Group_free(&own);
  if (world != MPI_GROUP_NULL) (void)MPI_Group_free(&world);
  free(places);
  return status;
}

static Status listen(MpiGroup *group, Error *error) {
  for (int rank = 0; rank < group->size; rank++) {
    if (rank == group->rank) continue;
    MPI_Request *receive = &group->receives[rank];
    TRY(mpi_check(MPI_Recv_init(&group->headers[rank], (int)sizeof(MpiHeader), MPI_BYTE, rank, TAG_HEADER,
                                group->mpi, receive),
                  "receiving", error));
    TRY(mpi_check(MPI_Start(receive), "receiving", error));
  }
  return STATUS_OK;
}

/* The arrays by rank. */
static Status group_alloc(MpiGroup *group, Error *error) {
  const size_t size = (size_t)group->size;
  group->world_ranks = calloc(size, sizeof *group->world_ranks);
  group->headers = calloc(size, sizeof *group->headers);
  group->held = calloc(size, sizeof *group->held);
  group->receives = malloc(size * sizeof(MPI_Request));
  group->indices = calloc(size, sizeof *group->indices);
  group->statuses = calloc(size, sizeof *group->statuses);
  for (size_t i = 0; group->receives != NULL && i < size; i++) group->receives[i] = MPI_REQUEST_NULL;
  if (group->world_ranks == NULL || group->headers == NULL || group->held == NULL ||
      group->receives == NULL || group->indices == NULL || group->statuses == NULL) {
    return fail(error, STATUS_SYSTEM, "no memory for a group of %d ranks", group->size);
  }
  return STATUS_OK;
}

Status mpi_group_create(MpiHub *hub, MPI_Comm mpi, MpiGroup **out, Error *error) {
  *out = NULL;
  Status status = STATUS_OK;
  MpiGroup *group = calloc(1, sizeof *group);
  if (group == NULL) {
    (void)MPI_Comm_free(&mpi);
    return fail(error, STATUS_SYSTEM, "no memory for a group of ranks");
  }
  *group = (MpiGroup){.next = hub->groups, .hub = hub, .mpi = mpi, .next_id = 1};
  hub->groups = group;
  TRY_GOTO(mpi_check(MPI_Comm_set_errhandler(mpi, MPI_ERRORS_RETURN), "making a group", error), failed);
  TRY_GOTO(mpi_check(MPI_Comm_rank(mpi, &group->rank), "making a group", error), failed);
  TRY_GOTO(mpi_check(MPI_Comm_size(mpi, &group->size), "making a group", error), failed);
  TRY_GOTO(group_alloc(group, error), failed);
  TRY_GOTO(translate_ranks(group, error), failed);
  TRY_GOTO(listen(group, error), failed);
  *out = group;
  return STATUS_OK;
failed:
  mpi_group_destroy(group);
  return status;
}

/* Ends the receives of headers that will not come. */
static void deafen(MpiGroup *group) {
  for (int rank = 0; group->receives != NULL && rank < group->size; rank++) {
    MPI_Request *receive = &group->receives[rank];
    if (*receive == MPI_REQUEST_NULL) continue;
    if (!group->held[rank]) (void)MPI_Cancel(receive);
    (void)MPI_Wait(receive, MPI_STATUS_IGNORE);
    (void)MPI_Request_free(receive);
  }
}

void mpi_group_destroy(MpiGroup *group) {
  if (group == NULL) return;
  MpiHub *hub = group->hub;
  if (group->operations != NULL && hub->cause.status == STATUS_OK) {
    (void)fail(&hub->cause, STATUS_INTERNAL, "a group of ranks was given up with an operation under way");
  }
  /* After a failure nothing may move any more: a message would land in memory that is released. */
  if (hub->cause.status == STATUS_OK && hub->fault.status == STATUS_OK) {
    deafen(group);
    (void)MPI_Comm_free(&group->mpi);
  }
  while (group->operations != NULL) mpi_operation_remove(group, group->operations);
  MpiGroup **link = &hub->groups;
  while (*link != group) link = &(*link)->next;
  *link = group->next;
  free(group->staging);
  free(group->world_ranks);
  free(group->headers);
  free(group->held);
  free(group->receives);
  free(group->indices);
  free(group->statuses);
  free(group);
}

#endif
