//! Records what steps of a real model cost: the numbers of `tests/data/predict`.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ingle_kernels::{Isa, Team};

use super::network::mix;
use crate::chat::{Sampling, TokenId};
use crate::engine::network::{Fault, Network, NetworkLimits};
use crate::engine::{Engine, EngineOptions, Event, GenerateRequest};
use crate::gguf::Gguf;
use crate::model::{
    Batch, KvType, Limits, LogitRow, Model, ModelConfig, Placement, Seen, unwatched,
};

/// Sequences at once and how long their prompts may be, one phase after the other: from one user to more than
/// run together, from little to read to little to write.
const PHASES: [(usize, u64); 9] = [
    (1, 1951),
    (4, 1951),
    (20, 100),
    (24, 400),
    (8, 1951),
    (2, 400),
    (24, 1951),
    (12, 200),
    (24, 1951),
];
const PHASE_TIME: Duration = Duration::from_secs(18);

/// A model whose steps are timed, sampling included.
struct Timed {
    model: Model,
    steps: Arc<Mutex<Vec<String>>>,
}

impl Network for Timed {
    fn limits(&self) -> NetworkLimits {
        Network::limits(&self.model)
    }

    fn forward(
        &mut self,
        batch: &Batch,
        see: &mut dyn FnMut(LogitRow<'_>) -> Seen,
    ) -> Result<(), Fault> {
        let begun = Instant::now();
        Network::forward(&mut self.model, batch, see)?;
        let micros = begun.elapsed().as_micros();
        let (mut n_prompt, mut n_decodes) = (0, 0);
        let (mut prompt_context, mut decode_context) = (0_u64, 0_u64);
        for bounds in batch.cu_seqlens.windows(2) {
            let tokens = bounds[0] as usize..bounds[1] as usize;
            let context = batch.positions[tokens.clone()].iter();
            let context: u64 = context.map(|position| u64::from(*position) + 1).sum();
            if tokens.len() == 1 {
                n_decodes += 1;
                decode_context += context;
            } else {
                n_prompt += tokens.len();
                prompt_context += context;
            }
        }
        let mut line = String::new();
        write!(
            line,
            "{n_prompt},{prompt_context},{n_decodes},{decode_context},{micros}"
        )
        .unwrap();
        self.steps.lock().unwrap().push(line);
        Ok(())
    }

    fn waited(&self) -> Duration {
        self.model.waited()
    }

    fn states(&mut self, batch: &Batch, see: &mut dyn FnMut(&[f32])) -> Result<(), Fault> {
        Network::states(&mut self.model, batch, see)
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
#[ignore = "measures for two minutes, and wants the machine for itself"]
fn the_steps_of_smollm2_are_recorded() {
    let file = data("target/fixtures/SmolLM2-135M-Instruct.Q4_1.gguf");
    let gguf = Gguf::open(&file).unwrap();
    let config = ModelConfig::from_gguf(&gguf).unwrap();
    let options = EngineOptions::default();
    let limits = Limits {
        max_batch_tokens: options.prefill_chunk_tokens + options.max_running,
        max_logit_rows: options.max_running,
        n_blocks: 1400,
        kv_type: KvType::F16,
    };
    let team = Team::new(NonZeroUsize::new(2).unwrap(), Isa::detect());
    let placement = Placement::default();
    let model = Model::load(&gguf, &config, limits, &placement, team, &mut unwatched).unwrap();
    let steps = Arc::default();
    let network = Timed {
        model,
        steps: Arc::clone(&steps),
    };
    let engine = Engine::start_on(network, "recorded", &options).unwrap();
    let mut random = 7_u64;
    let mut below = |n: u64| {
        random = mix(random, 1);
        u32::try_from(random % n).unwrap()
    };
    let mut under_way = Vec::new();
    for (n_wanted, n_prompt_most) in PHASES {
        let begun = Instant::now();
        while begun.elapsed() < PHASE_TIME {
            while under_way.len() < n_wanted {
                let n_prompt = 50 + below(n_prompt_most);
                let request = GenerateRequest {
                    prompt: (0..n_prompt)
                        .map(|_| below(40_000))
                        .collect::<Vec<TokenId>>(),
                    sampling: Sampling::default(),
                    max_new_tokens: 16 + below(497),
                    stop_tokens: Vec::new(),
                };
                under_way.push(engine.submit(request).unwrap());
            }
            under_way.retain_mut(|events| {
                loop {
                    match events.try_recv() {
                        Ok(Event::Token(_)) => {}
                        Ok(_) => return false,
                        Err(_) => return true,
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(2));
        }
        under_way.truncate(n_wanted / 2);
    }
    drop(engine);
    let steps = steps.lock().unwrap().join("\n");
    // Goes below the words at the head of `tests/data/predict/steps.csv`.
    let header = "n_prompt_tokens,prompt_context,n_decodes,decode_context,micros";
    std::fs::write(data("target/tmp/steps.csv"), format!("{header}\n{steps}\n")).unwrap();
}
