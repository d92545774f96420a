/* Agreement of all ranks on whether a step of a save or load succeeded. */
#ifndef RINGGPT_CHECKPOINTS_AGREE_H
#define RINGGPT_CHECKPOINTS_AGREE_H

#include "kernels/base/status.h"
#include "kernels/comm/comm.h"

/* Returns STATUS_OK on every rank when every rank gives STATUS_OK, and otherwise on every rank the status and
 * message of the first rank that failed, which replace *error. Collective; fails as comm does. */
Status agree(Comm *world, Status local, Error *error);

#endif
