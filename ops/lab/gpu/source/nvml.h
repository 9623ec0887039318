// NVML's interface as far as the simulator speaks it. Layouts and numbers are those of the public
// binding nvidia-ml-py 13.615; tests/unit/gpu_simulator compares the sizes.
#ifndef RACKHAND_NVML_H
#define RACKHAND_NVML_H

#include <stdint.h>

typedef unsigned long long u64;
typedef struct handle *nvmlDevice_t;
typedef struct handle *nvmlGpuInstance_t;
typedef struct handle *nvmlComputeInstance_t;
typedef struct event_set *nvmlEventSet_t;

typedef enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NO_PERMISSION = 4,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_LIBRARY_NOT_FOUND = 12,
    NVML_ERROR_GPU_IS_LOST = 15,
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
    NVML_ERROR_IN_USE = 19,
    NVML_ERROR_MEMORY = 20,
    NVML_ERROR_NO_DATA = 21,
    NVML_ERROR_INSUFFICIENT_RESOURCES = 23,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
    NVML_ERROR_UNKNOWN = 999,
} nvmlReturn_t;

enum { NVML_CLOCK_GRAPHICS, NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_CLOCK_VIDEO, NVML_CLOCK_COUNT };
enum { NVML_MEMORY_ERROR_CORRECTED, NVML_MEMORY_ERROR_UNCORRECTED };
enum { NVML_VOLATILE_ECC, NVML_AGGREGATE_ECC };
enum { NVML_MEMORY_LOCATION_DRAM = 2, NVML_MEMORY_LOCATION_SRAM = 7, NVML_MEMORY_LOCATION_COUNT };
enum { NVML_INIT_FLAG_NO_GPUS = 1 };
enum { NVML_EVENT_XID = 0x8, NVML_EVENTS_SUPPORTED = 0x1f };
enum { NVML_INSTANCE_NONE = 0xFFFFFFFFu };
enum { NVML_VALUE_UNSIGNED = 1, NVML_VALUE_UNSIGNED_LONG_LONG = 3, NVML_VALUE_SIGNED = 5 };
#define NVML_VALUE_NOT_AVAILABLE (-1ULL)

