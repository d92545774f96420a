/* The files of a prepared set in its folder: whether there are any, and how a new set takes their place.
 *
 * A new set is written whole into the folder DIR/.new and moved up only then, so that whatever goes wrong
 * before costs the old set nothing. */
#ifndef RINGGPT_DATA_PREPARED_SET_H
#define RINGGPT_DATA_PREPARED_SET_H

#include <stdbool.h>

#include "kernels/base/status.h"

/* Whether an entry of this name in the folder of a set belongs to the set, or to one that is being made. */
bool prepared_set_owns(const char *name);

/* Whether the folder holds a prepared set, or shards without their description. STATUS_IO. */
Status prepared_set_exists(const char *directory, bool *exists, Error *error);

/* Makes the empty folder in which a new set is to be written, and removes what a preparation that was killed
 * left there. *fresh is its path, a new block that the caller frees. STATUS_IO. */
Status prepared_set_begin(const char *directory, char **fresh, Error *error);

/* Replaces the set in `directory` by the one in `fresh`, whose description was written last and durably, and
 * removes `fresh`. The old description goes first and the new one comes last, so that no half of a set passes
 * for a whole one. Files that are not of a set stay. STATUS_IO. */
Status prepared_set_finish(const char *directory, const char *fresh, Error *error);

/* Removes `fresh` and what was written there; it need not exist. STATUS_IO. */
Status prepared_set_discard(const char *fresh, Error *error);

#endif
