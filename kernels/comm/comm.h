/* Collectives over a group of ranks: the table that every transport fills (local: ranks are threads of one
 * process; MPI: ranks are processes), and the calls the rest of the program uses.
 *
 * Every rank of a group makes the same calls in the same order; a call with `_start` returns at once and its
 * buffers belong to the transport until comm_wait. Several may be under way, and may be waited for in any
 * order. Results do not depend on which rank comes first, nor on the transport: a reduction always adds in
 * the order of ranks. Every call fails with the cause given to comm_abort once a rank of the program has
 * aborted, also a call that is waiting at that moment. A handle belongs to one thread.
 */
#ifndef RINGGPT_COMM_COMM_H
#define RINGGPT_COMM_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/device.h"

typedef enum CommType { COMM_F32, COMM_F64, COMM_I64 } CommType;
typedef enum CommReduction { COMM_SUM, COMM_MAX } CommReduction;

/* What an operation carries: named in error messages and counted apart. */
typedef enum CommLabel {
  COMM_KEYS_VALUES,
  COMM_KEY_VALUE_GRADIENTS,
  COMM_GRADIENTS,
  COMM_WEIGHTS,
  COMM_CONTROL, /* small things: sums of losses, agreement */
  COMM_LABELS
} CommLabel;

/* The same for every transport: a copy for each receiver, in the way that moves the fewest bytes. A transport
 * may send otherwise: a small all-reduce as whole buffers, a broadcast handed on by its receivers. */
typedef struct CommCounter {
  int64_t messages; /* operations started by this rank */
  int64_t bytes;    /* bytes that this rank hands to other ranks in them */
} CommCounter;

/* Seconds that a rank has spent in communication and not in computation, told apart: what a faster link would
 * save, and what only better balance would. */
typedef struct CommWaits {
  double exposed; /* waiting while every rank that the operation depends on had started it, or copying; of a
                     device that works on its own, all that its computation waits for */
  double skew;    /* waiting while some rank had not */
} CommWaits;

/* One operation under way; its meaning belongs to the transport. Zero: none. */
typedef struct CommRequest {
  uint64_t id;
  int kind;
} CommRequest;

typedef struct Comm Comm;
typedef struct CommMover CommMover;

/* What a transport provides; the public calls below say what each does. */
typedef struct CommTable {
  const char *name; /* "local", ... */
  bool moves_device_memory;
  Status (*shift_start)(Comm *comm, CommLabel label, int distance, const void *send, void *receive,
                        size_t bytes, CommRequest *request, Error *error);
  Status (*all_reduce_start)(Comm *comm, CommLabel label, CommType type, CommReduction reduction,
                             void *buffer, int64_t elements, CommRequest *request, Error *error);
  Status (*reduce_scatter_start)(Comm *comm, CommLabel label, CommType type, CommReduction reduction,
                                 void *buffer, int64_t elements, CommRequest *request, Error *error);
  Status (*gather_parts_start)(Comm *comm, CommLabel label, void *buffer, int64_t elements, size_t width,
                               CommRequest *request, Error *error);
  Status (*all_gather_start)(Comm *comm, const void *send, void *receive, size_t bytes, CommRequest *request,
                             Error *error);
  Status (*broadcast_start)(Comm *comm, int root, void *buffer, size_t bytes, CommRequest *request,
                            Error *error);
  Status (*barrier_start)(Comm *comm, CommRequest *request, Error *error);
  Status (*wait)(Comm *comm, CommRequest *request, Error *error); /* adds to comm->waits */
  void (*poll)(Comm *comm);                                       /* NULL: moves data by itself */
  bool (*ended)(Comm *comm); /* whether some rank has aborted, as far as this one has heard */
  Status (*split)(Comm *comm, int color, Comm **out, Error *error);
  void (*abort)(Comm *comm, const Error *cause);
  void (*destroy)(Comm *comm);
} CommTable;

/* A group as one rank sees it. */
struct Comm {
  const CommTable *table;
  int rank;
  int size;
  CommCounter counters[COMM_LABELS];
  CommWaits waits;  /* of this group */
  Device *device;   /* whose memory is moved; NULL: the host's */
  CommMover *mover; /* what moves it (kernels/comm/mover.h); NULL: the transport */
  void *state;      /* the transport's */
};

