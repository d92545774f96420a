/* A fake NCCL: its calls, as far as ringgpt uses them, between threads of one process on the emulator of
 * tests/emulator. It shows that the mover keeps to NCCL's rules and orders its queues rightly; it says
 * nothing of NCCL itself.
 *
 * Communicators do not block. A group of messages is in progress until every message has met its other half,
 * which the other rank posts: only then, and maybe a few looks of ncclCommGetAsyncError later, are the copies
 * in the streams, each behind what both streams held at the post. So no stream ever waits for a rank that has
 * not come, which the emulator, that works streams off in the calling thread, could not stand. What was put
 * behind a group before it was complete comes too early in its stream, and shows.
 *
 * Two halves must be of one size and of groups of one number: ranks that differ in the order of their calls
 * break the communicator, which every rank then hears of, as when one fails as asked or gives up. NCCL
 * promises less: there a rank may wait for ever for one that has gone. What is wrong in itself (a call on a
 * communicator that is gone, in progress, or to be destroyed before it is finalized) ends the process with a
 * message.
 *
 * Random choices start from EMULATOR_SEED. Settings from the environment, read when a rank joins a
 * communicator: FAKE_NCCL_FAIL     RANK:GROUP, the rank that fails, and in which of its groups in a
 * communicator, counted from 1; in group 0 it fails to join FAKE_NCCL_VERSION  what ncclGetVersion says
 * (22809) */
#include <nccl.h>

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

struct Message {
  bool sends;
  int peer;
  void *memory;
  size_t bytes;
  cudaStream_t stream;
  uint64_t group;   /* its number in the communicator, of this rank */
  cudaEvent_t mark; /* where the stream stood at the post */
};

struct Clique {
  int size;
  std::vector<ncclComm *> members; /* by rank; NULL: not yet, or no longer there */
  int joined, finalized;
  /* Posted and not yet met, by sender and receiver. */
  std::map<std::pair<int, int>, std::deque<Message>> sent, received;
  ncclResult_t broken; /* what others than the guilty hear */
  int guilty;
  std::string cause;
};

} // namespace

struct ncclComm {
  Clique *clique;
  int rank, device;
  uint64_t groups;
  std::vector<Message> waiting; /* of a group that is not posted yet */
  size_t unmet;                 /* posted messages whose other half has not come */
  unsigned reluctance;          /* so many looks more say "in progress" */
  bool finalized;
  int failing_rank, failing_group;
};

namespace {

/* One lock for all; guards what follows. Never released: threads may still be in a call at the end. */
std::mutex &lock(void) {
  static std::mutex *mutex = new std::mutex;
  return *mutex;
}
typedef std::lock_guard<std::mutex> Lock;

struct State {
  std::map<std::string, Clique *> cliques; /* by id */
  std::vector<ncclComm *> comms;           /* that live */
  uint32_t random, ids;
};

State *state(void) {
  const char *seed = getenv("EMULATOR_SEED");
  static State *all = new State{{}, {}, seed != nullptr ? (uint32_t)atoi(seed) : 1, 0};
  return all;
}

/* At the end of the process every communicator must be gone. */
struct AtTheEnd {
  ~AtTheEnd() {
    if (state()->comms.empty()) return;
    fprintf(stderr, "fake NCCL: %zu communicators are left at the end\n", state()->comms.size());
    _exit(1);
  }
} at_the_end;

/* The group of messages of this thread. */
struct Open {
  int depth;
  std::vector<std::pair<ncclComm *, Message>> messages;
};
thread_local Open open_group;
thread_local std::string last_error;

[[noreturn]] __attribute__((format(printf, 1, 2))) void die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "fake NCCL: ");
  vfprintf(stderr, format, arguments);
  fprintf(stderr, "\n");
  abort();
}

unsigned random_below(unsigned bound) {
  state()->random = state()->random * 1664525u + 1013904223u;
  return (state()->random >> 16) % bound;
}

void check(cudaError_t code, const char *what) {
  if (code != cudaSuccess) die("%s: %s", what, cudaGetErrorString(code));
}

void check_alive(const ncclComm *comm, const char *call) {
  const std::vector<ncclComm *> *all = &state()->comms;
  if (std::find(all->begin(), all->end(), comm) == all->end()) die("%s on a communicator that is gone", call);
}

/* ---------------------------------------------------------------- streams */

cudaEvent_t mark(int device, cudaStream_t stream) {
  cudaEvent_t event = nullptr;
  int previous = 0;
  check(cudaGetDevice(&previous), "a mark");
  check(cudaSetDevice(device), "a mark");
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "a mark");
  check(cudaEventRecord(event, stream), "a mark: is the stream one of the communicator's device?");
  check(cudaSetDevice(previous), "a mark");
  return event;
}

void wait_and_forget(cudaStream_t stream, cudaEvent_t event) {
  check(cudaStreamWaitEvent(stream, event, 0), "a wait");
  check(cudaEventDestroy(event), "a wait");
}

