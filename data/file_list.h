/* The text files that a preparation takes: found under files and folders, in an order that does not depend on
 * the file system. */
#ifndef RINGGPT_DATA_FILE_LIST_H
#define RINGGPT_DATA_FILE_LIST_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

typedef struct FileEntry {
  char *path;
  int64_t bytes; /* when it was found */
} FileEntry;

/* Start with `FileList list = {0};`, end with file_list_free. */
typedef struct FileList {
  FileEntry *entries; /* (count) */
  int64_t count;
  int64_t capacity;
} FileList;

/* What to look for. */
typedef struct FileFilter {
  const char *const *suffixes; /* (suffix_count) of the files taken from folders */
  size_t suffix_count;         /* 0: all files */
  const char *excluded;        /* a folder that is not entered, by whatever path it is reached */
} FileFilter;

/* Adds the files of `path`: itself, or all below it if it is a folder. Of what is in folders, regular files
 * that are not empty are taken, and links to such; links to folders are not followed, so that no file is met
 * without end. STATUS_NO_INPUT when `path` is missing or a folder cannot be read. */
Status file_list_add(FileList *list, const char *path, const FileFilter *filter, Error *error);

/* Sorts the list by the bytes of the paths and drops those that were added twice. */
void file_list_sort(FileList *list);

void file_list_free(FileList *list);

#endif