/* From now on the buffers of this rank's operations, but for those of COMM_CONTROL, which the calls without a
 * label are too, are memory of `device`, in this group and in those split from it later: they are moved when
 * what the rank has put into QUEUE_COMPUTE before the operation is done, and what it puts there after
 * comm_wait comes behind; the host waits for the other ranks' calls alone. Reductions are sums of floats. A
 * device whose memory is the host's changes nothing. All ranks of the group do the same. STATUS_CONFIG where
 * the transport cannot move such memory. */
Status comm_use_device(Comm *comm, Device *device, Error *error);

/* Ends it, with what moves the memory, before the device is released; operations on its memory are then over,
 * or the group has aborted. Groups that are destroyed before their device need not. */
void comm_leave_device(Comm *comm);

/* Makes a group of `size` ranks that are threads of this process: comms[r] is for the thread of rank r, which
 * calls comm_destroy on it. */
Status comm_local_create(int size, Comm *comms[], Error *error);

/* Sends `bytes` to rank (rank + distance) mod size and receives as much from rank (rank - distance) mod size.
 * 0 < distance < size; `send` and `receive` do not overlap. */
Status comm_shift_start(Comm *comm, CommLabel label, int distance, const void *send, void *receive,
                        size_t bytes, CommRequest *request, Error *error);

/* Replaces buffer[i] on every rank by the sum or maximum over all ranks, added in the order of ranks. */
Status comm_all_reduce_start(Comm *comm, CommLabel label, CommType type, CommReduction reduction,
                             void *buffer, int64_t elements, CommRequest *request, Error *error);
/* The same, waited for, as COMM_CONTROL. */
Status comm_all_reduce(Comm *comm, CommType type, CommReduction reduction, void *buffer, int64_t elements,
                       Error *error);

/* The part [*begin, *end) of rank `rank` when `elements` are cut over `size` ranks: [n r / size,
 * n (r + 1) / size). */
void comm_part(int64_t elements, int rank, int size, int64_t *begin, int64_t *end);

/* Replaces this rank's part of buffer (elements) by the sum or maximum over all ranks, added in the order of
 * ranks: the same bits as comm_all_reduce_start gives. What is outside the part is undefined afterwards. */
Status comm_reduce_scatter_start(Comm *comm, CommLabel label, CommType type, CommReduction reduction,
                                 void *buffer, int64_t elements, CommRequest *request, Error *error);

/* Replaces, in buffer (elements of `width` bytes), the part of every other rank by what that rank has
 * there. */
Status comm_gather_parts_start(Comm *comm, CommLabel label, void *buffer, int64_t elements, size_t width,
                               CommRequest *request, Error *error);

/* receive (size, bytes): row r is what rank r sent. */
Status comm_all_gather(Comm *comm, const void *send, void *receive, size_t bytes, Error *error);

/* Copies `buffer` of rank `root` to every rank. */
Status comm_broadcast(Comm *comm, int root, void *buffer, size_t bytes, Error *error);

/* Returns when every rank has called it. */
Status comm_barrier(Comm *comm, Error *error);

/* Waits for one operation and clears the request; a cleared request returns at once. */
Status comm_wait(Comm *comm, CommRequest *request, Error *error);

/* Lets the transport move data of operations under way, in every group of this process; for the middle of
 * long computations. Cheap: most calls only read a clock. From the thread of the rank alone. */
void comm_poll(Comm *comm);

/* Whether some rank has called comm_abort, as far as this one has heard: every call then fails with the
 * cause. */
bool comm_ended(Comm *comm);

/* Makes groups of the ranks that give the same color (>= 0), ordered by their rank here. */
Status comm_split(Comm *comm, int color, Comm **out, Error *error);

/* Ends all communication of the program: every rank's calls, in this group and in those split from the same
 * origin, fail and name this rank and `cause`. After it returns no other rank touches this rank's buffers:
 * always where ranks are threads. Under MPI a rank that does not answer within a second, because it computes
 * without comm_poll or hangs, is waited for no longer, and a message between it and this rank that is under
 * way may still move: the caller then soon ends the program (comm_mpi_kill), and writes no result from these
 * buffers. */
void comm_abort(Comm *comm, const Error *cause);

/* Releases this rank's handle. NULL is allowed. */
void comm_destroy(Comm *comm);

#endif
