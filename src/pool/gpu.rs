//! The GPU that models are put on, and whether it still works.

use std::sync::{Mutex, PoisonError};

use crate::model::{Device, Error, Gpu};

use super::memory::default_budget;

/// What the pool may do with a GPU.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// The GPU.
    pub gpu: Gpu,
    /// Layers of a model that lie on it. `None`: as many as its budget holds.
    pub n_layers: Option<usize>,
    /// Bytes of its memory that all models together may hold. `None`: what is free now, less a reserve.
    pub memory_budget_bytes: Option<u64>,
    /// Multiply so that a row's result is the same in any batch there too.
    pub is_deterministic: bool,
}

/// How the GPU does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuStatus {
    /// What the driver calls it.
    pub name: String,
    /// Why it is not used any more: models are put on the processor.
    pub failure: Option<String>,
}

/// The GPU as all loads see it.
#[derive(Debug)]
pub(super) struct GpuPlace {
    options: GpuOptions,
    budget_bytes: u64,
    failure: Mutex<Option<String>>,
}

impl GpuPlace {
    pub(super) fn new(options: GpuOptions) -> Self {
        let budget_bytes = options.memory_budget_bytes.unwrap_or_else(|| {
            // One that does not answer is found out when something is to be put on it.
            options.gpu.free_bytes().map_or(0, default_budget)
        });
        Self {
            options,
            budget_bytes,
            failure: Mutex::default(),
        }
    }

    /// Bytes of its memory that all models together may hold.
    pub(super) fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// Whether its memory is the host's.
    pub(super) fn is_unified(&self) -> bool {
        self.options.gpu.is_unified()
    }

    /// Whether rows shall have the same results in any batch.
    pub(super) fn is_deterministic(&self) -> bool {
        self.options.is_deterministic
    }

    /// How many of `n_layers` lie on it: as many as were asked for, or the most for which `device_bytes`
    /// is within the budget; none once it has failed.
    pub(super) fn n_layers(&self, n_layers: usize, device_bytes: impl Fn(usize) -> u64) -> usize {
        // A lost GPU answers no question any more.
        if self.free_bytes().is_none() {
            return 0;
        }
        if let Some(asked_for) = self.options.n_layers {
            return asked_for.min(n_layers);
        }
        let counts = (1..=n_layers).rev();
        let mut fitting = counts.filter(|n| device_bytes(*n) <= self.budget_bytes);
        fitting.next().unwrap_or(0)
    }

    /// Opens it for one model.
    pub(super) fn open(&self) -> Result<Device, Error> {
        self.options
            .gpu
            .open()
            .inspect_err(|error| self.fail(error))
    }

    /// How it does.
    pub(super) fn status(&self) -> GpuStatus {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        GpuStatus {
            name: self.options.gpu.name.clone(),
            failure: failure.clone(),
        }
    }

    /// What is free on it; none once it has failed.
    fn free_bytes(&self) -> Option<u64> {
        if self.status().failure.is_some() {
            return None;
        }
        let free = self.options.gpu.free_bytes();
        free.inspect_err(|error| self.fail(error)).ok()
    }

    /// Takes note of what went wrong on it: lost, it is not used any more.
    pub(super) fn fail(&self, error: &Error) {
        // Not every error of a driver takes the GPU away.
        if !error.is_final() || self.options.gpu.free_bytes().is_ok() {
            return;
        }
        let reason = error.to_string();
        tracing::warn!(
            reason,
            "the GPU is not used any more: the processor computes"
        );
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(reason);
    }
}
