//! Files that lie: each is refused with a sentence that names what is wrong.

use std::path::Path;
use std::time::{Duration, Instant};

use ingle::gguf::Gguf;

use super::{every_type, open, refusal};
use crate::gguf_file::{GgufFile, Meta, TinyLlama};

/// Asserts that a file is refused and that the reason contains `sentence`.
fn refused(file: &GgufFile, sentence: &str) {
    let got = refusal(file.to_bytes());
    assert!(
        got.contains(sentence),
        "{got:?} does not contain {sentence:?}"
    );
}

/// S1.
#[test]
fn a_file_cut_anywhere_in_its_header_is_refused() {
    let file = every_type()
        .tensor_f32("a", &[2, 1], &[1.0, 2.0])
        .tensor_f32("b", &[1], &[3.0]);
    let tiny = TinyLlama {
        n_layers: 1,
        ..TinyLlama::default()
    }
    .file();
    for (file, step) in [(file, 1), (tiny, 7)] {
        let (whole, header) = (file.to_bytes(), file.header().len());
        for len in (0..header).step_by(step) {
            refusal(whole[..len].to_vec());
        }
        refusal(whole[..header].to_vec());
        refusal(whole[..whole.len() - 1].to_vec());
        Gguf::from_bytes(Path::new("whole"), whole).unwrap();
    }
    assert_eq!(
        refusal(Vec::new()),
        "test.gguf is 0 bytes long, too short to be a GGUF file"
    );
    assert!(refusal(b"GGUF".to_vec()).contains("the header at byte 4 needs 4 bytes"));
}

/// S2.
#[test]
fn another_magic_or_version_is_refused() {
    let with_version = |version: u32| {
        let file = GgufFile {
            version,
            ..GgufFile::new()
        };
        refusal(file.to_bytes())
    };
    assert!(refusal(b"\x1b[2Jxxxx".to_vec()).contains("starts with \"\\x1b[2J\", not with"));
    assert!(with_version(1).contains("is GGUF version 1: versions 2 and 3 are read"));
    assert!(with_version(4).contains("is GGUF version 4"));
    assert!(with_version(0).contains("is GGUF version 0"));
    assert!(with_version(3_u32.swap_bytes()).contains("is a big-endian GGUF file"));
}

/// S3.
#[test]
fn lying_counts_are_refused() {
    for count in [1 << 63, u64::MAX, 1 << 32, 100] {
        let room = "but has room for";
        refused(
            &GgufFile {
                n_tensors: Some(count),
                ..GgufFile::new()
            },
            room,
        );
        refused(
            &GgufFile {
                n_keys: Some(count),
                ..GgufFile::new()
            },
            room,
        );
    }
    let mut padded = GgufFile {
        n_keys: Some(65_537),
        ..GgufFile::new()
    }
    .to_bytes();
    padded.resize(4 << 20, 0);
    assert!(refusal(padded).contains("claims 65537 keys: more than 65536 are refused"));
}

/// S4, S5.
#[test]
fn lying_lengths_are_refused() {
    let text = |len: u64| [len.to_le_bytes().as_slice(), b"abc"].concat();
    for len in [4, 100, 1 << 31, 1 << 63, u64::MAX] {
        refused(
            &GgufFile::new().with("text", Meta::Raw(8, text(len))),
            "key text: a value at byte",
        );
    }
    let array = |element: u32, len: u64| {
        Meta::Raw(
            9,
            [&element.to_le_bytes()[..], &len.to_le_bytes()[..], &[0; 64]].concat(),
        )
    };
    for element in 0..=12 {
        for len in [65, 1 << 31, 1 << 62, u64::MAX] {
            let file = GgufFile::new().with("list", array(element, len));
            refused(&file, &format!("key list: an array claims {len} elements"));
        }
    }
    refused(
        &GgufFile::new().with("list", array(13, 1)),
        "key list: value type 13 is unknown",
    );
    let mut long = GgufFile::new();
    long.metadata.push((vec![b'k'; 65_536], 1_u8.into()));
    refused(&long, "key 1 has a name of more than 65535 bytes");
}

/// S5.
#[test]
fn deep_nesting_is_refused() {
    let nested = |depth: u32| {
        (1..depth).fold(Meta::from(vec![1_u8]), |inner, _| {
            Meta::Array(9, vec![inner])
        })
    };
    open(&GgufFile::new().with("x", nested(4)));
    for depth in [5, 1000, 100_000] {
        let bytes = [9_u32.to_le_bytes().as_slice(), &1_u64.to_le_bytes()].concat();
        let bytes = bytes.repeat(usize::try_from(depth).unwrap());
        refused(
            &GgufFile::new().with("x", Meta::Raw(9, bytes)),
            "nested more than 4 deep",
        );
    }
    refused(
        &GgufFile::new().with("x", nested(5)),
        "key x: arrays are nested more than 4 deep",
    );
}

