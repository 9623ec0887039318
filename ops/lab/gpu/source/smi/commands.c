// What changes a GPU: persistence, MIG mode, reset, and `mig` with its instances.
#include <stdlib.h>
#include <string.h>

#include "fields.h"

enum { PROFILE_NUMBERS = 18, MOST_INSTANCES = 8 };

static int refused(const char *what, const char *address, nvmlReturn_t code) {
    printf("Unable to %s for GPU %s: %s\n", what, address, NVML(nvmlErrorString)(code));
    return (int)code;
}

int set_persistence(const struct options *options, unsigned on) {
    char address[TEXT];
    for (unsigned gpu = 0; gpu < device_count(); gpu++) {
        if (!options->chosen[gpu]) continue;
        nvmlDevice_t device = device_at(gpu);
        read_field(device, "pci.bus_id", address);
        nvmlReturn_t code = NVML(nvmlDeviceSetPersistenceMode)(device, on);
        if (code) return refused("set persistence mode", address, code);
        printf("%s persistence mode for GPU %s.\n", on ? "Enabled" : "Disabled", address);
    }
    printf("All done.\n");
    return 0;
}

int set_mig(const struct options *options, unsigned on) {
    const char *word = on ? "Enabled" : "Disabled";
    char address[TEXT];
    for (unsigned gpu = 0; gpu < device_count(); gpu++) {
        nvmlReturn_t activation = NVML_SUCCESS;
        if (!options->chosen[gpu]) continue;
        nvmlDevice_t device = device_at(gpu);
        read_field(device, "pci.bus_id", address);
        nvmlReturn_t code = NVML(nvmlDeviceSetMigMode)(device, on, &activation);
        if (code) return refused(on ? "enable MIG Mode" : "disable MIG Mode", address, code);
        if (activation == NVML_ERROR_IN_USE)
            printf(
                "Warning: MIG mode is in pending %s state for GPU %s:In use by another client\n"
                "%s is currently being used by one or more other processes (e.g. CUDA application "
                "or a monitoring application such as another instance of nvidia-smi). Please first "
                "kill all processes using the device and retry the command or reboot the system to "
                "make MIG mode effective.\n",
                on ? "enable" : "disable", address, address);
        else
            printf("%s MIG Mode for GPU %s\n", word, address);
    }
    printf("All done.\n");
    return 0;
}

int reset_gpus(const struct options *options) {
    char address[TEXT];
    for (unsigned gpu = 0; gpu < device_count(); gpu++) {
        if (!options->chosen[gpu]) continue;
        nvmlDevice_t device = device_at(gpu);
        read_field(device, "pci.bus_id", address);
        nvmlReturn_t code = NVML(rackhandSimulatorResetGpu)(device);
        if (code == NVML_ERROR_IN_USE) {
            printf(
                "GPU %s is currently in use by another process.\n\n1 device is currently being "
                "used "
                "by one or more other processes (e.g., Fabric Manager, CUDA application, graphics "
                "application such as an X server, or a monitoring application such as another "
                "instance of nvidia-smi). Please first kill all processes using this device and "
                "all "
                "compute applications running in the system.\n",
                address);
            return (int)code;
        }
        if (code) return refused("reset", address, code);
        printf("GPU %s was successfully reset.\n", address);
    }
    printf("All done.\n");
    return 0;
}

struct profile {
    nvmlGpuInstanceProfileInfo_v2_t info;
    unsigned number;
};

static unsigned profiles_of(nvmlDevice_t device, struct profile *profiles) {
    unsigned count = 0;
    for (unsigned number = 0; number < PROFILE_NUMBERS; number++) {
        profiles[count].info.version = 0x2000098;
        profiles[count].number = number;
        if (!NVML(nvmlDeviceGetGpuInstanceProfileInfoV)(device, number, &profiles[count].info))
            count++;
    }
    return count;
}

static void list_profiles(unsigned gpu, nvmlDevice_t device) {
    struct profile profiles[PROFILE_NUMBERS];
    unsigned count = profiles_of(device, profiles);
    for (unsigned i = 0; i < count; i++) {
        unsigned free_places = 0;
        const nvmlGpuInstanceProfileInfo_v2_t *info = &profiles[i].info;
        NVML(nvmlDeviceGetGpuInstanceRemainingCapacity)(device, info->id, &free_places);
        printf("|%4u  %-16s %4u     %2u/%-2u      %7.2f      No     %3u   %3u     0   |\n", gpu,
               info->name, info->id, free_places, info->instances, (double)info->memoryMib / 1024,
               info->multiprocessors, info->decoder);
    }
}

