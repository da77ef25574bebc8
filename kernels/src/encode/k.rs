//! The types with super-blocks: scales for the sub-blocks, then scales for those scales, then the levels
//! anew under what the scales have become.
//!
//! Source: the arithmetic of ggml's reference code, in its order.

use half::f16;

use super::fit::{
    Affine, Deviation, Search, Symmetric, TINY, affine, positive, refined, symmetric,
};
use super::lanes::{LANES, Lanes, Strip, load, round, store, to_byte};
use super::layout;

/// Weights in a super-block.
pub(super) const SUPER_LEN: usize = 256;
/// Weights of as many sub-blocks of 32 as there are lanes.
const STRIP_LEN: usize = 32 * LANES;

/// The scales of a super-block and what they count in.
pub(super) struct SuperBlock<const B: usize> {
    pub(super) scale: f16,
    pub(super) min: f16,
    pub(super) scales: [u8; B],
    pub(super) mins: [u8; B],
}

/// A type whose blocks have a scale and a minimum.
struct Offset {
    /// The greatest level of a weight.
    most: f32,
    /// The greatest level of a scale.
    scale_most: f32,
    plain: Search,
    weighted: Search,
}

const fn search(most: f32, first: f32, step: f32, n_steps: u8, deviation: Deviation) -> Search {
    Search {
        most,
        first,
        step,
        n_steps,
        deviation,
    }
}

/// The search where weights have an importance.
pub(super) const fn weighted(most: f32) -> Search {
    search(most, -0.9, 0.05, 36, Deviation::Squared)
}

const Q2: Offset = Offset {
    most: 3.0,
    scale_most: 15.0,
    plain: search(3.0, -0.5, 0.1, 15, Deviation::Absolute),
    weighted: weighted(3.0),
};
const Q4: Offset = Offset {
    most: 15.0,
    scale_most: 63.0,
    plain: search(15.0, -1.0, 0.1, 20, Deviation::Squared),
    weighted: weighted(15.0),
};
const Q5: Offset = Offset {
    most: 31.0,
    scale_most: 63.0,
    plain: search(31.0, -0.5, 0.1, 15, Deviation::Squared),
    weighted: weighted(31.0),
};

#[inline(always)]
pub(super) fn q2(row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    offset::<16, 16, 84>(&Q2, row, importance, out, layout::q2);
}

#[inline(always)]
pub(super) fn q4(row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    offset::<32, 8, 144>(&Q4, row, importance, out, layout::q4);
}

#[inline(always)]
pub(super) fn q5(row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    offset::<32, 8, 176>(&Q5, row, importance, out, layout::q5);
}

/// Encodes super-blocks of `B` sub-blocks of `N` weights, each with a scale and a minimum.
#[inline(always)]
fn offset<const N: usize, const B: usize, const BYTES: usize>(
    kind: &Offset,
    row: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
    lay: impl Fn(&SuperBlock<B>, &[u8; SUPER_LEN], &mut [u8; BYTES]),
) {
    let supers_in_strip = LANES / B;
    let strips = out.as_chunks_mut::<BYTES>().0.chunks_mut(supers_in_strip);
    for (strip_idx, blocks) in strips.enumerate() {
        let start = strip_idx * LANES * N;
        let x = &row[start..row.len().min(start + LANES * N)];
        let strip = load::<N>(x);
        let (weights, search) = match importance {
            Some(importance) => {
                let importance = load::<N>(&importance[start..start + x.len()]);
                (
                    by_importance(&strip, &importance, &spreads::<B>(x, N == 16)),
                    kind.weighted,
                )
            }
            None => (by_magnitude(&strip), kind.plain),
        };
        let fit = affine(&strip, &weights, search);
        let sums = sums(&weights);
        let (mut scale, mut min) = (Lanes::all(0.0), Lanes::all(0.0));
        let mut all: [Option<SuperBlock<B>>; LANES] = std::array::from_fn(|_| None);
        for (super_idx, slot) in all.iter_mut().enumerate().take(blocks.len()) {
            let scales = match importance {
                Some(_) => searched::<N, B>(&fit, &sums, super_idx, kind.scale_most),
                None => greatest::<N, B>(&fit, super_idx, kind.scale_most),
            };
            for sub_idx in 0..B {
                let lane = super_idx * B + sub_idx;
                scale.0[lane] = scales.scale.to_f32_const() * f32::from(scales.scales[sub_idx]);
                min.0[lane] = scales.min.to_f32_const() * f32::from(scales.mins[sub_idx]);
            }
            *slot = Some(scales);
        }
        let is_zero = scale.equal(Lanes::all(0.0));
        let mut levels = [Lanes::all(0.0); N];
        for i in 0..N {
            let level = ((strip[i] + min) / scale).level(0.0, kind.most);
            levels[i] = is_zero.pick(fit.levels[i], level);
        }
        let mut bytes = [0; STRIP_LEN];
        store(&levels, &mut bytes);
        let supers = bytes.as_chunks::<SUPER_LEN>().0;
        for ((block, scales), levels) in blocks.iter_mut().zip(all.iter().flatten()).zip(supers) {
            lay(scales, levels, block);
        }
    }
}

