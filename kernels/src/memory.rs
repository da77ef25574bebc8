//! Memory for weights: zeroed, in the largest pages the system gives.

use memmap2::MmapMut;

/// Zeroed bytes.
pub(crate) enum Memory {
    /// Pages of their own.
    Mapped(MmapMut),
    /// Where the system maps none.
    Owned(Vec<u8>),
}

impl Memory {
    /// Takes `len` bytes.
    ///
    /// A product reads all of its weights once, so with small pages nearly every block would first
    /// have to be looked up in the page tables: large ones are asked for.
    pub(crate) fn zeroed(len: usize) -> Self {
        // The interpreter knows nothing of mappings.
        let mapped = if cfg!(miri) {
            None
        } else {
            MmapMut::map_anon(len).ok()
        };
        match mapped {
            Some(mapping) => {
                // Advice: where it is not taken, pages are small.
                #[cfg(target_os = "linux")]
                let _ = mapping.advise(memmap2::Advice::HugePage);
                Self::Mapped(mapping)
            }
            None => Self::Owned(vec![0; len]),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(mapping) => mapping,
            Self::Owned(bytes) => bytes,
        }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Mapped(mapping) => mapping,
            Self::Owned(bytes) => bytes,
        }
    }
}
