//! The checks, each with the figures it found.

use anyhow::{Context, ensure};

use super::prompts::Sequences;
use super::{Ground, LIMITS};
use crate::cli::perplexity::score::Distribution;
use crate::model::{Error, Form, KvType, Limits, Memory, Model, Placement};

/// A name, and what finds figures or what is wrong.
type Check = (&'static str, fn(&Ground) -> anyhow::Result<String>);

/// All of them.
pub(super) const ALL: &[Check] = &[
    ("logits, all layers on the GPU", whole_network),
    ("logits, products of our own kernels", deterministic_network),
    ("logits, half of the layers on the GPU", split_network),
    ("logits, keys and values in eight bits", int8_cache),
    ("the same batch has the same bits", same_batch),
    (
        "in any batch the same bits, with --deterministic",
        any_batch,
    ),
    ("a long sequence, spans shared out", long_sequence),
    ("two models at once", two_models),
    ("16 times out of memory", out_of_memory),
];

/// What the logits of two networks may differ by.
const COSINE_LEAST: f64 = 0.999;
const DIVERGENCE_MOST: f64 = 1e-3;

/// The lengths of the sequences, and the steps: chunks beside single tokens.
const LENGTHS: [usize; 4] = [300, 40, 1, 90];
const STEPS: [&[(usize, usize)]; 7] = [
    &[(0, 7)],
    &[(0, 120), (1, 33)],
    &[(0, 1), (1, 1), (3, 64), (2, 1)],
    &[(3, 1), (0, 128)],
    &[(0, 1), (1, 1), (3, 1)],
    &[(0, 1)],
    &[(3, 20), (1, 4), (0, 30)],
];

/// All logits of the steps.
fn answers(ground: &Ground, model: &mut Model) -> anyhow::Result<Vec<Vec<f32>>> {
    let mut sequences = Sequences::new(&LENGTHS, ground.config.n_vocab, 1);
    let mut all = Vec::new();
    for parts in STEPS {
        all.extend(sequences.step(model, parts)?);
    }
    Ok(all)
}

fn on_cpu(ground: &Ground, kv_type: KvType) -> anyhow::Result<Vec<Vec<f32>>> {
    let limits = Limits { kv_type, ..LIMITS };
    let mut model = ground.load(limits, &Placement::on_cpu(Form::AsInFile))?;
    answers(ground, &mut model)
}

fn on_gpu(
    ground: &Ground,
    n_layers: usize,
    is_deterministic: bool,
    kv_type: KvType,
) -> anyhow::Result<Vec<Vec<f32>>> {
    let limits = Limits { kv_type, ..LIMITS };
    let mut model = ground.load(limits, &ground.placement(n_layers, is_deterministic)?)?;
    answers(ground, &mut model)
}

/// Holds logits to others, row by row.
fn compare(got: &[Vec<f32>], expected: &[Vec<f32>]) -> anyhow::Result<String> {
    ensure!(
        got.len() == expected.len(),
        "{} rows of {}",
        got.len(),
        expected.len()
    );
    let mut cosines: Vec<f64> = Vec::new();
    let mut divergences = Vec::new();
    for (got, expected) in got.iter().zip(expected) {
        cosines.push(cosine(got, expected));
        let [got, expected] = [got, expected].map(|row| Distribution::new(row));
        let (got, expected) = got.zip(expected).context("a row holds no number")?;
        divergences.push(expected.divergence(&got));
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let least = cosines.iter().copied().fold(f64::INFINITY, f64::min);
    let most = divergences.iter().copied().fold(0.0, f64::max);
    let (cosine, divergence) = (mean(&cosines), mean(&divergences));
    let figures = format!(
        "mean cosine {cosine:.6} (least {least:.6}), mean KL {divergence:.2e} (most {most:.2e}), {} rows",
        got.len()
    );
    // A NaN fails, too.
    let is_close = cosine >= COSINE_LEAST && divergence <= DIVERGENCE_MOST;
    ensure!(is_close, "{figures}");
    Ok(figures)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn whole_network(ground: &Ground) -> anyhow::Result<String> {
    let n_layers = ground.config.n_layers;
    let got = on_gpu(ground, n_layers, false, KvType::F16)?;
    compare(&got, &on_cpu(ground, KvType::F16)?)
}

fn deterministic_network(ground: &Ground) -> anyhow::Result<String> {
    let n_layers = ground.config.n_layers;
    let got = on_gpu(ground, n_layers, true, KvType::F16)?;
    compare(&got, &on_cpu(ground, KvType::F16)?)
}

fn split_network(ground: &Ground) -> anyhow::Result<String> {
    let n_layers = ground.config.n_layers.div_ceil(2);
    let got = on_gpu(ground, n_layers, false, KvType::F16)?;
    compare(&got, &on_cpu(ground, KvType::F16)?)
}

fn int8_cache(ground: &Ground) -> anyhow::Result<String> {
    let n_layers = ground.config.n_layers;
    let got = on_gpu(ground, n_layers, true, KvType::Int8)?;
    compare(&got, &on_cpu(ground, KvType::Int8)?)
}

fn same_batch(ground: &Ground) -> anyhow::Result<String> {
    let placement = ground.placement(ground.config.n_layers, false)?;
    let mut model = ground.load(LIMITS, &placement)?;
    let first = answers(ground, &mut model)?;
    for round in 1..4 {
        let again = answers(ground, &mut model)?;
        ensure!(bits(&first) == bits(&again), "round {round} differs");
    }
    Ok(format!("4 rounds of {} steps", STEPS.len()))
}

fn bits(rows: &[Vec<f32>]) -> Vec<u32> {
    rows.iter().flatten().map(|logit| logit.to_bits()).collect()
}

fn any_batch(ground: &Ground) -> anyhow::Result<String> {
    let placement = ground.placement(ground.config.n_layers, true)?;
    let mut model = ground.load(LIMITS, &placement)?;
    let lengths = [200, 77, 130];
    let mut sequences = Sequences::new(&lengths, ground.config.n_vocab, 2);
    let together = {
        sequences.step(&mut model, &[(0, 199), (1, 20)])?;
        sequences.step(&mut model, &[(1, 56), (2, 129)])?;
        sequences.step(&mut model, &[(0, 1), (1, 1), (2, 1)])?
    };
    sequences.rewind();
    for (sequence, len) in lengths.into_iter().enumerate() {
        let mut alone = Vec::new();
        for start in (0..len).step_by(13) {
            alone = sequences.step(&mut model, &[(sequence, (len - start).min(13))])?;
        }
        let alone = alone.first().context("no logits")?;
        let is_same = bits(std::slice::from_ref(alone)) == bits(&together[sequence..=sequence]);
        ensure!(
            is_same,
            "sequence {sequence} differs alone, in chunks of 13"
        );
    }
    Ok("3 sequences together, and alone in chunks of 13".to_owned())
}

fn long_sequence(ground: &Ground) -> anyhow::Result<String> {
    let len = 1900.min(ground.config.context_length as usize);
    let mut steps = Vec::new();
    for placement in [
        Placement::on_cpu(Form::AsInFile),
        ground.placement(ground.config.n_layers, true)?,
    ] {
        let mut model = ground.load(LIMITS, &placement)?;
        let mut sequences = Sequences::new(&[len], ground.config.n_vocab, 3);
        let mut rows = Vec::new();
        for start in (0..len - 2).step_by(250) {
            rows.extend(sequences.step(&mut model, &[(0, (len - 2 - start).min(250))])?);
        }
        // Single tokens against all spans.
        rows.extend(sequences.step(&mut model, &[(0, 1)])?);
        rows.extend(sequences.step(&mut model, &[(0, 1)])?);
        steps.push(rows);
    }
    compare(&steps[1], &steps[0])
}

fn two_models(ground: &Ground) -> anyhow::Result<String> {
    let n_layers = ground.config.n_layers;
    let mut first = ground.load(LIMITS, &ground.placement(n_layers, false)?)?;
    let expected = answers(ground, &mut first)?;
    let mut second = ground.load(LIMITS, &ground.placement(n_layers, false)?)?;
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| answers(ground, &mut first));
        let other = answers(ground, &mut second);
        (one.join(), other)
    });
    let one = one.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    ensure!(
        bits(&one) == bits(&expected),
        "the first differs beside the second"
    );
    ensure!(bits(&other?) == bits(&expected), "the second differs");
    Ok("each on its stream, with the bits it has alone".to_owned())
}

