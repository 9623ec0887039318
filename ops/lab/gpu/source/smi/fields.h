// What may stand in --query-gpu.
#ifndef RACKHAND_SMI_FIELDS_H
#define RACKHAND_SMI_FIELDS_H

#include "smi.h"

struct field {
    const char *name, *unit;  // unit: "" where a number has none
    nvmlReturn_t (*read)(nvmlDevice_t device, char *text);
};

const struct field *find_field(const char *name);

// The answer as text; where NVML refuses, its reason in nvidia-smi's words.
nvmlReturn_t read_field(nvmlDevice_t device, const char *name, char *text);
const char *failure_words(nvmlReturn_t code);

#endif
