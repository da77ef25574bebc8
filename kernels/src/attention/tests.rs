use std::num::NonZeroUsize;

use half::f16;

use super::*;
use crate::testing::Random;
use crate::{Isa, Team};

/// A cache and queries of sequences whose blocks lie in a random order.
struct Case {
    shape: KvShape,
    n_heads: usize,
    sliding_window: Option<u32>,
    /// The length of each sequence; its last `n_queries` tokens ask.
    sequences: Vec<(usize, usize)>,
    tables: Vec<Vec<u32>>,
    k: Cache,
    v: Cache,
    q: Vec<f32>,
}

/// What was written, and the bytes that came of it.
struct Cache {
    part: KvPart,
    /// `[n_slots, n_kv_heads, head_dim]`.
    rows: Vec<f32>,
    bytes: Vec<u8>,
}

impl Cache {
    /// Fills every slot with values that half precision and eight bits hold exactly.
    fn new(shape: KvShape, part: KvPart, n_blocks: usize, random: &mut Random) -> Self {
        let n_slots = n_blocks * shape.block_len;
        let mut rows: Vec<f32> = (0..n_slots * shape.n_kv_heads * shape.head_dim)
            .map(|_| (127.0 * random.float()).round() / 128.0)
            .collect();
        // With the largest byte in every row, the scale of its bytes is 1 / 128.
        for row in rows.chunks_exact_mut(shape.head_dim) {
            row[0] = 127.0 / 128.0;
        }
        let slots: Vec<u32> = (0..u32::try_from(n_slots).unwrap()).collect();
        let mut bytes = vec![0xff; n_blocks * shape.block_bytes()];
        let team = team(2, Isa::Scalar);
        let src = Columns::whole(&rows, shape.n_kv_heads * shape.head_dim);
        write_kv(&team.take_turn(), shape, part, src, &slots, &mut bytes).unwrap();
        Self { part, rows, bytes }
    }

    /// What the bytes hold, read one by one.
    fn read(&self, shape: KvShape, slot: usize, kv_head: usize) -> Vec<f32> {
        let block = u32::try_from(slot / shape.block_len).unwrap();
        let (offset, part) = (
            slot % shape.block_len,
            &self.bytes[shape.part(block, kv_head)],
        );
        let value = |dim: usize| {
            let at = match self.part {
                KvPart::Keys => dim * shape.block_len + offset,
                KvPart::Values => offset * shape.head_dim + dim,
            };
            match shape.kv_type {
                KvType::F16 => f16::from_le_bytes([part[2 * at], part[2 * at + 1]]).to_f32(),
                KvType::Int8 => {
                    let scale = part[shape.part_values()..].as_chunks().0[offset];
                    f32::from(part[at].cast_signed()) * f32::from_le_bytes(scale)
                }
            }
        };
        (0..shape.head_dim).map(value).collect()
    }
}

fn team(n_threads: usize, isa: Isa) -> std::sync::Arc<Team> {
    Team::new(NonZeroUsize::new(n_threads).unwrap(), isa)
}

impl Case {
    fn new(shape: KvShape, n_heads: usize, sequences: &[(usize, usize)], seed: u64) -> Self {
        let mut random = Random::new(seed);
        let n_blocks: usize = sequences
            .iter()
            .map(|(len, _)| len.div_ceil(shape.block_len))
            .sum();
        let mut free: Vec<u32> = (0..u32::try_from(n_blocks + 1).unwrap()).collect();
        let tables = sequences
            .iter()
            .map(|(len, _)| {
                let n = len.div_ceil(shape.block_len);
                (0..n)
                    .map(|_| free.swap_remove(random.below(free.len())))
                    .collect()
            })
            .collect();
        let [k, v] = [KvPart::Keys, KvPart::Values]
            .map(|part| Cache::new(shape, part, n_blocks + 1, &mut random));
        let n_queries: usize = sequences.iter().map(|(_, n)| n).sum();
        let q = random.floats(n_queries * n_heads * shape.head_dim);
        Self {
            shape,
            n_heads,
            sliding_window: None,
            sequences: sequences.to_vec(),
            tables,
            k,
            v,
            q,
        }
    }

