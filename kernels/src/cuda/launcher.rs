//! Carries launches out: the driver's side.
#![expect(
    unsafe_code,
    reason = "what the driver runs is another language's code"
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{
    CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DriverError,
    LaunchConfig, PushKernelArg,
};
use cudarc::nvrtc::Ptx;

use super::{Arg, DeviceSlice, DeviceSliceMut, Launch};

/// The kernels, compiled for the capabilities that were asked for.
const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin"));

/// The compute capability that everything was compiled for, as `90` for 9.0. The tensor library's
/// kernels run on no other.
pub const CAPABILITY: &str = env!("INGLE_CUDA_CAPABILITY");

unsafe extern "C" {
    /// The error of this thread's last launch through the runtime, which then is forgotten.
    safe fn cudaGetLastError() -> u32;
}

/// Whether what the tensor library launched from this thread was taken: it does not look itself.
///
/// # Errors
/// The runtime's, under the number that the driver has for it too.
pub fn check_library() -> Result<(), u32> {
    match cudaGetLastError() {
        0 => Ok(()),
        code => Err(code),
    }
}

/// The kernels on one device, and the stream they run on.
#[derive(Debug)]
pub struct Launcher {
    stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
    functions: Mutex<HashMap<&'static str, CudaFunction>>,
}

impl Launcher {
    /// Loads the kernels for the device of `stream`.
    ///
    /// # Errors
    /// The driver's: among others, when the device is older than what they were compiled for.
    pub fn new(stream: Arc<CudaStream>) -> Result<Self, DriverError> {
        let module = stream
            .context()
            .load_module(Ptx::from_binary(IMAGE.to_vec()))?;
        Ok(Self {
            stream,
            module,
            functions: Mutex::default(),
        })
    }

    /// The stream on which everything runs.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Names a buffer that belongs to this stream.
    pub fn slice<'a, T>(&self, buffer: &'a CudaSlice<T>) -> DeviceSlice<'a, T> {
        let (address, _) = buffer.device_ptr(&self.stream);
        // SAFETY: the buffer is borrowed, and all use of it is in the order of one stream.
        unsafe { DeviceSlice::new(address, buffer.len()) }
    }

    /// Names a buffer that belongs to this stream, to write it.
    pub fn slice_mut<'a, T>(&self, buffer: &'a mut CudaSlice<T>) -> DeviceSliceMut<'a, T> {
        let len = buffer.len();
        let (address, _) = buffer.device_ptr_mut(&self.stream);
        // SAFETY: the buffer is borrowed, and all use of it is in the order of one stream.
        unsafe { DeviceSliceMut::new(address, len) }
    }

    /// Has a launch run after all before it.
    ///
    /// # Errors
    /// The driver's; those of the kernel itself come with a later call.
    pub fn run(&self, launch: &Launch<'_>) -> Result<(), DriverError> {
        if launch.is_empty() {
            return Ok(());
        }
        let function = self.function(launch.kernel)?;
        let mut builder = self.stream.launch_builder(&function);
        for arg in &launch.args {
            match arg {
                Arg::Address(value) | Arg::U64(value) => builder.arg(value),
                Arg::U32(value) => builder.arg(value),
                Arg::F32(value) => builder.arg(value),
            };
        }
        let config = LaunchConfig {
            grid_dim: (launch.grid[0], launch.grid[1], 1),
            block_dim: (launch.n_threads, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the arguments are of the kernel's types and within its buffers: the functions that
        // make launches see to it, and tests hold them to it.
        unsafe { builder.launch(config) }?;
        Ok(())
    }

    fn function(&self, name: &'static str) -> Result<CudaFunction, DriverError> {
        let functions = self.functions.lock();
        let mut functions = functions.unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(name) {
            return Ok(function.clone());
        }
        let function = self.module.load_function(name)?;
        functions.insert(name, function.clone());
        Ok(function)
    }
}