typedef struct {
    char busIdLegacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

typedef struct {
    char busId[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId, reserved[4];
} nvmlPciInfo_v2_t;

typedef struct {
    unsigned version, domain, bus, device, pciDeviceId, pciSubSystemId, baseClass, subClass;
    char busId[32];
} nvmlPciInfoExt_t;

typedef struct {
    u64 total, free, used;
} nvmlMemory_t;
typedef struct {
    unsigned version;
    u64 total, reserved, free, used;
} nvmlMemory_v2_t;
typedef struct {
    u64 total, free, used;
} nvmlBAR1Memory_t;
typedef struct {
    unsigned gpu, memory;
} nvmlUtilization_t;
typedef struct {
    unsigned version, sensor;
    int temperature;
} nvmlTemperature_t;
typedef struct {
    unsigned version;
    int margin;
} nvmlMarginTemperature_t;
typedef struct {
    int controller, defaultMin, defaultMax, current, target;
} nvmlThermalSensor_t;
typedef struct {
    unsigned count;
    nvmlThermalSensor_t sensor[3];
} nvmlGpuThermalSettings_t;
typedef struct {
    u64 referenceTime, violationTime;
} nvmlViolationTime_t;

typedef struct {
    unsigned flags;
    struct {
        unsigned present, percentage, increase, decrease;
    } utilization[8];
} nvmlGpuDynamicPstatesInfo_t;

typedef struct {
    u64 l1, l2, memory, registers;
} nvmlEccErrorCounts_t;
typedef struct {
    unsigned version;
    u64 aggregateParity, aggregateSecDed, aggregateCorrected;
    u64 volatileParity, volatileSecDed, volatileCorrected;
    u64 bucketL2, bucketSm, bucketPcie, bucketMcu, bucketOther;
    unsigned thresholdExceeded;
} nvmlEccSramErrorStatus_t;
typedef struct {
    unsigned max, high, partial, low, none;
} nvmlRowRemapperHistogram_t;
typedef struct {
    unsigned correctedActive, correctedInactive, uncorrectedActive, uncorrectedInactive;
    unsigned pending, failure;
} nvmlRemappedRowsInfo_v2_t;

typedef struct {
    unsigned pid;
    u64 usedGpuMemory;
    unsigned gpuInstance, computeInstance;
} nvmlProcessInfo_t;
typedef struct {
    unsigned pid;
    u64 usedGpuMemory;
} nvmlProcessInfo_v1_t;
typedef struct {
    unsigned pid;
    u64 usedGpuMemory;
    unsigned gpuInstance, computeInstance;
    u64 protectedMemory;
} nvmlProcessDetail_t;
typedef struct {
    unsigned version, mode, count;
    nvmlProcessDetail_t *processes;
} nvmlProcessDetailList_t;
typedef struct {
    unsigned pid;
    u64 timeStamp;
    unsigned sm, memory, encoder, decoder;
} nvmlProcessUtilizationSample_t;
typedef struct {
    u64 timeStamp;
    unsigned pid, sm, memory, encoder, decoder, jpeg, ofa;
} nvmlProcessUtilizationInfo_t;
typedef struct {
    unsigned version, count;
    u64 lastSeen;
    nvmlProcessUtilizationInfo_t *processes;
} nvmlProcessesUtilizationInfo_t;

typedef union {
    double d;
    unsigned ui;
    u64 ull;
    long long sll;
    int si;
} nvmlValue_t;
typedef struct {
    u64 timeStamp;
    nvmlValue_t value;
} nvmlSample_t;
typedef struct {
    unsigned fieldId, scopeId;
    long long timestamp, latencyUsec;
    unsigned valueType, code;
    nvmlValue_t value;
} nvmlFieldValue_t;

typedef struct {
    nvmlDevice_t device;
    u64 type, data;
    unsigned gpuInstance, computeInstance;
} nvmlEventData_t;

typedef struct {
    unsigned start, size;
} nvmlPlacement_t;
typedef struct {
    nvmlDevice_t device;
    unsigned id, profileId;
    nvmlPlacement_t placement;
} nvmlGpuInstanceInfo_t;
typedef struct {
    nvmlDevice_t device;
    nvmlGpuInstance_t gpuInstance;
    unsigned id, profileId;
    nvmlPlacement_t placement;
} nvmlComputeInstanceInfo_t;
typedef struct {
    unsigned id, p2p, slices, instances, multiprocessors, copy, decoder, encoder, jpeg, ofa;
    u64 memoryMib;
} nvmlGpuInstanceProfileInfo_t;
typedef struct {
    unsigned version, id, p2p, slices, instances, multiprocessors, copy, decoder, encoder, jpeg,
        ofa;
    u64 memoryMib;
    char name[96];
} nvmlGpuInstanceProfileInfo_v2_t;
typedef struct {
    unsigned id, slices, instances, multiprocessors, copy, decoder, encoder, jpeg, ofa;
} nvmlComputeInstanceProfileInfo_t;
typedef struct {
    unsigned version, id, slices, instances, multiprocessors, copy, decoder, encoder, jpeg, ofa;
    char name[96];
} nvmlComputeInstanceProfileInfo_v2_t;
typedef struct {
    unsigned multiprocessors, copy, decoder, encoder, jpeg, ofa, gpuSlices, computeSlices;
    u64 memoryMib;
} nvmlDeviceAttributes_t;

typedef struct {
    unsigned char cluster[16];
    unsigned status, clique, state;
} nvmlGpuFabricInfo_t;
typedef struct {
    unsigned version;
    unsigned char cluster[16];
    unsigned status, clique, state, healthMask;
    unsigned char healthSummary;
} nvmlGpuFabricInfo_v3_t;
typedef struct {
    unsigned version;
    char branch[80];
} nvmlSystemDriverBranchInfo_t;
typedef struct {
    unsigned version, type;
    union {
        char text[41];
        unsigned char bytes[16];
    } value;
} nvmlUUID_t;

// Called across files and by nvidia-smi.
nvmlReturn_t nvmlInit_v2(void);
const char *nvmlErrorString(nvmlReturn_t code);
nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length);
nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned length);
nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version);
nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length);
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count);
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device);
nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device);
nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *address, nvmlDevice_t *device);
nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *info);
nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor);
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory);
nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *memory);
nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates);
nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t *margin);
nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, u64 *reasons);
nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned error, unsigned counter,
                                         u64 *count);
nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, unsigned error, unsigned counter,
                                             unsigned location, u64 *count);
nvmlReturn_t nvmlDeviceGetRetiredPages_v2(nvmlDevice_t device, unsigned cause, unsigned *count,
                                          u64 *addresses, u64 *times);
nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned *corrected,
                                       unsigned *uncorrected, unsigned *pending, unsigned *failure);
nvmlReturn_t nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t device,
                                               nvmlRowRemapperHistogram_t *banks);
nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values);
nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, nvmlGpuFabricInfo_t *info);
nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device,
                                                   nvmlProcessDetailList_t *list);
nvmlReturn_t nvmlDeviceSetPersistenceMode(nvmlDevice_t device, unsigned mode);
nvmlReturn_t nvmlDeviceSetMigMode(nvmlDevice_t device, unsigned mode, nvmlReturn_t *activation);
nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index,
                                                 nvmlDevice_t *mig);
nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoV(nvmlDevice_t device, unsigned enumeration,
                                                  nvmlGpuInstanceProfileInfo_v2_t *info);
