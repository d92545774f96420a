/* Compute threads of a rank, from the configuration, the environment and the cores. */
#include "train/threads.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/memory.h"

#if defined(_OPENMP)
#define OPENMP true
#else
#define OPENMP false
#endif

/* ---------------------------------------------------------------- sharing cores */

static bool has_core(const ThreadsPlace *place, int core) {
  return (place->cores[core / 64] >> (core % 64) & 1) != 0;
}

int threads_cores(const ThreadsPlace *place) {
  int cores = 0;
  for (int word = 0; word < THREADS_MOST_CORES / 64; word++) {
    cores += __builtin_popcountll(place->cores[word]);
  }
  return cores;
}

int threads_share(const ThreadsPlace *places, int count, int rank) {
  const double rounding = 1e-9; /* three thirds of a core are a core */
  const ThreadsPlace *own = &places[rank];
  double share = 0;
  for (int core = 0; core < THREADS_MOST_CORES; core++) {
    if (!has_core(own, core)) continue;
    int ranks = 0;
    for (int i = 0; i < count; i++) ranks += places[i].host == own->host && has_core(&places[i], core);
    share += 1.0 / ranks;
  }
  return share + rounding < 1 ? 1 : (int)(share + rounding);
}

bool threads_crowded(const ThreadsPlace *places, const int64_t *threads, int count, int rank) {
  const double rounding = 1e-9;
  const ThreadsPlace *own = &places[rank];
  for (int core = 0; core < THREADS_MOST_CORES; core++) {
    if (!has_core(own, core)) continue;
    double load = 0;
    for (int i = 0; i < count; i++) {
      if (places[i].host != own->host || !has_core(&places[i], core)) continue;
      load += (double)threads[i] / threads_cores(&places[i]);
    }
    if (load > 1 + rounding) return true;
  }
  return false;
}

/* ---------------------------------------------------------------- this process */

/* A hash of what names this host among all: the boot of its kernel, or its name where that is not told. Hosts
 * that are containers of one kernel share its cores and count as one. FNV-1a (G. Fowler et al., 1991). */
static uint64_t host_identity(void) {
  char text[256] = "";
  FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
  if (file == NULL || fgets(text, sizeof text, file) == NULL) (void)gethostname(text, sizeof text - 1);
  if (file != NULL) (void)fclose(file);
  uint64_t hash = UINT64_C(0xCBF29CE484222325);
  for (const char *at = text; *at != '\0'; at++) hash = (hash ^ (unsigned char)*at) * UINT64_C(0x100000001B3);
  return hash;
}

/* The cores that the process `pid` may use; 0: this thread. Returns an errno. */
static int read_cores(pid_t pid, ThreadsPlace *place) {
  cpu_set_t set; /* of as many cores */
  memset(place->cores, 0, sizeof place->cores);
  CPU_ZERO(&set);
  if (sched_getaffinity(pid, sizeof set, &set) != 0) return errno;
  for (size_t core = 0; core < THREADS_MOST_CORES; core++) {
    if (CPU_ISSET(core, &set)) place->cores[core / 64] |= UINT64_C(1) << (core % 64);
  }
  return 0;
}

/* The first number of OMP_NUM_THREADS, a list with a number for each level of parallel regions; 0 where it is
 * not set. */
static Status environment_threads(int64_t *threads, Error *error) {
  const char *text = getenv("OMP_NUM_THREADS");
  char *end = NULL;
  *threads = 0;
  if (text == NULL || text[0] == '\0') return STATUS_OK;
  errno = 0;
  const long long value = strtoll(text, &end, 10);
  end += strspn(end, " \t");
  if (errno != 0 || value < 1 || (*end != '\0' && *end != ',')) {
    return fail(error, STATUS_CONFIG,
                "OMP_NUM_THREADS=%.40s: must begin with a number of threads, at least 1", text);
  }
  *threads = value;
  return STATUS_OK;
}

/* ---------------------------------------------------------------- a rank */

