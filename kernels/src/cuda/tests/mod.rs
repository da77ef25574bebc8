//! The kernels against the processor's: on a host that plays the device (see tests/emulator), or, with the
//! feature and `INGLE_TEST_GPU`, on the device.
#![cfg(test)]
#![expect(unsafe_code, reason = "the emulator is another language's library")]

mod attention;
mod linear;
mod logits;
mod rows;

use std::ffi::{CStr, CString, c_char, c_void};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use libloading::{Library, Symbol};

use super::{DeviceSlice, DeviceSliceMut, Indices, Launch};
use crate::testing::Random;
use crate::{Isa, Team};

type Emulate =
    unsafe extern "C" fn(*const c_char, *const u32, u32, *mut *mut c_void) -> *const c_char;

/// The emulator, built when it is first needed; it runs one launch at a time.
static EMULATOR: Mutex<Option<Library>> = Mutex::new(None);

/// What stands before and after a buffer, and in one that nothing was written to.
const POISON: u8 = 0xff;
/// Bytes of it at either end.
const GUARD_BYTES: usize = 256;

/// Compiles the kernels for the host.
fn build() -> Library {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulator");
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("emulator.so");
    let output = Command::new("g++")
        .args(["-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Wextra"])
        .args(["-Wno-unknown-pragmas", "-Werror", "-fPIC", "-shared"])
        .arg("-include")
        .arg(root.join("emulator.h"))
        .arg(root.join("emulator.cpp"))
        .arg("-o")
        .arg(&library)
        .output()
        .expect("the kernels are tested with g++, which is not installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    // SAFETY: the library has been made of this project's sources and does nothing when it is loaded.
    unsafe { Library::new(&library) }.unwrap()
}

/// Runs a launch; what would hang a device or be undefined there is the error.
fn try_run(mut launch: Launch<'_>) -> Result<(), String> {
    let mut emulator = EMULATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let library = emulator.get_or_insert_with(build);
    let kernel = CString::new(launch.kernel).unwrap();
    let grid = [launch.grid[0], launch.grid[1], 1];
    let n_threads = launch.n_threads;
    let mut args = launch.addresses();
    // SAFETY: this is the function's type in emulator.cpp.
    let emulate: Symbol<'_, Emulate> = unsafe { library.get(b"emulate") }.unwrap();
    // SAFETY: the arguments are of the kernel's types, and name buffers that live and fit: that is what
    // is tested, and the guards tell.
    let trouble = unsafe { emulate(kernel.as_ptr(), grid.as_ptr(), n_threads, args.as_mut_ptr()) };
    if trouble.is_null() {
        return Ok(());
    }
    // SAFETY: a sentence of the emulator's, which lives as long as it.
    let sentence = unsafe { CStr::from_ptr(trouble) };
    Err(format!("{}: {}", launch.kernel, sentence.to_string_lossy()))
}

fn run(launch: Launch<'_>) {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = gpu::launcher() {
        gpu.run(&launch).unwrap();
        gpu.stream().synchronize().unwrap();
        return;
    }
    try_run(launch).unwrap();
}

/// Memory of the device: poisoned values between guards.
struct Memory<T> {
    bytes: Vec<u128>,
    len: usize,
    /// The copy on a GPU, where one is tested: made when it is first named, read by `written`.
    #[cfg(feature = "cuda")]
    on_gpu: std::cell::OnceCell<cudarc::driver::CudaSlice<u8>>,
    values: std::marker::PhantomData<T>,
}

impl<T: bytemuck::Pod> Memory<T> {
    fn poisoned(len: usize) -> Self {
        let n_bytes = len * size_of::<T>() + 2 * GUARD_BYTES;
        Self {
            bytes: vec![u128::from_ne_bytes([POISON; 16]); n_bytes.div_ceil(16)],
            len,
            #[cfg(feature = "cuda")]
            on_gpu: std::cell::OnceCell::new(),
            values: std::marker::PhantomData,
        }
    }