    fn token_len(&self) -> usize {
        self.n_heads * self.shape.head_dim
    }

    /// Attends with all queries, or with those of one sequence alone.
    fn run(&self, isa: Isa, n_threads: usize, only: Option<usize>) -> Vec<f32> {
        let chosen: Vec<usize> =
            only.map_or((0..self.sequences.len()).collect(), |only| vec![only]);
        let mut cu_seqlens = vec![0_u32];
        let mut positions = Vec::new();
        let mut q = Vec::new();
        let mut first = 0;
        for (i, &(len, n)) in self.sequences.iter().enumerate() {
            if chosen.contains(&i) {
                positions.extend((len - n..len).map(|p| u32::try_from(p).unwrap()));
                q.extend(&self.q[first * self.token_len()..(first + n) * self.token_len()]);
                cu_seqlens.push(u32::try_from(positions.len()).unwrap());
            }
            first += n;
        }
        let tables: Vec<&[u32]> = chosen.iter().map(|&i| self.tables[i].as_slice()).collect();
        let args = AttentionArgs {
            shape: self.shape,
            n_heads: self.n_heads,
            scale: 0.3,
            sliding_window: self.sliding_window,
            positions: &positions,
            cu_seqlens: &cu_seqlens,
            block_tables: &tables,
        };
        let team = team(n_threads, isa);
        let mut out = vec![f32::NAN; q.len()];
        let (k, v) = (&self.k.bytes, &self.v.bytes);
        let q = Columns::whole(&q, self.token_len());
        paged_attention(&team.take_turn(), &args, q, k, v, &mut out).unwrap();
        out
    }

    fn cached(&self, cache: &Cache, sequence: usize, position: usize, kv_head: usize) -> Vec<f64> {
        let shape = self.shape;
        let block = self.tables[sequence][position / shape.block_len];
        let slot = block as usize * shape.block_len + position % shape.block_len;
        let start = (slot * shape.n_kv_heads + kv_head) * shape.head_dim;
        let row = &cache.rows[start..start + shape.head_dim];
        row.iter().map(|value| f64::from(*value)).collect()
    }

    /// The formula, in f64, for one token and head.
    fn expected(&self, sequence: usize, position: usize, q: &[f32], head: usize) -> Vec<f64> {
        let kv_head = head / (self.n_heads / self.shape.n_kv_heads);
        let first = self
            .sliding_window
            .map_or(0, |window| (position + 1).saturating_sub(window as usize));
        let mut total = 0.0;
        let mut out = vec![0.0; self.shape.head_dim];
        for seen in first..=position {
            let k = self.cached(&self.k, sequence, seen, kv_head);
            let score: f64 = k.iter().zip(q).map(|(k, q)| k * f64::from(*q)).sum();
            let weight = (score * f64::from(0.3_f32)).exp();
            total += weight;
            let v = self.cached(&self.v, sequence, seen, kv_head);
            out.iter_mut()
                .zip(v)
                .for_each(|(out, v)| *out += weight * v);
        }
        out.iter().map(|value| value / total).collect()
    }

    fn check(&self) {
        for isa in Isa::available() {
            self.check_tier(isa);
        }
    }

    fn check_tier(&self, isa: Isa) {
        let first = self.run(isa, 1, None);
        let mut tokens = first.chunks_exact(self.token_len());
        let mut queries = self.q.chunks_exact(self.token_len());
        for (sequence, &(len, n)) in self.sequences.iter().enumerate() {
            for position in len - n..len {
                let heads = tokens.next().unwrap().chunks_exact(self.shape.head_dim);
                let queries = queries.next().unwrap().chunks_exact(self.shape.head_dim);
                for (head, (out, q)) in heads.zip(queries).enumerate() {
                    let expected = self.expected(sequence, position, q, head);
                    for (out, expected) in out.iter().zip(expected) {
                        assert!(
                            (f64::from(*out) - expected).abs() < 1e-5,
                            "{out} {expected}"
                        );
                    }
                }
            }
        }
        assert_eq!(self.run(isa, 3, None), first, "{isa:?}");
        let alone: Vec<f32> = (0..self.sequences.len())
            .flat_map(|i| self.run(isa, 2, Some(i)))
            .collect();
        assert_eq!(alone, first, "a sequence has the same bits alone");
    }
}

