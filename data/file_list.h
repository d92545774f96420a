/* The text files that a preparation takes: found under files and folders, in an order that does not depend on
 * the file system. */
#ifndef RINGGPT_DATA_FILE_LIST_H
#define RINGGPT_DATA_FILE_LIST_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kernels/base/status.h"

typedef struct FileEntry {
  char *path;
  int64_t bytes; /* when it was found */
  dev_t device;  /* with `inode`: which file it is, whatever its path */
  ino_t inode;
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
  const char *output;          /* the folder of the set to be made: it is not entered from above */
} FileFilter;

/* Adds the files of `path`: itself, or all below it if it is a folder. Of what is in folders, regular files
 * that are not empty are taken, and links to such; links to folders are not followed, so that no file is met
 * without end. Files of a prepared set in the output folder are no
 * documents, by whatever path they are met. STATUS_NO_INPUT when `path` is missing or a folder cannot be
 * read, STATUS_USAGE when it is the output folder or a file of the set in it. */
Status file_list_add(FileList *list, const char *path, const FileFilter *filter, Error *error);

/* Sorts the list by the bytes of the paths. Of a file that was added by several paths the first stays. */
void file_list_sort(FileList *list);

void file_list_free(FileList *list);

#endif
