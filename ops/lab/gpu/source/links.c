// How GPUs reach each other and the host: PCIe, NVLink, the fabric, topology.
#include <stdio.h>
#include <string.h>

#include "library.h"

#define AT(key) gpu.reading[READ_##key]

enum { SWITCH_BUS = 0xc0, TOPOLOGY_NODE = 40, DEVICE_TYPE_GPU = 0, DEVICE_TYPE_SWITCH = 2 };

API nvmlDeviceGetPcieThroughput(nvmlDevice_t device, unsigned direction, unsigned *kbps) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    NEED(direction <= 1, NVML_ERROR_INVALID_ARGUMENT);
    return give(direction ? AT(pcie_rx_kbps) : AT(pcie_tx_kbps), kbps);
}

static nvmlReturn_t pcie_speed(nvmlDevice_t device, enum reading generation_key, unsigned *mbps) {
    static const unsigned speeds[] = {0, 2500, 5000, 8000, 16000, 32000, 64000};
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    int64_t generation = gpu.reading[generation_key];
    bool known = generation > 0 && generation < (int64_t)(sizeof speeds / sizeof *speeds);
    return give(known ? speeds[generation] : ABSENT, mbps);
}

API nvmlDeviceGetPcieSpeed(nvmlDevice_t device, unsigned *mbps) {
    return pcie_speed(device, READ_pcie_generation, mbps);
}

API nvmlDeviceGetPcieLinkMaxSpeed(nvmlDevice_t device, unsigned *speed) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    return give(AT(pcie_generation_max), speed);  // NVML numbers the speeds by generation
}

enum link_peer link_peer(const struct gpu *gpu, unsigned index, unsigned link, unsigned *peer) {
    struct machine machine;
    read_machine(&machine);
    if (or_zero(gpu->reading[READ_nvlink_down]) >> link & 1) return LINK_DOWN;
    if (machine.nvswitch) return LINK_TO_SWITCH;
    if (machine.gpu_count < 2) return LINK_DOWN;
    *peer = (index + 1 + link % (machine.gpu_count - 1)) % machine.gpu_count;
    return or_zero(machine.gpu[*peer].reading[READ_nvlink_count]) ? LINK_TO_GPU : LINK_DOWN;
}

static nvmlReturn_t open_link(nvmlDevice_t device, unsigned link, struct gpu *gpu) {
    TRY(open_gpu(device, gpu));
    NEED(or_zero(gpu->reading[READ_nvlink_count]) > 0, NVML_ERROR_NOT_SUPPORTED);
    NEED(link < gpu->reading[READ_nvlink_count], NVML_ERROR_INVALID_ARGUMENT);
    return NVML_SUCCESS;
}

API nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned link, unsigned *active) {
    struct gpu gpu;
    unsigned peer;
    TRY(open_link(device, link, &gpu));
    return give(link_peer(&gpu, device->gpu, link, &peer) != LINK_DOWN, active);
}

API nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned link, unsigned *version) {
    struct gpu gpu;
    TRY(open_link(device, link, &gpu));
    return give(AT(nvlink_version), version);
}

API nvmlDeviceGetNvLinkCapability(nvmlDevice_t device, unsigned link, unsigned capability,
                                  unsigned *value) {
    struct gpu gpu;
    TRY(open_link(device, link, &gpu));
    NEED(capability < 6, NVML_ERROR_INVALID_ARGUMENT);
    return give(capability != 4, value);  // all but the SLI bridge
}

API nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t device, unsigned link, unsigned counter,
                                    u64 *count) {
    static const enum reading counters[] = {READ_nvlink_replay_errors, READ_nvlink_recovery_errors,
                                            READ_nvlink_crc_errors};
    struct gpu gpu;
    TRY(open_link(device, link, &gpu));
    NEED(count, NVML_ERROR_INVALID_ARGUMENT);
    NEED(counter < sizeof counters / sizeof *counters, NVML_ERROR_NOT_SUPPORTED);
    *count = link == 0 ? (u64)or_zero(gpu.reading[counters[counter]]) : 0;
    return NVML_SUCCESS;
}

API nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned link, unsigned *type) {
    struct gpu gpu;
    unsigned peer;
    TRY(open_link(device, link, &gpu));
    switch (link_peer(&gpu, device->gpu, link, &peer)) {
        case LINK_TO_SWITCH: return give(DEVICE_TYPE_SWITCH, type);
        case LINK_TO_GPU: return give(DEVICE_TYPE_GPU, type);
        default: return NVML_ERROR_NOT_SUPPORTED;
    }
}

API nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned link, nvmlPciInfo_t *info) {
    struct gpu gpu;
    unsigned peer;
    TRY(open_link(device, link, &gpu));
    NEED(info, NVML_ERROR_INVALID_ARGUMENT);
    enum link_peer kind = link_peer(&gpu, device->gpu, link, &peer);
    NEED(kind != LINK_DOWN, NVML_ERROR_NOT_SUPPORTED);
    if (kind == LINK_TO_GPU) return nvmlDeviceGetPciInfo_v3(handle_of(HANDLE_GPU, peer, 0), info);
    *info = (nvmlPciInfo_t){.bus = SWITCH_BUS + link % 4, .pciDeviceId = 0x22a310de};
    snprintf(info->busId, sizeof info->busId, "%08X:%02X:00.0", 0, info->bus);
    snprintf(info->busIdLegacy, sizeof info->busIdLegacy, "%04X:%02X:00.0", 0, info->bus);
    return NVML_SUCCESS;
}

