//! What the processor and its memory can do at best: what rates of products are judged by.
//!
//! Both are the best of several spans, for neighbours on the machine only ever slow them down.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::isa::vectorized;
#[cfg(target_arch = "x86_64")]
use crate::isa::{AvxVnni, Encoding};
use crate::memory::Memory;
use crate::{Isa, Turn};

/// What the read rate is measured on: many times a last-level cache. Units: bytes.
const BUFFER_BYTES: usize = 512 << 20;
/// What a thread reads as one task. Units: floats.
const TASK_FLOATS: usize = 1 << 19;
/// How long a span of multiplying takes at least.
const SPAN: Duration = Duration::from_millis(60);
/// The best of so many spans, or passes over the buffer, counts.
const SPANS: usize = 5;
/// Rounds of multiply-adds in a task: some tenth of a millisecond.
const ROUNDS: usize = 20_000;

/// The limits of this machine with the threads of one team.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Memory read in order by all threads. Units: bytes a second.
    pub read_bytes_per_second: f64,
    /// Products of eight-bit integers added to 32-bit sums, all in registers, on all threads, with the
    /// instructions of the team's tier. Units: multiply-adds a second.
    pub multiply_adds_per_second: f64,
}

impl Limits {
    /// Measures both, which takes about a second and, for as long, 512 MiB.
    pub fn measure(turn: &Turn<'_>) -> Self {
        Self {
            read_bytes_per_second: read_rate(turn, BUFFER_BYTES),
            multiply_adds_per_second: multiply_rate(turn),
        }
    }
}

/// Bytes a second at which all threads read a buffer of `n_bytes`.
fn read_rate(turn: &Turn<'_>, n_bytes: usize) -> f64 {
    // In the pages that weights lie in, and written once: what was only asked for is one page of zeros.
    let mut memory = Memory::zeroed(n_bytes);
    memory.bytes_mut().fill(1);
    let floats: &[f32] = bytemuck::cast_slice(memory.bytes());
    let (tasks, _) = floats.as_chunks::<TASK_FLOATS>();
    let isa = turn.isa();
    let pass = || {
        turn.run(tasks.len(), &|task_idx| {
            black_box(sum(isa, &tasks[task_idx]));
        });
    };
    let pass_bytes = (tasks.len() * TASK_FLOATS * 4) as f64;
    best(|| {
        let start = Instant::now();
        pass();
        pass_bytes / start.elapsed().as_secs_f64()
    })
}

vectorized! {
    /// Sums floats in 64 sums at once, so that no sum waits for the one before. Floats, because a
    /// compiler must leave the order of their sums alone: integers it gathers from far apart.
    fn sum(floats: &[f32]) -> f32 {
        let mut sums = [0.0_f32; 64];
        for chunk in floats.as_chunks::<64>().0 {
            for (sum, float) in sums.iter_mut().zip(chunk) {
                *sum += float;
            }
        }
        sums.into_iter().sum()
    }
}

/// Multiply-adds a second of all threads together.
fn multiply_rate(turn: &Turn<'_>) -> f64 {
    // Several tasks a thread: one that begins late leaves its share to the others.
    let (n_tasks, isa) = (8 * turn.n_threads(), turn.isa());
    best(|| {
        let start = Instant::now();
        let mut n_done = 0.0;
        while start.elapsed() < SPAN {
            turn.run(n_tasks, &|_| multiply(isa));
            n_done += (n_tasks * multiply_adds(isa)) as f64;
        }
        n_done / start.elapsed().as_secs_f64()
    })
}

fn best(mut rate: impl FnMut() -> f64) -> f64 {
    // The first wakes the threads and the clock.
    rate();
    (0..SPANS).map(|_| rate()).fold(0.0, f64::max)
}

/// Multiply-adds in a task.
fn multiply_adds(isa: Isa) -> usize {
    let a_round = match isa {
        Isa::Scalar => scalar::A_ROUND,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(_) => avx2::A_ROUND,
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni(_) => avx_vnni::A_ROUND,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni(_) => avx512::A_ROUND,
    };
    ROUNDS * a_round
}

