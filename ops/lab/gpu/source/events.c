// XID events: lines `<gpu> <xid>` appended to a file, each handed once to each event set.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "library.h"

enum { POLL_US = 50000 };
#define EVENTS "/run/rackhand-simulator/xid"

struct event_set {
    unsigned gpus;  // a bit for each GPU whose XIDs are wanted
    long offset;    // what lies before it in the file has been seen
    pthread_mutex_t guard;
};

static long events_size(void) {
    char path[PATH_LENGTH];
    struct stat status;
    host_path(path, sizeof path, EVENTS);
    return stat(path, &status) == 0 ? (long)status.st_size : 0;
}

API nvmlEventSetCreate(nvmlEventSet_t *set) {
    NEED(initialized(), NVML_ERROR_UNINITIALIZED);
    NEED(set, NVML_ERROR_INVALID_ARGUMENT);
    *set = calloc(1, sizeof **set);
    NEED(*set, NVML_ERROR_MEMORY);
    pthread_mutex_init(&(*set)->guard, NULL);
    (*set)->offset = events_size();
    return NVML_SUCCESS;
}

API nvmlEventSetFree(nvmlEventSet_t set) {
    NEED(set, NVML_ERROR_INVALID_ARGUMENT);
    pthread_mutex_destroy(&set->guard);
    free(set);
    return NVML_SUCCESS;
}

API nvmlDeviceRegisterEvents(nvmlDevice_t device, u64 types, nvmlEventSet_t set) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    NEED(set, NVML_ERROR_INVALID_ARGUMENT);
    NEED(!(types & ~(u64)NVML_EVENTS_SUPPORTED), NVML_ERROR_NOT_SUPPORTED);
    pthread_mutex_lock(&set->guard);
    if (types & NVML_EVENT_XID) set->gpus |= 1u << device->gpu;
    pthread_mutex_unlock(&set->guard);
    return NVML_SUCCESS;
}

// The next whole line about a wanted GPU.
static bool next_event(nvmlEventSet_t set, unsigned *gpu, u64 *xid) {
    char path[PATH_LENGTH], line[128];
    if (events_size() == set->offset) return false;
    host_path(path, sizeof path, EVENTS);
    FILE *file = fopen(path, "re");
    if (!file) return set->offset = 0, false;
    if (events_size() < set->offset) set->offset = 0;  // a boot emptied it
    bool found = false;
    fseek(file, set->offset, SEEK_SET);
    while (!found && fgets(line, sizeof line, file) && strchr(line, '\n')) {
        found = sscanf(line, "%u %llu", gpu, xid) == 2 && *gpu < GPUS && (set->gpus >> *gpu & 1);
        set->offset = ftell(file);
    }
    fclose(file);
    return found;
}

static bool any_lost(unsigned gpus) {
    struct gpu gpu;
    for (unsigned i = 0; i < GPUS; i++)
        if ((gpus >> i & 1) && (!read_gpu(i, &gpu) || gpu.lost)) return true;
    return false;
}

static u64 clock_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (u64)now.tv_sec * 1000 + (u64)now.tv_nsec / 1000000;
}

API nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned timeout_ms) {
    NEED(initialized(), NVML_ERROR_UNINITIALIZED);
    NEED(set && data, NVML_ERROR_INVALID_ARGUMENT);
    u64 deadline = clock_ms() + timeout_ms;
    for (;;) {
        unsigned gpu;
        u64 xid;
        pthread_mutex_lock(&set->guard);
        bool found = next_event(set, &gpu, &xid);
        unsigned gpus = set->gpus;
        pthread_mutex_unlock(&set->guard);
        if (found) {
            *data = (nvmlEventData_t){handle_of(HANDLE_GPU, gpu, 0), NVML_EVENT_XID, xid,
                                      NVML_INSTANCE_NONE, NVML_INSTANCE_NONE};
            return NVML_SUCCESS;
        }
        NEED(!any_lost(gpus), NVML_ERROR_GPU_IS_LOST);
        NEED(clock_ms() < deadline, NVML_ERROR_TIMEOUT);
        usleep(POLL_US);
    }
}

API nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data, unsigned timeout_ms) {
    return nvmlEventSetWait_v2(set, data, timeout_ms);
}
