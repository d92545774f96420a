/* The files of a prepared set in its folder, shards, their indexes, the files of its tokenizer and its
 * description: whether there are any, and how a new set takes their place.
 *
 * A new set is written whole into the folder DIR/.new and moved up only then, so that whatever goes wrong
 * before costs the old set nothing. */
#ifndef RINGGPT_DATA_PREPARED_SET_H
#define RINGGPT_DATA_PREPARED_SET_H

#include <stdbool.h>

#include "data/tokenizer.h"
#include "kernels/base/status.h"

/* Whether an entry of this name in the folder of a set belongs to the set, or to one that is being made. */
bool prepared_set_owns(const char *name);

/* Whether the folder holds a prepared set, or shards without their description. STATUS_IO. */
Status prepared_set_exists(const char *directory, bool *exists, Error *error);

/* Makes the empty folder in which a new set is to be written, and removes what a preparation that was killed
 * left there. *fresh is its path, a new block that the caller frees. STATUS_IO. */
Status prepared_set_begin(const char *directory, char **fresh, Error *error);

/* Keeps every other preparation out of the folder until *lock, -1 before, is closed; a file system without
 * locks cannot. STATUS_USAGE when another one is at work there, STATUS_IO. */
Status prepared_set_lock(const char *directory, int *lock, Error *error);

/* Whether a set with these files of a tokenizer can take its place in the folder: STATUS_USAGE names what is
 * no regular file and stands where one of the set's is to be, or is to be removed; and, unless the set may
 * overwrite what is there, the first file of a tokenizer that holds something else. */
Status prepared_set_check(const char *directory, const TokenizerFiles *files, bool overwrite, Error *error);

/* Writes the files of the tokenizer to `fresh`, synced; their names are durable with the description.
 * STATUS_IO. */
Status prepared_set_write_tokenizer(const char *fresh, const TokenizerFiles *files, Error *error);

/* Replaces the set in `directory` by the one in `fresh`, whose description was written last and durably, and
 * removes `fresh`. The old description goes first and the new one comes last, so that no half of a set passes
 * for a whole one. Files that are not of a set stay, and so do the files of a tokenizer unless the new set
 * has its own: they may be the ones that the user made it with. STATUS_IO. */
Status prepared_set_finish(const char *directory, const char *fresh, Error *error);

/* Removes `fresh` and what was written there; it need not exist. STATUS_IO. */
Status prepared_set_discard(const char *fresh, Error *error);

#endif
