//! `ingle doctor`.

use std::net::TcpListener;

use serde_json::Value;

use super::{Ground, ended};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_machine_is_told_with_what_fits_it() {
    let ground = Ground::new();
    let doctor = ground.run(&["doctor", "--json"]).await;
    assert_eq!(doctor.code, Some(0), "{doctor:?}");
    let report: Value = serde_json::from_str(&doctor.out).unwrap();
    let machine = &report["machine"];
    for rate in ["multiply_adds_per_second", "read_bytes_per_second"] {
        assert!(machine[rate].as_f64().unwrap() > 1e8, "{machine}");
    }
    let bytes = |name: &str| machine[name].as_u64().unwrap();
    assert!(bytes("budget_bytes") < bytes("available_bytes"));
    assert!(bytes("available_bytes") <= bytes("memory_bytes"));
    let models = report["models"].as_array().unwrap();
    let find = |id: &str| models.iter().find(|model| model["id"] == id).unwrap();
    let (small, large) = (
        find("smollm2-135m-instruct"),
        find("codellama-13b-instruct"),
    );
    assert_eq!(
        (&small["here"], &small["longest_context"]),
        (&Value::Bool(false), &8192.into())
    );
    let rate = |model: &Value| model["tokens_per_second"].as_f64().unwrap();
    assert!(rate(small) > 20.0 * rate(large), "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_misconfigured_is_a_problem_that_says_what_to_do() {
    let ground = Ground::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    // Measuring takes its time: several at once.
    for wrong in [
        &[
            ("INGLE_THREDS", "2", "did you mean INGLE_THREADS?"),
            ("INGLE_NOTHING_SO", "2", "no setting is called so"),
            ("INGLE_THREADS", "64", "threads is 64"),
            (
                "INGLE_MEMORY_BYTES",
                "999999999999999",
                "more than there is",
            ),
            ("INGLE_LISTEN", "0.0.0.0:0", "no key is set"),
        ][..],
        &[
            ("INGLE_LISTEN", &address, "no Ingle answers there"),
            (
                "INGLE_HOME",
                "tiny.gguf",
                "no model can be stored in tiny.gguf",
            ),
            ("INGLE_MODELS", "nowhere", "nowhere"),
        ],
    ] {
        let mut command = ground.command(&["doctor"]);
        command.env_remove("INGLE_OFFLINE");
        for (name, value, _) in wrong {
            command.env(name, value);
        }
        let doctor = ended(command).await;
        assert_eq!(doctor.code, Some(1), "{doctor:?}");
        let problems: Vec<&str> = doctor
            .out
            .lines()
            .filter(|line| line.starts_with("problem: "))
            .collect();
        for (name, value, part) in wrong {
            let is_told = problems.iter().any(|line| line.contains(part));
            assert!(is_told, "{name}={value}: {doctor:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_ingle_is_no_problem_and_people_get_a_table() {
    let ground = Ground::new();
    let serving = ground.serve(&[]).await;
    let mut command = ground.command(&["doctor"]);
    command.env("INGLE_LISTEN", serving.address.to_string());
    let told = ended(command).await;
    assert_eq!(told.code, Some(0), "{told:?}");
    for part in [
        "processor",
        "LONGEST CONTEXT",
        "codellama-7b-instruct",
        "tok/s",
    ] {
        assert!(told.out.contains(part), "{part}: {told:?}");
    }
}