fn multiply(isa: Isa) {
    match isa {
        Isa::Scalar => scalar::multiply(ROUNDS),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves the instructions.
        Isa::Avx2(_) => unsafe { avx2::multiply(ROUNDS) },
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni(AvxVnni(encoding)) => match encoding {
            // SAFETY: the token proves the instructions.
            Encoding::Vex(_) => unsafe { avx_vnni::vex(ROUNDS) },
            // SAFETY: the token proves the instructions.
            Encoding::Evex(_) => unsafe { avx_vnni::evex(ROUNDS) },
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves the instructions.
        Isa::Avx512Vnni(_) => unsafe { avx512::multiply(ROUNDS) },
    }
}

/// Whatever the compiler makes of a plain product.
mod scalar {
    use std::hint::black_box;

    const N_VALUES: usize = 256;
    pub(super) const A_ROUND: usize = N_VALUES;

    pub(super) fn multiply(rounds: usize) {
        let (weights, acts) = ([3_u8; N_VALUES], [-5_i8; N_VALUES]);
        let mut total = 0_i32;
        for _ in 0..rounds {
            // The compiler has to look at both again each time.
            let (weights, acts) = (black_box(&weights), black_box(&acts));
            let products = weights
                .iter()
                .zip(acts)
                .map(|(w, a)| i32::from(*w) * i32::from(*a));
            total = total.wrapping_add(products.sum());
        }
        black_box(total);
    }
}

/// Bytes multiplied into 16-bit pairs, pairs into 32-bit sums: three instructions.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        _mm256_add_epi32, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8,
        _mm256_set1_epi16, _mm256_setzero_si256,
    };
    use std::hint::black_box;

    const N_SUMS: usize = 8;
    /// Activations for each sum in a round.
    const N_ACTS: usize = 4;
    pub(super) const A_ROUND: usize = N_SUMS * N_ACTS * 32;

    #[target_feature(enable = "avx2")]
    pub(super) fn multiply(rounds: usize) {
        let acts = [[_mm256_set1_epi8(-5); N_SUMS]; N_ACTS];
        let (weights, ones) = (_mm256_set1_epi8(3), _mm256_set1_epi16(1));
        let mut sums = [_mm256_setzero_si256(); N_SUMS];
        for _ in 0..rounds {
            // Read again each time, from the nearest cache: else one product would serve all rounds.
            for acts in black_box(&acts) {
                for (sum, act) in sums.iter_mut().zip(acts) {
                    let pairs = _mm256_maddubs_epi16(weights, *act);
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        black_box(&sums);
    }
}

/// Bytes multiplied and added to 32-bit sums by one instruction, in both ways of writing it.
#[cfg(target_arch = "x86_64")]
mod avx_vnni {
    use std::arch::x86_64::{
        _mm256_dpbusd_avx_epi32, _mm256_dpbusd_epi32, _mm256_set1_epi8, _mm256_setzero_si256,
    };
    use std::hint::black_box;

    const N_SUMS: usize = 12;
    pub(super) const A_ROUND: usize = N_SUMS * 32;

    macro_rules! multiply {
        ($name:ident, $features:literal, $dot:ident) => {
            #[target_feature(enable = $features)]
            pub(super) fn $name(rounds: usize) {
                let (weights, acts) = (_mm256_set1_epi8(3), _mm256_set1_epi8(-5));
                let (weights, acts) = (black_box(weights), black_box(acts));
                let mut sums = [_mm256_setzero_si256(); N_SUMS];
                for _ in 0..rounds {
                    for sum in &mut sums {
                        *sum = $dot(*sum, weights, acts);
                    }
                }
                black_box(&sums);
            }
        };
    }

    multiply!(vex, "avx2,avxvnni", _mm256_dpbusd_avx_epi32);
    multiply!(evex, "avx2,avx512vl,avx512vnni", _mm256_dpbusd_epi32);
}

/// The same with vectors twice as wide.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{_mm512_dpbusd_epi32, _mm512_set1_epi8, _mm512_setzero_si512};
    use std::hint::black_box;

    /// More than the instruction's latency times its rate, on any processor so far.
    const N_SUMS: usize = 16;
    pub(super) const A_ROUND: usize = N_SUMS * 64;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) fn multiply(rounds: usize) {
        let (weights, acts) = (_mm512_set1_epi8(3), _mm512_set1_epi8(-5));
        let (weights, acts) = (black_box(weights), black_box(acts));
        let mut sums = [_mm512_setzero_si512(); N_SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, weights, acts);
            }
        }
        black_box(&sums);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::Team;

    fn rates(isa: Isa, n_threads: usize) -> (f64, f64) {
        let team = Team::new(NonZeroUsize::new(n_threads).unwrap(), isa);
        let turn = team.take_turn();
        (read_rate(&turn, 16 << 20), multiply_rate(&turn))
    }

    #[test]
    #[cfg_attr(miri, ignore = "it has no clock to speak of")]
    fn every_tier_has_limits() {
        for isa in Isa::available() {
            let (read, multiply) = rates(isa, 1);
            assert!(
                read.is_finite() && read > 1e6,
                "{isa:?} reads {read} bytes a second"
            );
            assert!(
                multiply.is_finite() && multiply > 1e6,
                "{isa:?} multiplies {multiply} a second"
            );
        }
    }

    #[test]
    #[ignore = "it needs two idle cores"]
    fn two_threads_multiply_faster_than_one() {
        let ((_, one), (_, two)) = (rates(Isa::detect(), 1), rates(Isa::detect(), 2));
        assert!(two > 1.2 * one, "one thread {one}, two {two}");
    }
}
