//! Bodies that come packed although nobody asked for it.

use std::io::{self, Write};
use std::mem;

use flate2::write::MultiGzDecoder;

/// What one chunk may unpack to.
const UNPACKED_MOST: usize = 8 << 20;

/// Unpacks chunk by chunk.
#[derive(Debug)]
pub(super) struct Gunzip(MultiGzDecoder<Bounded>);

#[derive(Debug, Default)]
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > UNPACKED_MOST {
            return Err(io::Error::other("it unpacks to too much"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Gunzip {
    pub(super) fn new() -> Self {
        Self(MultiGzDecoder::new(Bounded::default()))
    }

    /// What `packed` and all before it unpack to, and was not given back yet.
    pub(super) fn push(&mut self, packed: &[u8]) -> io::Result<Vec<u8>> {
        self.0.write_all(packed)?;
        self.0.flush()?;
        Ok(mem::take(&mut self.0.get_mut().0))
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_was_packed_comes_out_however_it_was_cut() {
        let text = "data: héllo\n\n".repeat(100);
        let bytes = packed(text.as_bytes());
        for size in [1, 7, bytes.len()] {
            let mut gunzip = Gunzip::new();
            let chunks = bytes.chunks(size).map(|chunk| gunzip.push(chunk).unwrap());
            assert_eq!(chunks.flatten().collect::<Vec<u8>>(), text.as_bytes());
        }
    }

    #[test]
    fn a_bomb_and_noise_are_errors() {
        let bomb = packed(&vec![0; 64 << 20]);
        assert!(Gunzip::new().push(&bomb).is_err());
        assert!(Gunzip::new().push(b"not packed at all").is_err());
    }
}