/// S6.
#[test]
fn impossible_dimensions_are_refused() {
    let with_dims = |dims: &[u64]| GgufFile::new().tensor("t", 0, dims, vec![0; 64]);
    refused(
        &with_dims(&[1 << 40, 1 << 40]),
        "dimensions [1099511627776, 1099511627776], whose",
    );
    refused(&with_dims(&[1 << 63, 2]), "whose product is too large");
    refused(&with_dims(&[1 << 62, 1]), "whose product is too large");
    refused(&with_dims(&[u64::MAX; 4]), "whose product is too large");
    refused(
        &with_dims(&[4, 0]),
        "tensor t has dimensions [4, 0]: none may be 0",
    );
    refused(&with_dims(&[0, 1 << 40, 1 << 40]), "none may be 0");
    refused(
        &with_dims(&[]),
        "tensor t has 0 dimensions: 1 to 4 are allowed",
    );
    refused(&with_dims(&[1; 5]), "tensor t has 5 dimensions");
    refused(
        &with_dims(&[17]),
        "takes 68 bytes at offset 0, but the file holds 64",
    );
    let q4_0 = GgufFile::new().tensor("t", 2, &[33], vec![0; 64]);
    refused(
        &q4_0,
        "rows of 33 numbers, not a multiple of the 32 that a block of Q4_0 holds",
    );
}

/// S7.
#[test]
fn tensors_out_of_place_are_refused() {
    let at = |offset: u64| {
        let mut file = GgufFile::new().tensor_f32("a", &[8], &[0.0; 8]);
        file = file.tensor_f32("b", &[8], &[0.0; 8]);
        file.tensors[1].offset = Some(offset);
        file
    };
    open(&at(32));
    refused(&at(0), "overlap");
    refused(
        &at(8),
        "tensor b starts at offset 8, which is no multiple of 32",
    );
    refused(
        &at(64),
        "tensor b takes 32 bytes at offset 64, but the file holds 64 bytes",
    );
    refused(&at(1 << 62), "tensor b takes 32 bytes at offset");
    refused(&at(u64::MAX - 31), "tensor b takes 32 bytes at offset");
    let mut inside = GgufFile::new().tensor_f32("a", &[16], &[0.0; 16]);
    inside = inside.tensor_f32("b", &[1], &[0.0]);
    inside.tensors[1].offset = Some(32);
    refused(&inside, "tensors a and b overlap");
}

/// S8.
#[test]
fn only_sane_alignments_are_taken() {
    for alignment in [0_u32, 1, 3, 4, 33, 1 << 21, 1 << 31, u32::MAX] {
        let file = GgufFile::new().with("general.alignment", alignment);
        refused(
            &file,
            &format!("general.alignment is {alignment}: a u32 that is a power of two"),
        );
    }
    let wide = GgufFile::new().with("general.alignment", 32_u64);
    refused(&wide, "general.alignment is a u64: a u32");
    refused(
        &GgufFile::new().with("general.alignment", "32"),
        "general.alignment is a text",
    );
    for alignment in [8_u32, 16, 64, 1 << 20] {
        open(&GgufFile::new().with("general.alignment", alignment));
    }
}

/// S9.
#[test]
fn names_have_to_be_unique_and_readable() {
    refused(
        &GgufFile::new()
            .with("k", 1_u8)
            .with("j", 1_u8)
            .with("k", 2_u8),
        "key k stands there",
    );
    let twins = GgufFile::new()
        .tensor_f32("t", &[1], &[0.0])
        .tensor_f32("t", &[1], &[0.0]);
    refused(&twins, "two tensors are called t");
    refused(
        &GgufFile::new().with("", 1_u64),
        "key 1 has a name of no letters",
    );
    refused(
        &GgufFile::new().tensor_f32("", &[1], &[0.0]),
        "tensor 1 has a name of no letters",
    );
    let mut latin1 = GgufFile::new().with("fine", 1_u8);
    latin1.metadata.push((vec![0xe9], 1_u8.into()));
    refused(&latin1, "key 2 has a name that is not UTF-8");
    refused(
        &GgufFile::new()
            .with("x\x1b[31m", 9_u8)
            .with("x\x1b[31m", 9_u8),
        "key x\\u{1b}[31m",
    );
}