const SHAPE: KvShape = KvShape {
    n_kv_heads: 3,
    head_dim: 64,
    block_len: 32,
    kv_type: KvType::F16,
};

/// The shape in every form.
fn forms(shape: KvShape) -> [KvShape; 2] {
    KvType::ALL.map(|kv_type| KvShape { kv_type, ..shape })
}

#[test]
fn it_is_the_formula_with_the_same_bits_on_any_team() {
    let odd = KvShape {
        n_kv_heads: 1,
        head_dim: 20,
        block_len: 8,
        kv_type: KvType::F16,
    };
    for shape in forms(SHAPE) {
        let sequences = [(1, 1), (300, 3), (33, 33), (256, 1), (600, 2)];
        Case::new(shape, 9, &sequences, 1).check();
        // One head a KV head, and more heads than a unit has rows.
        Case::new(shape, 3, &[(520, 1), (70, 70)], 7).check();
        Case::new(shape, 3 * 65, &[(300, 2)], 8).check();
    }
    for shape in forms(odd) {
        Case::new(shape, 4, &[(1, 1), (17, 17), (520, 2)], 2).check();
    }
}

#[test]
fn a_window_hides_what_lies_before_it() {
    for window in [1, 5, 32, 100, 256, 300] {
        let mut case = Case::new(SHAPE, 3, &[(40, 40), (590, 2)], u64::from(window));
        case.sliding_window = Some(window);
        case.check();
    }
}

#[test]
fn a_chunk_has_the_same_bits_as_the_whole() {
    for shape in forms(SHAPE) {
        check_chunks(shape);
    }
}

fn check_chunks(shape: KvShape) {
    let case = Case::new(shape, 9, &[(300, 300)], 3);
    let whole = case.run(Isa::detect(), 2, None);
    for (len, n) in [(300, 1), (300, 44), (270, 14), (1, 1)] {
        let mut part = Case::new(shape, 9, &[(300, 300)], 3);
        let tokens = (len - n) * case.token_len()..len * case.token_len();
        part.sequences = vec![(len, n)];
        part.q = case.q[tokens.clone()].to_vec();
        assert_eq!(part.run(Isa::detect(), 2, None), whole[tokens], "{len} {n}");
    }
}

#[test]
fn extreme_scores_neither_overflow_nor_hide_a_nan() {
    let mut case = Case::new(SHAPE, 3, &[(300, 1)], 4);
    case.q.iter_mut().for_each(|q| *q *= 3e4);
    assert!(
        case.run(Isa::detect(), 1, None)
            .iter()
            .all(|value| value.is_finite())
    );
    case.q[0] = f32::NAN;
    let out = case.run(Isa::detect(), 1, None);
    assert!(out[..64].iter().all(|value| value.is_nan()));
    assert!(out[64..].iter().all(|value| value.is_finite()));
}

