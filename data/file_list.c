/* The text files that a preparation takes. */
#include "data/file_list.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/prepared_set.h"

static bool ends_with(const char *text, const char *suffix) {
  const size_t length = strlen(text);
  const size_t tail = strlen(suffix);
  return length >= tail && strcmp(text + length - tail, suffix) == 0;
}

static bool is_wanted(const char *path, const FileFilter *filter) {
  bool wanted = filter->suffix_count == 0;
  for (size_t i = 0; i < filter->suffix_count && !wanted; i++) wanted = ends_with(path, filter->suffixes[i]);
  return wanted;
}

static bool is_output(const struct stat *info, const FileFilter *filter) {
  struct stat output;
  return stat(filter->output, &output) == 0 && output.st_dev == info->st_dev && output.st_ino == info->st_ino;
}

/* Whether a path leads to an entry of the output folder that belongs to a set, or into such an entry. */
static Status find_in_set(const char *path, const FileFilter *filter, bool *found, Error *error) {
  Status status = STATUS_OK;
  char *real = realpath(path, NULL);
  char *output = real == NULL ? NULL : realpath(filter->output, NULL);
  *found = false;
  if (output == NULL) {
    status = fail_errno(error, STATUS_NO_INPUT, errno, "%s: where it leads cannot be found", path);
    goto release;
  }
  const size_t length = strcmp(output, "/") == 0 ? 0 : strlen(output);
  if (strncmp(real, output, length) == 0 && real[length] == '/') {
    char *name = real + length + 1;
    name[strcspn(name, "/")] = '\0';
    *found = prepared_set_owns(name);
  }
release:
  free(output);
  free(real);
  return status;
}

static Status add_file(FileList *list, const char *path, const struct stat *info, Error *error) {
  if (info->st_size == 0) return STATUS_OK;
  if (list->count == list->capacity) {
    const int64_t capacity = list->capacity == 0 ? 1024 : 2 * list->capacity;
    FileEntry *entries = realloc(list->entries, (size_t)capacity * sizeof *entries);
    if (entries == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left for its name", path);
    list->entries = entries;
    list->capacity = capacity;
  }
  FileEntry *entry = &list->entries[list->count];
  *entry = (FileEntry){
      .path = strdup(path), .bytes = info->st_size, .device = info->st_dev, .inode = info->st_ino};
  if (entry->path == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left for its name", path);
  list->count++;
  return STATUS_OK;
}

static Status add_folder(FileList *list, const char *path, const FileFilter *filter, Error *error);

/* Adds what an entry of a folder is. */
static Status add_entry(FileList *list, const char *path, const FileFilter *filter, Error *error) {
  struct stat info;
  struct stat target;
  bool in_set = false;
  /* An entry that is gone by now, or a link that leads nowhere, is no document. */
  if (lstat(path, &info) != 0) return STATUS_OK;
  if (S_ISDIR(info.st_mode)) {
    return is_output(&info, filter) ? STATUS_OK : add_folder(list, path, filter, error);
  }
  if (!is_wanted(path, filter) || stat(path, &target) != 0 || !S_ISREG(target.st_mode)) return STATUS_OK;
  if (S_ISLNK(info.st_mode)) TRY(find_in_set(path, filter, &in_set, error));
  return in_set ? STATUS_OK : add_file(list, path, &target, error);
}

static Status add_folder(FileList *list, const char *path, const FileFilter *filter, Error *error) {
  Status status = STATUS_OK;
  DIR *folder = opendir(path);
  if (folder == NULL) return fail_errno(error, STATUS_NO_INPUT, errno, "%s: the folder cannot be read", path);
  const char *joint = ends_with(path, "/") ? "" : "/";
  while (status == STATUS_OK) {
    char *entry_path = NULL;
    errno = 0;
    const struct dirent *entry = readdir(folder);
    if (entry == NULL) {
      if (errno != 0) status = fail_errno(error, STATUS_IO, errno, "%s: the folder cannot be read", path);
      break;
    }
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (asprintf(&entry_path, "%s%s%s", path, joint, entry->d_name) < 0) {
      status = fail(error, STATUS_SYSTEM, "%s: no memory left for the names in it", path);
      break;
    }
    status = add_entry(list, entry_path, filter, error);
    free(entry_path);
  }
  (void)closedir(folder);
  return status;
}

Status file_list_add(FileList *list, const char *path, const FileFilter *filter, Error *error) {
  struct stat info;
  bool in_set = false;
  if (stat(path, &info) != 0) return fail_errno(error, STATUS_NO_INPUT, errno, "%s: cannot be read", path);
  TRY(find_in_set(path, filter, &in_set, error));
  if (in_set || is_output(&info, filter)) {
    return fail(error, STATUS_USAGE,
                "%s: is %s: name the text itself, or make the set in another folder than %s", path,
                in_set ? "part of the set that would be replaced" : "the folder of the set to be made",
                filter->output);
  }
  if (S_ISDIR(info.st_mode)) return add_folder(list, path, filter, error);
  if (S_ISREG(info.st_mode)) return add_file(list, path, &info, error);
  return fail(error, STATUS_NO_INPUT, "%s: is neither a file nor a folder", path);
}

static int compare_paths(const void *left, const void *right) {
  return strcmp(((const FileEntry *)left)->path, ((const FileEntry *)right)->path);
}

/* Brings the paths of one file together, in their order. */
static int compare_files(const void *left, const void *right) {
  const FileEntry *a = left;
  const FileEntry *b = right;
  if (a->device != b->device) return a->device < b->device ? -1 : 1;
  if (a->inode != b->inode) return a->inode < b->inode ? -1 : 1;
  return compare_paths(left, right);
}

static bool is_same_file(const FileEntry *left, const FileEntry *right) {
  return left->device == right->device && left->inode == right->inode;
}

void file_list_sort(FileList *list) {
  int64_t kept = 0;
  if (list->count == 0) return;
  qsort(list->entries, (size_t)list->count, sizeof *list->entries, compare_files);
  for (int64_t i = 0; i < list->count; i++) {
    if (kept > 0 && is_same_file(&list->entries[i], &list->entries[kept - 1])) {
      free(list->entries[i].path);
    } else {
      list->entries[kept++] = list->entries[i];
    }
  }
  list->count = kept;
  qsort(list->entries, (size_t)kept, sizeof *list->entries, compare_paths);
}

void file_list_free(FileList *list) {
  for (int64_t i = 0; i < list->count; i++) free(list->entries[i].path);
  free(list->entries);
  *list = (FileList){0};
}