/// S10.
#[test]
fn unknown_types_are_refused_and_known_ones_listed() {
    for id in [4, 5, 42, 255, u32::MAX, i32::MIN.cast_unsigned()] {
        let file = GgufFile::new().tensor("t", id, &[256], vec![0; 512]);
        refused(&file, &format!("tensor t has type {id}, which is unknown"));
    }
    refused(
        &GgufFile::new().with("k", Meta::Raw(13, vec![0; 8])),
        "key k: value type 13 is unkno",
    );
    refused(
        &GgufFile::new().with("k", Meta::Raw(u32::MAX, vec![0; 8])),
        "value type 4294967295",
    );
    for (id, name, n_bytes) in [(20, "IQ4_NL", 144), (24, "I8", 256), (39, "MXFP4", 136)] {
        let gguf = open(&GgufFile::new().tensor("t", id, &[256], vec![0; n_bytes]));
        assert_eq!(gguf.tensors()[0].ty.name(), name);
    }
}

#[test]
fn a_bool_is_0_or_1() {
    refused(
        &GgufFile::new().with("b", Meta::Raw(7, vec![2])),
        "key b: a bool is 2, neither 0",
    );
    let list = [
        7_u32.to_le_bytes().as_slice(),
        &2_u64.to_le_bytes(),
        &[1, 255],
    ]
    .concat();
    refused(
        &GgufFile::new().with("b", Meta::Raw(9, list)),
        "key b: a bool is 255",
    );
}

/// S11: a reader that makes an object of each element would need 16 times the file.
#[cfg(target_os = "linux")]
#[test]
fn a_huge_array_of_bytes_costs_nothing() {
    const LEN: u64 = 500_000_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("array.gguf");
    let list = [0_u32.to_le_bytes().as_slice(), &LEN.to_le_bytes()].concat();
    let header = GgufFile::new()
        .with("tokenizer.ggml.tokens", Meta::Raw(9, list))
        .to_bytes();
    std::fs::write(&path, &header).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(header.len() as u64 + LEN).unwrap();
    let before = anonymous_bytes();
    let (gguf, started) = (Gguf::open(&path).unwrap(), Instant::now());
    let keys = gguf.metadata();
    assert_eq!(
        keys.opt_len("tokenizer.ggml.tokens").unwrap(),
        Some(500_000_000)
    );
    assert!(keys.strings("tokenizer.ggml.tokens").is_err());
    assert!(keys.i32s("tokenizer.ggml.tokens").is_err());
    assert!(started.elapsed() < Duration::from_secs(1));
    let grown = anonymous_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
}

/// Memory of this process that no file backs. Other tests run beside: the bound leaves them room.
#[cfg(target_os = "linux")]
fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// S19.
#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.gguf");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let socket = folder.path().join("socket.gguf");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let started = Instant::now();
    for (path, kind) in [
        (Path::new("/dev/zero"), "is a device, not a regular file"),
        (folder.path(), "is a folder, not"),
        (&pipe, "is a named pipe, not"),
        (&socket, "is a socket, not"),
    ] {
        let got = Gguf::open(path).unwrap_err().to_string();
        assert!(got.contains(kind), "{got}");
    }
    assert!(started.elapsed() < Duration::from_secs(1));
}

/// A mapping shows what is written to the file later: nonsense then, never harm.
#[cfg(unix)]
#[test]
fn a_file_written_to_while_it_is_open_does_no_harm() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let list = vec!["a".to_string(), "b".to_string()];
    let good = GgufFile::new()
        .with("text", "abc")
        .with("list", list)
        .with("yes", true);
    good.write(&path);
    let gguf = Gguf::open(&path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    for byte in [0xff, 0x00, 0x09] {
        file.write_all_at(&vec![byte; good.to_bytes().len()], 0)
            .unwrap();
        let keys = gguf.metadata();
        assert_eq!(keys.keys().collect::<Vec<_>>(), ["text", "list", "yes"]);
        let _ = (
            keys.value("text").is_ok(),
            keys.strings("list").map(|list| list.iter().count()),
        );
        if byte > 1 {
            let changed = "key yes has changed since the file was opened";
            assert!(
                keys.bool("yes")
                    .unwrap_err()
                    .to_string()
                    .starts_with(changed)
            );
        }
    }
}

#[test]
fn a_file_that_is_not_there_or_empty_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no.gguf");
    assert!(
        Gguf::open(&path)
            .unwrap_err()
            .to_string()
            .contains("no.gguf: ")
    );
    std::fs::write(&path, b"").unwrap();
    assert!(
        Gguf::open(&path)
            .unwrap_err()
            .to_string()
            .contains("is 0 bytes long")
    );
}

/// A header of nothing but empty lists is walked in a time that grows with the file only.
#[test]
fn many_empty_lists_are_walked_once() {
    let empty = [0_u32.to_le_bytes().as_slice(), &0_u64.to_le_bytes()].concat();
    let n = 500_000_usize;
    let start = [9_u32.to_le_bytes().as_slice(), &(n as u64).to_le_bytes()].concat();
    let started = Instant::now();
    open(&GgufFile::new().with("x", Meta::Raw(9, [start, empty.repeat(n)].concat())));
    assert!(started.elapsed() < Duration::from_secs(10));
}
