/* The files of a prepared set in its folder: whether there are any, and removing them. */
#ifndef RINGGPT_DATA_PREPARED_SET_H
#define RINGGPT_DATA_PREPARED_SET_H

#include <stdbool.h>

#include "kernels/base/status.h"

/* Whether the folder holds a prepared set, or shards that an interrupted preparation left. STATUS_IO. */
Status prepared_set_exists(const char *directory, bool *exists, Error *error);

/* Removes the set: its description first, so that no half of a set passes for a whole one. Other files stay.
 * STATUS_IO. */
Status prepared_set_remove(const char *directory, Error *error);

#endif
