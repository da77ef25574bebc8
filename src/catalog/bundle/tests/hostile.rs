//! Bundles that lie, and archives that are none.

use super::*;

/// A bundle whose manifest was changed as text and whose bytes fit it again.
fn with_manifest(bundle: &[u8], change: impl Fn(&str) -> String) -> Vec<u8> {
    let size = Header::from_byte_slice(&bundle[..512])
        .entry_size()
        .unwrap();
    let size = usize::try_from(size).unwrap();
    let text = std::str::from_utf8(&bundle[512..512 + size]).unwrap();
    let changed = change(text);
    assert_ne!(text, changed, "the change changes something");
    let mut bytes = entry("manifest.json", changed.as_bytes(), |_| {});
    bytes.extend(&bundle[512 + size.next_multiple_of(512)..]);
    bytes
}

fn entry(path: &str, bytes: &[u8], change: impl Fn(&mut Header)) -> Vec<u8> {
    let mut header = layout::header(path, bytes.len() as u64).unwrap();
    change(&mut header);
    header.set_cksum();
    let mut entry = header.as_bytes().to_vec();
    entry.extend(bytes);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

/// The bundle of `tiny` and where its entry begins.
fn bundle() -> (Vec<u8>, usize) {
    let bytes = fs::read(House::with_tiny().pack(&["tiny"], &[]).unwrap()).unwrap();
    let start = bytes.len() - 1024 - 512 - 512;
    (bytes, start)
}

const PATH: &str = "models/tiny/tiny.gguf";
const ID: &str = "\"id\": \"tiny\"";

/// What of the manifest becomes what, and what is said then.
const LIES: &[(&str, &str, &str)] = &[
    (
        PATH,
        "models/tiny/../../../x.gguf",
        "should be a relative path",
    ),
    (PATH, "/models/tiny/tiny.gguf", "should lie in models/tiny/"),
    (PATH, "models/tiny//tiny.gguf", "should be a relative path"),
    (PATH, "models/tiny/tiny.so", "should be a relative path"),
    (PATH, "models/tiny/other.gguf", "does not list"),
    (ID, "\"id\": \"../tiny\"", "should be 1 to 96"),
    (ID, "\"id\": \"llama3\"", "should lie in models/llama3/"),
    ("id = \\\"tiny\\\"", "id = \\\"tony\\\"", "id is \"tony\""),
    (
        "\"version\": 1",
        "\"version\": 2",
        "version 2 of the format",
    ),
    ("ingle-bundle", "ingle-bundles", "ingle-bundles"),
    ("\"created_by\"", "\"made_by\"", "unknown field"),
    (
        "\"size_bytes\": 21",
        "\"size_bytes\": 22",
        "where its manifest lists",
    ),
    (
        "\"size_bytes\": 21",
        "\"size_bytes\": 18446744073709551615",
        "longer than any disk",
    ),
    (
        "\"size_bytes\": 21",
        "\"size_bytes\": 9000000000000000000",
        "it is cut off",
    ),
    ("\"size_bytes\": 21", "\"size_bytes\": -1", "cannot be read"),
    ("hub a/b@main", "hub a/c@main", "does not list"),
    (
        "tiny.jinja",
        "../tiny.jinja",
        "should be the name of a .jinja file",
    ),
    (
        "tiny.jinja",
        "llama3.jinja",
        "not the template that came with it",
    ),
    (
        "[license]",
        "[[sources]]\\nfile.path = \\\"/etc/passwd\\\"\\n[license]",
        "another machine",
    ),
];

#[test]
fn a_manifest_that_lies_is_refused() {
    let (bundle, _) = bundle();
    let house = House::new();
    for (from, to, expected) in LIES {
        let bytes = with_manifest(&bundle, |text| text.replace(from, to));
        let said = house.refused(&bytes);
        assert!(said.contains(expected), "{from} -> {to}: {said}");
        assert!(!said.contains('\n'), "{said}");
    }
    let twice = |text: &str| {
        let mut manifest: serde_json::Value = serde_json::from_str(text).unwrap();
        let models = manifest["models"].as_array_mut().unwrap();
        models.push(models[0].clone());
        manifest.to_string()
    };
    assert!(
        house
            .refused(&with_manifest(&bundle, twice))
            .contains("lists \"tiny\" twice")
    );
    let none = |text: &str| {
        let mut manifest: serde_json::Value = serde_json::from_str(text).unwrap();
        manifest["models"][0]["files"] = serde_json::json!([]);
        manifest.to_string()
    };
    assert!(
        house
            .refused(&with_manifest(&bundle, none))
            .contains("0 files of tiny")
    );
    let deep = |_: &str| "[".repeat(100_000);
    assert!(
        house
            .refused(&with_manifest(&bundle, deep))
            .contains("cannot be read")
    );
}

#[test]
fn an_archive_that_is_not_its_manifest_is_refused() {
    let (bundle, start) = bundle();
    let house = House::new();
    let with_entry = |entry: &[u8]| [&bundle[..start], entry, &bundle[start + 1024..]].concat();
    let path = "models/tiny/tiny.gguf";
    let kinds = [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Directory,
        EntryType::Char,
        EntryType::Fifo,
        EntryType::GNUSparse,
        EntryType::GNULongName,
        EntryType::XHeader,
    ];
    for kind in kinds {
        let bytes = with_entry(&entry(path, WEIGHTS, |header| {
            header.set_entry_type(kind);
            header.set_link_name_literal("/etc/passwd").unwrap();
        }));
        assert!(
            house.refused(&bytes).contains("where its manifest lists"),
            "{kind:?}"
        );
    }
    for name in ["../../x.gguf", "/etc/passwd", "models/tiny/tiny.ggu", ""] {
        let bytes = with_entry(&entry(path, WEIGHTS, |header| {
            let field = &mut header.as_old_mut().name;
            field.fill(0);
            field[..name.len()].copy_from_slice(name.as_bytes());
        }));
        let said = house.refused(&bytes);
        assert!(said.contains("where its manifest lists"), "{name}: {said}");
    }
    let lie = entry(path, WEIGHTS, |header| header.set_size(1 << 40));
    assert!(
        house
            .refused(&with_entry(&lie))
            .contains("where its manifest lists")
    );
    let mut setuid = entry(path, WEIGHTS, |header| header.set_mode(0o4755));
    assert!(
        house
            .refused(&with_entry(&setuid))
            .contains("where its manifest lists")
    );
    setuid.truncate(0);
    let cut = [&bundle[..start], &bundle[start + 1024..]].concat();
    assert!(house.refused(&cut).contains("it is cut off"));
    let doubled = [&bundle[..start + 1024], &bundle[start..]].concat();
    assert!(house.refused(&doubled).contains("more follows its end"));
    assert!(
        house
            .refused(&[&bundle[..], b"x"].concat())
            .contains("more follows its end")
    );
}

#[test]
fn what_is_no_bundle_is_told_from_one() {
    let house = House::new();
    let other_tar = entry("readme.txt", b"hello", |_| {});
    for bytes in [
        &b""[..],
        b"hello",
        &[0; 4096],
        &other_tar,
        &[0x1f, 0x8b].repeat(600),
    ] {
        assert!(
            house.refused(bytes).contains("no bundle"),
            "{:?}",
            &bytes[..bytes.len().min(9)]
        );
    }
    // As long as it says, and never read: the file has holes.
    let huge = layout::header("manifest.json", 1 << 30).unwrap();
    let path = house.path("huge.tar");
    fs::write(&path, huge.as_bytes()).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1 << 31)
        .unwrap();
    let said = house.install(&path).unwrap_err().to_string();
    assert!(said.contains("are not read"), "{said}");
    assert!(
        house
            .install(house.folder.path())
            .unwrap_err()
            .to_string()
            .contains("no file")
    );
    assert!(house.install(&house.path("absent")).is_err());
}

