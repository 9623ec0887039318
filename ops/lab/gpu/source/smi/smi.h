// nvidia-smi's parts. Every question goes through NVML, as the real program's do.
#ifndef RACKHAND_SMI_H
#define RACKHAND_SMI_H

#include <stdbool.h>
#include <stdio.h>

#include "nvml.h"

enum { SMI_GPUS = 8, TEXT = 128 };

struct options {
    bool chosen[SMI_GPUS];  // by -i; all of them without it
    bool header, units;
    const char *sections;  // of -d, comma-separated capitals; NULL: all
};

// A function of libnvidia-ml.so.1 by its name; the type follows its declaration in nvml.h.
void *nvml_symbol(const char *name);
#define NVML(function) ((__typeof__(&function))nvml_symbol(#function))

unsigned device_count(void);
// Ends the program with NVML's code where the handle is refused, as for a lost GPU.
nvmlDevice_t device_at(unsigned index);
void fail_nvml(nvmlReturn_t code) __attribute__((noreturn));

enum { SMI_PROCESSES = 32 };
struct running {
    nvmlProcessDetail_t detail;
    const char *type;
};
// The processes of a GPU; returns how many there are.
unsigned processes_of(nvmlDevice_t device, struct running *processes);

int show_table(const struct options *options);
int show_list(const struct options *options);
int show_report(const struct options *options);
int show_topology(void);
int query_gpus(const struct options *options, const char *fields);
int query_processes(const struct options *options, const char *fields);
int mig_command(const struct options *options, int count, char **words);
int set_persistence(const struct options *options, unsigned on);
int set_mig(const struct options *options, unsigned on);
int reset_gpus(const struct options *options);

#endif
