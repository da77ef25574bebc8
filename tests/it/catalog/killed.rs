//! `ingle pull` killed or cut short by the disk at any moment: nothing half-written is ever there,
//! and the next pull goes on.
#![cfg(unix)]

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ingle::catalog::Manifest;

use super::server::{Server, file};
use super::{House, ON_HUB, content, sha256};

/// Nothing here takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A hub with one file, so fast over each connection.
fn hub(bytes: Vec<u8>, bytes_per_second: u32) -> Server {
    let tag = sha256(&bytes).to_string();
    Server::start(move |request, _| file(request, &bytes, &tag).slowly(bytes_per_second))
}

/// What pulls `tiny` into the house, with no setting from outside.
fn pull(house: &House, server: &Server, before: &[&str]) -> Command {
    let words = [before, &[env!("CARGO_BIN_EXE_ingle"), "pull", "tiny"]].concat();
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("HOME", house.folder.path())
        .env("INGLE_HOME", house.home())
        .env("INGLE_MODELS", house.folder.path().join("catalogue"))
        .env("HF_ENDPOINT", server.url())
        .current_dir(house.folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What is there is whole, if anything is.
fn assert_whole_or_nothing(house: &House, manifest: &Manifest) -> bool {
    let store = house.store();
    let is_here = store.installed(manifest).is_some();
    assert_eq!(
        store.installed_models().unwrap().len(),
        usize::from(is_here)
    );
    if is_here {
        store.verify("tiny").unwrap();
    }
    is_here
}

fn assert_repaired(house: &House, server: &Server, manifest: &Manifest) {
    let output = pull(house, server, &[]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(assert_whole_or_nothing(house, manifest));
    assert!(!house.home().join("partial/tiny").exists());
}

#[test]
fn killed_at_any_moment_it_leaves_nothing_half_written_and_the_next_pull_repairs_it() {
    let house = House::new("");
    let small = sha256(b"{}");
    let files = format!(
        "hub.repo = 'some/model'\nhub.revision = 'main'\nhub.files = [\n\
         {{ file = 'config.json', sha256 = '{small}' }}, {{ file = 'model.safetensors' }}]"
    );
    let manifest = house.manifest(&[&files]);
    let (bytes, tag) = (content(), sha256(&content()).to_string());
    let server = Server::start(move |request, _| {
        if request.path.ends_with("config.json") {
            file(request, b"{}", "1")
        } else {
            file(request, &bytes, &tag).slowly(15_000_000)
        }
    });
    let (mut n_cut, mut n_whole) = (0, 0);
    for moment in 0..12 {
        let child = pull(&house, &server, &[]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(30 * moment));
        kill(child);
        if assert_whole_or_nothing(&house, &manifest) {
            n_whole += 1;
            house.store().remove("tiny").unwrap();
        } else {
            n_cut += 1;
        }
        if moment % 5 == 4 {
            assert_repaired(&house, &server, &manifest);
            house.store().remove("tiny").unwrap();
        }
    }
    assert!(n_cut > 2, "{n_cut} were cut, {n_whole} were whole");
    assert_repaired(&house, &server, &manifest);
}

#[test]
fn killed_while_bytes_flow_it_does_not_ask_for_them_again() {
    let house = House::new("");
    let manifest = house.manifest(&[ON_HUB]);
    let server = hub(content(), 6_000_000);
    let child = pull(&house, &server, &[]).spawn().unwrap();
    wait_until("half of the file", || server.n_sent() > 1_500_000);
    kill(child);
    assert!(!assert_whole_or_nothing(&house, &manifest));
    let before = server.n_sent();
    assert_repaired(&house, &server, &manifest);
    let again = server.n_sent() - before;
    assert!(again < 2_000_000, "{again} bytes of 3000001 again");
}

#[test]
fn killed_while_four_connections_bring_a_large_file_it_goes_on_from_their_pieces() {
    let house = House::new("");
    let manifest = house.manifest(&[ON_HUB]);
    // Three pieces, of which the first two are whole at about the same time.
    let bytes = content().repeat(32);
    let server = hub(bytes.clone(), 60_000_000);
    let child = pull(&house, &server, &[]).spawn().unwrap();
    let note = house
        .home()
        .join(format!("partial/tiny/{}.here", sha256(&bytes)));
    let is_noted = || fs::read_to_string(&note).is_ok_and(|note| note.matches('[').count() > 3);
    wait_until("a note", is_noted);
    kill(child);
    assert!(!assert_whole_or_nothing(&house, &manifest));
    let before = server.n_sent();
    assert_repaired(&house, &server, &manifest);
    let again = server.n_sent() - before;
    assert!(again < 85_000_000, "{again} bytes of {} again", bytes.len());
}

#[test]
fn killed_between_the_last_byte_and_the_rename_it_asks_for_nothing_again() {
    let house = House::new("");
    let manifest = house.manifest(&[ON_HUB]);
    let server = hub(content(), 100_000_000);
    let (ready, part) = (
        house.home().join("partial/tiny/ready"),
        house
            .home()
            .join(format!("partial/tiny/{}.part", sha256(&content()))),
    );
    for _ in 0..5 {
        let sent_before = server.n_sent();
        let child = pull(&house, &server, &[]).spawn().unwrap();
        let is_full = || fs::metadata(&part).is_ok_and(|meta| meta.len() == 3_000_001);
        let is_over = || server.n_sent() - sent_before > 3_000_000 && !part.exists();
        wait_until("the last byte", || ready.exists() || is_full() || is_over());
        kill(child);
        let is_here = assert_whole_or_nothing(&house, &manifest);
        let before = server.requests("GET").len();
        assert_repaired(&house, &server, &manifest);
        assert!(
            is_here || server.requests("GET").len() == before,
            "all bytes were there"
        );
        house.store().remove("tiny").unwrap();
    }
}

fn said(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_limit_on_the_length_of_files_is_named_and_the_part_is_kept() {
    let house = House::new("");
    let manifest = house.manifest(&[ON_HUB]);
    let server = hub(content(), 100_000_000);
    let limited = [
        "sh",
        "-c",
        "trap '' XFSZ; ulimit -f 2000; exec \"$@\"",
        "sh",
    ];
    let output = pull(&house, &server, &limited).output().unwrap();
    let said = said(&output);
    assert!(said.contains("may not grow to 3000001 bytes"), "{said}");
    assert!(!assert_whole_or_nothing(&house, &manifest));
    assert_repaired(&house, &server, &manifest);
    let asked = server.requests("GET");
    let (start, _) = asked.last().unwrap().range(3_000_001).unwrap();
    assert!(start > 900_000, "from {start} on");
}

/// Runs a script with `$@` as the command, in a place of its own whose store is a small disk.
#[cfg(target_os = "linux")]
fn on_small_disk(house: &House, server: &Server, size: &str, script: &str) -> Option<String> {
    // Needs namespaces, which some machines do not give.
    let mut probe = Command::new("unshare");
    probe.args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]);
    let may = probe.stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        return None;
    }
    fs::create_dir_all(house.home()).unwrap();
    let script = format!("mount -t tmpfs -o size={size} none \"$INGLE_HOME\" && {script}");
    let words = ["unshare", "-rm", "sh", "-c", &script, "sh"];
    Some(said(&pull(house, server, &words).output().unwrap()))
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_with_numbers_before_and_while_bytes_flow() {
    let house = House::new("");
    house.manifest(&[ON_HUB]);
    let server = hub(content(), 3_000_000);
    let Some(said) = on_small_disk(&house, &server, "2m", "exec \"$@\"") else {
        return;
    };
    assert!(said.contains("3000001 more bytes are needed in "), "{said}");
    assert!(
        said.contains("are free: make room, or set INGLE_HOME"),
        "{said}"
    );
    assert_eq!(server.n_sent(), 0);
    // Somebody else fills it meanwhile.
    let filling = "(until [ -s \"$INGLE_HOME\"/partial/tiny/*.part ]; do sleep 0.02; done; \
                   head -c 4000000 /dev/zero >\"$INGLE_HOME/other\") 2>/dev/null & exec \"$@\"";
    let said = on_small_disk(&house, &server, "4m", filling).unwrap();
    assert!(
        said.contains(" more bytes are needed in ") && said.contains("0 are free"),
        "{said}"
    );
}