nvmlReturn_t nvmlDeviceGetGpuInstanceRemainingCapacity(nvmlDevice_t device, unsigned id,
                                                       unsigned *count);
nvmlReturn_t nvmlDeviceCreateGpuInstance(nvmlDevice_t device, unsigned id, nvmlGpuInstance_t *made);
nvmlReturn_t nvmlDeviceGetGpuInstances(nvmlDevice_t device, unsigned id,
                                       nvmlGpuInstance_t *instances, unsigned *count);
nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t instance, nvmlGpuInstanceInfo_t *info);
nvmlReturn_t nvmlGpuInstanceDestroy(nvmlGpuInstance_t instance);
nvmlReturn_t nvmlGpuInstanceCreateComputeInstance(nvmlGpuInstance_t instance,
                                                  unsigned compute_profile,
                                                  nvmlComputeInstance_t *made);
nvmlReturn_t nvmlGpuInstanceGetComputeInstanceById(nvmlGpuInstance_t instance, unsigned id,
                                                   nvmlComputeInstance_t *compute);
nvmlReturn_t nvmlComputeInstanceDestroy(nvmlComputeInstance_t compute);
nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned link, unsigned *active);
nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t first, nvmlDevice_t second, unsigned capability,
                                    unsigned *status);

// Answers of one number.
#define NVML_UNSIGNED(function) nvmlReturn_t function(nvmlDevice_t device, unsigned *value);
#define NVML_KINDED(function) \
    nvmlReturn_t function(nvmlDevice_t device, unsigned kind, unsigned *value);
#define NVML_PAIR(function) \
    nvmlReturn_t function(nvmlDevice_t device, unsigned *first, unsigned *second);
#define NVML_TEXT(function) nvmlReturn_t function(nvmlDevice_t device, char *text, unsigned length);
NVML_UNSIGNED(nvmlDeviceGetIndex)
NVML_UNSIGNED(nvmlDeviceGetPersistenceMode)
NVML_UNSIGNED(nvmlDeviceGetDisplayActive)
NVML_UNSIGNED(nvmlDeviceGetComputeMode)
NVML_UNSIGNED(nvmlDeviceGetPerformanceState)
NVML_UNSIGNED(nvmlDeviceGetFanSpeed)
NVML_UNSIGNED(nvmlDeviceGetPowerUsage)
NVML_UNSIGNED(nvmlDeviceGetPowerManagementLimit)
NVML_UNSIGNED(nvmlDeviceGetEnforcedPowerLimit)
NVML_UNSIGNED(nvmlDeviceGetPowerManagementDefaultLimit)
NVML_UNSIGNED(nvmlDeviceGetCurrPcieLinkGeneration)
NVML_UNSIGNED(nvmlDeviceGetMaxPcieLinkGeneration)
NVML_UNSIGNED(nvmlDeviceGetCurrPcieLinkWidth)
NVML_UNSIGNED(nvmlDeviceGetMaxPcieLinkWidth)
NVML_UNSIGNED(nvmlDeviceGetPcieReplayCounter)
NVML_UNSIGNED(nvmlDeviceGetMinorNumber)
NVML_UNSIGNED(nvmlDeviceGetArchitecture)
NVML_UNSIGNED(nvmlDeviceGetRetiredPagesPendingStatus)
NVML_UNSIGNED(nvmlDeviceGetMaxMigDeviceCount)
NVML_UNSIGNED(nvmlDeviceGetGpuInstanceId)
NVML_KINDED(nvmlDeviceGetTemperature)
NVML_KINDED(nvmlDeviceGetTemperatureThreshold)
NVML_KINDED(nvmlDeviceGetClockInfo)
NVML_KINDED(nvmlDeviceGetMaxClockInfo)
NVML_KINDED(nvmlDeviceGetApplicationsClock)
NVML_KINDED(nvmlDeviceGetPcieThroughput)
NVML_PAIR(nvmlDeviceGetEccMode)
NVML_PAIR(nvmlDeviceGetMigMode)
NVML_PAIR(nvmlDeviceGetPowerManagementLimitConstraints)
NVML_PAIR(nvmlDeviceGetEncoderUtilization)
NVML_PAIR(nvmlDeviceGetDecoderUtilization)
NVML_TEXT(nvmlDeviceGetName)
NVML_TEXT(nvmlDeviceGetUUID)
NVML_TEXT(nvmlDeviceGetSerial)
NVML_TEXT(nvmlDeviceGetVbiosVersion)
NVML_TEXT(nvmlDeviceGetBoardPartNumber)

// Of the simulator alone.
nvmlReturn_t rackhandSimulatorPciAddress(unsigned index, char *buffer, unsigned length);
nvmlReturn_t rackhandSimulatorResetGpu(nvmlDevice_t device);

#define API __attribute__((visibility("default"))) nvmlReturn_t
#endif
