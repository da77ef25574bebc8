use std::fmt;

use candle_core::{Error, Result};
#[cfg(feature = "cuda")]
use ingle_kernels::cuda::Launcher;
use ingle_kernels::{ShapeError, Turn};

/// Where the operations of a stage run, and the right to.
#[derive(Clone, Copy)]
pub(in crate::model) enum Place<'a> {
    /// On the processor: a turn of the team.
    Cpu(&'a Turn<'a>),
    /// On a GPU: its stream, with the kernels loaded.
    #[cfg(feature = "cuda")]
    Cuda(&'a Launcher),
    /// Wherever the tensor library computes, by its own operations.
    Library,
}

impl<'a> Place<'a> {
    /// The team's turn.
    pub(super) fn turn(self) -> Result<&'a Turn<'a>> {
        match self {
            Self::Cpu(turn) => Ok(turn),
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => Err(elsewhere("the processor")),
            Self::Library => Err(elsewhere("the processor")),
        }
    }

    /// The GPU's stream.
    #[cfg(feature = "cuda")]
    pub(super) fn launcher(self) -> Result<&'a Launcher> {
        match self {
            Self::Cuda(launcher) => Ok(launcher),
            Self::Cpu(_) | Self::Library => Err(elsewhere("a GPU")),
        }
    }

    /// Whether what makes rows can quantise them as it does: elsewhere that is an operation of its own.
    pub(in crate::model) fn quantizes_as_it_makes(self) -> bool {
        match self {
            Self::Cpu(_) => true,
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => false,
            Self::Library => false,
        }
    }
}

impl fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu(_) => "Cpu",
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => "Cuda",
            Self::Library => "Library",
        })
    }
}

/// A buffer that lies where its operation does not run.
fn elsewhere(place: &'static str) -> Error {
    Error::msg(format!(
        "a buffer lies on {place}, where this stage does not run"
    ))
}

/// A kernel's complaint as the tensor library's.
pub(super) fn shape(error: ShapeError) -> Error {
    Error::wrap(error)
}