static nvmlReturn_t open_fabric(nvmlDevice_t device, struct gpu *gpu) {
    TRY(open_gpu(device, gpu));
    NEED(gpu->reading[READ_fabric_state] != ABSENT, NVML_ERROR_NOT_SUPPORTED);
    return NVML_SUCCESS;
}

API nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, nvmlGpuFabricInfo_t *info) {
    struct gpu gpu;
    TRY(open_fabric(device, &gpu));
    NEED(info, NVML_ERROR_INVALID_ARGUMENT);
    *info = (nvmlGpuFabricInfo_t){.state = (unsigned)AT(fabric_state)};
    return NVML_SUCCESS;
}

API nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfo_v3_t *info) {
    struct gpu gpu;
    TRY(open_fabric(device, &gpu));
    NEED(info, NVML_ERROR_INVALID_ARGUMENT);
    unsigned version = info->version >> 24;
    NEED(version == 2 || version == 3, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    memset(info->cluster, 0, sizeof info->cluster);
    info->status = info->clique = 0;
    info->state = (unsigned)AT(fabric_state);
    info->healthMask = (unsigned)or_zero(AT(fabric_health_mask));
    if (version == 3) info->healthSummary = info->healthMask ? 2 : 1;  // unhealthy; healthy
    return NVML_SUCCESS;
}

API nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t first, nvmlDevice_t second, unsigned *level) {
    struct gpu gpu;
    TRY(open_gpu(first, &gpu));
    TRY(open_gpu(second, &gpu));
    return give(first == second ? 0 : TOPOLOGY_NODE, level);
}

API nvmlDeviceGetTopologyNearestGpus(nvmlDevice_t device, unsigned level, unsigned *count,
                                     nvmlDevice_t *devices) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    NEED(count, NVML_ERROR_INVALID_ARGUMENT);
    unsigned gpus = level >= TOPOLOGY_NODE ? gpu_count() : 0, found = 0;
    for (unsigned i = 0; i < gpus; i++) {
        if (i == device->gpu) continue;
        if (devices && found < *count) devices[found] = handle_of(HANDLE_GPU, i, 0);
        found++;
    }
    *count = found;
    return NVML_SUCCESS;
}

API nvmlSystemGetTopologyGpuSet(unsigned cpu, unsigned *count, nvmlDevice_t *devices) {
    (void)cpu;
    NEED(initialized(), NVML_ERROR_UNINITIALIZED);
    NEED(count, NVML_ERROR_INVALID_ARGUMENT);
    unsigned gpus = gpu_count();
    for (unsigned i = 0; devices && i < gpus && i < *count; i++)
        devices[i] = handle_of(HANDLE_GPU, i, 0);
    *count = gpus;
    return NVML_SUCCESS;
}

API nvmlDeviceGetP2PStatus(nvmlDevice_t first, nvmlDevice_t second, unsigned capability,
                           unsigned *status) {
    enum { P2P_NVLINK = 2, STATUS_OK = 0, STATUS_NOT_SUPPORTED = 5 };
    struct gpu gpu;
    TRY(open_gpu(second, &gpu));
    TRY(open_gpu(first, &gpu));
    bool joined = false;
    unsigned peer;
    for (unsigned link = 0; link < or_zero(AT(nvlink_count)); link++) {
        enum link_peer kind = link_peer(&gpu, first->gpu, link, &peer);
        joined |= kind == LINK_TO_SWITCH || (kind == LINK_TO_GPU && peer == second->gpu);
    }
    return give(capability != P2P_NVLINK || joined ? STATUS_OK : STATUS_NOT_SUPPORTED, status);
}

// Which processors are near: the simulator has one node, so all of them.
API nvmlDeviceGetCpuAffinity(nvmlDevice_t device, unsigned words, unsigned long *set) {
    struct gpu gpu;
    TRY(open_gpu(device, &gpu));
    NEED(set && words, NVML_ERROR_INVALID_ARGUMENT);
    memset(set, 0xff, words * sizeof *set);
    return NVML_SUCCESS;
}

API nvmlDeviceGetCpuAffinityWithinScope(nvmlDevice_t device, unsigned words, unsigned long *set,
                                        unsigned scope) {
    (void)scope;
    return nvmlDeviceGetCpuAffinity(device, words, set);
}

API nvmlDeviceGetMemoryAffinity(nvmlDevice_t device, unsigned words, unsigned long *set,
                                unsigned scope) {
    struct gpu gpu;
    (void)scope;
    TRY(open_gpu(device, &gpu));
    NEED(set && words, NVML_ERROR_INVALID_ARGUMENT);
    memset(set, 0, words * sizeof *set);
    *set = 1ul << or_zero(AT(numa_node));
    return NVML_SUCCESS;
}