/* ---------------------------------------------------------------- messages */

void break_up(Clique *clique, ncclResult_t code, int guilty, const std::string &cause) {
  if (clique->broken != ncclSuccess) return;
  clique->broken = code;
  clique->guilty = guilty;
  clique->cause = cause;
  for (auto *posted : {&clique->sent, &clique->received})
    for (auto &entry : *posted)
      for (const Message &message : entry.second) check(cudaEventDestroy(message.mark), "giving up");
  clique->sent.clear();
  clique->received.clear();
}

void copy(Clique *clique, int from, int to, const Message &sent, const Message &received) {
  wait_and_forget(received.stream, sent.mark);
  wait_and_forget(received.stream, received.mark);
  check(cudaMemcpyAsync(received.memory, sent.memory, sent.bytes, cudaMemcpyDefault, received.stream),
        "a copy");
  ncclComm *receiver = clique->members[to];
  ncclComm *sender = clique->members[from];
  wait_and_forget(sent.stream, mark(receiver->device, received.stream));
  sender->unmet -= 1;
  receiver->unmet -= 1;
}

/* Carries what has both its halves. */
void meet(Clique *clique, int from, int to) {
  std::deque<Message> *sent = &clique->sent[{from, to}];
  std::deque<Message> *received = &clique->received[{from, to}];
  if (sent->empty() || received->empty()) return;
  const Message *first = &sent->front();
  const Message *second = &received->front();
  if (first->bytes != second->bytes || first->group != second->group) {
    char cause[200];
    snprintf(cause, sizeof cause,
             "ranks differ: %zu bytes of rank %d's group %llu, %zu bytes of rank %d's %llu", first->bytes,
             from, (unsigned long long)first->group, second->bytes, to, (unsigned long long)second->group);
    break_up(clique, ncclInvalidUsage, -1, cause);
    return;
  }
  copy(clique, from, to, *first, *second);
  sent->pop_front();
  received->pop_front();
}

bool fails_now(const ncclComm *comm) {
  return comm->failing_rank == comm->rank && comm->failing_group == (int)comm->groups;
}

void fail_as_asked(ncclComm *comm) {
  break_up(comm->clique, ncclRemoteError, comm->rank,
           "rank " + std::to_string(comm->rank) + " fails as asked");
}

/* In any order, as NCCL carries the messages of a group side by side. */
void post(ncclComm *comm) {
  Clique *clique = comm->clique;
  std::vector<Message> messages;
  messages.swap(comm->waiting);
  if (!messages.empty() && fails_now(comm)) fail_as_asked(comm);
  for (size_t left = messages.size(); left > 0 && clique->broken == ncclSuccess; left--) {
    std::swap(messages[random_below((unsigned)left)], messages[left - 1]);
    Message *message = &messages[left - 1];
    const int from = message->sends ? comm->rank : message->peer;
    const int to = message->sends ? message->peer : comm->rank;
    message->mark = mark(comm->device, message->stream);
    (message->sends ? clique->sent : clique->received)[{from, to}].push_back(*message);
    comm->unmet += 1;
    meet(clique, from, to);
  }
}

bool in_progress(const ncclComm *comm) {
  const Clique *clique = comm->clique;
  const bool finalizing = comm->finalized && clique->finalized < clique->size;
  return comm->reluctance > 0 || !comm->waiting.empty() || comm->unmet > 0 || clique->joined < clique->size ||
         finalizing;
}

ncclResult_t say(ncclResult_t code, const std::string &text) {
  last_error = text;
  return code;
}

/* How it stands with a communicator. */
ncclResult_t look(ncclComm *comm) {
  const Clique *clique = comm->clique;
  if (clique->broken != ncclSuccess) {
    return say(clique->guilty == comm->rank ? ncclSystemError : clique->broken, clique->cause);
  }
  return in_progress(comm) ? ncclInProgress : ncclSuccess;
}

/* Hands over what one group holds for a communicator. */
void hand_over(ncclComm *comm, std::vector<Message> messages) {
  comm->groups += 1;
  for (Message &message : messages) message.group = comm->groups;
  comm->waiting = std::move(messages);
  comm->reluctance = random_below(4) + (fails_now(comm) ? 1 : 0);
  if (comm->reluctance == 0) post(comm);
}

ncclResult_t add(bool sends, void *memory, size_t bytes, ncclDataType_t type, int peer, ncclComm *comm,
                 cudaStream_t stream) {
  Lock held(lock());
  check_alive(comm, "a message");
  if (open_group.depth == 0) die("a message outside of a group");
  if (type != ncclUint8) die("messages are of bytes here");
  if (peer < 0 || peer >= comm->clique->size || peer == comm->rank) die("a message to rank %d", peer);
  const ncclResult_t now = look(comm);
  if (now == ncclInProgress) die("a message for a communicator that is in progress");
  for (const auto &other : open_group.messages)
    if (other.first == comm && other.second.sends == sends && other.second.peer == peer)
      die("two messages of one direction in a group");
  open_group.messages.push_back({comm, {sends, peer, memory, bytes, stream, 0, nullptr}});
  if (now != ncclSuccess) return now;
  return random_below(8) == 0 ? ncclInProgress : ncclSuccess;
}

