// Processes that hold a GPU, in each of the shapes that NVML's versions give them.
#include <stdio.h>
#include <sys/time.h>

#include "library.h"

enum { MODE_COMPUTE, MODE_GRAPHICS, MODE_MPS, MODE_ALL, MODES };
static const char mode_kinds[MODES] = {'C', 'G', 'M', 0};
static const u64 MIB = 1024 * 1024;

// The processes of this kind (0: of every kind) on this GPU or MIG device.
static nvmlReturn_t select_processes(nvmlDevice_t device, char kind, struct gpu *gpu) {
    const struct gpu_instance *instance;
    unsigned kept = 0;
    TRY(open_device(device, gpu, &instance));
    for (unsigned i = 0; i < gpu->process_count; i++) {
        bool here = !instance || gpu->process[i].gpu_instance == device->instance;
        if (here && (!kind || gpu->process[i].kind == kind)) gpu->process[kept++] = gpu->process[i];
    }
    gpu->process_count = kept;
    return NVML_SUCCESS;
}

// The way of NVML: with too little room it says how much it needs.
static nvmlReturn_t size_answer(unsigned needed, unsigned *count, const void *room) {
    NEED(count, NVML_ERROR_INVALID_ARGUMENT);
    unsigned there = room ? *count : 0;
    *count = needed;
    return there >= needed ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

static unsigned compute_instance_of(const struct process *process) {
    return process->gpu_instance == NVML_INSTANCE_NONE ? NVML_INSTANCE_NONE : 0;
}

static nvmlReturn_t list(nvmlDevice_t device, char kind, unsigned *count, nvmlProcessInfo_t *out) {
    struct gpu gpu;
    TRY(select_processes(device, kind, &gpu));
    TRY(size_answer(gpu.process_count, count, out));
    for (unsigned i = 0; i < gpu.process_count; i++)
        out[i] =
            (nvmlProcessInfo_t){gpu.process[i].pid, (u64)gpu.process[i].memory_mib * MIB,
                                gpu.process[i].gpu_instance, compute_instance_of(&gpu.process[i])};
    return NVML_SUCCESS;
}

static nvmlReturn_t list_v1(nvmlDevice_t device, char kind, unsigned *count,
                            nvmlProcessInfo_v1_t *out) {
    struct gpu gpu;
    TRY(select_processes(device, kind, &gpu));
    TRY(size_answer(gpu.process_count, count, out));
    for (unsigned i = 0; i < gpu.process_count; i++)
        out[i] = (nvmlProcessInfo_v1_t){gpu.process[i].pid, (u64)gpu.process[i].memory_mib * MIB};
    return NVML_SUCCESS;
}

#define LISTS(function, kind)                                                         \
    API function(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_v1_t *out) {   \
        return list_v1(device, kind, count, out);                                     \
    }                                                                                 \
    API function##_v2(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *out) { \
        return list(device, kind, count, out);                                        \
    }                                                                                 \
    API function##_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *out) { \
        return list(device, kind, count, out);                                        \
    }
LISTS(nvmlDeviceGetComputeRunningProcesses, 'C')
LISTS(nvmlDeviceGetGraphicsRunningProcesses, 'G')
LISTS(nvmlDeviceGetMPSComputeRunningProcesses, 'M')

API nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_t *answer) {
    struct gpu gpu;
    NEED(answer && answer->mode < MODES, NVML_ERROR_INVALID_ARGUMENT);
    TRY(select_processes(device, mode_kinds[answer->mode], &gpu));
    TRY(size_answer(gpu.process_count, &answer->count, answer->processes));
    for (unsigned i = 0; i < gpu.process_count; i++)
        answer->processes[i] = (nvmlProcessDetail_t){
            gpu.process[i].pid, (u64)gpu.process[i].memory_mib * MIB, gpu.process[i].gpu_instance,
            compute_instance_of(&gpu.process[i]), NVML_VALUE_NOT_AVAILABLE};
    return NVML_SUCCESS;
}

static u64 now_us(void) {
    struct timeval now;
    gettimeofday(&now, NULL);
    return (u64)now.tv_sec * 1000000 + (u64)now.tv_usec;
}

// A process' share of the GPU's load: equal parts, for the description does not divide it.
static unsigned share(const struct gpu *gpu, enum reading reading) {
    return (unsigned)(or_zero(gpu->reading[reading]) / gpu->process_count);
}

API nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *out,
                                    unsigned *count, u64 since) {
    struct gpu gpu;
    (void)since;
    TRY(select_processes(device, 0, &gpu));
    NEED(gpu.process_count, NVML_ERROR_NOT_FOUND);
    TRY(size_answer(gpu.process_count, count, out));
    for (unsigned i = 0; i < gpu.process_count; i++)
        out[i] = (nvmlProcessUtilizationSample_t){gpu.process[i].pid,
                                                  now_us(),
                                                  share(&gpu, READ_utilization_gpu),
                                                  share(&gpu, READ_utilization_memory),
                                                  share(&gpu, READ_utilization_encoder),
                                                  share(&gpu, READ_utilization_decoder)};
    return NVML_SUCCESS;
}

API nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device,
                                          nvmlProcessesUtilizationInfo_t *answer) {
    struct gpu gpu;
    NEED(answer, NVML_ERROR_INVALID_ARGUMENT);
    TRY(select_processes(device, 0, &gpu));
    NEED(gpu.process_count, NVML_ERROR_NOT_FOUND);
    TRY(size_answer(gpu.process_count, &answer->count, answer->processes));
    for (unsigned i = 0; i < gpu.process_count; i++)
        answer->processes[i] = (nvmlProcessUtilizationInfo_t){now_us(),
                                                              gpu.process[i].pid,
                                                              share(&gpu, READ_utilization_gpu),
                                                              share(&gpu, READ_utilization_memory),
                                                              share(&gpu, READ_utilization_encoder),
                                                              share(&gpu, READ_utilization_decoder),
                                                              0,
                                                              0};
    return NVML_SUCCESS;
}

// The description's name for a process; else what runs under that number on this host.
API nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length) {
    struct machine machine;
    char path[PATH_LENGTH], line[PATH_LENGTH] = "";
    NEED(initialized(), NVML_ERROR_UNINITIALIZED);
    read_machine(&machine);
    for (unsigned i = 0; i < machine.gpu_count; i++)
        for (unsigned j = 0; j < machine.gpu[i].process_count; j++)
            if (machine.gpu[i].process[j].pid == pid)
                return copy_text(machine.gpu[i].process[j].name, name, length);
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    FILE *file = fopen(path, "re");
    NEED(file, NVML_ERROR_NOT_FOUND);
    bool read = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    return read ? copy_text(line, name, length) : NVML_ERROR_NOT_FOUND;
}