static Status check_threads(const char *setting, int64_t threads, int cores, Error *error) {
  if (threads <= cores) return STATUS_OK;
  return fail(error, STATUS_CONFIG, "%s=%lld: this process may use %d core%s", setting, (long long)threads,
              cores, cores == 1 ? "" : "s");
}

/* The threads of rank `rank` among places (count). */
static Status choose_threads(const Config *config, const ThreadsPlace *places, int count, int rank,
                             int64_t *threads, Error *error) {
  const int cores = threads_cores(&places[rank]);
  if (!OPENMP) {
    *threads = 1;
    return STATUS_OK;
  }
  if (config->parallelism.threads > 0) {
    *threads = config->parallelism.threads;
    return check_threads("parallelism.threads", *threads, cores, error);
  }
  TRY(environment_threads(threads, error));
  if (*threads > 0) return check_threads("OMP_NUM_THREADS", *threads, cores, error);
  *threads = threads_share(places, count, rank);
  return STATUS_OK;
}

Status threads_local_rank(Comm *world, int *local, int *here, Error *error) {
  void *memory = NULL;
  const uint64_t own = host_identity();
  int counts[2] = {0, 0}; /* before this rank, and from it on */
  TRY(memory_alloc((size_t)world->size, sizeof own, "places of ranks", &memory, error));
  const uint64_t *hosts = memory;
  const Status status = comm_all_gather(world, &own, memory, sizeof own, error);
  for (int rank = 0; status == STATUS_OK && rank < world->size; rank++) {
    counts[rank >= world->rank] += hosts[rank] == own;
  }
  *local = counts[0];
  if (here != NULL) *here = counts[0] + counts[1];
  free(memory);
  return status;
}

Status threads_of_rank(const Config *config, Comm *world, int *threads, bool *shared, Error *error) {
  Status status = STATUS_OK;
  const size_t size = (size_t)world->size;
  void *places = NULL;
  void *counts = NULL;
  int64_t own_threads = 0;
  ThreadsPlace own = {.host = host_identity()};
  const int code = read_cores(0, &own);
  if (code != 0) return fail_errno(error, STATUS_SYSTEM, code, "cannot find out which cores may be used");
  TRY_GOTO(memory_alloc(size, sizeof(ThreadsPlace), "places of ranks", &places, error), done);
  TRY_GOTO(memory_alloc(size, sizeof(int64_t), "threads of ranks", &counts, error), done);
  TRY_GOTO(comm_all_gather(world, &own, places, sizeof own, error), done);
  TRY_GOTO(choose_threads(config, places, world->size, world->rank, &own_threads, error), done);
  TRY_GOTO(comm_all_gather(world, &own_threads, counts, sizeof own_threads, error), done);
  *threads = (int)own_threads;
  *shared = threads_crowded(places, counts, world->size, world->rank);
done:
  free(counts);
  free(places);
  return status;
}

/* ---------------------------------------------------------------- waiting */

/* The ranks that a launcher has started on this host; 0 where none says so. */
static int64_t launched_ranks(void) {
  static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS",
                                      "SLURM_STEP_TASKS_PER_NODE"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    const char *text = getenv(names[i]);
    if (text != NULL) return strtoll(text, NULL, 10);
  }
  return 0;
}

void threads_wait_passively(int64_t configured, char *const argv[]) {
  int64_t threads = configured;
  Error error = {0};
  ThreadsPlace place = {0};
  if (getenv("OMP_WAIT_POLICY") != NULL || getenv("GOMP_SPINCOUNT") != NULL) return;
  if (threads == 0 && environment_threads(&threads, &error) != STATUS_OK) return;
  /* Shares of the cores never exceed them, and a rank of one thread waits for none. The launcher may run on
     all cores that its ranks may use together, also where it binds each rank to some of them. */
  if (threads < 2 || (read_cores(getppid(), &place) != 0 && read_cores(0, &place) != 0)) return;
  if (launched_ranks() * threads <= threads_cores(&place)) return;
  if (setenv("OMP_WAIT_POLICY", "passive", 1) == 0) (void)execv("/proc/self/exe", argv);
}
