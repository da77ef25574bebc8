//! What this machine has.

use std::num::NonZeroUsize;

use indicatif::DecimalBytes;
use ingle_kernels::Isa;
use ingle_kernels::limits::Limits;
use ingle_kernels::team::default_threads;
use serde_json::{Value, json};

use crate::cli::gpu::Choice;
use crate::config::Config;
use crate::pool::memory;

/// The machine as this process may use it.
pub(super) struct Machine {
    /// What the processor calls itself.
    pub(super) processor: Option<String>,
    /// Hardware threads this process may run on.
    pub(super) n_cpus: NonZeroUsize,
    /// Threads that compute unless the configuration says otherwise.
    pub(super) default_threads: NonZeroUsize,
    /// Threads that compute.
    pub(super) n_threads: NonZeroUsize,
    pub(super) isa: Isa,
    pub(super) limits: Limits,
    /// Memory this process can still take.
    pub(super) available_bytes: Option<u64>,
    /// Memory of the machine, or of the control group this process is in.
    pub(super) total_bytes: Option<u64>,
    pub(super) gpu: Gpu,
    /// Free on the disk of the store.
    pub(super) disk_bytes: Option<u64>,
}

/// The GPU.
pub(super) enum Gpu {
    Used {
        name: String,
        free_bytes: Option<u64>,
        total_bytes: u64,
    },
    NotUsed(String),
    /// None was looked for, or nothing here knows GPUs.
    None,
}

impl Machine {
    pub(super) fn look(config: &Config, isa: Isa, limits: Limits, gpu: Option<&Choice>) -> Self {
        let default_threads = default_threads();
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = cpuinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == "model name").then(|| value.trim().to_owned())
        });
        Self {
            processor,
            n_cpus: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            default_threads,
            n_threads: config.threads.unwrap_or(default_threads),
            isa,
            limits,
            available_bytes: memory::available_bytes(),
            total_bytes: memory::total_bytes(),
            gpu: match gpu {
                Some(Choice::Used(gpu)) => Gpu::Used {
                    name: gpu.name.clone(),
                    free_bytes: gpu.free_bytes().ok(),
                    total_bytes: gpu.total_bytes,
                },
                Some(Choice::NotUsed(reason)) => Gpu::NotUsed(reason.clone()),
                None => Gpu::None,
            },
            disk_bytes: disk_bytes(&config.home),
        }
    }

    /// For a person.
    pub(super) fn rows(&self, budget_bytes: u64) -> Vec<[String; 2]> {
        let bytes = |n: Option<u64>| {
            n.map_or_else(|| "unknown".to_owned(), |n| DecimalBytes(n).to_string())
        };
        let gigabytes = self.limits.read_bytes_per_second / 1e9;
        let multiply_adds = self.limits.multiply_adds_per_second / 1e9;
        let gpu = match &self.gpu {
            Gpu::Used {
                name,
                free_bytes,
                total_bytes,
            } => format!(
                "{name}, {} of {} free",
                bytes(*free_bytes),
                DecimalBytes(*total_bytes)
            ),
            Gpu::NotUsed(reason) => format!("none is used: {reason}"),
            Gpu::None => "none".to_owned(),
        };
        let processor = self.processor.as_deref().unwrap_or(std::env::consts::ARCH);
        let rows = [
            (
                "ingle",
                format!("{}, {}", env!("CARGO_PKG_VERSION"), std::env::consts::OS),
            ),
            (
                "processor",
                format!("{processor}, {} hardware threads", self.n_cpus),
            ),
            (
                "computes with",
                format!("{} threads, {}", self.n_threads, self.isa.name()),
            ),
            (
                "multiplies",
                format!("{multiply_adds:.0} billion 8-bit multiply-adds/s"),
            ),
            ("reads memory", format!("{gigabytes:.1} GB/s")),
            (
                "memory",
                format!(
                    "{}, {} free, {} of it for models",
                    bytes(self.total_bytes),
                    bytes(self.available_bytes),
                    DecimalBytes(budget_bytes)
                ),
            ),
            ("GPU", gpu),
            (
                "disk of the store",
                format!("{} free", bytes(self.disk_bytes)),
            ),
        ];
        rows.map(|(name, text)| [name.to_owned(), text]).into()
    }

    pub(super) fn to_json(&self, budget_bytes: u64) -> Value {
        let gpu = match &self.gpu {
            Gpu::Used {
                name,
                free_bytes,
                total_bytes,
            } => json!({
                "used": true,
                "name": name,
                "free_bytes": free_bytes,
                "total_bytes": total_bytes,
            }),
            Gpu::NotUsed(reason) => json!({"used": false, "reason": reason}),
            Gpu::None => Value::Null,
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "processor": self.processor,
            "cpus": self.n_cpus,
            "threads": self.n_threads,
            "isa": self.isa.name(),
            "multiply_adds_per_second": self.limits.multiply_adds_per_second,
            "read_bytes_per_second": self.limits.read_bytes_per_second,
            "memory_bytes": self.total_bytes,
            "available_bytes": self.available_bytes,
            "budget_bytes": budget_bytes,
            "gpu": gpu,
            "disk_bytes": self.disk_bytes,
        })
    }
}

/// Free for this user on the disk of `folder`, or of the nearest folder above it that is there.
fn disk_bytes(folder: &std::path::Path) -> Option<u64> {
    let there = folder.ancestors().find(|folder| folder.is_dir())?;
    crate::catalog::free_bytes(there)
}
