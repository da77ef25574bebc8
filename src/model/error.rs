//! What keeps a network from being loaded or computed, one sentence each.

use std::path::PathBuf;

use crate::gguf;

/// Why a model cannot be loaded, or a step not be computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file's header, or a key of it.
    #[error(transparent)]
    File(#[from] gguf::Error),
    /// Whoever watched the load ended it.
    #[error("the load was called off")]
    CalledOff,
    /// A network of another kind.
    #[error(
        "architecture {name:?} is not supported: Ingle computes llama \
         (Llama 2 and 3, Mistral, CodeLlama, SmolLM2, TinyLlama)"
    )]
    Architecture {
        /// What the file calls it.
        name: String,
    },
    /// A folder's network of another kind.
    #[error(
        "model type {name:?} is not supported: of folders with safetensors Ingle computes bert \
         (MiniLM, BGE, E5, GTE and others)"
    )]
    Encoder {
        /// What the folder calls it.
        name: String,
    },
    /// A file of a model's folder that cannot be used.
    #[error("{}: {problem}", path.display())]
    Folder {
        /// The file, or the folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A key whose value cannot be, or contradicts another.
    #[error("key {key} is {value}: it must be {must_be}")]
    Key {
        /// The key.
        key: String,
        /// What it is.
        value: String,
        /// What would do.
        must_be: String,
    },
    /// A part of the network that is not built.
    #[error("the model needs {what}, which is not supported")]
    Unsupported {
        /// The part, and where the file asks for it.
        what: String,
    },
    /// A tensor the network cannot do without.
    #[error("the file has no tensor {name}: it is damaged or incomplete")]
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// A tensor of another shape than the keys say.
    #[error("tensor {name} has shape {got:?} where the keys ask for {expected:?}")]
    TensorShape {
        /// Its name.
        name: String,
        /// Its dimensions, in the order of the file.
        got: Vec<u64>,
        /// The dimensions that fit.
        expected: Vec<u64>,
    },
    /// A tensor of a type there is no arithmetic for.
    #[error(
        "tensor {name} is of type {ty}: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 \
         and Q2_K to Q6_K are supported"
    )]
    TensorType {
        /// Its name.
        name: String,
        /// Its type.
        ty: &'static str,
    },
    /// A tensor whose rows are no whole blocks.
    #[error("tensor {name}: {problem}")]
    Matrix {
        /// Its name.
        name: String,
        /// What does not fit.
        problem: ingle_kernels::ShapeError,
    },
    /// A batch that the model's limits do not hold, or that contradicts itself.
    #[error("{what} is {got}: it must be {must_be}")]
    Batch {
        /// The value.
        what: &'static str,
        /// What it is.
        got: usize,
        /// What would do.
        must_be: String,
    },
    /// A vector that is none.
    #[error("number {dimension} of the vector is {value}: the model file may be damaged")]
    Vector {
        /// Its first number that cannot be.
        dimension: usize,
        /// NaN or infinity.
        value: f32,
    },
    /// The system gives no threads.
    #[error("no threads for the model: {0}")]
    Threads(String),
    /// No GPU, or one that is lost.
    #[error("{what}")]
    Gpu {
        /// One sentence that names it.
        what: String,
    },
    /// The GPU has not as much memory as was asked of it.
    #[error(
        "the GPU is out of memory: put fewer layers on it (--gpu-layers), take a smaller context, or \
         unload another model"
    )]
    GpuMemory,
    /// The tensor library, or a kernel behind it.
    #[error("computing a step: {0}")]
    Compute(candle_core::Error),
}

impl Error {
    /// Whether nothing can be computed there any more.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Gpu { .. })
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        #[cfg(feature = "cuda")]
        if let Some(error) = super::cuda::driver_error(&error) {
            return error;
        }
        Self::Compute(error)
    }
}