typedef int (*instance_action)(unsigned gpu, nvmlGpuInstance_t instance,
                               const nvmlGpuInstanceInfo_t *info, const struct profile *profile);

// Calls the action for every GPU instance; stops at the first that fails.
static int each_instance(unsigned gpu, nvmlDevice_t device, instance_action action) {
    struct profile profiles[PROFILE_NUMBERS];
    unsigned count = profiles_of(device, profiles);
    for (unsigned i = 0; i < count; i++) {
        nvmlGpuInstance_t instances[MOST_INSTANCES];
        unsigned found = 0;
        NVML(nvmlDeviceGetGpuInstances)(device, profiles[i].info.id, instances, &found);
        for (unsigned j = 0; j < found; j++) {
            nvmlGpuInstanceInfo_t info;
            if (NVML(nvmlGpuInstanceGetInfo)(instances[j], &info)) continue;
            int code = action(gpu, instances[j], &info, &profiles[i]);
            if (code) return code;
        }
    }
    return 0;
}

static int list_instance(unsigned gpu, nvmlGpuInstance_t instance,
                         const nvmlGpuInstanceInfo_t *info, const struct profile *profile) {
    (void)instance;
    printf("|%4u  %-16s %4u     %4u          %u:%u         |\n", gpu, profile->info.name,
           profile->info.id, info->id, info->placement.start, info->placement.size);
    return 0;
}

static unsigned compute_profile(const struct profile *profile) {
    return profile->info.slices == 7 ? 4 : profile->info.slices - 1;
}

static int list_compute(unsigned gpu, nvmlGpuInstance_t instance, const nvmlGpuInstanceInfo_t *info,
                        const struct profile *profile) {
    nvmlComputeInstance_t compute;
    if (NVML(nvmlGpuInstanceGetComputeInstanceById)(instance, 0, &compute)) return 0;
    printf("|%4u     %4u       %-16s %4u         0          0:%u     |\n", gpu, info->id,
           profile->info.name, compute_profile(profile), profile->info.slices);
    return 0;
}

static int create_compute(unsigned gpu, nvmlGpuInstance_t instance,
                          const nvmlGpuInstanceInfo_t *info, const struct profile *profile) {
    nvmlComputeInstance_t compute;
    if (!NVML(nvmlGpuInstanceGetComputeInstanceById)(instance, 0, &compute)) return 0;
    nvmlReturn_t code =
        NVML(nvmlGpuInstanceCreateComputeInstance)(instance, compute_profile(profile), &compute);
    if (code) {
        printf("Failed to create compute instances: %s\n", NVML(nvmlErrorString)(code));
        return (int)code;
    }
    printf(
        "Successfully created compute instance ID  0 on GPU %2u GPU instance ID %2u using profile "
        "%s (ID %2u)\n",
        gpu, info->id, profile->info.name, compute_profile(profile));
    return 0;
}

static int destroy_compute(unsigned gpu, nvmlGpuInstance_t instance,
                           const nvmlGpuInstanceInfo_t *info, const struct profile *profile) {
    nvmlComputeInstance_t compute;
    (void)profile;
    if (NVML(nvmlGpuInstanceGetComputeInstanceById)(instance, 0, &compute)) return 0;
    nvmlReturn_t code = NVML(nvmlComputeInstanceDestroy)(compute);
    if (code)
        printf("Unable to destroy compute instance ID  0 from GPU %2u GPU instance ID %2u: %s\n",
               gpu, info->id, NVML(nvmlErrorString)(code));
    else
        printf("Successfully destroyed compute instance ID  0 from GPU %2u GPU instance ID %2u\n",
               gpu, info->id);
    return (int)code;
}

static int destroy_instance(unsigned gpu, nvmlGpuInstance_t instance,
                            const nvmlGpuInstanceInfo_t *info, const struct profile *profile) {
    (void)profile;
    nvmlReturn_t code = NVML(nvmlGpuInstanceDestroy)(instance);
    if (code)
        printf("Unable to destroy GPU instance ID %2u from GPU %2u: %s\n", info->id, gpu,
               NVML(nvmlErrorString)(code));
    else
        printf("Successfully destroyed GPU instance ID %2u from GPU %2u\n", info->id, gpu);
    return (int)code;
}

