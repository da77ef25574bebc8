//! Models in several files.

use std::path::Path;

use ingle::gguf::{Gguf, Shard};

use super::{open, refusal};
use crate::gguf_file::{GgufFile, TinyLlama};

#[test]
fn shards_read_as_one_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = TinyLlama::default().file();
    let paths = model.write_shards(folder.path(), "tiny", 3);
    let gguf = Gguf::open(&paths[0]).unwrap();
    let whole = open(&model);
    assert_eq!(gguf.shards().len(), 3);
    assert_eq!(gguf.shards()[2].path(), paths[2]);
    assert_eq!(
        gguf.file_bytes(),
        gguf.shards().iter().map(Shard::n_bytes).sum::<u64>()
    );
    assert_eq!(gguf.metadata().architecture().unwrap(), "llama");
    assert_eq!(gguf.tensors().len(), whole.tensors().len());
    assert_eq!(gguf.tensors().last().unwrap().shard(), 2);
    for tensor in whole.tensors() {
        assert_eq!(
            *gguf.bytes(gguf.tensor(&tensor.name).unwrap()),
            *whole.bytes(tensor)
        );
    }
}

#[test]
fn a_shard_out_of_place_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = TinyLlama::default().file();
    let paths = model.write_shards(folder.path(), "tiny", 3);
    let error = |path: &Path| Gguf::open(path).unwrap_err().to_string();

    let [first, second, third] = paths.as_slice() else {
        panic!("three shards")
    };
    assert!(error(second).contains("is shard 2 of 3: open the first one, "));
    assert!(error(second).contains("tiny-00001-of-00003.gguf"));

    let kept = std::fs::read(third).unwrap();
    std::fs::copy(second, third).unwrap();
    let said = "is named shard 3 of 3 but says it is shard 2 of 3";
    assert!(error(first).contains(said), "{}", error(first));

    std::fs::remove_file(third).unwrap();
    let missing = error(first);
    assert!(
        missing.contains("tiny-00003-of-00003.gguf is missing"),
        "{missing}"
    );

    std::fs::write(third, kept).unwrap();
    let other = folder.path().join("model.gguf");
    std::fs::rename(first, &other).unwrap();
    assert!(error(&other).contains("its name should end in -00001-of-00003.gguf"));

    let mut short = model.split(3);
    short[1].tensors.pop();
    short[0].write(first);
    short[1].write(second);
    assert!(error(first).contains("announces 20 tensors in 3 files, which hold 19"));
    short[1].tensors = short[0].tensors.clone();
    short[1].write(second);
    assert!(
        error(first).contains("two tensors are called blk.0.attn_k.weight"),
        "{}",
        error(first)
    );
}

#[test]
fn split_keys_that_contradict_each_other_are_refused() {
    let split = |no: u16, count: u64| {
        refusal(
            GgufFile::new()
                .with("split.no", no)
                .with("split.count", count)
                .to_bytes(),
        )
    };
    assert!(split(3, 3).contains("split.no is 3, but split.count is 3"));
    assert!(split(0, 1 << 40).contains("split.count is 1099511627776, more than 99999"));
    assert!(split(1, 2).contains("its name should end in -00002-of-00002.gguf"));
    let no_number = refusal(GgufFile::new().with("split.count", 2_u16).to_bytes());
    assert!(
        no_number.contains("the file has no key split.no"),
        "{no_number}"
    );
    open(&GgufFile::new().with("split.count", 1_u16));
}