/* ---------------------------------------------------------------- joining and leaving */

Clique *find_clique(const ncclUniqueId &id, int size) {
  Clique **clique = &state()->cliques[std::string(id.internal, sizeof id.internal)];
  if (*clique == nullptr)
    *clique = new Clique{size, std::vector<ncclComm *>((size_t)size), 0, 0, {}, {}, ncclSuccess, -1, ""};
  if ((*clique)->size != size) die("ranks differ in the size of a communicator");
  return *clique;
}

void read_failing(ncclComm *comm) {
  const char *text = getenv("FAKE_NCCL_FAIL");
  comm->failing_rank = -1;
  if (text != nullptr && *text != '\0' &&
      sscanf(text, "%d:%d", &comm->failing_rank, &comm->failing_group) != 2)
    die("FAKE_NCCL_FAIL is RANK:GROUP, not %s", text);
}

/* Cliques stay to the end of the process: ids come once. */
void forget(ncclComm *comm) {
  std::vector<ncclComm *> *all = &state()->comms;
  comm->clique->members[comm->rank] = nullptr;
  all->erase(std::find(all->begin(), all->end(), comm));
  delete comm;
}

} // namespace

/* ---------------------------------------------------------------- the interface */

const char *ncclGetErrorString(ncclResult_t code) {
  static const char *const texts[] = {"no error",
                                      "unhandled cuda error",
                                      "unhandled system error",
                                      "internal error",
                                      "invalid argument",
                                      "invalid usage",
                                      "remote process exited or there was a network error",
                                      "in progress"};
  return texts[code];
}

const char *ncclGetLastError(ncclComm_t) {
  return last_error.c_str();
}

ncclResult_t ncclGetVersion(int *version) {
  const char *text = getenv("FAKE_NCCL_VERSION");
  *version = text != nullptr ? atoi(text) : 22809;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
  Lock held(lock());
  memset(id, 0, sizeof *id);
  snprintf(id->internal, sizeof id->internal, "fake %u", ++state()->ids);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config) {
  Lock held(lock());
  if (config->magic != 0xcafebeef || config->blocking != 0) die("communicators do not block here");
  if (rank < 0 || rank >= ranks) die("rank %d of %d", rank, ranks);
  ncclComm *comm = new ncclComm{find_clique(id, ranks), rank, 0, 0, {}, 0, random_below(4), false, -1, 0};
  check(cudaGetDevice(&comm->device), "joining");
  if (comm->clique->members[rank] != nullptr) die("rank %d joins twice", rank);
  comm->clique->members[rank] = comm;
  comm->clique->joined += 1;
  state()->comms.push_back(comm);
  read_failing(comm);
  if (fails_now(comm)) fail_as_asked(comm);
  *out = comm;
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *now) {
  Lock held(lock());
  check_alive(comm, "ncclCommGetAsyncError");
  if (comm->reluctance > 0 && --comm->reluctance == 0) post(comm);
  *now = look(comm);
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  Lock held(lock());
  check_alive(comm, "ncclCommFinalize");
  const ncclResult_t now = look(comm);
  if (now == ncclInProgress) die("ncclCommFinalize of a communicator in progress");
  if (now != ncclSuccess) return now;
  comm->finalized = true;
  comm->clique->finalized += 1;
  return look(comm);
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  Lock held(lock());
  check_alive(comm, "ncclCommDestroy");
  if (!comm->finalized || look(comm) != ncclSuccess) die("ncclCommDestroy before it is finalized");
  forget(comm);
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  Lock held(lock());
  check_alive(comm, "ncclCommAbort");
  break_up(comm->clique, ncclRemoteError, -1, "rank " + std::to_string(comm->rank) + " has given up");
  forget(comm);
  return ncclSuccess;
}

ncclResult_t ncclGroupStart(void) {
  open_group.depth += 1;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void) {
  Lock held(lock());
  if (open_group.depth == 0) die("the end of a group that did not begin");
  if (--open_group.depth > 0) return ncclSuccess;
  std::map<ncclComm *, std::vector<Message>> groups;
  for (const auto &entry : open_group.messages) groups[entry.first].push_back(entry.second);
  open_group.messages.clear();
  ncclResult_t result = ncclSuccess;
  for (auto &entry : groups) {
    hand_over(entry.first, std::move(entry.second));
    const ncclResult_t now = look(entry.first);
    if (now != ncclSuccess && (result == ncclSuccess || result == ncclInProgress)) result = now;
  }
  return result;
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add(true, const_cast<void *>(from), count, type, peer, comm, stream);
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add(false, to, count, type, peer, comm, stream);
}
