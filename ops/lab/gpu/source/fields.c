// nvmlDeviceGetFieldValues: many readings in one call, each with a code of its own.
#include <sys/time.h>

#include "library.h"

#define FIELD(number, type, key) {number, NVML_VALUE_##type, READ_##key},
static const struct field {
    unsigned number, type;
    enum reading reading;
} fields[] = {
#include "fields.def"
};
#undef FIELD

enum { FIELD_LINK_STATE = 165, FIELD_SHUTDOWN_TLIMIT = 193, FIELD_GPU_MAX_TLIMIT = 196 };
enum { FIELD_ECC_UNCORRECTED_AGGREGATE = 6 };

// Thresholds as newer GPUs give them: the distance to the highest working temperature.
static int64_t threshold_limit(const struct gpu *gpu, unsigned number) {
    static const enum reading thresholds[] = {READ_temperature_shutdown, READ_temperature_slowdown,
                                              READ_temperature_memory_max,
                                              READ_temperature_gpu_max};
    int64_t highest = gpu->reading[READ_temperature_gpu_max];
    int64_t threshold = gpu->reading[thresholds[number - FIELD_SHUTDOWN_TLIMIT]];
    return highest == ABSENT || threshold == ABSENT ? ABSENT : highest - threshold;
}

static int64_t table_value(const struct gpu *gpu, nvmlFieldValue_t *field) {
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (fields[i].number != field->fieldId) continue;
        field->valueType = fields[i].type;
        return gpu->reading[fields[i].reading];
    }
    return ABSENT;
}

static int64_t value_of(const struct gpu *gpu, unsigned index, nvmlFieldValue_t *field) {
    unsigned peer;
    if (field->fieldId >= FIELD_SHUTDOWN_TLIMIT && field->fieldId <= FIELD_GPU_MAX_TLIMIT) {
        field->valueType = NVML_VALUE_SIGNED;
        return threshold_limit(gpu, field->fieldId);
    }
    if (field->fieldId == FIELD_LINK_STATE) {
        field->valueType = NVML_VALUE_UNSIGNED;
        bool link = field->scopeId < or_zero(gpu->reading[READ_nvlink_count]);
        return link ? link_peer(gpu, index, field->scopeId, &peer) != LINK_DOWN : ABSENT;
    }
    int64_t value = table_value(gpu, field);
    bool life = field->fieldId == FIELD_ECC_UNCORRECTED_AGGREGATE;
    int64_t now = gpu->reading[READ_ecc_uncorrected];
    return life && value != ABSENT && now > value ? now : value;
}

static nvmlValue_t shaped(unsigned type, int64_t value) {
    switch (type) {
        case NVML_VALUE_SIGNED: return (nvmlValue_t){.si = (int)value};
        case NVML_VALUE_UNSIGNED: return (nvmlValue_t){.ui = (unsigned)value};
        default: return (nvmlValue_t){.ull = (u64)value};
    }
}

API nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
    struct gpu gpu;
    struct timeval now;
    TRY(open_gpu(device, &gpu));
    NEED(count > 0 && values, NVML_ERROR_INVALID_ARGUMENT);
    gettimeofday(&now, NULL);
    for (int i = 0; i < count; i++) {
        int64_t value = value_of(&gpu, device->gpu, &values[i]);
        values[i].timestamp = (long long)now.tv_sec * 1000000 + now.tv_usec;
        values[i].latencyUsec = 0;
        values[i].code = value == ABSENT ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
        values[i].value =
            value == ABSENT ? (nvmlValue_t){.ull = 0} : shaped(values[i].valueType, value);
    }
    return NVML_SUCCESS;
}