/// How widely the weights of a super-block spread, for each of its sub-blocks.
#[inline(always)]
fn spreads<const B: usize>(x: &[f32], is_once: bool) -> Lanes {
    let mut spread = Lanes::all(0.0);
    for (super_idx, x) in x.as_chunks::<SUPER_LEN>().0.iter().enumerate() {
        let sum = sum_of_squares(x);
        let sum = if is_once { sum } else { 2.0 * sum };
        spread.0[super_idx * B..(super_idx + 1) * B].fill(sum / 256.0);
    }
    spread
}

/// Summed in the order of the weights.
pub(super) fn sum_of_squares(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |sum, x| sum + x * x)
}

#[inline(always)]
pub(super) fn by_importance<const N: usize>(
    x: &Strip<N>,
    importance: &Strip<N>,
    spread: &Lanes,
) -> Strip<N> {
    let mut weights = [Lanes::all(0.0); N];
    for i in 0..N {
        weights[i] = importance[i] * (*spread + x[i] * x[i]).map(f32::sqrt);
    }
    weights
}

/// Where there is no importance, greater weights matter more: in sub-blocks of 16 in proportion.
#[inline(always)]
fn by_magnitude<const N: usize>(x: &Strip<N>) -> Strip<N> {
    let mut mean = Lanes::all(0.0);
    if N == 32 {
        for value in x {
            mean = mean + *value * *value;
        }
        mean = (mean / Lanes::all(32.0)).map(f32::sqrt);
    }
    x.map(|value| {
        if N == 32 {
            mean + value.abs()
        } else {
            value.abs()
        }
    })
}

#[inline(always)]
fn sums<const N: usize>(weights: &Strip<N>) -> Lanes {
    weights
        .iter()
        .fold(Lanes::all(0.0), |sum, weight| sum + *weight)
}

/// SuperBlock in parts of the greatest.
#[inline(always)]
fn greatest<const N: usize, const B: usize>(
    fit: &Affine<N>,
    super_idx: usize,
    most: f32,
) -> SuperBlock<B> {
    let part = |lanes: &Lanes| {
        let values: [f32; B] = std::array::from_fn(|sub_idx| lanes.0[super_idx * B + sub_idx]);
        let greatest = values
            .iter()
            .fold(0.0, |most: f32, x| if *x > most { *x } else { most });
        let inverse = if greatest > 0.0 { most / greatest } else { 0.0 };
        let level = |value: f32| {
            let level = to_byte(round(inverse * value));
            if f32::from(level) > most {
                to_byte(most)
            } else {
                level
            }
        };
        (f16::from_f32_const(greatest / most), values.map(level))
    };
    let (scale, scales) = part(&fit.scale);
    let (min, mins) = part(&fit.min);
    SuperBlock {
        scale,
        min,
        scales,
        mins,
    }
}

/// SuperBlock by a search of their own, those of important sub-blocks coming nearer.
#[inline(always)]
fn searched<const N: usize, const B: usize>(
    fit: &Affine<N>,
    sums: &Lanes,
    super_idx: usize,
    most: f32,
) -> SuperBlock<B> {
    let of = |lanes: &Lanes| -> [f32; B] {
        std::array::from_fn(|sub_idx| lanes.0[super_idx * B + sub_idx])
    };
    let (scale, scales) = positive(&of(&fit.scale), &of(sums), most);
    let (min, mins) = positive(&of(&fit.min), &of(sums), most);
    SuperBlock {
        scale: f16::from_f32_const(scale),
        min: f16::from_f32_const(min),
        scales,
        mins,
    }
}

