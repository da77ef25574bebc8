//! A CUDA GPU: its stream with the kernels loaded, and what a stage keeps on it for a step.

use std::cell::RefCell;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::CudaError;
use candle_core::cuda_backend::cudarc::cublas::result::CublasError;
use candle_core::cuda_backend::cudarc::cublas::sys::cublasStatus_t;
use candle_core::cuda_backend::cudarc::curand::result::CurandError;
use candle_core::cuda_backend::cudarc::curand::sys::curandStatus_t;
use candle_core::cuda_backend::cudarc::driver::sys::CUresult;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaSlice, DriverError};
use candle_core::{CudaDevice, Storage, Tensor};
use ingle_kernels::AttentionArgs;
use ingle_kernels::cuda::{
    AttentionPlan, CAPABILITY, DeviceSlice, Indices, Launcher, SUMS, TOP, token_of, top_logits,
};

use super::batch::Batch;
use super::device::Device;
use super::error::Error;
use super::inputs::Inputs;
use super::logits::TopLogits;
use super::memory::PARTIAL_VALUES;

/// The driver's view of a GPU.
#[derive(Clone, Debug)]
pub(super) struct Driver {
    ordinal: usize,
    context: Arc<CudaContext>,
}

impl Driver {
    /// Whether kernels of ours can multiply on it.
    pub(super) const HAS_OUR_PRODUCTS: bool = true;
    /// What it goes by.
    pub(super) const BACKEND: &'static str = "cuda";
    /// It has memory of its own.
    pub(super) const IS_UNIFIED: bool = false;

    /// Opens it for one model, with a stream of its own: one that no model uses any more, if there is.
    ///
    /// What was opened once stays open. The tensor library keeps memory for every device that it was
    /// ever given, and closing one that is lost panics.
    pub(super) fn open(&self) -> Result<Device, Error> {
        static OPENED: Mutex<Vec<(usize, Arc<Cuda>)>> = Mutex::new(Vec::new());
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = |(ordinal, gpu): &&(usize, Arc<Cuda>)| {
            *ordinal == self.ordinal && Arc::strong_count(gpu) == 1
        };
        if let Some((_, gpu)) = opened.iter().find(is_free) {
            return Ok(Device::Cuda(Arc::clone(gpu)));
        }
        let gpu = Arc::new(Cuda::open(self.ordinal)?);
        opened.push((self.ordinal, Arc::clone(&gpu)));
        Ok(Device::Cuda(gpu))
    }

    /// Asks for GPU `ordinal`.
    pub(super) fn of(ordinal: usize) -> Result<Self, Error> {
        // The binding panics where the driver's library lacks a function.
        let context = catch_unwind(|| CudaContext::new(ordinal)).map_err(|_| Error::Gpu {
            what: format!("GPU {ordinal} cannot be used: the driver is too old for this program"),
        })?;
        let context = context.map_err(|error| failed(&format!("GPU {ordinal}"), error))?;
        let driver = Self { ordinal, context };
        let capability = driver.context.compute_capability();
        let (major, minor) = capability.map_err(|error| failed(&driver.name_of(), error))?;
        // The tensor library's kernels are machine code, and are not missed aloud.
        if format!("{major}{minor}") != CAPABILITY {
            return Err(Error::Gpu {
                what: format!(
                    "GPU {ordinal} has compute capability {major}.{minor} and this program was built \
                     for {CAPABILITY}: build it with CUDA_COMPUTE_CAP={major}{minor} make cuda"
                ),
            });
        }
        Ok(driver)
    }

    /// The name errors call it by.
    fn name_of(&self) -> String {
        format!("GPU {}", self.ordinal)
    }

    /// What it is called.
    pub(super) fn name(&self) -> Result<String, Error> {
        let name = self.context.name();
        name.map_err(|error| failed(&self.name_of(), error))
    }

    /// Its memory: what is free, and all of it. Units: bytes.
    pub(super) fn memory(&self) -> Result<(u64, u64), Error> {
        let memory = self.context.mem_get_info();
        let (free, total) = memory.map_err(|error| failed(&self.name_of(), error))?;
        Ok((free as u64, total as u64))
    }
}

