/* Status codes and error messages: how every function of the program reports what went wrong. */
#ifndef RINGGPT_BASE_STATUS_H
#define RINGGPT_BASE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* The codes are those of sysexits.h, so that main returns a Status as it is. */
typedef enum Status {
  STATUS_OK = 0,
  STATUS_USAGE = 64,    /* the command line is wrong */
  STATUS_DATA = 65,     /* a file is damaged or holds something else than it should */
  STATUS_NO_INPUT = 66, /* a file is missing or cannot be opened */
  STATUS_INTERNAL = 70, /* a fault of the program itself */
  STATUS_SYSTEM = 71,   /* memory or threads that the machine did not give */
  STATUS_IO = 74,       /* reading or writing failed */
  STATUS_STOPPED = 75,  /* a signal ended the run; the same command goes on */
  STATUS_CONFIG = 78    /* the configuration is wrong */
} Status;

/* One failure: its code and one line that names what went wrong, where, and what to do. The first failure
 * is kept: a later one on the way out does not overwrite its message. Start with `Error error = {0};`. */
typedef struct Error {
  Status status;
  char text[1024];
} Error;

/* Records a failure and returns its status, so that a caller can write `return fail(error, ...)`. */
Status fail(Error *error, Status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* As fail, with ": " and the text of the errno value `code` at the end. */
Status fail_errno(Error *error, Status status, int code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#ifdef __cplusplus
}
#endif

#ifdef __clang_analyzer__
/* Static analysis sees one file at a time: it is told here that a failure never returns STATUS_OK. */
#define fail(error, status, ...) ((void)fail(error, status, __VA_ARGS__), (status))
#define fail_errno(error, status, ...) ((void)fail_errno(error, status, __VA_ARGS__), (status))
#endif

/* Returns the status of a failed call. */
#define TRY(call)                                                                                            \
  do {                                                                                                       \
    const Status try_status_ = (call);                                                                       \
    if (try_status_ != STATUS_OK) return try_status_;                                                        \
  } while (0)

/* Stores the status of a call in `status` and jumps to the clean-up label when it failed. */
#define TRY_GOTO(call, label)                                                                                \
  do {                                                                                                       \
    status = (call);                                                                                         \
    if (status != STATUS_OK) goto label;                                                                     \
  } while (0)

#endif