#[test]
fn keys_and_values_arrive_in_their_slots_and_nowhere_else() {
    let mut random = Random::new(5);
    for shape in forms(SHAPE) {
        for part in [KvPart::Keys, KvPart::Values] {
            let before = Cache::new(shape, part, 4, &mut random);
            let slots = [127_u32, 0, 33, 5];
            let src = random.floats(slots.len() * 3 * 64);
            let mut first: Option<Vec<u8>> = None;
            for isa in Isa::available() {
                let mut after = Cache {
                    part,
                    rows: Vec::new(),
                    bytes: before.bytes.clone(),
                };
                let team = team(2, isa);
                write_kv(
                    &team.take_turn(),
                    shape,
                    part,
                    Columns::whole(&src, 3 * 64),
                    &slots,
                    &mut after.bytes,
                )
                .unwrap();
                for slot in 0..4 * 32 {
                    for kv_head in 0..3 {
                        let got = after.read(shape, slot, kv_head);
                        let token = slots.iter().position(|at| *at as usize == slot);
                        let Some(token) = token else {
                            assert_eq!(got, before.read(shape, slot, kv_head));
                            continue;
                        };
                        let expected = &src[(token * 3 + kv_head) * 64..][..64];
                        for (got, expected) in got.iter().zip(expected) {
                            // Half a unit of eight bits, the largest value being below 1.
                            let limit = if shape.kv_type == KvType::F16 {
                                3e-4
                            } else {
                                4e-3
                            };
                            assert!((got - expected).abs() < limit, "{got} {expected}");
                        }
                    }
                }
                assert_eq!(
                    first.get_or_insert_with(|| after.bytes.clone()),
                    &after.bytes
                );
            }
        }
    }
}

#[test]
fn what_lies_beyond_a_sequence_is_not_seen_even_if_it_is_nan() {
    for shape in forms(SHAPE) {
        let mut case = Case::new(shape, 9, &[(40, 3)], 6);
        let expected = case.run(Isa::detect(), 1, None);
        let slots: Vec<u32> = (8..32).map(|at| case.tables[0][1] * 32 + at).collect();
        let faulty = vec![f32::NAN; slots.len() * 3 * 64];
        let team = team(1, Isa::Scalar);
        for cache in [&mut case.k, &mut case.v] {
            let (part, bytes) = (cache.part, &mut cache.bytes);
            let rows = Columns::whole(&faulty, 3 * 64);
            write_kv(&team.take_turn(), shape, part, rows, &slots, bytes).unwrap();
        }
        assert_eq!(case.run(Isa::detect(), 1, None), expected);
    }
}

#[test]
fn tables_and_lengths_that_do_not_fit_are_errors() {
    let team = Team::new(NonZeroUsize::MIN, Isa::Scalar);
    let turn = team.take_turn();
    let cache = vec![0; 2 * SHAPE.block_bytes()];
    let q = vec![0.0; 3 * 64];
    let attend = |positions: &[u32], cu_seqlens: &[u32], tables: &[&[u32]], n_heads| {
        let args = AttentionArgs {
            shape: SHAPE,
            n_heads,
            scale: 1.0,
            sliding_window: None,
            positions,
            cu_seqlens,
            block_tables: tables,
        };
        let mut out = vec![0.0; 3 * 64];
        let q = Columns::whole(&q, 3 * 64);
        paged_attention(&turn, &args, q, &cache, &cache, &mut out)
    };
    assert_eq!(attend(&[0], &[0, 1], &[&[1]], 3), Ok(()));
    let error = attend(&[0], &[0, 1], &[&[2]], 3).unwrap_err().to_string();
    assert_eq!(error, "the block is 2, which is not below 2");
    assert!(attend(&[32], &[0, 1], &[&[1]], 3).is_err());
    assert!(attend(&[0], &[0, 1], &[&[1]], 4).is_err());
    assert!(attend(&[0], &[0, 2], &[&[1]], 3).is_err());
    assert!(attend(&[0], &[1, 1], &[&[1]], 3).is_err());
    assert!(attend(&[0], &[0, 2, 1], &[&[1], &[1]], 3).is_err());
    assert!(attend(&[0], &[0], &[&[1]], 3).is_err());
    assert!(attend(&[], &[0], &[], 3).is_err());
    let mut cache = cache.clone();
    let write = |slots: &[u32], cache: &mut [u8]| {
        let rows = Columns::whole(&q, 3 * 64);
        write_kv(&turn, SHAPE, KvPart::Keys, rows, slots, cache)
    };
    assert!(write(&[64], &mut cache).is_err());
    assert!(write(&[0, 1], &mut cache).is_err());
    assert!(write(&[0], &mut cache[1..]).is_err());
}