/// What the driver says, as a sentence.
fn failed(gpu: &str, error: DriverError) -> Error {
    let name = error.error_name().map(|name| name.to_string_lossy());
    let said = error.error_string().map(|said| said.to_string_lossy());
    let what = match (name, said) {
        (Ok(name), Ok(said)) => format!("{gpu} cannot be used: {said} ({name})"),
        // Without a driver there are no words for it either.
        _ => format!(
            "{gpu} cannot be used: the driver gives error {}",
            error.0 as u32
        ),
    };
    Error::Gpu { what }
}

/// What the tensor library's error says of the GPU, where the driver is behind it: out of memory, or
/// lost. After most errors of the driver nothing can be done there any more.
pub(super) fn driver_error(error: &candle_core::Error) -> Option<Error> {
    use candle_core::Error::{Context, Cuda, WithBacktrace, WithPath};
    let said = match error {
        WithBacktrace { inner, .. } | Context { inner, .. } | WithPath { inner, .. } => {
            return driver_error(inner);
        }
        Cuda(said) => said.downcast_ref::<CudaError>()?,
        _ => return None,
    };
    let code = match said {
        CudaError::Cuda(code) | CudaError::Load { cuda: code, .. } => *code,
        // The libraries take memory of their own when they begin.
        CudaError::Cublas(CublasError(
            cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED
            | cublasStatus_t::CUBLAS_STATUS_NOT_INITIALIZED,
        ))
        | CudaError::Curand(CurandError(
            curandStatus_t::CURAND_STATUS_ALLOCATION_FAILED
            | curandStatus_t::CURAND_STATUS_INITIALIZATION_FAILED,
        )) => return Some(Error::GpuMemory),
        _ => return None,
    };
    if code.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return Some(Error::GpuMemory);
    }
    Some(failed("the GPU", code))
}

/// Whether the tensor library's last product was started at all.
///
/// Errors: it was not: there is no memory for its code, or the GPU is lost.
pub(super) fn check_library() -> Result<(), Error> {
    let Err(code) = ingle_kernels::cuda::check_library() else {
        return Ok(());
    };
    if code == CUresult::CUDA_ERROR_OUT_OF_MEMORY as u32 {
        return Err(Error::GpuMemory);
    }
    Err(Error::Gpu {
        what: format!("the GPU cannot be used: a product was not started (CUDA error {code})"),
    })
}

/// The driver's error as the tensor library's.
pub(super) fn wrap(error: DriverError) -> candle_core::Error {
    CudaError::from(error).into()
}

/// A GPU as one model sees it: a stream of its own on it.
#[derive(Debug)]
pub struct Cuda {
    candle: CudaDevice,
    launcher: Launcher,
}

impl Cuda {
    /// Opens GPU `ordinal` with a new stream.
    ///
    /// # Errors
    /// The driver's: there is no such GPU, or it is older than what the kernels were compiled for.
    #[expect(unsafe_code, reason = "the driver's bookkeeping is turned off")]
    pub fn open(ordinal: usize) -> Result<Self, Error> {
        let candle = CudaDevice::new_with_stream(ordinal)?;
        // SAFETY: nothing of a model is used on another stream than its own, in whose order it is
        // written, read and freed: no event has to say when that was.
        unsafe { candle.disable_event_tracking() };
        let launcher = Launcher::new(candle.cuda_stream()).map_err(wrap)?;
        Ok(Self { candle, launcher })
    }

    /// The tensor library's device.
    pub(super) fn candle(&self) -> &CudaDevice {
        &self.candle
    }

    /// Waits for everything that was launched.
    ///
    /// Errors: what went wrong in it.
    pub(super) fn wait(&self) -> Result<(), Error> {
        let done = self.launcher.stream().synchronize();
        Ok(done.map_err(wrap)?)
    }

    /// The kernels.
    pub(super) fn launcher(&self) -> &Launcher {
        &self.launcher
    }
}

/// What a stage keeps on its GPU beside its buffers.
#[derive(Debug)]
pub(super) struct StepMemory {
    /// A step's numbers: see [`Inputs`].
    words: CudaSlice<u32>,
    partials: RefCell<CudaSlice<f32>>,
    plan: Option<AttentionPlan>,
    /// The greatest logits of each row, and what the rows add up to.
    top: CudaSlice<u64>,
    sums: CudaSlice<f32>,
}