#[test]
fn what_the_disk_cannot_hold_is_refused_with_the_numbers() {
    let (bundle, start) = bundle();
    let house = House::new();
    let Some(free) = crate::catalog::disk::free_bytes(house.folder.path()) else {
        return;
    };
    // A file with holes takes no room itself; some systems have none so long.
    let size = free + (1 << 30);
    let bytes = with_manifest(&bundle[..start], |text| {
        text.replace("\"size_bytes\": 21", &format!("\"size_bytes\": {size}"))
    });
    let (path, length) = (house.path("in.tar"), bytes.len() as u64);
    fs::write(&path, &bytes).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    if file
        .set_len(length + 512 + size + layout::padding(size) + 1024)
        .is_err()
    {
        return;
    }
    let said = house.install(&path).unwrap_err().to_string();
    assert!(
        said.contains(&format!("{size} bytes are needed in ")),
        "{said}"
    );
    assert!(said.contains(" are free"), "{said}");
}

#[test]
fn no_byte_can_be_another() {
    let (bundle, start) = bundle();
    let house = House::new();
    // All of the model's entry and the end, and some of the manifest, where a sign can stand for another.
    for at in (start..bundle.len()).step_by(7) {
        let mut bytes = bundle.clone();
        bytes[at] ^= 1 << (at % 8);
        house.refused(&bytes);
    }
    for at in (0..512).step_by(11) {
        let mut bytes = bundle.clone();
        bytes[at] ^= 1;
        assert!(house.refused(&bytes).contains("no bundle"), "{at}");
    }
    for length in (0..bundle.len()).step_by(97) {
        house.refused(&bundle[..length]);
    }
}

#[test]
fn a_name_that_is_another_models_here_is_refused() {
    let (bundle, start) = bundle();
    let house = House::new();
    let text = with_manifest(&bundle[..start], |text| text.replace("tiny", "llama3"));
    let entry = entry("models/llama3/llama3.gguf", WEIGHTS, |_| {});
    let said = house.refused(&[text, entry, vec![0; 1024]].concat());
    assert!(
        said.contains("another name of llama-3-8b-instruct here"),
        "{said}"
    );
}
