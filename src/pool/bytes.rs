//! Bytes on the two kinds of memory that models take: the host's and the GPU's.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use super::error::bytes;

/// An amount of both. Units: bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes {
    /// Of the host.
    pub host: u64,
    /// Of the GPU; 0 where there is none.
    pub device: u64,
}

impl Bytes {
    /// An amount of the host's memory alone.
    pub const fn on_host(host: u64) -> Self {
        Self { host, device: 0 }
    }

    /// Both together.
    pub const fn total(self) -> u64 {
        self.host.saturating_add(self.device)
    }

    /// Whether there is enough of either in `room`.
    pub const fn fits(self, room: Self) -> bool {
        self.host <= room.host && self.device <= room.device
    }

    /// What of either is left without `other`; nothing where that is more.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self {
            host: self.host.saturating_sub(other.host),
            device: self.device.saturating_sub(other.device),
        }
    }

    /// The lesser of either.
    pub fn min(self, other: Self) -> Self {
        Self {
            host: self.host.min(other.host),
            device: self.device.min(other.device),
        }
    }

    /// Whether freeing it helps where `short` is missing.
    pub const fn helps(self, short: Self) -> bool {
        (self.host > 0 && short.host > 0) || (self.device > 0 && short.device > 0)
    }
}

impl Add for Bytes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            host: self.host.saturating_add(other.host),
            device: self.device.saturating_add(other.device),
        }
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Add::add)
    }
}

/// As a person reads it: `4.7 GB`, and what of it the GPU holds.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { host, device: 0 } => f.write_str(&bytes(host)),
            Self { host: 0, device } => write!(f, "{} on the GPU", bytes(device)),
            Self { host, device } => write!(f, "{} and {} on the GPU", bytes(host), bytes(device)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_count_for_themselves() {
        let small = Bytes { host: 5, device: 1 };
        let room = Bytes { host: 4, device: 9 };
        assert!(!small.fits(room));
        assert!(small.fits(room + Bytes::on_host(1)));
        let short = small.saturating_sub(room);
        assert_eq!(short, Bytes::on_host(1));
        assert!(small.helps(short) && !Bytes { host: 0, device: 7 }.helps(short));
        assert_eq!(small.min(room), Bytes { host: 4, device: 1 });
        assert_eq!([small, room].into_iter().sum::<Bytes>().total(), 19);
    }

    #[test]
    fn it_reads_as_a_person_says_it() {
        assert_eq!(Bytes::on_host(1500).to_string(), "1.5 kB");
        let both = Bytes { host: 7, device: 8 };
        assert_eq!(both.to_string(), "7 B and 8 B on the GPU");
        assert_eq!(Bytes { host: 0, device: 8 }.to_string(), "8 B on the GPU");
    }
}
