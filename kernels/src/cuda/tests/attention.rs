use super::{Memory, assert_close, run, team};
use crate::attention::{KvPart, paged_attention};
use crate::cuda::{self, AttentionBuffers, AttentionPlan};
use crate::testing::Random;
use crate::{AttentionArgs, Columns, KvShape, KvType};

/// Room for the results of spans, where they are to be shared out.
const PARTIAL_VALUES: usize = 1 << 20;

/// Sequences whose blocks lie in a random order, and their cache.
struct Case {
    shape: KvShape,
    n_heads: usize,
    sliding_window: Option<u32>,
    positions: Vec<u32>,
    cu_seqlens: Vec<u32>,
    tables: Vec<Vec<u32>>,
    q: Vec<f32>,
    /// Values of a row of queries.
    stride: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl Case {
    /// Sequences of a length each, of which the last tokens ask.
    fn new(shape: KvShape, n_heads: usize, sequences: &[(u32, u32)], seed: u64) -> Self {
        let mut random = Random::new(seed);
        let n_blocks: u32 = sequences.iter().map(|(len, _)| len.div_ceil(32)).sum();
        let mut blocks: Vec<u32> = (0..n_blocks).collect();
        let (mut positions, mut cu_seqlens, mut tables) = (Vec::new(), vec![0], Vec::new());
        let mut slots = Vec::new();
        for &(len, n) in sequences {
            positions.extend(len - n..len);
            cu_seqlens.push(u32::try_from(positions.len()).unwrap());
            let table: Vec<u32> = (0..len.div_ceil(32))
                .map(|_| blocks.swap_remove(random.below(blocks.len())))
                .collect();
            slots.extend((0..len).map(|at| table[at as usize / 32] * 32 + at % 32));
            tables.push(table);
        }
        let stride = n_heads * shape.head_dim + 5;
        let q = random.floats(positions.len() * stride);
        let row_len = shape.n_kv_heads * shape.head_dim;
        // What was never written is not a number, in either form.
        let fill = || vec![0xff; n_blocks as usize * shape.block_bytes()];
        let mut caches = [fill(), fill()];
        let team = team();
        for (part, cache) in [KvPart::Keys, KvPart::Values].into_iter().zip(&mut caches) {
            let rows = random.floats(slots.len() * row_len);
            let rows = Columns::whole(&rows, row_len);
            let turn = team.take_turn();
            crate::attention::write_kv(&turn, shape, part, rows, &slots, cache).unwrap();
        }
        let [keys, values] = caches;
        Self {
            shape,
            n_heads,
            sliding_window: None,
            positions,
            cu_seqlens,
            tables,
            q,
            stride,
            keys,
            values,
        }
    }

    fn n_blocks(&self) -> usize {
        self.keys.len() / self.shape.block_bytes()
    }

    fn n_values(&self) -> usize {
        self.positions.len() * self.n_heads * self.shape.head_dim
    }

    fn with_args<T>(&self, run: impl FnOnce(&AttentionArgs<'_>) -> T) -> T {
        let tables: Vec<&[u32]> = self.tables.iter().map(Vec::as_slice).collect();
        run(&AttentionArgs {
            shape: self.shape,
            n_heads: self.n_heads,
            scale: 0.3,
            sliding_window: self.sliding_window,
            positions: &self.positions,
            cu_seqlens: &self.cu_seqlens,
            block_tables: &tables,
        })
    }

    /// By the processor.
    fn expected(&self) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.n_values()];
        let q = Columns {
            values: &self.q,
            stride: self.stride,
            first: 0,
        };
        let team = team();
        let turn = team.take_turn();
        let (keys, values) = (&self.keys, &self.values);
        self.with_args(|args| paged_attention(&turn, args, q, keys, values, &mut out).unwrap());
        out
    }

    /// By the kernels, and how many launches it took.
    fn run(&self, partial_values: usize) -> (Vec<f32>, usize) {
        let cache: Vec<u8> = [&self.keys[..], &self.values].concat();
        let (q, cache) = (Memory::of(&self.q), Memory::of(&cache));
        let positions = Memory::of(&self.positions);
        let mut out = Memory::poisoned(self.n_values());
        let mut partials = Memory::poisoned(partial_values);
        let n_launches = self.with_args(|args| {
            let plan = AttentionPlan::new(args, self.n_blocks(), partial_values).unwrap();
            let words: Vec<u32> = plan.words().collect();
            assert_eq!(words.len(), plan.n_words());
            let words = Memory::of(&words);
            let mut buffers = AttentionBuffers {
                q: q.slice(),
                stride: self.stride,
                cache: cache.slice(),
                positions: positions.slice(),
                plan: words.slice(),
                partials: partials.slice_mut(),
                out: out.slice_mut(),
            };
            let launches = cuda::paged_attention(args, &plan, &mut buffers).unwrap();
            let n_launches = launches.len();
            launches.into_iter().for_each(run);
            n_launches
        });
        partials.written();
        (out.written().to_vec(), n_launches)
    }

    /// Holds it to the processor's, whole and with spans shared out, which have the same bits.
    fn check(&self) {
        let (whole, n_launches) = self.run(0);
        assert_eq!(n_launches, 1);
        assert_close(&whole, &self.expected(), 2e-6);
        let has_spans = self.positions.iter().any(|position| *position >= 256);
        let (shared, n_launches) = self.run(PARTIAL_VALUES);
        assert_eq!(n_launches, 1 + usize::from(has_spans));
        assert_eq!(shared, whole);
    }
}

