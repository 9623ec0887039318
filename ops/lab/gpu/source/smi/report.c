// -q: every field, in sections. Also -L and `topo -m`.
#include <string.h>

#include "fields.h"

// One line of the report: the sections of -d that show it, its label, its field; NULL: a heading.
static const struct {
    const char *section, *label, *field;
} lines[] = {
#include "report.def"
};

static bool wanted(const struct options *options, const char *section) {
    if (!options->sections) return true;
    const char *found = *section ? strstr(options->sections, section) : NULL;
    return found && (found == options->sections || found[-1] == ',');
}

int show_report(const struct options *options) {
    char text[TEXT], driver[TEXT] = "";
    int cuda = 0;
    read_field(NULL, "timestamp", text);
    NVML(nvmlSystemGetDriverVersion)(driver, sizeof driver);
    NVML(nvmlSystemGetCudaDriverVersion_v2)(&cuda);
    printf(
        "\n==============NVSMI LOG==============\n\nSimulated GPU (rackhand lab)\n"
        "%-50s: %s\n%-50s: %s\n%-50s: %d.%d\n\n%-50s: %u\n",
        "Timestamp", text, "Driver Version", driver, "CUDA Version", cuda / 1000, cuda % 1000 / 10,
        "Attached GPUs", device_count());
    for (unsigned gpu = 0; gpu < device_count(); gpu++) {
        if (!options->chosen[gpu]) continue;
        nvmlDevice_t device = device_at(gpu);
        read_field(device, "pci.bus_id", text);
        printf("GPU %s\n", text);
        for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
            if (!wanted(options, lines[i].section)) continue;
            if (!lines[i].field) {
                printf("    %s\n", lines[i].label);
                continue;
            }
            nvmlReturn_t code = read_field(device, lines[i].field, text);
            const char *unit = code ? "" : find_field(lines[i].field)->unit;
            if (!code && strstr(lines[i].field, "temperature.") == lines[i].field) unit = "C";
            printf("    %-46s: %s%s%s\n", lines[i].label, text, *unit ? " " : "", unit);
        }
        printf("\n");
    }
    return 0;
}

int show_list(const struct options *options) {
    for (unsigned gpu = 0; gpu < device_count(); gpu++) {
        char name[TEXT], uuid[TEXT];
        unsigned most = 0;
        nvmlDevice_t mig;
        if (!options->chosen[gpu]) continue;
        nvmlDevice_t device = device_at(gpu);
        read_field(device, "name", name);
        read_field(device, "uuid", uuid);
        printf("GPU %u: %s (UUID: %s)\n", gpu, name, uuid);
        size_t product = strlen(name) + strlen(" MIG ");
        NVML(nvmlDeviceGetMaxMigDeviceCount)(device, &most);
        for (unsigned i = 0; i < most; i++) {
            if (NVML(nvmlDeviceGetMigDeviceHandleByIndex)(device, i, &mig)) continue;
            read_field(mig, "name", name);
            read_field(mig, "uuid", uuid);
            printf("  MIG %-10s Device %2u: (UUID: %s)\n", name + product, i, uuid);
        }
    }
    return 0;
}

// How many links join two GPUs is not NVML's to say; that they are joined by NVLink is.
int show_topology(void) {
    enum { P2P_NVLINK = 2 };
    unsigned count = device_count();
    for (unsigned i = 0; i < count; i++) printf("\tGPU%u", i);
    printf("\tCPU Affinity\tNUMA Affinity\n");
    for (unsigned i = 0; i < count; i++) {
        unsigned links = 0, active, status;
        while (!NVML(nvmlDeviceGetNvLinkState)(device_at(i), links, &active)) links++;
        printf("GPU%u", i);
        for (unsigned j = 0; j < count; j++) {
            bool nvlink =
                links &&
                !NVML(nvmlDeviceGetP2PStatus)(device_at(i), device_at(j), P2P_NVLINK, &status) &&
                !status;
            if (i == j)
                printf("\t X ");
            else if (nvlink)
                printf("\tNV%u", links);
            else
                printf("\tNODE");
        }
        printf("\t0\t0\n");
    }
    printf(
        "\nLegend:\n\n  X    = Self\n  NODE = Connection traversing PCIe as well as the "
        "interconnect "
        "between PCIe Host Bridges within a NUMA node\n  NV#  = Connection traversing a bonded set "
        "of # NVLinks\n");
    return 0;
}