/// How a step's attention is cut, and room for its parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttentionPlace<'a> {
    pub(super) plan: &'a AttentionPlan,
    /// The plan's words.
    pub(super) words: DeviceSlice<'a, u32>,
    pub(super) positions: DeviceSlice<'a, u32>,
    pub(super) partials: &'a RefCell<CudaSlice<f32>>,
}

impl StepMemory {
    pub(super) fn new(gpu: &Cuda, max_logit_rows: usize) -> Result<Self, Error> {
        Ok(Self {
            top: gpu.candle.alloc_zeros(max_logit_rows.max(1) * TOP)?,
            sums: gpu.candle.alloc_zeros(max_logit_rows.max(1) * SUMS)?,
            words: gpu.candle.alloc_zeros(1)?,
            partials: RefCell::new(gpu.candle.alloc_zeros(PARTIAL_VALUES)?),
            plan: None,
        })
    }

    /// Finds the greatest logits of rows, `[n_rows, n_vocab]`, and waits for the step: what went wrong
    /// in it is known here at the latest.
    ///
    /// Errors: the driver's.
    pub(super) fn top_logits(
        &mut self,
        gpu: &Cuda,
        logits: &Tensor,
        [n_rows, n_vocab]: [usize; 2],
    ) -> Result<Vec<TopLogits>, Error> {
        let (storage, _) = logits.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            return Err(candle_core::Error::msg("the logits lie on no GPU").into());
        };
        let on = &gpu.launcher;
        let (top, sums) = (on.slice_mut(&mut self.top), on.slice_mut(&mut self.sums));
        let logits = on.slice(storage.as_cuda_slice::<f32>()?);
        let launch = top_logits(logits, [n_rows, n_vocab], top, sums);
        on.run(&launch.map_err(candle_core::Error::wrap)?)
            .map_err(wrap)?;
        let top: Vec<u64> = gpu.candle.clone_dtoh(&self.top.slice(..n_rows * TOP))?;
        let sums: Vec<f32> = gpu.candle.clone_dtoh(&self.sums.slice(..n_rows * SUMS))?;
        let rows = top.chunks_exact(TOP).zip(sums.chunks_exact(SUMS));
        Ok(rows
            .map(|(keys, sums)| TopLogits {
                logits: keys.iter().filter_map(|key| token_of(*key)).collect(),
                weight: f64::from(sums[1]),
                is_faulty: sums[2] > 0.0,
                is_all: n_vocab <= TOP,
            })
            .collect())
    }

    /// Copies a step's numbers to the GPU.
    pub(super) fn upload<'a>(
        &'a mut self,
        gpu: &Cuda,
        batch: &'a Batch,
        args: &AttentionArgs<'_>,
        n_blocks: usize,
    ) -> Result<Inputs<'a>, Error> {
        let plan = AttentionPlan::new(args, n_blocks, PARTIAL_VALUES);
        let plan = self.plan.insert(plan.map_err(candle_core::Error::wrap)?);
        let parts = [
            &batch.token_ids,
            &batch.positions,
            &batch.slot_mapping,
            &batch.logit_rows,
        ];
        let mut words: Vec<u32> = parts.into_iter().flatten().copied().collect();
        let plan_start = words.len();
        words.extend(plan.words());
        if self.words.len() < words.len() {
            self.words = gpu.candle.alloc_zeros(words.len().next_power_of_two())?;
        }
        let mut place = self.words.slice_mut(..words.len());
        gpu.candle.memcpy_htod(&words, &mut place)?;
        let all = gpu.launcher.slice(&self.words);
        let mut start = 0;
        let [token_ids, positions, slot_mapping, logit_rows] = parts.map(|part| {
            let range = start..start + part.len();
            start = range.end;
            Indices {
                host: part,
                device: all.part(range),
            }
        });
        Ok(Inputs {
            token_ids,
            positions,
            slot_mapping,
            logit_rows,
            attention: Some(AttentionPlace {
                plan,
                words: all.part(plan_start..words.len()),
                positions: positions.device,
                partials: &self.partials,
            }),
        })
    }
}