#[inline(always)]
pub(super) fn q3(row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    const MOST: f32 = 4.0;
    let (supers, _) = row.as_chunks::<SUPER_LEN>();
    for (super_idx, (x, block)) in supers.iter().zip(out.as_chunks_mut::<110>().0).enumerate() {
        let strip = load::<16>(x);
        let (fit, scale, scales) = if let Some(importance) = importance {
            let importance = load::<16>(&importance[super_idx * SUPER_LEN..][..SUPER_LEN]);
            let spread = Lanes::all(2.0 * sum_of_squares(x) / 256.0);
            let weights = by_importance(&strip, &importance, &spread);
            let fit = symmetric(&strip, &weights, MOST);
            let (scale, scales) = searched_scales(&fit.scale, &sums(&weights));
            (fit, scale, scales)
        } else {
            let fit = refined(&strip, MOST);
            let (scale, scales) = part_scales(&fit.scale);
            (fit, scale, scales)
        };
        let scale = f16::from_f32_const(scale);
        let factors = Lanes(scales.map(|level| scale.to_f32_const() * (f32::from(level) - 32.0)));
        let levels = levels_anew(&strip, &fit, &factors, MOST);
        layout::q3(scale, &scales, &levels, block);
    }
}

/// Levels from 0 under other scales than those they were found with; where such a scale is zero, as found.
#[inline(always)]
fn levels_anew(x: &Strip<16>, fit: &Symmetric<16>, scale: &Lanes, most: f32) -> [u8; SUPER_LEN] {
    let is_zero = scale.equal(Lanes::all(0.0));
    let mut levels = [Lanes::all(0.0); 16];
    for i in 0..16 {
        let level = (x[i] / *scale).level(-most, most - 1.0) + Lanes::all(most);
        levels[i] = is_zero.pick(fit.levels[i], level);
    }
    let mut bytes = [0; SUPER_LEN];
    store(&levels, &mut bytes);
    bytes
}

/// The value of the greatest magnitude, the first of several.
fn greatest_signed(values: &[f32; LANES]) -> f32 {
    values.iter().fold(0.0, |most: f32, value| {
        if value.abs() > most.abs() {
            *value
        } else {
            most
        }
    })
}

/// Six-bit scales from 0, 32 being none, in parts of the greatest.
fn part_scales(scales: &Lanes) -> (f32, [u8; 16]) {
    let greatest = greatest_signed(&scales.0);
    if greatest == 0.0 {
        return (0.0, [0; 16]);
    }
    let inverse = -32.0 / greatest;
    let level = |scale: f32| to_byte(round(inverse * scale).clamp(-32.0, 31.0) + 32.0);
    (1.0 / inverse, scales.0.map(level))
}

/// Six-bit scales from 0, 32 being none, by a search of their own.
fn searched_scales(scales: &Lanes, weights: &Lanes) -> (f32, [u8; 16]) {
    // All in one lane: a block of sixteen scales.
    let column = |lanes: &Lanes| -> Strip<16> {
        lanes.0.map(|value| {
            let mut one = Lanes::all(0.0);
            one.0[0] = value;
            one
        })
    };
    let fit = symmetric(&column(scales), &column(weights), 32.0);
    (fit.scale.0[0], fit.levels.map(|level| to_byte(level.0[0])))
}

#[inline(always)]
pub(super) fn q6(row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    const MOST: f32 = 32.0;
    let (supers, _) = row.as_chunks::<SUPER_LEN>();
    for (super_idx, (x, block)) in supers.iter().zip(out.as_chunks_mut::<210>().0).enumerate() {
        let strip = load::<16>(x);
        let weights = match importance {
            Some(importance) => load::<16>(&importance[super_idx * SUPER_LEN..][..SUPER_LEN]),
            None => strip.map(|value| value * value),
        };
        let fit = symmetric(&strip, &weights, MOST);
        let greatest = greatest_signed(&fit.scale.0);
        if greatest.abs() < TINY {
            block.fill(0);
            continue;
        }
        let inverse = -128.0 / greatest;
        let scale = f16::from_f32_const(1.0 / inverse);
        let scales = fit.scale.0.map(|scale| {
            let level = round(inverse * scale);
            if level > 127.0 { 127.0 } else { level }
        });
        let factors = Lanes(scales.map(|level| scale.to_f32_const() * level));
        let levels = levels_anew(&strip, &fit, &factors, MOST);
        layout::q6(scale, &scales.map(to_byte), &levels, block);
    }
}
