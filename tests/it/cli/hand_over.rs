//! `ingle` and the program for GPUs beside it. What lies beside it here says what `ingle-cuda` says, or
//! its loader, where a driver is missing, too old, or of no use.

use std::os::unix::fs::PermissionsExt;

use super::{Ended, Ground, ended, serving};

impl Ground {
    /// Puts a program beside `ingle` that ends as the script does.
    fn beside(&self, script: &str) {
        let ingle = self.path("bin/ingle");
        if !ingle.exists() {
            std::fs::create_dir_all(self.path("bin")).unwrap();
            let built = env!("CARGO_BIN_EXE_ingle");
            if std::fs::hard_link(built, &ingle).is_err() {
                std::fs::copy(built, &ingle).unwrap();
            }
        }
        let other = self.path("bin/ingle-cuda");
        // Never one that runs: a new file takes its place.
        let _ = std::fs::remove_file(&other);
        std::fs::write(&other, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&other, PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn beside_command(&self, arguments: &[&str]) -> tokio::process::Command {
        let plain = self.command(arguments);
        let mut command = tokio::process::Command::new(self.path("bin/ingle"));
        let plain = plain.as_std();
        command.args(plain.get_args()).env_clear();
        for (name, value) in plain.get_envs() {
            command.env(name, value.unwrap());
        }
        command
            .current_dir(self.path(""))
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run_beside(&self, arguments: &[&str]) -> Ended {
        ended(self.beside_command(arguments)).await
    }
}

/// What the program finds, and says where a driver fails it.
const TROUBLES: [(&str, &str); 4] = [
    (
        r#"echo '{"used":false,"reason":"GPU 0 cannot be used: no CUDA-capable device is detected"}'"#,
        "no CUDA-capable device is detected",
    ),
    (
        "echo 'error while loading shared libraries: libcuda.so.1: cannot open' >&2; exit 127",
        "libcuda.so.1: cannot open",
    ),
    ("kill -ABRT $$", "it says nothing"),
    ("echo hello", "of another version"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_driver_the_processor_computes_and_the_reason_is_said() {
    let ground = Ground::new();
    for (script, reason) in TROUBLES {
        ground.beside(script);
        let found = ground.run_beside(&["gpu"]).await;
        assert_eq!(found.code, Some(0), "{found:?}");
        let said: serde_json::Value = serde_json::from_str(&found.out).unwrap();
        assert_eq!(said["used"], false);
        let why = said["reason"].as_str().unwrap();
        assert!(why.contains(reason), "{why}");
        let asked = ground.run_beside(&["gpu", "--gpu-layers", "3"]).await;
        assert!(asked.sentence().contains(reason), "{asked:?}");
        // Nobody wants one: nobody is asked.
        let none = ground.run_beside(&["gpu", "--gpu-layers", "0"]).await;
        assert!(none.out.contains("none is wanted"), "{none:?}");
    }
    let answer = ground
        .run_beside(&["run", "tiny.gguf", "--local", "--max-tokens", "1", "hi"])
        .await;
    assert_eq!(answer.code, Some(0), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_the_gpu_it_looked_for_says_so_in_health() {
    let ground = Ground::new();
    ground.beside(TROUBLES[0].0);
    let served = serving(ground.beside_command(&["serve", "tiny.gguf"])).await;
    served.until_ready().await;
    let health = served.get("/health").await;
    let body: serde_json::Value = serde_json::from_str(&health.body).unwrap();
    assert_eq!((health.status, &body["status"]), (200, &"ok".into()));
    assert_eq!(body["gpu"]["used"], false);
    let reason = body["gpu"]["reason"].as_str().unwrap();
    assert!(reason.contains("no CUDA-capable device"), "{reason}");
    served.signal(rustix::process::Signal::TERM);
    let ended = served.ended().await;
    assert!(ended.err.contains("no GPU is used"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_gpu_the_other_program_takes_its_place() {
    let ground = Ground::new();
    ground.beside(
        r#"if [ "$1" = gpu ]; then echo '{"used":true}'; else echo "took over: $*"; exit 7; fi"#,
    );
    let run = ground.run_beside(&["run", "tiny.gguf", "some words"]).await;
    assert_eq!(run.code, Some(7), "{run:?}");
    assert_eq!(run.out, "took over: run tiny.gguf some words\n");
    // What computes nothing needs no GPU.
    let list = ground.run_beside(&["list"]).await;
    assert_eq!(list.code, Some(0), "{list:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_for_a_gpu_that_nothing_here_knows_are_refused() {
    let ground = Ground::new();
    let run = ground
        .run(&["run", "tiny.gguf", "--gpu-layers", "2", "hi"])
        .await;
    let sentence = run.sentence();
    assert!(sentence.contains("--gpu-layers 2"), "{sentence}");
    assert!(sentence.contains("make cuda"), "{sentence}");
}