// A profile by its id, or by its name with or without "MIG ".
static const struct profile *profile_named(const char *word, struct profile *profiles,
                                           unsigned count) {
    bool number = strspn(word, "0123456789") == strlen(word);
    for (unsigned i = 0; i < count; i++)
        if (number ? (unsigned)atoi(word) == profiles[i].info.id
                   : !strcmp(word, profiles[i].info.name + strlen("MIG ")))
            return &profiles[i];
    return NULL;
}

static int create_instances(unsigned gpu, nvmlDevice_t device, const char *list) {
    struct profile profiles[PROFILE_NUMBERS];
    unsigned count = profiles_of(device, profiles);
    char *copy = strdup(list), *rest = NULL;
    int result = 0;
    for (char *word = strtok_r(copy, ",", &rest); word && !result;
         word = strtok_r(NULL, ",", &rest)) {
        const struct profile *profile = profile_named(word, profiles, count);
        nvmlGpuInstance_t made;
        nvmlGpuInstanceInfo_t info;
        nvmlReturn_t code = profile
                                ? NVML(nvmlDeviceCreateGpuInstance)(device, profile->info.id, &made)
                                : NVML_ERROR_INVALID_ARGUMENT;
        if (code) {
            printf(
                "Unable to create a GPU instance on GPU %2u using profile %s: %s\n"
                "Failed to create GPU instances: %s\n",
                gpu, word, NVML(nvmlErrorString)(code), NVML(nvmlErrorString)(code));
            result = (int)code;
        } else if (!NVML(nvmlGpuInstanceGetInfo)(made, &info)) {
            printf(
                "Successfully created GPU instance ID %2u on GPU %2u using profile %s (ID %2u)\n",
                info.id, gpu, profile->info.name, profile->info.id);
        }
    }
    free(copy);
    return result;
}

static int run_mig(unsigned gpu, nvmlDevice_t device, int count, char **words) {
    int code = 0;
    for (int i = 2; i < count && !code; i++) {
        if (!strcmp(words[i], "-lgip"))
            list_profiles(gpu, device);
        else if (!strcmp(words[i], "-lgi"))
            code = each_instance(gpu, device, list_instance);
        else if (!strcmp(words[i], "-lci"))
            code = each_instance(gpu, device, list_compute);
        else if (!strcmp(words[i], "-cgi") && i + 1 < count)
            code = create_instances(gpu, device, words[++i]);
        else if (!strcmp(words[i], "-cci") || !strcmp(words[i], "-C"))
            code = each_instance(gpu, device, create_compute);
        else if (!strcmp(words[i], "-dci"))
            code = each_instance(gpu, device, destroy_compute);
        else if (!strcmp(words[i], "-dgi"))
            code = each_instance(gpu, device, destroy_instance);
    }
    return code;
}

static void print_mig_heading(const char *word) {
    if (!strcmp(word, "-lgip"))
        printf(
            "| GPU  Name               ID    Instances   Memory     P2P    SM    DEC   ENC  |\n"
            "|                              Free/Total    GiB                               |\n"
            "|==============================================================================|\n");
    if (!strcmp(word, "-lgi"))
        printf(
            "| GPU  Name             Profile  Instance     Placement    |\n"
            "|                         ID       ID        Start:Size    |\n"
            "|==========================================================|\n");
    if (!strcmp(word, "-lci"))
        printf(
            "| GPU     GPU       Name             Profile   Instance   Placement |\n"
            "|       Instance                       ID        ID       Start:Size |\n"
            "|===================================================================|\n");
}

int mig_command(const struct options *options, int count, char **words) {
    bool any = false;
    int code = 0;
    for (unsigned gpu = 0; gpu < device_count() && !code; gpu++) {
        unsigned now = 0, pending = 0;
        if (!options->chosen[gpu]) continue;
        nvmlDevice_t device = device_at(gpu);
        if (NVML(nvmlDeviceGetMigMode)(device, &now, &pending) || !now) continue;
        for (int i = 2; !any && i < count; i++) print_mig_heading(words[i]);
        any = true;
        code = run_mig(gpu, device, count, words);
    }
    if (!any) {
        printf("No MIG-enabled devices found.\n");
        return NVML_ERROR_NOT_FOUND;
    }
    return code;
}