/// Asks for more than there is, by caches and by buffers: each is told so, and what fits is loaded after
/// it and computes as before.
fn out_of_memory(ground: &Ground) -> anyhow::Result<String> {
    let n_layers = ground.config.n_layers;
    let small = Limits {
        n_blocks: 16,
        ..LIMITS
    };
    let token = |model: &mut Model| {
        let mut sequences = Sequences::new(&[5], ground.config.n_vocab, 4);
        sequences.step(model, &[(0, 5)])
    };
    let mut kept = ground.load(small, &ground.placement(n_layers, true)?)?;
    let expected = token(&mut kept)?;
    let free = ground.gpu.free_bytes()?;
    let device_memory =
        |limits: &Limits| Memory::estimate_split(&ground.gguf, &ground.config, limits, n_layers).1;
    let block_bytes = (device_memory(&small).kv_bytes / 16).max(1);
    let longer = Limits {
        max_batch_tokens: small.max_batch_tokens + 1000,
        ..small
    };
    let workspace = [&small, &longer].map(|limits| device_memory(limits).workspace_bytes);
    let token_bytes = (workspace[1].saturating_sub(workspace[0]) / 1000).max(1);
    for case in 0..16_u32 {
        // From just too much to many times too much.
        let factor = 1.05 * 1.5_f64.powi(i32::try_from(case)?);
        let is_of_steps = case % 4 == 3;
        let each = if is_of_steps {
            token_bytes
        } else {
            block_bytes
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number of blocks or tokens"
        )]
        let too_many = (free as f64 * factor / each as f64) as usize;
        let limits = if is_of_steps {
            Limits {
                max_batch_tokens: too_many,
                ..small
            }
        } else {
            Limits {
                n_blocks: too_many,
                ..small
            }
        };
        let placement = ground.placement(n_layers, true)?;
        match ground.load(limits, &placement) {
            Ok(_) => anyhow::bail!("case {case}: {too_many} were granted with {free} bytes free"),
            Err(Error::GpuMemory) => {}
            Err(error) => return Err(error).with_context(|| format!("case {case}")),
        }
        let again = token(&mut kept).with_context(|| format!("after case {case}"))?;
        ensure!(
            bits(&again) == bits(&expected),
            "case {case}: the other model's bits changed"
        );
        let mut fresh = ground.load(small, &ground.placement(n_layers, true)?)?;
        let again = token(&mut fresh).with_context(|| format!("after case {case}"))?;
        ensure!(
            bits(&again) == bits(&expected),
            "case {case}: what was loaded next differs"
        );
    }
    Ok("each a sentence; the model beside it and the one loaded next compute as before".to_owned())
}
