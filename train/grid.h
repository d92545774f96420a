/* The grid of ranks, ring x data: starts the ranks and gives each its groups and its device.
 *
 * World rank w is number w mod ring of its ring and belongs to ring number w / ring, so that the neighbours
 * of a ring are neighbours in the world. */
#ifndef RINGGPT_TRAIN_GRID_H
#define RINGGPT_TRAIN_GRID_H

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
} Rank;

/* What a rank runs; `context` is shared by all ranks. */
typedef Status (*RankMain)(Rank *rank, void *context, Error *error);

/* Runs rank_main on every rank of the configured grid, each in a thread of its own (local transport), and
 * waits for all. A rank that fails takes the others with it; the failure that came first is reported, with
 * the number of its rank unless rank 0 failed itself. STATUS_CONFIG when a rank is to have more threads than
 * the machine has cores: OpenMP would end the process where it cannot start them. */
Status grid_run(const Config *config, RankMain rank_main, void *context, Error *error);

#endif
