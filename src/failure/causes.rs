//! The table of causes: what a log says, what that means, and what to change.
//!
//! A new row needs a real excerpt in `tests/fixtures/logs/failures`, named like the row, with its source.

use std::sync::LazyLock;

use regex::Regex;

/// A cause of failure.
#[derive(Debug)]
pub(crate) struct Cause {
    /// A word for it, which stays the same.
    pub name: &'static str,
    /// What happened.
    pub what: &'static str,
    /// What to change.
    pub advice: &'static str,
    /// It follows from others: it counts where none of those is.
    pub follows: bool,
    /// What the log says, in which every run of blanks is one.
    says: LazyLock<Option<Regex>>,
}

impl Cause {
    /// Where in `text` it is said for the last time.
    pub(super) fn last_in(&self, text: &str) -> Option<usize> {
        Some(self.says.as_ref()?.find_iter(text).last()?.start())
    }

    /// Tells whether the pattern compiled.
    #[cfg(test)]
    pub(crate) fn is_sound(&self) -> bool {
        self.says.is_some()
    }
}

macro_rules! cause {
    ($name:literal, $follows:literal, $says:literal, $what:literal, $advice:literal) => {
        Cause {
            name: $name,
            what: $what,
            advice: $advice,
            follows: $follows,
            says: LazyLock::new(|| Regex::new($says).ok()),
        }
    };
}

/// Killed, and nothing in the log says why. The kernel leaves no word there.
pub(crate) static KILLED: Cause = cause!(
    "killed",
    true,
    r"$^",
    "It was killed with SIGKILL, and its log says nothing of it.",
    "Unless somebody killed it, the machine ran out of memory: `dmesg | grep -i oom` on it tells. Then use a machine with more memory, fewer dataloader workers (training.dataloader_num_workers), or a streaming dataset."
);

