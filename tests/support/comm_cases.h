/* What every transport must do, as cases: each is the function of one rank, run on several ranks at once. */
#ifndef RINGGPT_SUPPORT_COMM_CASES_H
#define RINGGPT_SUPPORT_COMM_CASES_H

#include "kernels/base/status.h"
#include "tests/support/ranks.h"

typedef struct CommCase {
  const char *name;
  TestRankMain main; /* without context; leaves the group as it found it */
  int least;         /* ranks */
} CommCase;

/* Ended by a case without a name. */
extern const CommCase comm_cases[];

/* Runs all cases for which the world has enough ranks, and names the one that fails. The context is not used.
 */
Status comm_cases_run(TestRank *rank, void *context, Error *error);

/* Rank 2 of a world of 4 in rings of 2 fails; the others wait in different calls of different groups and must
 * hear of it. `informed` (4): set to 1 for each rank that did. */
Status comm_case_failure(TestRank *rank, void *informed, Error *error);

/* Rank 0 reduces one element and the others two. */
Status comm_case_disagreement(TestRank *rank, void *context, Error *error);

#endif
