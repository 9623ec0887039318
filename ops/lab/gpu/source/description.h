// What gpus.conf says, held in memory and read again whenever the file has changed.
#ifndef RACKHAND_DESCRIPTION_H
#define RACKHAND_DESCRIPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { CHANGES = 16, GPUS = 8, PROCESSES = 32, INSTANCES = 8, TEXT_LENGTH = 96, PATH_LENGTH = 512 };

#define ABSENT INT64_MIN  // n/a, or not in the file

#define READING(key, kind, unit, meaning) READ_##key,
enum reading {
#include "readings.def"
    READINGS
};
#undef READING

#define TEXTS(entry)                                                                      \
    entry(name) entry(uuid) entry(pci) entry(device_id) entry(architecture) entry(serial) \
        entry(board_part_number) entry(vbios_version) entry(compute_capability)
#define TEXT_ID(key) TEXT_##key,
enum text { TEXTS(TEXT_ID) TEXT_COUNT };

struct process {
    unsigned pid;
    int64_t memory_mib;
    char name[64];
    char kind;              // C compute, G graphics, M through MPS
    unsigned gpu_instance;  // NVML_INSTANCE_NONE outside MIG
};

struct gpu_instance {
    unsigned profile, start;
    bool compute;  // carries a compute instance of its whole size
};

struct gpu {
    char text[TEXT_COUNT][TEXT_LENGTH];
    int64_t reading[READINGS];
    struct process process[PROCESSES];
    unsigned process_count;
    struct gpu_instance instance[INSTANCES];
    unsigned instance_count;
    bool lost, hung;
};

struct machine {
    struct gpu gpu[GPUS];
    unsigned gpu_count;
    bool nvswitch;
};

// Where a file of the host lies: below RACKHAND_SIMULATOR_ROOT where that is set.
void host_path(char *buffer, size_t size, const char *path);

// Copies of the present description; false where it holds no such GPU.
void read_machine(struct machine *machine);
bool read_gpu(unsigned index, struct gpu *gpu);
unsigned gpu_count(void);

// Replace `key = value` lines of one GPU's section, atomically. Returns 0 or an errno.
struct change {
    const char *key;
    char value[256];
};
int write_gpu(unsigned index, const struct change *changes, unsigned count);

#endif
