//! The kernels of `kernels/cuda`: which of them does what, on which grid, with which arguments.
//!
//! A function here checks shapes as its twin on the processor does and returns a [`Launch`]; nothing
//! of it needs a device, so geometry and arguments are tested without one. With the feature `cuda`,
//! [`Launcher`] loads the compiled kernels and carries launches out.

mod attention;
#[cfg(feature = "cuda")]
mod launcher;
mod linear;
mod logits;
mod rows;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;

pub use attention::{AttentionBuffers, AttentionPlan, paged_attention, write_kv};
#[cfg(feature = "cuda")]
pub use launcher::{CAPABILITY, Launcher, check_library};
pub use linear::{DeviceMatrix, Into, embed, linear_f32, linear_quantized};
pub use logits::{SUMS, TOP, token_of, top_logits};
pub use rows::{gather, place, quantize_rows, rms_norm, rope, silu_mul};

use crate::ShapeError;

/// Blocks of a grid's second dimension, at most: a limit of the devices.
const GRID_Y_MOST: usize = 65_535;

/// Memory of the device: `len` values of `T`, readable for `'a`.
#[derive(Debug)]
pub struct DeviceSlice<'a, T> {
    address: u64,
    len: usize,
    borrowed: PhantomData<&'a T>,
}

/// Memory of the device to write.
#[derive(Debug)]
pub struct DeviceSliceMut<'a, T> {
    address: u64,
    len: usize,
    borrowed: PhantomData<&'a mut T>,
}

impl<T> Clone for DeviceSlice<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DeviceSlice<'_, T> {}

impl<T> DeviceSlice<'_, T> {
    /// Names `len` values from `address` on.
    ///
    /// # Safety
    /// They are on the device on which launches with them run, and stay there, and are written by
    /// nobody else, as long as the name is used.
    pub const unsafe fn new(address: u64, len: usize) -> Self {
        Self {
            address,
            len,
            borrowed: PhantomData,
        }
    }

    /// No values, on no device.
    pub const fn none() -> Self {
        Self {
            address: 0,
            len: 0,
            borrowed: PhantomData,
        }
    }

    /// Those of a range, cut to what there is.
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        let end = range.end.min(self.len);
        let start = range.start.min(end);
        Self {
            address: self.address + (start * size_of::<T>()) as u64,
            len: end - start,
            borrowed: PhantomData,
        }
    }

    /// How many values there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T> DeviceSliceMut<'_, T> {
    /// Names `len` values from `address` on.
    ///
    /// # Safety
    /// As for [`DeviceSlice::new`], and nobody else reads them either.
    pub const unsafe fn new(address: u64, len: usize) -> Self {
        Self {
            address,
            len,
            borrowed: PhantomData,
        }
    }

    /// Those from `start` on.
    pub fn from(self, start: usize) -> Self {
        let start = start.min(self.len);
        Self {
            address: self.address + (start * size_of::<T>()) as u64,
            len: self.len - start,
            borrowed: PhantomData,
        }
    }
}

/// Numbers that kernels index with: known here, where they are checked, and copied to the device.
#[derive(Clone, Copy, Debug)]
pub struct Indices<'a> {
    /// The numbers.
    pub host: &'a [u32],
    /// Their copy.
    pub device: DeviceSlice<'a, u32>,
}

impl<'a> Indices<'a> {
    /// Numbers that are needed here only.
    pub const fn on_host(host: &'a [u32]) -> Self {
        Self {
            host,
            device: DeviceSlice::none(),
        }
    }

    /// Checks that each is below `limit`.
    fn check(&self, what: &'static str, limit: usize) -> Result<(), ShapeError> {
        check_len(what, self.device.len, self.host.len())?;
        match self.host.iter().max() {
            Some(index) => ShapeError::check_range(what, *index as usize, limit),
            None => Ok(()),
        }
    }
}

/// One argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Arg {
    Address(u64),
    U64(u64),
    U32(u32),
    F32(f32),
}

impl<T> From<DeviceSlice<'_, T>> for Arg {
    fn from(slice: DeviceSlice<'_, T>) -> Self {
        Self::Address(slice.address)
    }
}

impl<T> From<DeviceSliceMut<'_, T>> for Arg {
    fn from(slice: DeviceSliceMut<'_, T>) -> Self {
        Self::Address(slice.address)
    }
}

/// A kernel, its grid and its arguments, which it borrows.
#[derive(Debug)]
#[must_use = "a launch does nothing until it is run"]
pub struct Launch<'a> {
    kernel: &'static str,
    grid: [u32; 2],
    n_threads: u32,
    #[cfg_attr(
        not(any(test, feature = "cuda")),
        expect(dead_code, reason = "read where launches run")
    )]
    args: Vec<Arg>,
    borrowed: PhantomData<&'a mut ()>,
}

impl Launch<'_> {
    /// A launch on `grid` blocks of `n_threads`.
    fn new(
        kernel: &'static str,
        grid: [usize; 2],
        n_threads: u32,
        args: Vec<Arg>,
    ) -> Result<Self, ShapeError> {
        ShapeError::check_range("the launch's blocks", grid[0], i32::MAX as usize)?;
        ShapeError::check_range("the launch's rows of blocks", grid[1], GRID_Y_MOST + 1)?;
        Ok(Self {
            kernel,
            grid: [small(grid[0])?, small(grid[1])?],
            n_threads,
            args,
            borrowed: PhantomData,
        })
    }

    /// The kernel's name.
    pub const fn kernel(&self) -> &'static str {
        self.kernel
    }

    /// Threads of a block.
    pub const fn n_threads(&self) -> u32 {
        self.n_threads
    }

    /// Whether there is nothing to do: devices refuse an empty grid.
    pub fn is_empty(&self) -> bool {
        self.grid.contains(&0)
    }

    /// The arguments as a kernel takes them: an address each.
    #[cfg(test)]
    fn addresses(&mut self) -> Vec<*mut std::ffi::c_void> {
        self.args
            .iter_mut()
            .map(|arg| match arg {
                Arg::Address(value) | Arg::U64(value) => std::ptr::from_mut(value).cast(),
                Arg::U32(value) => std::ptr::from_mut(value).cast(),
                Arg::F32(value) => std::ptr::from_mut(value).cast(),
            })
            .collect()
    }
}

/// A dimension as kernels take it.
fn small(value: usize) -> Result<u32, ShapeError> {
    u32::try_from(value).map_err(|_| ShapeError::Range {
        what: "a dimension",
        got: value,
        limit: u32::MAX as usize + 1,
    })
}

/// The same as an argument.
fn dim(value: usize) -> Result<Arg, ShapeError> {
    small(value).map(Arg::U32)
}

/// Checks that a buffer has what is read or written of it.
fn check_len(what: &'static str, got: usize, needed: usize) -> Result<(), ShapeError> {
    if got >= needed {
        return Ok(());
    }
    Err(ShapeError::Length {
        what,
        got,
        expected: needed,
    })
}
