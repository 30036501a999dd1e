// Stands for libnccl.so.2 in tests: checks the arguments of every call, and writes it into the file LOG. Numbers are in the memory of
// the CPU. A sum is that over processes which all have the same.
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef VERSION
#define VERSION 22105
#endif

typedef struct { char internal[128]; } ncclUniqueId;
typedef struct { int rank, world, destroyed; } Comm;

static void say(const char *text) {
    FILE *file = fopen(LOG, "a");
    if (!file || fprintf(file, "%s\n", text) < 0 || fclose(file)) abort();
}

static int fail(void) { return 3; }

int ncclGetVersion(int *version) {
    say("ncclGetVersion");
    *version = VERSION;
    return 0;
}

const char *ncclGetErrorString(int result) {
    return result == 3 ? "the fake's own error 3" : NULL;
}

int ncclGetUniqueId(ncclUniqueId *id) {
#ifdef FAIL_ID
    (void)id;
    return fail();
#else
    say("ncclGetUniqueId");
    for (int byte = 0; byte < 128; byte++) id->internal[byte] = (char)byte;
    return 0;
#endif
}

int ncclCommInitRank(Comm **comm, int world, ncclUniqueId id, int rank) {
    char text[64];
    for (int byte = 0; byte < 128; byte++)
        if (id.internal[byte] != (char)byte) return fail();
    if (!comm || world < 1 || rank < 0 || rank >= world) return fail();
#ifdef FAIL_INIT
    return fail();
#endif
    *comm = calloc(1, sizeof(Comm));
    (*comm)->rank = rank;
    (*comm)->world = world;
    snprintf(text, sizeof text, "ncclCommInitRank %d of %d", rank, world);
    say(text);
    return 0;
}

static int checked(const void *from, const void *to, size_t count, int kind, Comm *comm) {
    return from && from == to && count > 0 && (kind == 7 || kind == 8) && comm && comm->world > 0 && !comm->destroyed;
}

int ncclAllReduce(const void *from, void *to, size_t count, int kind, int op, Comm *comm, void *stream) {
    char text[96];
    if (!checked(from, to, count, kind, comm) || op != 0) return fail();
#ifdef FAIL_SUM
    return fail();
#endif
    for (size_t index = 0; index < count; index++) {
        if (kind == 7) ((float *)to)[index] *= (float)comm->world;
        else ((double *)to)[index] *= comm->world;
    }
    snprintf(text, sizeof text, "ncclAllReduce %zu float%d sum, stream %zu", count, kind == 7 ? 32 : 64, (size_t)stream);
    say(text);
    return 0;
}

#ifndef NO_BROADCAST
int ncclBroadcast(const void *from, void *to, size_t count, int kind, int root, Comm *comm, void *stream) {
    char text[96];
    if (!checked(from, to, count, kind, comm) || root != 0) return fail();
#ifdef FAIL_BROADCAST
    return fail();
#endif
    for (size_t index = 0; index < count; index++) {
        if (kind == 7) ((float *)to)[index] = 7;
        else ((double *)to)[index] = 7;
    }
    snprintf(text, sizeof text, "ncclBroadcast %zu float%d from %d, stream %zu", count, kind == 7 ? 32 : 64, root, (size_t)stream);
    say(text);
    return 0;
}
#endif

int ncclCommGetAsyncError(Comm *comm, int *error) {
    if (!comm || comm->destroyed) return fail();
#ifdef FAIL_LATER
    *error = 3;
#else
    say("ncclCommGetAsyncError");
    *error = 0;
#endif
    return 0;
}

// The memory is kept, so that a call that comes later is seen.
int ncclCommDestroy(Comm *comm) {
    if (!comm || comm->destroyed) return fail();
    comm->destroyed = 1;
    say("ncclCommDestroy");
    return 0;
}
