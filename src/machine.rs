use ::media::Ffmpeg;
use nn::Isa;
use sysinfo::System;

/// What this machine has that models and media depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Instruction sets of its processor that there are kernels for, the least first; the last one is used.
    pub instructions: Vec<String>,
    /// Threads that work.
    pub threads: usize,
    /// Main memory, where the system tells.
    pub memory: Option<Memory>,
    /// The program that decodes most clips.
    pub ffmpeg: Option<Ffmpeg>,
}

/// Bytes of main memory, of the machine or of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What nobody uses.
    pub free: u64,
}

impl Machine {
    /// Looks around.
    pub fn here() -> Self {
        Self {
            instructions: Isa::available().map(|isa| isa.to_string()).filter(|name| name != "none").collect(),
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
            memory: Memory::here(),
            ffmpeg: Ffmpeg::find(),
        }
    }
}

impl Memory {
    /// As the system tells it.
    pub(crate) fn here() -> Option<Self> {
        let mut system = System::new().ok()?;
        system.refresh_memory();
        let (total, free) = (system.total_memory(), system.available_memory());
        Some(match system.cgroup_limits() {
            Some(limits) => Self { total: limits.total_memory.min(total), free: limits.free_memory.min(free) },
            None => Self { total, free },
        })
    }
}
