/* What the files of the MPI transport share: the process's hub, its groups, and operations under way.
 *
 * Everything is non-blocking point-to-point messages. An operation is a set of streams: each moves one run of
 * bytes between this rank and another, in pieces, of which at most two are under way. mpi_progress tests the
 * messages of all operations of all groups, and posts those that may follow; it alone moves anything.
 *
 * An operation starts by announcing itself, in a header, to the ranks it is connected with (a shift: both
 * neighbours, any other: all). It receives from a rank only once that rank's header has come and agrees, and
 * is complete only when all have come: that tells apart waiting for a rank from waiting for its data, makes a
 * disagreement an error instead of a wrong buffer, and bounds how far a rank runs ahead. */
#ifndef RINGGPT_COMM_MPI_STATE_H
#define RINGGPT_COMM_MPI_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mpi.h>

#include "kernels/base/status.h"
#include "kernels/comm/comm.h"

/* The longest message: counts of MPI are int. Large enough to cost nothing. */
#define MPI_MESSAGE_BYTES ((size_t)32 << 20)

/* Tags within a group: headers, then two for each operation, by its number. The standard promises tags up to
 * 32767. */
#define TAG_HEADER 0
#define TAG_OPERATIONS 8192

/* Tags between all processes, on the communicator of the hub. */
#define TAG_ALARM 0
#define TAG_LIFE 1

/* A turn of a wait, or the time between two polls, counts for at most so many seconds of the watchdog: a
 * process that was suspended has not waited. */
#define TURN_SECONDS 1.0

/* How long a rank that has failed leaves the word to one that it expects to speak. */
#define SPEAK_SECONDS 3.0

typedef enum MpiKind {
  KIND_NONE,
  KIND_SHIFT,
  KIND_BARRIER,
  KIND_BROADCAST,
  KIND_ALL_GATHER,
  KIND_GATHER_PARTS,
  KIND_ALL_REDUCE,
  KIND_REDUCE_SCATTER,
  KIND_SPLIT
} MpiKind;

/* What every rank must agree on in one operation; sent as it is. Without padding. */
typedef struct MpiHeader {
  uint64_t id;
  uint64_t amount;  /* bytes, or elements of what is cut in parts */
  uint64_t width;   /* bytes of an element of what is cut in parts */
  int64_t argument; /* distance of a shift, root of a broadcast */
  int32_t kind;
  int32_t label;
  int32_t type;
  int32_t reduction;
} MpiHeader;

/* When a stream may post its next piece. A receive always waits for its peer's header. */
typedef enum MpiRule {
  STREAM_FREE,   /* at once */
  STREAM_AFTER,  /* after the same piece of the stream `after` */
  STREAM_STAGED, /* a receive into the staging memory, where a piece stays until it is summed */
  STREAM_SUMMED  /* after the piece is summed */
} MpiRule;

typedef struct MpiStream {
  int peer;
  int tag;
  bool receives;
  MpiRule rule;
  int after;  /* a stream of the same operation that has the same pieces */
  char *data; /* (bytes); not of a staged stream */
  size_t bytes;
  size_t piece; /* bytes of every piece but the last */
  int64_t pieces;
  int64_t begun; /* pieces posted */
  int64_t done;  /* pieces complete, all before them too */
} MpiStream;

/* The sum that a reduction makes on this rank, piece by piece. */
typedef struct MpiSum {
  char *target; /* (bytes) in the caller's buffer: holds this rank's values, becomes the sum */
  size_t bytes;
  size_t piece;
  int64_t pieces;
  int64_t done;
  bool whole; /* of the whole buffer, which is being sent: nothing is written before all is sent */
} MpiSum;

typedef struct MpiOperation {
  struct MpiOperation *next;
  MpiHeader header;
  bool *joined;    /* (size): whose header has come */
  int awaited;     /* connected ranks whose header has not */
  double ready_at; /* clock_seconds when the last one came */
  bool complete;
  MpiSum sum;
  char *staging; /* (size - 1, 2, sum.piece): what others sent, by rank, own rank left out */
  int stream_count;
  MpiStream *streams;    /* (stream_count) */
  MPI_Request *requests; /* (stream_count, 2): piece k of a stream is in k mod 2 */
  int *indices;          /* (stream_count, 2): for MPI_Testsome */
  MPI_Status *statuses;  /* (stream_count, 2) */
} MpiOperation;