const SHAPE: KvShape = KvShape {
    n_kv_heads: 2,
    head_dim: 64,
    block_len: 32,
    kv_type: KvType::F16,
};

/// The shape in every form.
fn forms(shape: KvShape) -> [KvShape; 2] {
    KvType::ALL.map(|kv_type| KvShape { kv_type, ..shape })
}

#[test]
fn attention_is_the_processors() {
    for shape in forms(SHAPE) {
        let sequences = [(1, 1), (300, 3), (33, 33), (256, 1), (600, 2)];
        Case::new(shape, 6, &sequences, 11).check();
        // One head a KV head, and more than a unit has rows.
        Case::new(shape, 2, &[(520, 1), (40, 40)], 12).check();
        Case::new(shape, 2 * 11, &[(290, 2)], 13).check();
    }
    for head_dim in [20, 128, 256] {
        let shape = KvShape {
            n_kv_heads: 1,
            head_dim,
            ..SHAPE
        };
        for shape in forms(shape) {
            Case::new(shape, 4, &[(17, 17), (270, 1)], 14).check();
        }
    }
}

#[test]
fn a_window_hides_what_lies_before_it() {
    for window in [1, 5, 32, 256, 300] {
        let mut case = Case::new(SHAPE, 4, &[(40, 40), (590, 2)], u64::from(window));
        case.sliding_window = Some(window);
        let (whole, _) = case.run(0);
        assert_close(&whole, &case.expected(), 2e-6);
        assert_eq!(case.run(PARTIAL_VALUES).0, whole);
    }
}

#[test]
fn a_sequence_has_the_same_bits_alone() {
    let both = Case::new(SHAPE, 6, &[(300, 3), (40, 40)], 15);
    let (all, _) = both.run(0);
    let mut last = Case::new(SHAPE, 6, &[(300, 3), (40, 40)], 15);
    last.tables.remove(0);
    last.cu_seqlens = vec![0, 1];
    last.positions = vec![39];
    last.q = last.q[42 * last.stride..].to_vec();
    assert_eq!(last.run(0).0, all[42 * 6 * 64..]);
}

#[test]
fn a_nan_is_not_hidden() {
    let mut case = Case::new(SHAPE, 4, &[(300, 1)], 16);
    case.q.iter_mut().for_each(|q| *q *= 3e4);
    assert!(case.run(0).0.iter().all(|value| value.is_finite()));
    case.q[0] = f32::NAN;
    for partial_values in [0, PARTIAL_VALUES] {
        let (out, _) = case.run(partial_values);
        assert!(out[..64].iter().all(|value| value.is_nan()));
        assert!(out[64..].iter().all(|value| value.is_finite()));
    }
}

#[test]
fn keys_and_values_are_written_with_the_processors_bits() {
    let mut random = Random::new(17);
    for shape in forms(SHAPE) {
        let (stride, first_key) = (400, 7);
        let slots = [127_u32, 0, 33, 5];
        let mut rows = random.floats(slots.len() * stride);
        rows[first_key..first_key + 64].fill(0.0);
        let half_bytes = 4 * shape.block_bytes();
        let mut expected = vec![POISONED; 2 * half_bytes];
        let team = team();
        let first_value = first_key + 2 * 64;
        for (part, first, cache) in [
            (KvPart::Keys, first_key, 0..half_bytes),
            (KvPart::Values, first_value, half_bytes..2 * half_bytes),
        ] {
            let src = Columns {
                values: &rows,
                stride,
                first,
            };
            let cache = &mut expected[cache];
            let turn = team.take_turn();
            crate::attention::write_kv(&turn, shape, part, src, &slots, cache).unwrap();
        }
        let (rows, slots) = (Memory::of(&rows), Memory::of(&slots));
        let mut cache = Memory::poisoned(2 * half_bytes);
        let (rows, places) = (rows.slice(), [stride, first_key]);
        run(cuda::write_kv(shape, rows, places, slots.indices(), cache.slice_mut()).unwrap());
        assert_eq!(cache.written(), expected);
        let past = Memory::of(&[128_u32]);
        let write = cuda::write_kv(shape, rows, places, past.indices(), cache.slice_mut());
        assert!(write.is_err());
    }
}

/// What memory holds that was not written.
const POISONED: u8 = super::POISON;

#[test]
fn plans_and_buffers_that_do_not_fit_are_errors() {
    let case = Case::new(SHAPE, 4, &[(40, 2)], 18);
    case.with_args(|args| {
        assert!(AttentionPlan::new(args, 1, 0).is_err());
        let long = KvShape {
            head_dim: 257,
            ..SHAPE
        };
        let long = AttentionArgs {
            shape: long,
            ..*args
        };
        let error = AttentionPlan::new(&long, 2, 0).unwrap_err();
        assert!(error.to_string().contains("257"), "{error}");
        let plan = AttentionPlan::new(args, 2, 0).unwrap();
        let q = Memory::of(&case.q);
        let positions = Memory::of(&case.positions);
        let words: Vec<u32> = plan.words().collect();
        let words = Memory::of(&words);
        let cache = Memory::<u8>::poisoned(3 * 2 * SHAPE.block_bytes());
        let (mut partials, mut out) = (Memory::poisoned(0), Memory::poisoned(case.n_values()));
        let mut buffers = AttentionBuffers {
            q: q.slice(),
            stride: case.stride,
            cache: cache.slice(),
            positions: positions.slice(),
            plan: words.slice(),
            partials: partials.slice_mut(),
            out: out.slice_mut(),
        };
        // The plan is one of a smaller cache.
        assert!(cuda::paged_attention(args, &plan, &mut buffers).is_err());
    });
}
