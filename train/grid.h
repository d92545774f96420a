/* The grid of ranks, ring x data: starts the ranks, as threads or as what an MPI launcher started, and gives
 * each its groups and its device.
 *
 * World rank w is number w mod ring of its ring and belongs to ring number w / ring, so that the neighbours
 * of a ring are neighbours in the world. */
#ifndef RINGGPT_TRAIN_GRID_H
#define RINGGPT_TRAIN_GRID_H

#include <stdbool.h>

#include "kernels/base/status.h"
#include "kernels/comm/comm.h"
#include "kernels/device.h"
#include "train/config.h"

/* What one rank has. */
typedef struct Rank {
  Comm *world; /* all ranks */
  Comm *ring;  /* the ranks that share this rank's sequences */
  int data_rank;
  int data_size;
  Device *device;
  char movers[64];        /* what carries messages, for the log: "local", "mpi and NCCL 2.28.9" */
  bool crowded;           /* its compute threads share cores with others of the program */
  char device_note[1024]; /* why the device is not the fastest, or a warning; empty: neither */
} Rank;

/* Ends all communication of the program because of this rank (comm_abort), in all its groups. */
void rank_abort(Rank *rank, const Error *cause);

/* What a rank runs; `context` is shared by all ranks. */
typedef Status (*RankMain)(Rank *rank, void *context, Error *error);

/* Runs rank_main on every rank of the configured grid and waits for all. Without `processes`, or with one
 * process and more ranks, each rank is a thread of this process (local transport); otherwise this process is
 * one rank among `processes`, the group that an MPI launcher started. A rank that fails takes the others with
 * it; the failure that came first is reported, with the number of its rank unless this rank failed itself.
 * STATUS_CONFIG when the grid is not made for so many processes or a rank cannot have its threads. */
Status grid_run(const Config *config, Comm *processes, RankMain rank_main, void *context, Error *error);

#endif
