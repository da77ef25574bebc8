//! `ingle egress proof`.

use ingle::egress::{Egress, EgressLog, Keeping, LOG_NAME, Privacy, Purpose};
use serde_json::{Value, json};

use super::Ground;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_left_is_proved_beside_a_running_server_and_a_changed_log_is_not() {
    let ground = Ground::new();
    let empty = ground.run(&["egress", "proof", "--json"]).await;
    let empty: Value = serde_json::from_str(&empty.out).unwrap();
    assert_eq!(
        (&empty["holds"], &empty["log"]["entries"]),
        (&json!(true), &json!(0))
    );
    std::fs::create_dir_all(ground.path("store")).unwrap();
    let path = ground.path("store").join(LOG_NAME);
    let log = EgressLog::open(&path).unwrap();
    for (team, privacy, keeping) in [
        ("a", Privacy::Any, Keeping::Maybe),
        ("b", Privacy::LocalOnly, Keeping::Ours),
    ] {
        let purpose = Purpose {
            team: Some(team.to_owned()),
            ..Purpose::default()
        };
        let permit = Egress::new(false).provider(privacy, "acme", keeping, purpose);
        log.record(&permit.unwrap(), "host", b"four").unwrap();
    }
    let shown = ground.run(&["egress", "proof"]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for says in [
        "local_only requests 1 went to a machine of ours, 0 elsewhere",
        "all 2 lines are as they were written",
        "acme",
    ] {
        assert!(shown.out.contains(says), "{}", shown.out);
    }
    let of_team = ground
        .run(&["egress", "proof", "--team", "a-team", "--json"])
        .await;
    let of_team: Value = serde_json::from_str(&of_team.out).unwrap();
    assert_eq!(of_team["total"], json!({"requests": 1, "bytes": 4}));
    let head = of_team["log"]["head"].as_str().unwrap().to_owned();
    drop(log);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"bytes\":4", "\"bytes\":5")).unwrap();
    let changed = ground.run(&["egress", "proof"]).await;
    assert!(
        changed.sentence().starts_with("line 1 of the egress log "),
        "{changed:?}"
    );
    let first = text.split_inclusive('\n').next().unwrap();
    std::fs::write(&path, first).unwrap();
    let cut = ground.run(&["egress", "proof", "--head", &head]).await;
    assert!(cut.sentence().contains("lines were cut off"), "{cut:?}");
    let day = ground.run(&["egress", "proof", "--from", "today"]).await;
    assert!(day.sentence().contains("write one such as"), "{day:?}");
}
