//! `ingle bench`: models of random weights, and rates of the engine.

use std::num::NonZeroUsize;
use std::process::Stdio;

use ingle::gguf::{Gguf, TensorType};
use ingle::model::{Batch, Limits, Model, ModelConfig, Placement, unwatched};
use ingle_kernels::{Isa, Team};
use serde_json::Value;

use super::{Ground, with_input};
use crate::gguf_file::TinyLlama;

/// The logits of four tokens' last.
fn logits(gguf: &Gguf) -> Vec<f32> {
    let config = ModelConfig::from_gguf(gguf).unwrap();
    let limits = Limits {
        max_batch_tokens: 4,
        max_logit_rows: 1,
        n_blocks: 1,
        kv_type: ingle::model::KvType::F16,
    };
    let team = Team::new(NonZeroUsize::MIN, Isa::detect());
    let mut model = Model::load(
        gguf,
        &config,
        limits,
        &Placement::default(),
        team,
        &mut unwatched,
    )
    .unwrap();
    let batch = Batch {
        token_ids: vec![1, 300, 301, 302],
        positions: vec![0, 1, 2, 3],
        cu_seqlens: vec![0, 4],
        slot_mapping: vec![0, 1, 2, 3],
        block_tables: vec![vec![0]],
        logit_rows: vec![3],
        ..Batch::default()
    };
    model.forward(&batch).unwrap().row(0).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_written_model_has_the_shapes_and_types_of_a_real_one_and_computes() {
    let ground = Ground::new();
    for (quant, plain, output) in [
        ("q4_k_m", "Q4_K", "Q6_K"),
        ("q5_k_m", "Q5_K", "Q6_K"),
        ("q4_0", "Q4_0", "Q6_K"),
        ("q4_1", "Q4_1", "Q6_K"),
        ("q8_0", "Q8_0", "Q8_0"),
        ("q6_k", "Q6_K", "Q6_K"),
    ] {
        let name = format!("{quant}.gguf");
        let flags = ["--quant", quant, "--layers", "3"];
        let written = ground
            .run(&[&["bench", "write-model", "tiny", &name], &flags[..]].concat())
            .await;
        assert_eq!(written.code, Some(0), "{written:?}");
        let gguf = Gguf::open(&ground.path(&name)).unwrap();
        let of = |name: &str| {
            let tensor = gguf.tensor(name).unwrap();
            (tensor.ty.name(), tensor.dims.clone())
        };
        assert_eq!(of("token_embd.weight"), (plain, vec![256, 32_000]));
        assert_eq!(of("blk.1.attn_k.weight"), (plain, vec![256, 64]));
        assert_eq!(of("blk.1.attn_v.weight"), (plain, vec![256, 64]));
        let rich = if quant.ends_with("_m") { "Q6_K" } else { plain };
        assert_eq!(of("blk.2.ffn_down.weight"), (rich, vec![768, 256]));
        assert_eq!(of("output.weight"), (output, vec![256, 32_000]));
        assert_eq!(gguf.tensors().len(), 1 + 3 * 9 + 2);
        let logits = logits(&gguf);
        assert!(logits.iter().all(|logit| logit.is_finite()), "{quant}");
        assert!(logits.iter().any(|logit| *logit != logits[0]), "{quant}");
    }
    assert!(!ground.path("q4_0.gguf.partial").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_written_model_answers_with_its_own_or_a_borrowed_vocabulary() {
    let ground = Ground::new();
    let tiny = TinyLlama {
        n_vocab: 600,
        ..TinyLlama::default()
    };
    tiny.write(&ground.path("vocabulary.gguf"));
    let write = ["bench", "write-model", "tiny"];
    let borrowed = [
        "borrowed.gguf",
        "--vocab",
        "vocabulary.gguf",
        "--layers",
        "1",
    ];
    for (out, n_tokens) in [(&["own.gguf"][..], 32_000), (&borrowed, 32_000)] {
        let written = ground.run(&[&write, out].concat()).await;
        assert_eq!(written.code, Some(0), "{written:?}");
        let gguf = Gguf::open(&ground.path(out[0])).unwrap();
        let tokens = gguf.metadata().strings("tokenizer.ggml.tokens").unwrap();
        assert_eq!(tokens.len(), n_tokens);
        let answer = ground
            .run(&["run", out[0], "Hello", "--max-tokens", "4"])
            .await;
        assert_eq!(answer.code, Some(0), "{answer:?}");
    }
    let own = Gguf::open(&ground.path("own.gguf")).unwrap();
    let again = [&write[..], &["again.gguf", "--seed", "1"]].concat();
    assert_eq!(ground.run(&again).await.code, Some(0));
    let other = [&write[..], &["other.gguf", "--seed", "2"]].concat();
    assert_eq!(ground.run(&other).await.code, Some(0));
    let bytes = |name: &str| std::fs::read(ground.path(name)).unwrap();
    assert!(
        bytes("again.gguf") == bytes("own.gguf"),
        "one seed, one file"
    );
    assert!(
        bytes("other.gguf") != bytes("own.gguf"),
        "another seed, another file"
    );
    assert_eq!(own.tensors()[0].ty, TensorType::from_name("Q4_K").unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_is_timed_beside_the_limits_of_the_machine() {
    let ground = Ground::new();
    let flags = [
        "-p", "40", "-n", "3", "-t", "2", "-r", "2", "-d", "0,64", "-b", "1,3",
    ];
    let engine = [&["bench", "engine", "-m", "tiny.gguf"], &flags[..]].concat();
    let run = ground.run(&[&engine[..], &["--json"]].concat()).await;
    assert_eq!(run.code, Some(0), "{run:?}");
    let all: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(all["threads"], 2);
    for when in ["before", "after"] {
        for limit in ["read_bytes_per_second", "multiply_adds_per_second"] {
            assert!(all["limits"][when][limit].as_f64().unwrap() > 0.0, "{all}");
        }
    }
    let results = all["results"].as_array().unwrap();
    let point = |result: &Value| {
        let number = |key: &str| result[key].as_u64().unwrap();
        let test = result["test"].as_str().unwrap().to_owned();
        (test, number("depth"), number("batch"), number("tokens"))
    };
    let points: Vec<_> = results.iter().map(point).collect();
    let expected = [
        ("prompt", 0, 1, 40),
        ("decode", 0, 1, 3),
        ("decode", 0, 3, 3),
        ("prompt", 64, 1, 40),
        ("decode", 64, 1, 3),
    ];
    assert_eq!(
        points,
        expected.map(|(test, d, b, n)| (test.to_owned(), d, b, n))
    );
    for result in results {
        let rates = &result["tokens_per_second"];
        assert_eq!(rates["all"].as_array().unwrap().len(), 2, "{result}");
        let rate = |key: &str| rates[key].as_f64().unwrap();
        assert!(
            rate("min") > 0.0 && rate("min") <= rate("median"),
            "{result}"
        );
        assert!(rate("median") <= rate("max"), "{result}");
        for key in ["reading_weights", "reading_all", "multiplying"] {
            assert!(result["reached"][key].as_f64().unwrap() > 0.0, "{result}");
        }
    }
    let table = ground.run(&engine).await;
    assert!(
        table.out.contains("decode 3         64     1 "),
        "{}",
        table.out
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_takes_turns() {
    let ground = Ground::new();
    let engine = [
        "bench",
        "engine",
        "-m",
        "tiny.gguf",
        "-p",
        "8",
        "-n",
        "2",
        "--turns",
    ];
    let mut command = ground.command(&engine);
    command.stdin(Stdio::piped());
    let turns = with_input(command, "1\n0\n1\n").await;
    assert_eq!(turns.code, Some(0), "{turns:?}");
    let lines: Vec<Value> = turns
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 5, "{turns:?}");
    assert_eq!(lines[0]["points"].as_array().unwrap().len(), 2);
    for answer in &lines[1..4] {
        assert!(answer["tokens_per_second"].as_f64().unwrap() > 0.0);
    }
    assert!(lines[4]["limits"]["after"].is_object());
    let wrong = with_input(ground.command(&engine), "2\n").await;
    assert!(
        wrong
            .err
            .contains("\"2\" on stdin is no number of a point: send one below 2")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_measured_or_written_is_one_sentence() {
    let ground = Ground::new();
    let engine = ["bench", "engine", "-m"];
    for (flags, part) in [
        (&["tiny.gguf", "-d", "8000"][..], "trained for 8192"),
        (&["tiny.gguf", "-p", "0", "-n", "0"], "nothing to measure"),
        (&["none.gguf"], "none.gguf"),
        (&["no-such-model"], "no-such-model"),
        (&["llama3"], "ingle pull llama3"),
    ] {
        let ended = ground.run(&[&engine, flags].concat()).await;
        assert!(ended.sentence().contains(part), "{ended:?}");
    }
    let mut small = ground.command(&[&engine[..], &["tiny.gguf"]].concat());
    small.env("INGLE_MEMORY_BYTES", "1000");
    let small = super::ended(small).await;
    assert!(
        small
            .sentence()
            .contains("ask for less depth or fewer sequences"),
        "{small:?}"
    );
    for flags in [
        &["-t", "0"][..],
        &["-b", "0"],
        &["-d", "many"],
        &["-r", "0"],
    ] {
        let tiny = ["tiny.gguf"];
        let ended = ground.run(&[&engine[..], &tiny, flags].concat()).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
    }
    let write = ["bench", "write-model"];
    let nowhere = ground
        .run(&[&write[..], &["tiny", "none/x.gguf"]].concat())
        .await;
    assert!(
        nowhere
            .sentence()
            .starts_with("none/x.gguf cannot be written: "),
        "{nowhere:?}"
    );
    let vocab = ["tiny", "x.gguf", "--vocab", "none.gguf"];
    let vocab = ground.run(&[&write[..], &vocab].concat()).await;
    assert!(vocab.sentence().contains("none.gguf"), "{vocab:?}");
    let shape = ground
        .run(&[&write[..], &["huge", "x.gguf"]].concat())
        .await;
    assert!(
        shape.code == Some(2) && shape.err.contains("llama3-8b"),
        "{shape:?}"
    );
}