typedef struct MpiHub MpiHub;

typedef struct MpiGroup {
  struct MpiGroup *next;
  MpiHub *hub;
  MPI_Comm mpi;
  int rank;
  int size;
  int *world_ranks;         /* (size) */
  uint64_t next_id;         /* of the next operation of this rank */
  MpiOperation *operations; /* under way, by number */
  MpiHeader *headers;       /* (size): the last one of each rank */
  bool *held;               /* (size): it is of an operation that this rank has not started */
  MPI_Request *receives;    /* (size): persistent, for the next header of each rank */
  int *indices;             /* (size): for MPI_Testsome */
  MPI_Status *statuses;     /* (size) */
  void *staging;            /* lent to one reduction at a time */
  size_t staging_bytes;
  const MpiOperation *staging_holder;
} MpiGroup;

/* Why the program ends, as one rank tells every other. */
typedef struct MpiAlarm {
  int32_t status;
  char text[sizeof((Error *)NULL)->text];
} MpiAlarm;

/* Signs of life, from and to another rank. */
typedef struct MpiSign {
  double alive_at; /* hub->clock when there was computing behind that rank, as far as is known */
  double age;      /* what is being sent to it: seconds since there was computing behind this rank */
  MPI_Request request;
} MpiSign;

/* What all groups of this process share. */
struct MpiHub {
  MPI_Comm control; /* all processes: alarms and signs of life */
  int rank;
  int size;
  MpiGroup *groups;
  double timeout;        /* seconds; 0: none */
  double moved_at;       /* clock_seconds of the last mpi_progress */
  double woke_at;        /* the same of the last one before which this process kept out for SPEAK_SECONDS */
  double clock;          /* seconds, each turn counted for at most TURN_SECONDS */
  double advanced_at;    /* clock when a message was last sent or received */
  double given_at;       /* moved_at when this rank last gave signs of life */
  double given_alive_at; /* what they said, on this clock */
  double heard_age;
  MPI_Request hearing_life;
  MpiSign *signs; /* (size) */
  Error fault;    /* what mpi_progress ran into, until a call reports it */
  Error cause;    /* why the program aborted; status 0 as long as it has not */
  bool left;      /* this rank has told the others and uses MPI no more */
  bool late;      /* it learnt of the end after it had been stopped: others may have spoken */
  int alarms;     /* ranks heard of in alarms */
  bool *answered; /* (size): which */
  MpiAlarm heard;
  MpiAlarm told;
  MPI_Request hearing;
  MPI_Request *telling; /* (size) */
};

/* ---- mpi_alarm.c: failures */

/* The error of an MPI call that returned `code`: STATUS_SYSTEM with MPI's text. OK for MPI_SUCCESS. */
Status mpi_check(int code, const char *what, Error *error);
/* The same for a call on several requests; `count` statuses are looked through. */
Status mpi_check_some(int code, int count, const MPI_Status *statuses, const char *what, Error *error);
/* Starts and ends listening for alarms. */
Status mpi_alarm_listen(MpiHub *hub, Error *error);
void mpi_alarm_deafen(MpiHub *hub);
/* Ends a persistent receive for which nothing is on the way. */
void mpi_receive_end(MPI_Request *request);
/* Takes in what other ranks tell. */
Status mpi_alarm_hear(MpiHub *hub, Error *error);
/* Whether this rank has failed or heard of a failure, and moves nothing any more. */
bool mpi_ended(const MpiHub *hub);
/* Whether a call can go on; otherwise what ended it. Ends this rank's use of MPI when the program has. */
Status mpi_alive(MpiHub *hub, Error *error);
/* Ends the program's communication because of this rank. */
void mpi_alarm_raise(MpiHub *hub, const Error *cause);

