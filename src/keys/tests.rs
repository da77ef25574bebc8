//! Keys: made, found, revoked, and files nobody's program wrote.

use super::*;
use crate::caller::{KeyId, TeamId};
use crate::egress::Privacy;
use crate::limit::{Measure, Per};

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_key_is_shown_once_and_says_who_has_it() {
    let home = home();
    let mut alice = Key::new("alice", "2026-11-26");
    alice.team = Some(TeamId::new("engineering-team"));
    alice.privacy = Privacy::ZdrOnly;
    alice.limits = vec![
        alice.limit(Per::Day, Measure::Money, 5_070_000),
        alice.limit(Per::Minute, Measure::Requests, 60),
    ];
    let secret = add(home.path(), alice.clone()).unwrap();
    let other = add(home.path(), Key::new("bob", "2026-11-27")).unwrap();
    assert!(secret.starts_with(PREFIX) && secret.len() == PREFIX.len() + 43 && secret != other);
    let text = std::fs::read_to_string(home.path().join(FILE_NAME)).unwrap();
    assert!(!text.contains(&secret[PREFIX.len()..]), "{text}");
    let keys = Keys::open(home.path()).unwrap();
    let caller = keys.find(&secret).unwrap();
    assert_eq!(caller.key, Some(KeyId::new("alice")));
    assert_eq!(caller.team, Some(TeamId::new("engineering")));
    assert_eq!(caller.privacy, Privacy::ZdrOnly);
    assert!(!caller.is_admin && !caller.may_name_any_team);
    assert_eq!(keys.limits(), alice.limits);
    for wrong in [
        "",
        "alice",
        &secret[..secret.len() - 1],
        &format!("{secret}x"),
        PREFIX,
    ] {
        assert_eq!(keys.find(wrong), None, "{wrong}");
    }
}

#[cfg(unix)]
#[test]
fn only_its_owner_reads_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let home = home();
    add(home.path(), Key::new("a", "")).unwrap();
    let about = std::fs::metadata(home.path().join(FILE_NAME)).unwrap();
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_revoked_key_opens_nothing_and_its_name_is_not_given_again() {
    let home = home();
    let secret = add(home.path(), Key::new("a", "2026-11-26")).unwrap();
    let keys = Keys::open(home.path()).unwrap();
    assert!(keys.find(&secret).is_some());
    assert_eq!(keys.refresh(), Refreshed::Same);
    revoke(home.path(), "a", "2026-11-27").unwrap();
    assert_eq!(keys.refresh(), Refreshed::Changed);
    assert_eq!(keys.find(&secret), None);
    assert!(!keys.is_empty(), "the door stays locked");
    for (error, expected) in [
        (
            revoke(home.path(), "a", "").unwrap_err(),
            "was revoked on 2026-11-27",
        ),
        (
            revoke(home.path(), "b", "").unwrap_err(),
            "there is no key \"b\"",
        ),
        (
            add(home.path(), Key::new("a", "")).unwrap_err(),
            "another name",
        ),
        (
            add(home.path(), Key::new("a b", "")).unwrap_err(),
            "\"a b\" is no name",
        ),
        (
            add(home.path(), Key::new("", "")).unwrap_err(),
            "is no name",
        ),
    ] {
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_file_that_is_broken_or_gone_leaves_the_keys_what_they_were() {
    let home = home();
    let secret = add(home.path(), Key::new("a", "2026-11-26")).unwrap();
    let keys = Keys::open(home.path()).unwrap();
    let path = home.path().join(FILE_NAME);
    std::fs::write(&path, "[[key]]\nname = 3\n").unwrap();
    assert_eq!(keys.refresh(), Refreshed::Same);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(keys.refresh(), Refreshed::Same);
    assert!(keys.find(&secret).is_some());
    for (text, expected) in [
        ("[[key]]\nname = 3\n", "line 2"),
        (
            "[[key]]\nname = 'a'\nsha256 = 'ab'\nadded = ''\n",
            "64 hexadecimal digits",
        ),
        ("[[kee]]\n", "unknown field `kee`"),
        ("\u{0}", "line 1"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Keys::open(home.path()).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn many_programs_that_add_at_once_lose_none() {
    let home = home();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let home = home.path();
            scope.spawn(move || {
                for m in 0..5 {
                    add(home, Key::new(&format!("k{n}.{m}"), "")).unwrap();
                }
            });
        }
    });
    assert_eq!(Keys::open(home.path()).unwrap().all().len(), 40);
}