    fn of(values: &[T]) -> Self {
        let mut memory = Self::poisoned(values.len());
        let range = memory.range();
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut memory.bytes);
        bytemuck::cast_slice_mut::<u8, T>(&mut bytes[range]).copy_from_slice(values);
        memory
    }

    fn range(&self) -> std::ops::Range<usize> {
        GUARD_BYTES..GUARD_BYTES + self.len * size_of::<T>()
    }

    /// What the host holds: what it was made of, or what `written` read last.
    fn values(&self) -> &[T] {
        let bytes: &[u8] = bytemuck::cast_slice(&self.bytes);
        bytemuck::cast_slice(&bytes[self.range()])
    }

    /// Where the values lie on the GPU, if one is tested.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(clippy::unused_self, reason = "there is none")
    )]
    fn on_gpu(&self) -> Option<u64> {
        #[cfg(feature = "cuda")]
        if let Some(gpu) = gpu::launcher() {
            let bytes = bytemuck::cast_slice(&self.bytes);
            let copy = || gpu.stream().clone_htod::<u8, [u8]>(bytes).unwrap();
            let start = gpu::address(gpu, self.on_gpu.get_or_init(copy));
            return Some(start + GUARD_BYTES as u64);
        }
        None
    }

    fn slice(&self) -> DeviceSlice<'_, T> {
        let address = self.on_gpu();
        let address = address.unwrap_or_else(|| self.values().as_ptr() as u64);
        // SAFETY: the memory is the device's, or the host plays the device, and is borrowed.
        unsafe { DeviceSlice::new(address, self.len) }
    }

    fn slice_mut(&mut self) -> DeviceSliceMut<'_, T> {
        let address = self.on_gpu();
        let address =
            address.unwrap_or_else(|| self.bytes.as_mut_ptr() as u64 + GUARD_BYTES as u64);
        // SAFETY: the memory is the device's, or the host plays the device, and is borrowed.
        unsafe { DeviceSliceMut::new(address, self.len) }
    }

    /// The values, after a look at the guards.
    fn written(&mut self) -> &[T] {
        #[cfg(feature = "cuda")]
        if let (Some(gpu), Some(copy)) = (gpu::launcher(), self.on_gpu.get()) {
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.bytes);
            gpu.stream().memcpy_dtoh(copy, bytes).unwrap();
        }
        let bytes: &[u8] = bytemuck::cast_slice(&self.bytes);
        let range = self.range();
        let guards = bytes[..range.start].iter().chain(&bytes[range.end..]);
        assert!(guards.into_iter().all(|byte| *byte == POISON));
        self.values()
    }
}

/// With `INGLE_TEST_GPU` set, what a GPU computes is tested instead.
#[cfg(feature = "cuda")]
mod gpu {
    use std::sync::OnceLock;

    use cudarc::driver::{CudaContext, CudaSlice, DevicePtr};

    use crate::cuda::Launcher;

    static LAUNCHER: OnceLock<Option<Launcher>> = OnceLock::new();

    pub(super) fn launcher() -> Option<&'static Launcher> {
        let open = || {
            std::env::var_os("INGLE_TEST_GPU")?;
            let context = CudaContext::new(0).expect("INGLE_TEST_GPU is set and there is no GPU");
            Some(Launcher::new(context.new_stream().unwrap()).unwrap())
        };
        LAUNCHER.get_or_init(open).as_ref()
    }

    pub(super) fn address(launcher: &Launcher, slice: &CudaSlice<u8>) -> u64 {
        slice.device_ptr(launcher.stream()).0
    }
}

impl Memory<u32> {
    fn indices(&self) -> Indices<'_> {
        Indices {
            host: self.values(),
            device: self.slice(),
        }
    }
}

fn team() -> Arc<Team> {
    Team::new(NonZeroUsize::MIN, Isa::Scalar)
}

/// Asserts that two results differ by rounding only.
fn assert_close(got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let is_close = (got - expected).abs() <= tolerance * largest;
        assert!(is_close, "{i}: {got} {expected}, largest {largest}");
    }
}

#[test]
fn each_file_has_its_kernel_and_says_how_it_is_launched() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
    let all = std::fs::read_to_string(folder.join("kernels.cu")).unwrap();
    let mut n_files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_none_or(|extension| extension != "cu") || name == "kernels" {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        for word in ["// Shapes: ", "// Launch: grid (", "// Registers: "] {
            assert!(source.contains(word), "{name}.cu has no line `{word}`");
        }
        assert!(all.contains(&format!("#include \"{name}.cu\"")), "{name}");
        let has_kernel = source.contains("extern \"C\" __global__");
        assert!(has_kernel, "{name}.cu defines no kernel");
        n_files += 1;
    }
    assert!(n_files >= 13, "{n_files}");
}

#[test]
fn what_is_undefined_on_a_device_is_a_sentence() {
    #[cfg(feature = "cuda")]
    if gpu::launcher().is_some() {
        return;
    }
    let mut random = Random::new(1);
    let (x, weight) = (
        Memory::of(&random.floats(64)),
        Memory::of(&random.floats(64)),
    );
    let mut out = Memory::poisoned(64);
    let mut launch = super::rms_norm(x.slice(), weight.slice(), 1e-5, 1, out.slice_mut()).unwrap();
    launch.n_threads = 48;
    let error = try_run(launch).unwrap_err();
    assert!(
        error.contains("lanes that the block does not have"),
        "{error}"
    );
}