/* ---- mpi_life.c: signs of life */

/* Starts to listen for them. */
Status mpi_life_listen(MpiHub *hub, Error *error);
/* Takes in those that have come. */
Status mpi_life_hear(MpiHub *hub, Error *error);
/* Says that there was computing, of this rank or of one that it waits for, when hub->clock was `alive_at`: to
 * all other ranks, unless that is known or signs were given a moment ago. A failure becomes hub->fault. */
void mpi_life_give(MpiHub *hub, double alive_at);
/* Ends both, when all ranks do; ranks that still compute are waited for. */
void mpi_life_end(MpiHub *hub);

/* ---- mpi_group.c: groups */

/* A group over `mpi`, which it owns from then on, also on failure. */
Status mpi_group_create(MpiHub *hub, MPI_Comm mpi, MpiGroup **out, Error *error);
/* NULL is allowed. */
void mpi_group_destroy(MpiGroup *group);
/* Takes in the headers that have come; sets *moved when there were any. */
Status mpi_group_hear(MpiGroup *group, bool *moved, Error *error);
/* Gives headers that were held to the operations started since. */
Status mpi_group_match(MpiGroup *group, Error *error);
/* NULL: none under way has that number. */
MpiOperation *mpi_group_find(const MpiGroup *group, uint64_t id);

/* ---- mpi_operation.c: operations */

/* Makes an operation of what the header says and adds it to the group; its number is filled in. `send` is of
 * a shift and an all-gather; `buffer` receives, or is worked on in place. */
Status mpi_operation_create(MpiGroup *group, MpiHeader header, const void *send, void *buffer,
                            MpiOperation **out, Error *error);
/* The tag of what the ranks send in an operation; phase 0, or 1 for the second round of an all-reduce. */
int mpi_tag(const MpiHeader *header, int phase);
/* Whether it waits for the header of `rank`. */
bool mpi_operation_connects(const MpiGroup *group, const MpiHeader *header, int rank);
/* Tests its messages and goes on as far as it can; sets *moved when something happened. */
Status mpi_operation_advance(MpiGroup *group, MpiOperation *operation, bool *moved, Error *error);
/* Takes it out of the group and releases it. */
void mpi_operation_remove(MpiGroup *group, MpiOperation *operation);
void mpi_operation_free(MpiOperation *operation);

/* ---- mpi_stream.c: streams */

/* Adds a stream of bytes to an operation that has room; none for 0 bytes. Fills in the numbers of pieces. */
void mpi_stream_add(MpiOperation *operation, MpiStream stream);
/* Tests what is under way. */
Status mpi_streams_test(MpiOperation *operation, bool *moved, Error *error);
/* Posts the pieces that may be. */
Status mpi_streams_post(MpiGroup *group, MpiOperation *operation, bool *moved, Error *error);
/* Whether all streams are done. */
bool mpi_streams_done(const MpiOperation *operation);

/* ---- mpi_reduce.c: sums */

/* Adds the streams of an all-reduce or reduce-scatter. */
Status mpi_reduce_create(MpiGroup *group, MpiOperation *operation, char *buffer, Error *error);
/* Takes staging memory when it is free, and sums the pieces that have come. */
Status mpi_reduce_advance(MpiGroup *group, MpiOperation *operation, bool *moved, Error *error);
/* Where piece `k` of what `peer` sends is received. */
char *mpi_staged(const MpiGroup *group, const MpiOperation *operation, int peer, int64_t k);
/* Gives the staging memory back. */
void mpi_reduce_release(MpiGroup *group, MpiOperation *operation);

/* ---- mpi_progress.c: what moves it all */

/* Moves everything; what goes wrong is kept in hub->fault. */
void mpi_progress(MpiHub *hub);
/* Waits for one operation and removes it; adds the time to `waits`. */
Status mpi_await(MpiGroup *group, uint64_t id, CommWaits *waits, Error *error);
/* An operation in words, such as "shift of keys and values". */
void mpi_describe(const MpiHeader *header, char *text, size_t bytes);

#endif
