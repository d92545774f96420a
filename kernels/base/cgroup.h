/* Limits of memory that control groups set, as containers and job schedulers do (cgroups(7)). */
#ifndef RINGGPT_BASE_CGROUP_H
#define RINGGPT_BASE_CGROUP_H

#include <stddef.h>

/* Bytes that the groups of this process leave it, the least of all that are around it; SIZE_MAX where none
 * has a limit. Of what a group uses, cached files that can be dropped do not count. `membership` says which
 * groups
 * (/proc/self/cgroup), `root` is where their files are (/sys/fs/cgroup), both versions of them. */
size_t cgroup_memory_left(const char *membership, const char *root);

#endif