/// All causes that are known.
pub(crate) static CAUSES: [Cause; 30] = [
    cause!(
        "cuda_out_of_memory",
        false,
        r"CUDA out of memory|CUDA error: out of memory|HIP out of memory|MPS backend out of memory",
        "The GPU ran out of memory.",
        "Lower training.per_device_train_batch_size (and raise training.gradient_accumulation_steps to make up for it), set training.enable_gradient_checkpointing, lower model.model_max_length, use LoRA (training.use_peft), or ask for GPUs with more memory."
    ),
    cause!(
        "shared_memory",
        false,
        r"out of shared memory|killed by signal: Bus error|unable to (?:open|allocate|mmap|write to) (?:shared memory|file </torch_)",
        "The dataloader's workers ran out of shared memory (/dev/shm).",
        "Give the container more (`--shm-size=16g`, or an emptyDir of medium Memory at /dev/shm on Kubernetes), or set training.dataloader_num_workers to 0."
    ),
    cause!(
        "out_of_memory",
        false,
        r"(?i:oom[-_]kill)|OOMKilled|OOM Killed|Out of memory: Killed process|task \d+: Out Of Memory|DefaultCPUAllocator: (?:can't|not enough) |Cannot allocate memory|\bMemoryError\b|DataLoader worker \(pid[^)]*\) is killed by signal: Killed|due to the node running low on memory",
        "The machine ran out of memory (not the GPU), and a process was killed or refused memory.",
        "Ask for a machine with more memory (resources.memory, or `--mem` on Slurm), lower training.dataloader_num_workers, stream the dataset, or load the model in a smaller type (model.torch_dtype_str: bfloat16)."
    ),
    cause!(
        "gated_model",
        false,
        r"trying to access a gated repo|Cannot access gated repo|GatedRepoError|is a gated (?:repository|dataset)|Access to (?:model|dataset) \S+ is restricted",
        "The model or dataset is gated on the Hugging Face Hub, and this job may not read it.",
        "Ask for access on its page at huggingface.co, then give the job a token that has it: HF_TOKEN in `envs`, or `hf auth login` on the machine that launches."
    ),
    cause!(
        "bad_token",
        false,
        r"Invalid user token|Invalid credentials in Authorization header|Token is required \(`?token=True",
        "The Hugging Face token is missing or not valid.",
        "Make a token at huggingface.co/settings/tokens and give it to the job as HF_TOKEN in `envs`, or `hf auth login` on the machine that launches."
    ),
    cause!(
        "no_such_model",
        false,
        r"is not a local folder and is not a valid model identifier|is not a local folder or a valid repository name|Repository Not Found for url|RepositoryNotFoundError|does not appear to have a file named|is not a valid git identifier|Incorrect path_or_model_id|HFValidationError: Repo id must",
        "There is no such model, or no such revision of it.",
        "Check model.model_name: a name on huggingface.co, or a folder that exists where the job runs. A private model needs HF_TOKEN in `envs`."
    ),
    cause!(
        "no_such_dataset",
        false,
        r"DatasetNotFoundError: Dataset '[^']*' doesn't exist|Dataset '[^']*' doesn't exist on the Hub|Couldn't find a dataset script at|dataset_path '[^']*' does not exist|DataFilesNotFoundError|EmptyDatasetError|Repository Not Found for url: https://huggingface\.co/(?:api/)?datasets/",
        "There is no such dataset.",
        "Check data.train.datasets[].dataset_name and dataset_path: a path is taken from the folder the job runs in, and for a cloud job it must be in file_mounts or the working directory. A private dataset needs HF_TOKEN in `envs`."
    ),
    cause!(
        "hub_unreachable",
        false,
        r"couldn't connect to 'https://huggingface\.co'|Couldn't reach '[^']*' on the Hub|OfflineModeIsEnabled|LocalEntryNotFoundError|host='huggingface\.co'[^\n]{0,80}Max retries exceeded|Failed to resolve 'huggingface\.co'",
        "The Hugging Face Hub could not be reached, and what was needed is not in the cache.",
        "Check the machine's network and that HF_HUB_OFFLINE is not set; or download beforehand (`hf download`) and name the local folder."
    ),
    cause!(
        "disk_full",
        false,
        r"No space left on device|\(os error 28\)|Disk quota exceeded|ENOSPC\b",
        "The disk is full.",
        "Ask for a larger one (disk_size), save less often (training.save_steps), delete old checkpoints, or move training.output_dir and HF_HOME to a larger disk."
    ),
    cause!(
        "no_oumi",
        false,
        r"oumi: (?:command )?not found|oumi was (?:not found on this cluster|installed and is not on PATH)|No module named '?oumi'?|oumi: No such file or directory",
        "Oumi is not installed where the job runs.",
        "Install it in the job's `setup` (`pip install 'oumi[gpu]'`). An existing cluster does not run `setup` again: use a new cluster name, or install it there by hand."
    ),
    cause!(
        "missing_module",
        false,
        r"ModuleNotFoundError: No module named|ImportError: [^:]{0,200}?(?:requires|not installed|pip install|could not be found|cannot be used due to the following error)|HardwareException: Flash attention 2 was requested",
        "A Python package is missing.",
        "Install it, for a cloud job in `setup` (`pip install …`); the line of the log names it. For flash-attn, model.attn_implementation: sdpa does without."
    ),
    cause!(
        "no_gpu",
        false,
        r"(?:Error|Exception): (?:\(.{0,40}\) )?(?:Found no NVIDIA driver|Torch not compiled with CUDA enabled|ProcessGroupNCCL is only supported with GPUs|No CUDA GPUs are available|CUDA error: no CUDA-capable device)",
        "There is no usable GPU on the machine.",
        "Ask for one (accelerators, such as A100:1), run on a machine that has one, or install a torch build with CUDA."
    ),
    cause!(
        "driver_mismatch",
        false,
        r"Error: The NVIDIA driver on your system is too old|CUDA driver version is insufficient|no kernel image is available for execution|Driver/library version mismatch|forward compatibility was attempted on non supported HW",
        "The GPU, its driver, and the CUDA that torch was built for do not fit together.",
        "Install a torch build for the driver's CUDA version (pytorch.org/get-started), use a newer image or driver, or another kind of GPU."
    ),
    cause!(
        "device_assert",
        false,
        r"device-side assert triggered|CUDA error: an illegal memory access",
        "A kernel failed on the GPU: mostly a token or label outside of the model's vocabulary.",
        "Check that tokenizer and model belong together and that labels are within range; CUDA_LAUNCH_BLOCKING=1 in `envs` gives the line where it happens."
    ),
    cause!(
        "loss_not_finite",
        false,
        r"Error: (?:NaN|INF) is detected for the '|FloatingPointError|Current loss scale already at minimum",
        "The loss became NaN or infinite.",
        "Lower training.learning_rate, raise the warm-up, clip the gradients (training.max_grad_norm), or use bfloat16 in place of float16."
    ),
    cause!(
        "port_in_use",
        false,
        r"EADDRINUSE|[Aa]ddress already in use",
        "A network port that the job needs is taken, perhaps by an earlier run of it.",
        "End what still runs there, or choose another port (MASTER_PORT in `envs`, `--master-port` of torchrun)."
    ),
    cause!(
        "bad_config",
        false,
        r"\bError: Config error at '|OumiConfig\w*Error|ConfigKeyError|ConfigAttributeError|Config file not found|yaml\.(?:parser|scanner|constructor)\.\w+Error|Key '[^']+' not in '\w+Params'",
        "The config is wrong.",
        "Mend what the line names; `dry_run` checks a config without starting anything."
    ),
    cause!(
        "cloud_not_enabled",
        false,
        r"which (?:is|are) not enabled\. To enable access|NoCloudAccessError|No cloud access is set up|No enabled cloud",
        "The cloud is not set up on this machine.",
        "Run `sky check` for it and do what it says about credentials, or choose another cloud."
    ),
    cause!(
        "quota",
        false,
        r"VcpuLimitExceeded|MaxSpotInstanceCountExceeded|InstanceLimitExceeded|QUOTA_EXCEEDED|quotaExceeded|QuotaExceeded|Quota '[^']*' exceeded|Found no quota for",
        "The cloud account's quota does not allow such a machine.",
        "Ask the cloud for more quota (docs.skypilot.co/en/latest/cloud-setup/quota.html), or choose a smaller machine, another region, or another cloud."
    ),
    cause!(
        "capacity",
        false,
        r"InsufficientInstanceCapacity|ZONE_RESOURCE_POOL_EXHAUSTED|SkuNotAvailable|AllocationFailed|ZonalAllocationFailed|Insufficient capacity|out of capacity|STOCKOUT|no longer any instances available",
        "The cloud has no such machine free at the moment.",
        "Try again later, or another region, another kind of GPU, another cloud; `use_spot: false` where spot machines are short."
    ),
    cause!(
        "no_resources",
        true,
        r"ResourcesUnavailableError|Failed to (?:provision|acquire) (?:all|resources)|No launchable resource found",
        "No machine could be had.",
        "The reasons for each place that was tried stand above the line. Relax accelerators, disk_size, region or spot, or try again later."
    ),
    cause!(
        "preempted",
        false,
        r"DUE TO PREEMPTION|[Cc]luster is preempted|(?:instance|node|machine|cluster|[Jj]ob) (?:was|has been|got) preempted|spot instance (?:interruption|termination)",
        "The machine was taken away (preempted).",
        "Start again with training.try_resume_from_last_checkpoint and a lower training.save_steps, or without use_spot."
    ),
    cause!(
        "time_limit",
        false,
        r"DUE TO TIME LIMIT",
        "The scheduler's time limit ended the job.",
        "Ask for more time, or go on from the last checkpoint (training.try_resume_from_last_checkpoint)."
    ),
    cause!(
        "setup_failed",
        true,
        r"Job \d+'s setup failed with return code",
        "The job's `setup` script failed, so it never ran.",
        "Mend the command that failed: its output stands above the line."
    ),
    cause!(
        "ssh_refused",
        false,
        r"Permission denied \(publickey",
        "SSH refused the key for the machine.",
        "Check the user name and that the key is loaded (`ssh-add -l`) and known there; `ssh user@host` must work without a question."
    ),
    cause!(
        "ssh_lost",
        true,
        r"client_loop: send disconnect|Connection to \S+ closed by remote host|ssh: connect to host|kex_exchange_identification|Connection reset by \S+ port \d+|Timeout, server \S+ not responding|ClusterUnreachableError|Failed to establish an SSH connection|mux_client_request_session",
        "The SSH connection to the machine was lost or could not be made.",
        "The job may still run there: look at its status again. Check the network, that the machine is up, and that `ssh` to it works."
    ),
    cause!(
        "nccl_timeout",
        true,
        r"Watchdog caught collective operation timeout|Some NCCL operations have failed or timed out|Timed out initializing process group|Timed out after \d+ seconds waiting for clients",
        "The GPUs waited for each other until the time-out: one of them hung, died, or was much slower.",
        "Look for the rank that failed first, or stood still. If a step rightly takes that long (a large save, a long evaluation), raise training.nccl_default_timeout_minutes; NCCL_DEBUG=INFO in `envs` tells more."
    ),
    cause!(
        "nccl_error",
        true,
        r"ncclUnhandledCudaError|ncclSystemError|ncclRemoteError|ncclInternalError|ncclInvalidUsage|DistBackendError: NCCL error",
        "The GPUs could not talk to each other (NCCL).",
        "Look for the rank that failed first. NCCL_DEBUG=INFO in `envs` tells more; NCCL_SOCKET_IFNAME names the network between nodes, NCCL_P2P_DISABLE=1 and NCCL_IB_DISABLE=1 go around faulty links."
    ),
    cause!(
        "worker_killed",
        true,
        r"Signal 9 \(SIGKILL\) received|exitcode : -9 ",
        "A worker process was killed with SIGKILL, and said nothing of it.",
        "Unless somebody killed it, the machine ran out of memory: `dmesg | grep -i oom` on it tells. Then use a machine with more memory, or lower training.dataloader_num_workers."
    ),
    cause!(
        "command_not_found",
        true,
        r"\b(?:ba|da|z)?sh: (?:line )?(?:\d+: )?\S+: (?:command )?not found|\bline \d+: \S+: command not found",
        "A command was not found.",
        "Install what it belongs to in `setup`, or correct its name; PATH in a job is that of a login shell without your own settings."
    ),
];
