/* What the files of the local transport share. Not for other folders. */
#ifndef RINGGPT_COMM_LOCAL_STATE_H
#define RINGGPT_COMM_LOCAL_STATE_H

#include <pthread.h>
#include <stdbool.h>

#include "kernels/comm/comm.h"
#include "kernels/device.h"

typedef enum LocalKind {
  LOCAL_NONE,
  LOCAL_SHIFT,
  LOCAL_REDUCE, /* all-reduce */
  LOCAL_REDUCE_SCATTER,
  LOCAL_GATHER, /* all-gather of rows */
  LOCAL_GATHER_PARTS,
  LOCAL_BROADCAST,
  LOCAL_BARRIER,
  LOCAL_SPLIT
} LocalKind;

/* What all groups of one program share. */
typedef struct LocalHub {
  pthread_mutex_t mutex;
  pthread_cond_t changed;   /* something finished, or the program aborted */
  struct LocalGroup *first; /* of the groups alive */
  int groups;               /* groups alive */
  int copies;               /* copies under way outside the lock */
  Error cause;              /* why the program aborted; status 0 as long as it has not */
} LocalHub;

/* What every rank must agree on in one operation. */
typedef struct LocalSignature {
  LocalKind kind;
  CommType type;
  CommReduction reduction;
  int argument; /* distance of a shift, root of a broadcast */
  size_t bytes; /* bytes, or elements of what is cut in parts */
  size_t width; /* bytes of an element of what is cut in parts */
} LocalSignature;

/* One rank's part in an operation. */
typedef struct LocalPart {
  const void *send;
  void *receive;
  Device *device;             /* of the rank, whose memory send and receive are; NULL: the host's */
  const DeviceQueues *queues; /* its table, which outlives it */
  DeviceQueue queue;
  DeviceEvent *ready; /* what the rank computed before it began the operation is done */
  DeviceEvent *done;  /* this rank's result is there */
  double posted_at;   /* clock_seconds, once posted */
  bool posted;
  bool sent;     /* its data has been taken; on a device: by what is in other ranks' queues */
  bool received; /* its result is there; on a device: behind `done` */
} LocalPart;

typedef struct LocalOperation {
  struct LocalOperation *next;
  uint64_t id;
  LocalSignature signature;
  int arrived;
  int left; /* ranks whose wait is over: the last one frees the operation */
  LocalPart parts[];
} LocalOperation;

typedef struct LocalGroup {
  LocalHub *hub;
  struct LocalGroup *next;    /* of the hub's */
  LocalOperation *operations; /* under way */
  int size;
  int members; /* handles alive */
} LocalGroup;

/* The state of one rank's handle. */
typedef struct LocalMember {
  LocalGroup *group;
  uint64_t next_id;
} LocalMember;

/* A rank's place in a group made by a split: sent as a color, received as group and rank. */
typedef struct LocalPlace {
  int color;
  LocalGroup *group;
  int rank;
} LocalPlace;

/* Makes a group in `hub`; NULL without memory. With the lock held, unless the hub is new. */
LocalGroup *local_group_create(LocalHub *hub, int size);

/* Carries out an operation at which all ranks of the group have arrived: moves its data, or puts the moving
 * into the queues of the devices. Called with the lock held, which it gives up for copies of host memory. */
void local_execute(LocalHub *hub, int size, LocalOperation *operation);

/* Copies what one rank of a shift sends to the rank that receives it. Lock as in local_execute. */
void local_execute_shift(LocalHub *hub, LocalOperation *operation, LocalPart *from, LocalPart *to);

#endif
